"""Read and check params.yaml, and hand each stage the parts of it that dvc.yaml declares for the stage."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from ctscan.core.errors import UserError
from ctscan.core.files import refuse_conflict

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, ValidationError

PARAMS_FILE = Path("params.yaml")
PIPELINE_FILE = Path("dvc.yaml")
LOCK_FILE = Path("dvc.lock")


def _reject_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a boolean is not a number")
    return value


# `dvc exp run -S lr=1e-5` writes `1e-05`, which YAML 1.1 reads as a string; lax mode parses it.
Number = Annotated[float, BeforeValidator(_reject_bool)]
Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A mapping of params.yaml. No field has a default: params.yaml is the one place for values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __getattr__(self, name: str) -> Any:
        """Called only for an absent attribute: one that `select` left out, or a name that is not a field."""
        if name in type(self).model_fields:
            raise UserError(f"dvc.yaml: this stage reads '{name}' without declaring it; add it to its params")
        raise AttributeError(name)


class Classes(Section):
    positive: Text
    negative: Text


class Split(Section):
    strategy: Literal["random", "blocked", "grouped"]
    test_fraction: Annotated[Number, Field(gt=0, lt=1)]
    val_fraction: Annotated[Number, Field(gt=0, lt=1)]
    block_size: Annotated[StrictInt, Field(ge=1)]
    folds: Annotated[StrictInt, Field(ge=1)]
    fold: Annotated[StrictInt, Field(ge=0)]


class Checks(Section):
    min_size: Annotated[StrictInt, Field(ge=1)]


class Head(Section):
    units: Annotated[StrictInt, Field(ge=1)]
    l2: Annotated[Number, Field(ge=0)]
    dropout: Annotated[Number, Field(ge=0, lt=1)]


class Augment(Section):
    enabled: StrictBool
    rotation: Annotated[Number, Field(ge=0, le=180)]
    flip: StrictBool
    zoom: Annotated[Number, Field(ge=0, lt=1)]


class Training(Section):
    epochs: Annotated[StrictInt, Field(ge=1)]
    patience: Annotated[StrictInt, Field(ge=1)]


class Finetune(Training):
    schedule: Literal["constant", "cosine"]
    normalization: Literal["frozen", "trained"]


class Evaluate(Section):
    threshold: Annotated[Number, Field(gt=0, lt=1)]
    bootstrap: Annotated[StrictInt, Field(ge=100)]
    bins: Annotated[StrictInt, Field(ge=2, le=100)]


class Params(Section):
    dataset: Text
    backbone: Text
    weights: Text
    image_size: Annotated[StrictInt, Field(ge=32, le=2048)]
    lr: Annotated[Number, Field(gt=0, le=1)]
    finetune_lr: Annotated[Number, Field(gt=0, le=1)]
    unfreeze_depth: Annotated[StrictInt, Field(ge=0)]
    batch_size: Annotated[StrictInt, Field(ge=1)]
    precision: Literal["float32", "mixed_bfloat16"]
    seed: Annotated[StrictInt, Field(ge=0)]
    classes: Classes
    split: Split
    checks: Checks
    head: Head
    augment: Augment
    initial: Training
    finetune: Finetune
    evaluate: Evaluate


def load_params(stage: str) -> Params:
    """The params that `stage` declares in dvc.yaml; reading any other raises `UserError`.

    Raises:
        UserError: params.yaml is missing, is not YAML, or holds an unknown key, a wrong type or a value out of range.
    """
    declared = _read_yaml(PIPELINE_FILE)["stages"][stage].get("params", [])
    return select(read_params(), declared)


def read_params() -> Params:
    """The whole of params.yaml, for a command that is not a stage. Raises `UserError` as `load_params` does."""
    return validate(_read_yaml(PARAMS_FILE))


def pipeline() -> dict[str, Any]:
    """dvc.yaml as it stands, templates unresolved."""
    content: dict[str, Any] = _read_yaml(PIPELINE_FILE)
    return content


def validate(values: Any) -> Params:
    """The whole of params.yaml, checked. Raises `UserError` with one line per fault: its key, value and range."""
    if not isinstance(values, dict):
        raise UserError(f"{PARAMS_FILE}: expected keys and values; restore it with `git checkout {PARAMS_FILE}`")
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(_describe(fault) for fault in error.errors())) from None
    if params.classes.positive == params.classes.negative:
        raise UserError(f"{PARAMS_FILE}: classes.positive and classes.negative are both '{params.classes.positive}'")
    if params.split.fold >= params.split.folds:
        raise UserError(
            f"{PARAMS_FILE}: split.fold = {params.split.fold}; it needs an integer from 0 to "
            f"{params.split.folds - 1} (split.folds = {params.split.folds})"
        )
    if set(params.weights) & set("/\\"):
        raise UserError(
            f"{PARAMS_FILE}: weights = '{params.weights}'; it needs random, imagenet or the name of a file in "
            f"weights/, where `ctscan weights {params.weights}` puts one"
        )
    return params


_AnySection = TypeVar("_AnySection", bound=Section)


def select(section: _AnySection, declared: Iterable[str]) -> _AnySection:
    """`section` with the declared keys alone: `lr`, a whole section `head`, or one key of it `head.units`."""
    parts: dict[str, list[str]] = {}
    for key in declared:
        head, _, rest = key.partition(".")
        parts.setdefault(head, []).append(rest)
    kept = {}
    for name, inner in parts.items():
        value = getattr(section, name)
        kept[name] = value if "" in inner else select(value, inner)
    return type(section).model_construct(**kept)


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        refuse_conflict(text, str(path))
        return parse_yaml(text)
    except FileNotFoundError:
        raise UserError(f"{path} is not in this folder; run from the top of the repository") from None
    except yaml.YAMLError as error:
        raise UserError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}; correct it, or restore it with "
            f"`git checkout {path}`"
        ) from None


def parse_lock(text: str, name: str = str(LOCK_FILE)) -> dict[str, Any]:
    """The stages of a dvc.lock, called `name`, whose content is `text`.

    Raises:
        UserError: it holds a merge conflict, or is not what DVC writes.
    """
    refuse_conflict(text, name)
    try:
        stages: dict[str, Any] = parse_yaml(text)["stages"]
    except (yaml.YAMLError, KeyError, TypeError):
        raise UserError(f"{name} records no run; restore it with `git checkout {name}`, or run `dvc repro`") from None
    return stages


def parse_yaml(text: str) -> Any:
    """`text` as DVC reads it: names of classes are texts, and yes, no, on and off are no booleans.

    DVC writes YAML 1.2, where `yes` needs no quotes, and drops those that stood there; PyYAML reads 1.1. Names such as
    0 and 1 lose theirs when they are set with `-S`. Raises `yaml.YAMLError`.
    """
    loader = _Loader(text)
    try:
        document = loader.get_single_node()
        _mark_class_names(document)
        return None if document is None else loader.construct_document(document)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Without the booleans that YAML 1.2 has no more."""


