"""A phase of training leaves its curves and its best epoch, in the same bytes however long it took."""

import json
from pathlib import Path

from ctscan.core.files import read_record
from ctscan.training.history import publish_history

import pytest

LOSSES = [0.9, 0.4, 0.6]


def _history(seconds: float) -> list[dict[str, float]]:
    figures = ("loss", "accuracy", "auc")
    return [
        {
            **dict.fromkeys(figures, loss + 1),
            **{f"val_{name}": loss for name in figures},
            "time": seconds,
            "val_time": seconds / 4,
            "lr": 0.001,
        }
        for loss in LOSSES
    ]


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def _in_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_curves_hold_every_epoch_and_the_best_apart(tmp_path: Path) -> None:
    publish_history("initial", _history(2.0))
    curves = {name: json.loads(content) for name, content in _contents(tmp_path / "plots/initial").items()}
    assert curves["val/loss.json"] == [{"step": 1, "loss": 0.9}, {"step": 2, "loss": 0.4}, {"step": 3, "loss": 0.6}]
    assert curves["best/loss.json"] == [{"step": 2, "loss": 0.4}]
    assert [row["lr"] for row in curves["train/lr.json"]] == [0.001] * 3
    assert {name.split("/")[1] for name in curves} == {"loss.json", "accuracy.json", "auc.json", "lr.json"}
    best = read_record(Path("metrics/initial.json"))
    assert best["best_epoch"] == 2
    assert json.loads(Path("metrics/val_initial.json").read_text()) == {"val_init": best["val_auc"]}


def test_time_is_kept_beside_the_outs_and_changes_none_of_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    publish_history("finetune", _history(2.0))
    assert "2.5 s an epoch" in capsys.readouterr().out
    slow = {name: _contents(tmp_path / name) for name in ("plots", "metrics")}
    assert json.loads(slow["metrics"]["timing/finetune.json"])[1] == {"val_loss": 0.4, "seconds": 2.5}
    publish_history("finetune", _history(1.0))
    assert _contents(tmp_path / "plots") == slow["plots"]
    assert (tmp_path / "metrics/finetune.json").read_bytes() == slow["metrics"]["finetune.json"]


def test_a_phase_that_tells_no_image_from_another_says_so(capsys: pytest.CaptureFixture) -> None:
    publish_history("initial", _history(2.0))
    assert not capsys.readouterr().err
    publish_history("initial", [{**record, "val_auc": 0.5} for record in _history(2.0)])
    assert "no epoch tells one validation image from another" in capsys.readouterr().err
