"""A result takes its place whole or not at all."""

import resource
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.files import publish

import numpy as np
import pytest


def test_publish_replaces_a_file_only_on_success(workspace: Path) -> None:
    out = Path("metrics/a.json")
    with publish(out) as path:
        path.write_text("old")
    with pytest.raises(RuntimeError), publish(out) as path:
        path.write_text("half")
        raise RuntimeError
    assert out.read_text() == "old"
    with publish(out) as path:
        path.write_text("new")
    assert out.read_text() == "new"


def test_publish_replaces_a_folder_as_a_whole(workspace: Path) -> None:
    out = Path("plots/images")
    for name in ("a", "b"):
        with publish(out) as folder:
            folder.mkdir()
            (folder / name).write_text(name)
    assert [file.name for file in out.iterdir()] == ["b"]
    with pytest.raises(RuntimeError), publish(out) as folder:
        folder.mkdir()
        raise RuntimeError
    assert [file.name for file in out.iterdir()] == ["b"]


def test_numpys_short_write_is_told_as_a_full_disk(workspace: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(UserError, match=r"^features\.npy: .*; free some space"), publish(Path("features.npy")) as path:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            np.save(path, np.zeros(100_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_other_faults_of_the_system_keep_their_traceback(workspace: Path) -> None:
    with pytest.raises(FileNotFoundError), publish(Path("a.txt")):
        Path("missing.txt").read_text()
