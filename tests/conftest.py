"""Provide the fixtures that several tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository import REPO


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with this repository's params.yaml and dvc.yaml, as the current one."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPO / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def float32_policy() -> Iterator[None]:
    """Keras' precision is global to the process: back to float32 whatever a test set."""
    import keras

    yield
    keras.config.set_dtype_policy("float32")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest test begin first, or at the end one of two processes waits for it."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")