_BOOLEAN = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOLEAN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOLEAN, re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def _mark_class_names(node: yaml.Node | None) -> None:
    """Make texts of the scalars of every mapping `classes` in `node`, as they stand in the file."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _mark_class_names(item)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == "classes" and isinstance(value, yaml.MappingNode):
                for _, name in value.value:
                    if isinstance(name, yaml.ScalarNode):
                        name.tag = "tag:yaml.org,2002:str"
            _mark_class_names(value)


def _describe(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{PARAMS_FILE}: unknown key '{key}'; check the spelling"
    if fault["type"] == "missing":
        return f"{PARAMS_FILE}: key '{key}' is missing; it needs {_expected(fault['loc'])}"
    return f"{PARAMS_FILE}: {key} = {fault['input']!r}; it needs {_expected(fault['loc'])}"


def _expected(location: tuple[str, ...]) -> str:
    """The type and range of a field in words."""
    model: type[BaseModel] = Params
    for name in location[:-1]:
        model = model.model_fields[name].annotation  # type: ignore[assignment]
    field = model.model_fields[location[-1]]
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(get_args(field.annotation))
    nouns = {float: "a number", int: "an integer", bool: "true or false", str: "a text"}
    noun = nouns.get(field.annotation, "a section of keys")  # type: ignore[arg-type]
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    bounds = [
        f"{sign} {getattr(mark, name)}"
        for mark in field.metadata
        for name, sign in signs.items()
        if hasattr(mark, name)
    ]
    return " ".join([noun, " and ".join(bounds)]).strip()
