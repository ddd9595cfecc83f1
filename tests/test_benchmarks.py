"""The benchmark's figures agree with one another, on the smallest run of both ways."""

import importlib
import json
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import Head
from ctscan.core.seeds import derive_seed
from ctscan.model.head import build_head

import keras
import numpy as np
import pytest
from drawing import draw_dataset
from repository import REPO

HEAD = Head(units=1024, l2=0.01, dropout=0.5)


def test_a_weights_file_is_found_by_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    measuring = importlib.import_module("measuring")
    monkeypatch.setattr(measuring, "WEIGHTS", tmp_path)
    (tmp_path / "mine.weights.h5").write_bytes(b"weights")
    dataset, study = draw_dataset(tmp_path / "drawn", images=12), measuring.read_study({"weights": "mine.weights.h5"})
    workspace = measuring.make_workspace(tmp_path / "work", study, dataset, images=None)
    found: list[bytes] = []

    def read_weights(name: str, command: list[str], folder: Path) -> tuple[float, float]:
        (path,) = (argument.partition("=")[2] for argument in command if argument.startswith("--weights="))
        found.append((folder / path).read_bytes())
        raise InterruptedError

    monkeypatch.setattr(measuring, "_run_child", read_weights)
    with pytest.raises(InterruptedError):
        measuring.run_plain(workspace)
    assert [*found, (workspace.folder / "weights/mine.weights.h5").read_bytes()] == [b"weights"] * 2

    with pytest.raises(UserError, match=r"no file weights/other\.h5; put one there"):
        measuring.make_workspace(tmp_path / "work", {**study, "weights": "other.h5"}, dataset, images=None)


@pytest.mark.slow
@pytest.mark.comparison
def test_both_ways_run_and_their_figures_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    bench = importlib.import_module("run")
    monkeypatch.setattr(bench, "SCRATCH", tmp_path / "scratch")
    dataset, run_ours, kept = draw_dataset(tmp_path / "drawn", images=14), bench.run_ours, tmp_path / "kept"

    def run_and_keep(workspace: Any, precision: str) -> Any:
        run = run_ours(workspace, precision)
        workspace.folder.rename(kept)
        return run

    monkeypatch.setattr(bench, "run_ours", run_and_keep)
    tiny = "--images 12 --epochs 2 --finetune-epochs 2 --backbone MobileNetV2 --image-size 64 --precision float32"
    bench.main([*tiny.split(), "--weights", "random", "--dataset", str(dataset), "--output", str(tmp_path)])

    result = json.loads((tmp_path / "results.json").read_text())
    assert sum(result["settings"]["images"].values()) == 24
    assert set(result["runs"]) == {"plain float32", "ours float32"}
    for way, runs in result["runs"].items():
        for run in runs:
            parts = [run[name] for name in ("start_up", "phase_1", "phase_2", "evaluation")]
            assert min(parts) > 0
            assert run["total"] == pytest.approx(sum(parts))
            assert run["peak_mib"] > 100
            assert 0 <= run["auc_initial"] <= 1
            assert 0 <= run["auc_finetuned"] <= 1
        assert result["medians"][way]["total"] == runs[0]["total"]
    ours = result["runs"]["ours float32"][0]
    stages = [stage["seconds"] for stage in ours["stages"].values()]
    assert sum(stages) == pytest.approx(ours["phase_1"] + ours["phase_2"] + ours["evaluation"])

    assert "plain / ours float32" in capsys.readouterr().out
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in (tmp_path / "results.json").read_text()
    assert not (tmp_path / "scratch").exists()

    # Both draw the same orders and the same dropout, so they train the same weights but for rounding.
    start = build_head(1280, HEAD, seed=7).get_weights()
    for phase in ("initial", "finetuned"):
        trained = _head(kept / "models" / f"{phase}.keras")
        theirs = _head(kept / "plain" / f"{phase}.keras")
        for kernel in (0, -2):
            apart = np.linalg.norm(trained[kernel] - theirs[kernel])
            assert apart < 0.01 * np.linalg.norm(trained[kernel] - start[kernel])
        start = trained


def _head(path: Path) -> list[np.ndarray]:
    """The weights of the last layers, as `build_head` has them."""
    weights: list[np.ndarray] = keras.saving.load_model(path).get_weights()
    return weights[-8:]


def test_both_ways_start_from_the_same_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    plain = importlib.import_module("plain_keras")
    features = keras.Input((6,))
    theirs = keras.Model(features, plain.head(features, derive_seed(7, "head")))
    ours = build_head(6, HEAD, seed=7)
    for first, second in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        assert np.array_equal(first, second)


