"""What `ctscan verify` makes of two runs."""

import copy
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from ctscan.core.params import Head
from ctscan.experiments import verify
from ctscan.experiments.environment import environment
from ctscan.experiments.verify import Out, compare_locks, largest_difference
from ctscan.model.head import build_head
from ctscan.model.saving import save_model

import keras
import pytest
import yaml
from dvc.repo import Repo
from repository import REPO


@pytest.fixture
def lock() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPO / "dvc.lock").read_text())["stages"]
    return content


def _outputs(stage: dict[str, Any]) -> list[str]:
    """Paths of all outputs of a stage of dvc.yaml, those that are declared as metrics and plots too."""
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, ())]
    return [path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)]


def test_a_lock_equals_itself_in_every_declared_out(lock: dict[str, Any]) -> None:
    outs = compare_locks(lock, copy.deepcopy(lock))
    declared = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    assert {(out.stage, out.path) for out in outs} == {
        (stage, path) for stage, entry in declared.items() for path in _outputs(entry)
    }
    assert all(out.same for out in outs)


def test_one_changed_weight_is_caught_and_named(tmp_path: Path, lock: dict[str, Any]) -> None:
    rerun = copy.deepcopy(lock)
    head = build_head(6, Head(units=4, l2=0.01, dropout=0.5), seed=1)
    for run, entries in enumerate((lock, rerun)):
        weights = head.get_weights()
        weights[0][0, 0] += run * 1e-6
        head.set_weights(weights)
        save_model(head, tmp_path / "initial.keras")
        (out,) = [out for out in entries["train-initial"]["outs"] if out["path"] == "models/initial.keras"]
        out["md5"] = hashlib.md5((tmp_path / "initial.keras").read_bytes()).hexdigest()
    assert [out for out in compare_locks(lock, rerun) if not out.same] == [
        Out("train-initial", "models/initial.keras", False)
    ]


def test_an_out_that_one_run_lacks_differs(lock: dict[str, Any]) -> None:
    rerun = copy.deepcopy(lock)
    missing = rerun["evaluate"]["outs"].pop()
    assert [out.path for out in compare_locks(lock, rerun) if not out.same] == [missing["path"]]
    assert [out.path for out in compare_locks(rerun, lock) if not out.same] == [missing["path"]]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"a": {"auc": 0.9}, "b": [1, 2]}, {"a": {"auc": 0.9}, "b": [1, 2]}, 0.0),
        ({"a": {"auc": 0.9}, "b": [1, 2]}, {"a": {"auc": 0.95}, "b": [1, 2]}, 0.05),
        ({"a": {"auc": 0.9}, "b": [1, 2]}, {"a": {"auc": 0.9}, "b": [1, 4]}, 2.0),
        ({"a": 1}, {"b": 1}, float("inf")),
    ],
)
def test_the_largest_difference_of_metrics(tmp_path: Path, first: Any, second: Any, expected: float) -> None:
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    for file, content in zip(files, (first, second), strict=True):
        file.write_text(json.dumps(content))
    assert largest_difference(*files) == pytest.approx(expected)


def test_the_environment_tells_no_host_path_or_time() -> None:
    told = environment()
    assert told == environment()
    assert told["libraries"]["keras"]
    assert "/" not in json.dumps(told).replace("\\/", "/")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A finished run of one stage, with a model and metrics."""
    folder = tmp_path / "recorded"
    (folder / "metrics").mkdir(parents=True)
    (folder / "models").mkdir()
    outs = ["models/initial.keras", {"metrics/test.json": {"cache": False}}]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train-initial": {"cmd": "true", "outs": outs}}}))
    save_model(build_head(6, Head(units=4, l2=0.01, dropout=0.5), seed=1), folder / "models/initial.keras")
    (folder / "metrics/test.json").write_text(json.dumps({"initial": {"accuracy": 0.9}}))
    (folder / "metrics/environment.json").write_text(json.dumps(environment()))
    Repo.init(str(folder), no_scm=True).close()
    with Repo(str(folder)) as repo:
        repo.commit(force=True)
    return folder


@pytest.mark.parametrize("recommitted", [False, True])
def test_a_run_with_one_changed_weight_fails_by_name(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], recommitted: bool
) -> None:
    run = Path(shutil.copytree(recorded, tmp_path / "run"))
    assert verify.compare(recorded, run) is None
    assert "all 2 outs are the same bytes" in capsys.readouterr().out
    path = run / "models/initial.keras"
    model = keras.saving.load_model(path)
    weights = model.get_weights()
    weights[0][0, 0] += 1e-6
    model.set_weights(weights)
    path.unlink()
    save_model(model, path)
    if recommitted:
        with Repo(str(run)) as repo:
            repo.commit(force=True)
    assert "bytes differ on a machine of the recorded kind" in str(verify.compare(recorded, run))
    differing = [line.split() for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert differing == [["train-initial", "models/initial.keras", "DIFFERS"]]


@pytest.mark.parametrize(("distance", "verdict"), [(0.01, None), (0.3, "test metrics differ by 0.3")])
def test_another_machine_is_held_to_the_tolerance(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], distance: float, verdict: str | None
) -> None:
    run = Path(shutil.copytree(recorded, tmp_path / "run"))
    (recorded / "metrics/environment.json").write_text(json.dumps(environment() | {"processor": "another"}))
    (run / "metrics/test.json").write_text(json.dumps({"initial": {"accuracy": 0.9 - distance}}))
    wrong = verify.compare(recorded, run)
    assert f"numbers by up to {distance:.3g}" in capsys.readouterr().out
    assert wrong is None if verdict is None else str(wrong).startswith(verdict)
    assert verdict is None or "differs in processor" in str(wrong)
