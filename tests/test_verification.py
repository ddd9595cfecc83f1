"""What `make verify` makes of two runs."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

from ctscan.environment import environment
from ctscan.heads import build_head
from ctscan.models import save_model
from ctscan.params import Head
from ctscan.verification import Out, compare_locks, largest_difference

import pytest
import yaml
from conftest import REPO


@pytest.fixture
def lock() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REPO / "dvc.lock").read_text())
    return content


def test_a_lock_equals_itself_in_every_declared_out(lock: dict[str, Any]) -> None:
    outs = compare_locks(lock, copy.deepcopy(lock))
    declared = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    assert {(out.stage, out.path) for out in outs} == {
        (stage, path) for stage, entry in declared.items() for out in entry["outs"] for path in out
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
        (out,) = [out for out in entries["stages"]["train-initial"]["outs"] if out["path"] == "models/initial.keras"]
        out["md5"] = hashlib.md5((tmp_path / "initial.keras").read_bytes()).hexdigest()
    assert [out for out in compare_locks(lock, rerun) if not out.same] == [
        Out("train-initial", "models/initial.keras", False)
    ]


def test_an_out_that_one_run_lacks_differs(lock: dict[str, Any]) -> None:
    rerun = copy.deepcopy(lock)
    missing = rerun["stages"]["evaluate"]["outs"].pop()
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
