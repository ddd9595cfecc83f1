"""Wrong values of params.yaml are refused in clear words, and a stage reads only what it declares."""

from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import load_params, select, validate

import pytest
import yaml
from repository import REPO


@pytest.fixture
def values() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPO / "params.yaml").read_text())
    return content


def test_the_repository_holds_the_studys_values(values: dict[str, Any]) -> None:
    params = validate(values)
    assert (params.lr, params.finetune_lr, params.unfreeze_depth) == (1e-4, 1e-5, 150)
    assert (params.backbone, params.image_size) == ("ResNet101V2", 224)
    assert (params.head.units, params.head.l2, params.head.dropout) == (1024, 0.01, 0.5)
    assert params.split.test_fraction == 0.3
    assert not params.augment.enabled


def test_exponents_that_yaml_reads_as_text_are_numbers(values: dict[str, Any]) -> None:
    values["lr"] = yaml.safe_load("1e-05")
    assert isinstance(values["lr"], str)
    assert validate(values).lr == 1e-5


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", -1, "lr = -1; it needs a number > 0 and <= 1"),
        ("lr", "fast", "lr = 'fast'; it needs a number > 0 and <= 1"),
        ("lr", True, "lr = True; it needs a number"),
        ("lr", float("nan"), "lr = nan; it needs a number"),
        ("image_size", 224.5, "image_size = 224.5; it needs an integer >= 32"),
        ("seed", True, "seed = True; it needs an integer >= 0"),
        ("precision", "float64", "precision = 'float64'; it needs one of float32, mixed_bfloat16"),
        ("dataset", "", "dataset = ''; it needs a text"),
        ("head", 3, "head = 3; it needs a section of keys"),
        ("learning_rate", 1, "unknown key 'learning_rate'"),
        ("head.unit", 1, "unknown key 'head.unit'"),
        ("head.dropout", 1, "head.dropout = 1; it needs a number >= 0 and < 1"),
        ("split.strategy", "patient", "split.strategy = 'patient'; it needs one of random, blocked, grouped"),
        ("split.fold", 1, "split.fold = 1; it needs an integer from 0 to 0"),
        ("augment.enabled", "yes", "augment.enabled = 'yes'; it needs true or false"),
        ("classes.negative", "COVID", "classes.positive and classes.negative are both 'COVID'"),
    ],
)
def test_a_wrong_value_is_one_line_with_key_value_and_range(
    values: dict[str, Any], key: str, value: Any, message: str
) -> None:
    *sections, name = key.split(".")
    target = values
    for section in sections:
        target = target[section]
    target[name] = value
    with pytest.raises(UserError) as caught:
        validate(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_and_a_fault_elsewhere_are_a_line_each(values: dict[str, Any]) -> None:
    del values["lr"]
    values["seed"] = -1
    with pytest.raises(UserError) as caught:
        validate(values)
    assert len(str(caught.value).splitlines()) == 2
    assert "key 'lr' is missing" in str(caught.value)


def test_a_stage_reads_what_it_declares_and_nothing_else(values: dict[str, Any]) -> None:
    params = select(validate(values), ["lr", "head.units", "split"])
    assert (params.lr, params.head.units, params.split.block_size) == (1e-4, 1024, 20)
    for read in (lambda: params.seed, lambda: params.head.l2):
        with pytest.raises(UserError, match="without declaring it"):
            read()


def test_load_params_takes_the_declared_keys_from_dvc_yaml(workspace: Path) -> None:
    params = load_params("train-initial")
    assert params.lr == 1e-4
    with pytest.raises(UserError, match="'finetune_lr' without declaring"):
        _ = params.finetune_lr


@pytest.mark.parametrize(("content", "message"), [(None, "is not in this folder"), ("a: [", "not valid YAML")])
def test_a_missing_or_broken_file_is_one_line(workspace: Path, content: str | None, message: str) -> None:
    (workspace / "params.yaml").unlink()
    if content:
        (workspace / "params.yaml").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        load_params("finetune")
    assert "\n" not in str(caught.value)