def test_ratios_are_of_the_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    reporting = importlib.import_module("reporting")

    def runs(*totals: float) -> list[dict[str, float]]:
        return [dict.fromkeys(reporting.COLUMNS, total) for total in totals]

    plain, ours = reporting.medians(runs(8, 100, 9)), reporting.medians(runs(1, 3, 50))
    ratio = reporting.ratios(plain, ours)
    assert (plain["total"], ours["total"]) == (9, 3)
    assert ratio["phase_1"] == ratio["total"] == ratio["peak_mib"] == 3
    assert ratio["auc_initial"] == 3 - 9


def test_growth_leaves_fixed_costs_out_and_tells_a_stage_from_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    growth = importlib.import_module("growth")

    def cost(seconds: float, peak: float) -> dict[str, float]:
        return {"seconds": seconds, "cpu_seconds": seconds, "peak_mib": peak}

    def row(images: int, alone: float, dvc: float, peak: float) -> dict[str, Any]:
        stage = {"dvc": cost(alone + dvc, peak), "alone": cost(alone, peak)}
        return {"images": images, "steps": {"finetune": stage, "nothing to do": {"dvc": cost(3.0, 200.0)}}}

    rows = [row(100, 10, 2, 1000.0), row(200, 12, 2.5, 1000.0), row(1200, 37, 7.5, 1100.0)]
    title, *lines = growth.table(rows)
    assert lines == [
        ["finetune", "20.00", "25.00", "1.25", "1000", "1000", "1100", "1.10"],
        ["nothing to do", "0.00", "0.00", "", "200", "200", "200", "1.00"],
        ["DVC around the stages", "5.00", "5.00", "1.00", "200", "200", "200", "1.00"],
    ]
    assert len(title) == len(lines[0])


@pytest.mark.slow
@pytest.mark.comparison
def test_growth_measures_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    growth = importlib.import_module("growth")
    monkeypatch.setattr(growth, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(growth, "STAGES", ("prepare-split",))
    growth.main(["--images", "400", "480", "--output", str(tmp_path)])
    few, more = json.loads((tmp_path / "growth.json").read_text())["rows"]
    assert (few["images"], more["images"]) == (400, 480)
    for row in (few, more):
        assert list(row["steps"]) == ["draw cohort", "dvc add", "prepare-split", "nothing to do"]
        stage = row["steps"]["prepare-split"]
        assert 0 < stage["alone"]["seconds"] < stage["dvc"]["seconds"]
        assert 50 < stage["alone"]["peak_mib"] <= stage["dvc"]["peak_mib"]
        assert 1 < row["disk_ratio"] < 4  # small files and folders take whole blocks
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path) not in (tmp_path / "growth.json").read_text()
    assert not (tmp_path / "scratch").exists()


def test_the_model_of_a_cluster_keeps_the_laws_of_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    model = importlib.import_module("cluster_model")
    one = model.Load(clone=1, pull=2, overhead=3, compute=4, push=5, announce=6)
    alone = model.simulate(10, 1, one)
    assert alone == pytest.approx((210, 70 / 210, 70 / 210, 40 / 210))
    assert model.simulate(10, 1, one, pull_once=True).seconds == 210 - 9 * 2

    fast = model.Load(clone=0, pull=0, overhead=0, compute=4, push=0, announce=0)
    assert model.simulate(10, 5, fast) == (8, 0, 0, 1)
    narrow = model.Load(clone=0, pull=2, overhead=0, compute=4, push=1, announce=0)
    assert model.simulate(100, 50, narrow).seconds == pytest.approx(100 * 3, rel=0.05)
    assert model.simulate(100, 50, narrow).remote > 0.95


def test_pytorch_counts_with_its_faster_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    eager = importlib.import_module("eager")
    seconds = {"ours float32": (1.0, 2.0), "PyTorch float32 channels_last": (3.0, 2.0)}
    seconds |= {"PyTorch float32 contiguous": (2.0, 3.0), "ours bfloat16": (1.0, 1.0)}
    seconds |= {f"PyTorch bfloat16 {layout}": (0.5, 4.0) for layout in eager.LAYOUTS}
    parts = {way: dict(zip(("forward", "step"), both, strict=True)) for way, both in seconds.items()}
    assert eager.ratios(parts) == {"float32": {"forward": 2, "step": 1}, "bfloat16": {"forward": 0.5, "step": 4}}
