"""Engines: how many workers run at a time, and what is said where one can't be had."""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.experiments import engines
from ctscan.experiments.engines import Resources

import pytest
from repository import REPO


def test_no_more_workers_run_at_a_time_than_asked_for() -> None:
    ended: set[Path] = set()
    launched: list[Path] = []

    def launch(trial: Path) -> Callable[[], bool]:
        launched.append(trial)
        return lambda: trial in ended

    window = engines._Window(2, launch, pause=0)
    one, two, three = (Path(name) for name in ("one", "two", "three"))
    window.start([one, two, three])
    assert window.active() == {one, two, three}
    assert launched == [one, two]
    ended.add(two)
    assert window.active() == {one, three}
    assert launched == [one, two, three]
    ended |= {one, three}
    assert window.active() == set()


@pytest.mark.parametrize(("engine", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_package_that_is_missing_is_named_with_how_to_get_it(
    engine: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"^{package} is not installed; .*`pip install '{package}==[0-9.]+'`$"):
        engines.open_engine(engine, tmp_path, 2, Resources(1, 0, 60))


def test_the_packages_are_pinned_as_in_pyproject() -> None:
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name: extras[engine] for engine, name in (("slurm", "submitit"), ("ray", "ray"))} == {
        name: [pin] for name, pin in engines.PINS.items()
    }


def test_a_worker_is_a_command_with_the_path_alone(tmp_path: Path) -> None:
    trial = tmp_path / "a trial's.json"
    *shell, python, path, log = engines.command(trial)
    assert (shell[:2], path, log) == (["sh", "-c"], str(trial), str(tmp_path / "a trial's.log"))
    assert Path(python).is_file()
