"""A sweep on workers: what all runs share is made once, a run that fails holds up no other, nothing is run twice."""

import re
from pathlib import Path

from ctscan.experiments import driver

import pytest
from commands import ctscan
from toy_repository import Toy, make_toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(made: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The repository as the current folder, and a folder for the temporary files of its workers."""
    monkeypatch.chdir(made.home)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return made


def logged(toy: Toy, name: str) -> str:
    (log,) = toy.home.glob(f".scratch/trials/*/{name}.log")
    return log.read_text()


def test_a_run_that_fails_is_tried_twice_and_named_and_then_only_it_is_run_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("sweep", "lr=0.01,0.02", "--on", "local")
    monkeypatch.setenv("FAILS", "0.02")
    with pytest.raises(SystemExit, match=r"^sweep: no result of lr=0\.02; "):
        ctscan(*sweep)
    said = capsys.readouterr().out
    line = r"lr=0\.02: failed: worker: lr=0\.02 failed on .*: lr is not to my taste \(.*/lr=0\.02\.log\)"
    assert re.search(f"^{line}; trying again\n(?s:.*)^{line}$", said, re.MULTILINE)
    assert "lr=0.01: done" in said
    assert logged(toy, "lr=0.02").count("worker: ") == 2
    assert list(toy.on_hub()) == ["lr=0.01"]

    monkeypatch.delenv("FAILS")
    before = logged(toy, "lr=0.01")
    ctscan(*sweep)
    assert "best on validation: dvc exp run -S lr=0.0" in capsys.readouterr().out
    assert logged(toy, "lr=0.01") == before
    assert set(driver.experiments_at_home(toy.run("git", "rev-parse", "HEAD").strip())) == set(toy.on_hub())
    missing = toy.run("dvc", "status", "--cloud", "--all-commits", "--json")
    assert "missing" not in missing
