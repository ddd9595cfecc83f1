"""Write result files and folders whole or not at all, and write JSON that shows small differences in git."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError, writing

SCRATCH = Path(".scratch")


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Give a scratch path to write a result to; it takes the place of `path` when the block ends without an error.

    So no reader and no kill ever meets half a result. A block that makes a folder publishes a folder.

    Raises:
        UserError: the disk is full or cannot be written to.
    """
    fresh = SCRATCH / "publish" / path
    with writing(path):
        remove(fresh)
        fresh.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield fresh
            path.parent.mkdir(parents=True, exist_ok=True)
            if fresh.is_dir():
                remove(path)
            fresh.replace(path)
        finally:
            remove(fresh)


def remove(path: Path) -> None:
    """Delete the file or the folder at `path`, if there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require(path: Path) -> None:
    """Raise `UserError` where the file `path`, an output of the pipeline, is missing."""
    if not path.is_file():
        raise UserError(f"{path} is missing; get it with `dvc checkout {path}`, or make it with `dvc repro`")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with keys in the order given and a newline at the end.

    Raises:
        ValueError: `value` holds NaN or infinity, which JSON does not know.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write `record`, details of a run that git keeps, as JSON: a list that holds this one mapping.

    DVC restores a stage from its run cache only where each of its outputs that git keeps is declared as a metric or a
    plot, and it shows every number in a mapping as a metric. It leaves a list alone.

    Raises:
        ValueError: as `write_json`.
    """
    write_json(path, [record])


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote to `path`; a bare mapping too, as older runs wrote it. Raises as `read_json`."""
    return parse_record(path.read_text(encoding="utf-8"), str(path))


def parse_record(text: str, name: str) -> dict[str, Any]:
    """As `read_record`, from the text of the file called `name`."""
    content = _parse_json(text, name)
    record: dict[str, Any] = content[0] if isinstance(content, list) else content
    return record


def read_json(path: Path) -> Any:
    """What the JSON file at `path` holds. Raises `UserError` where it is damaged, or holds a merge conflict."""
    return _parse_json(path.read_text(encoding="utf-8"), str(path))


def _parse_json(text: str, name: str) -> Any:
    refuse_conflict(text, name)
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(
            f"{name}: damaged JSON ({error}); restore it with `git checkout {name}`, or make it again"
        ) from None


def refuse_conflict(text: str, name: str) -> None:
    """Raise `UserError` where `text`, the content of the file called `name`, holds the marks of a merge conflict."""
    if "\n<<<<<<< " in f"\n{text}":
        raise UserError(
            f"{name} holds a merge conflict; take one side (`git checkout --ours {name}`, or --theirs), then run "
            "`dvc checkout` or `dvc repro`"
        )
