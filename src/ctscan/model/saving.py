"""Save and load models, so that equal models are equal bytes."""

import json
import zipfile
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import require

import keras

CLOCKLESS = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip entry can have


def save_model(model: keras.Model, path: Path) -> None:
    """Write an uncompiled `model` as a `.keras` file without a time in it, so that equal models have equal hashes.

    Keras writes the time of saving into the metadata and each zip entry, and numbers shared objects by their address in
    memory. Here the entries are sorted and have no date, and shared objects are numbered as they appear. The file loads
    with plain `keras.saving.load_model`.
    """
    dated = path.with_name(f"{path.stem}-dated.keras")
    keras.saving.save_model(model, dated)
    with zipfile.ZipFile(dated) as archive, zipfile.ZipFile(path, "w") as canonical:
        for name in sorted(archive.namelist()):
            content = archive.read(name)
            if name == "metadata.json":
                content = _dump({key: value for key, value in json.loads(content).items() if key != "date_saved"})
            elif name == "config.json":
                content = _dump(_renumber(json.loads(content), {}))
            canonical.writestr(zipfile.ZipInfo(name, CLOCKLESS), content)
    dated.unlink()


def load_model(path: Path) -> keras.Model:
    """Load a `.keras` file in Keras' safe mode, uncompiled. Raises `UserError` where it is missing or damaged."""
    require(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: damaged, or not a model of Keras {keras.__version__} ({reason}); make it again"
        ) from None


def _dump(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _renumber(value: Any, numbers: dict[int, int]) -> Any:
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(inner, len(numbers)) if key == "shared_object_id" else _renumber(inner, numbers)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_renumber(inner, numbers) for inner in value]
    return value
