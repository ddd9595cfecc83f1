"""Pooling folds: refusals, the pooled table, and figures that can be computed again from it."""

import hashlib
import json
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import validate
from ctscan.evaluation.predictions import parse_predictions
from ctscan.experiments import folds as command
from ctscan.experiments import recorded_folds
from ctscan.experiments.folds import Fold, assess_folds, check_folds, pool, table

import numpy as np
import pandas as pd
import pytest
import yaml
from commands import ctscan
from repository import REPO
from sklearn.metrics import roc_auc_score

FOLDS, GROUPS, SLICES = 3, 18, 4
CONTROLS = ("nearest_neighbour", "hog_svm", "image_size", "image_border", "shuffled_labels")


def params(fold: int, **changed: Any) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((REPO / "params.yaml").read_text())
    values["split"] |= {"strategy": "blocked", "folds": FOLDS, "fold": fold}
    values["evaluate"] |= {"bootstrap": 100}
    return values | changed


def predictions(fold: int) -> str:
    """CSV of one fold: a third of the groups is test, another third is validation."""
    rng = np.random.default_rng(fold)
    group = np.repeat(np.arange(GROUPS), SLICES)
    labels = group // FOLDS % 2
    frame = pd.DataFrame(
        {
            "path": [f"{row}.png" for row in range(len(group))],
            "label": labels,
            "subset": np.select([group % FOLDS == fold, group % FOLDS == (fold + 1) % FOLDS], ["test", "val"], "train"),
            "group": [f"block {number}" for number in group],
        }
    )
    for name, lift in (("initial", 0.2), ("finetuned", 0.4), *((name, 0.1) for name in CONTROLS)):
        frame[name] = np.clip(rng.normal(0.5 + lift * (labels - 0.5), 0.2), 0, 1)
    frame["novelty"] = rng.random(len(frame))
    return frame[frame["subset"] != "train"].to_csv(index=False)


def fold(number: int, name: str = "", **changed: Any) -> Fold:
    inputs = changed.pop("inputs", {"src/ctscan/core": "a", "data": "b"})
    return Fold(name or f"fold-{number}", params(number, **changed), inputs, f"md5 of {number}", predictions(number))


def test_folds_are_put_in_order() -> None:
    assert [one.experiment for one in check_folds([fold(2), fold(0), fold(1)])] == ["fold-0", "fold-1", "fold-2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([fold(0), fold(1)], "fold 2 of 3 is missing; run `ctscan sweep split.folds=3 split.fold=2 --until evaluate`"),
        ([fold(0), fold(1), fold(1, "again")], "fold-1 and again are both fold 1"),
        ([fold(0), fold(1, lr=0.5), fold(2)], "fold-0 and fold-1 differ in lr; only split.fold may"),
        ([fold(0), fold(1), fold(2, inputs={"src/ctscan/core": "a", "data": "c"})], "differ in data (code or data)"),
        ([fold(0), fold(1), fold(2, inputs={"data": "b"})], "differ in src/ctscan/core (code or data)"),
    ],
)
def test_what_are_not_the_folds_of_one_split_is_refused(given: list[Fold], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_folds(given)
    assert message in str(caught.value)


def test_an_image_that_two_folds_test_is_refused() -> None:
    twin = fold(1)._replace(predictions=predictions(0))
    with pytest.raises(UserError, match=r"^\d+\.png is in the test set of two folds"):
        pool([fold(0), twin, fold(2)])


def test_the_report_is_that_of_the_pooled_test_rows() -> None:
    pooled = pool([fold(number) for number in range(FOLDS)])
    test = pooled[pooled["subset"] == "test"]
    assert sorted(test["path"]) == sorted(f"{row}.png" for row in range(GROUPS * SLICES))
    assert not set(pooled.loc[pooled["subset"] == "val", "group"]) & set(test["group"])
    result = assess_folds(pooled, validate(params(0)))
    assert (result["images"], result["groups"], result["positive"]) == (GROUPS * SLICES, GROUPS, GROUPS * SLICES // 2)
    report = result["models"]["finetuned"]
    assert report["test"]["roc_auc"] == pytest.approx(roc_auc_score(test["label"], test["finetuned"]))
    each = [roc_auc_score(own["label"], own["finetuned"]) for _, own in test.groupby("fold")]
    assert [row["roc_auc"] for row in report["folds"]] == pytest.approx(each)
    assert report["mean"]["roc_auc"] == pytest.approx(np.mean(each))
    assert report["deviation"]["roc_auc"] == pytest.approx(np.std(each, ddof=1))
    assert (report["intervals"]["resampled"], report["intervals"]["units"]) == ("group", GROUPS)
    shown = table(result)
    assert f"| fold 2 | {result['models']['initial']['folds'][2]['accuracy']:.3f} |" in shown
    assert f"{each[2]:.3f} |" in shown
    assert f"That is {result['combination']['gain']['difference']:+.3f} (" in shown
    hog = [roc_auc_score(own["label"], own["hog_svm"]) for _, own in test.groupby("fold")]
    row = next(line for line in shown.splitlines() if line.startswith("| hog svm |"))
    assert row.endswith(f" | {np.mean(hog):.3f} ± {np.std(hog, ddof=1):.3f} |")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of DVC's with a tag for each fold; its one stage copies the predictions that are there."""
    monkeypatch.chdir(tmp_path)
    stage = {
        "cmd": "mkdir -p models && cp given.csv models/finetuned.keras && cp given.csv predictions.csv",
        "deps": ["sample", "src/code"],
        "params": ["split"],
        "outs": ["models/finetuned.keras", "predictions.csv"],
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))
    Path("src").mkdir()
    Path("src/code").write_text("code")
    Path("sample").write_text("images")
    for call in (
        ("git", "init", "-q"),
        ("git", "config", "user.email", "test@example.org"),
        ("git", "config", "user.name", "test"),
        (sys.executable, "-m", "dvc", "init", "-q"),
    ):
        subprocess.run(call, check=True)
    for number in range(FOLDS):
        Path("params.yaml").write_text(yaml.safe_dump(params(number)))
        Path("given.csv").write_text(predictions(number))
        subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], check=True)
        subprocess.run(["git", "add", "-A", "."], check=True)
        subprocess.run(["git", "commit", "-q", "-m", f"fold {number}"], check=True)
        subprocess.run(["git", "tag", f"fold-{number}"], check=True)
    return tmp_path


def test_folds_are_read_from_revisions_and_written_as_table_report_and_pictures(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctscan("folds", "fold-0", "fold-1", "fold-2")
    assert "3 folds, blocked split, 72 images (36 positive) of 18 groups" in capsys.readouterr().out
    written = parse_predictions((repository / "metrics/folds/blocked.csv").read_text(), "blocked")
    pd.testing.assert_frame_equal(written, pool([fold(number) for number in range(FOLDS)]))
    result = json.loads((repository / "metrics/folds/blocked.json").read_text())
    assert result["experiments"] == ["fold-0", "fold-1", "fold-2"]
    assert set(result["inputs"]) == {"sample", "src/code"}
    assert {path.name for path in (repository / "plots/folds_blocked").iterdir()} == {
        "roc.png",
        "reliability.png",
        "scores.png",
        "net_benefit.png",
        "risk_coverage.png",
    }
    shutil.rmtree(repository / ".dvc/cache")
    (repository / "predictions.csv").unlink()
    with pytest.raises(UserError, match=r"^fold-1: no predictions\.csv of such an experiment"):
        command.read_fold("fold-1")
    with pytest.raises(UserError, match=r"^absent: no predictions\.csv of such an experiment"):
        command.read_fold("absent")


def test_with_an_engine_the_folds_of_the_sweep_are_run_and_pooled(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(REPO / "params.yaml", "params.yaml")
    there = {f"evaluate,split.folds=3,split.fold={number}": f"fold-{number}" for number in range(FOLDS)}

    def run_elsewhere(experiments: dict[str, list[str]], stage: str, arguments: Namespace) -> str | None:
        assert list(experiments) == list(there)
        assert experiments["evaluate,split.folds=3,split.fold=2"] == ["split.folds=3", "split.fold=2"]
        assert stage == "evaluate"
        return None if arguments.detach else "base"

    monkeypatch.setattr(command, "run_elsewhere", run_elsewhere)
    monkeypatch.setattr(command, "require_tracked", lambda datasets: None)
    monkeypatch.setattr(command, "experiments_at_home", lambda base: there)
    read_fold = command.read_fold
    monkeypatch.setattr(command, "read_fold", lambda name: read_fold(there[name]))
    on = ("--folds", 3, "--on", "slurm")
    ctscan("folds", *on, "--detach")
    assert capsys.readouterr().out == ""
    ctscan("folds", *on)
    assert "3 folds, blocked split, 72 images (36 positive) of 18 groups" in capsys.readouterr().out
    del there["evaluate,split.folds=3,split.fold=1"]
    monkeypatch.setattr(command, "run_elsewhere", lambda *_: "base")
    with pytest.raises(SystemExit, match=r"^folds: no result of evaluate,split\.folds=3,split\.fold=1; their logs"):
        ctscan("folds", *on)
    with pytest.raises(SystemExit, match=r"^folds: .*name no experiments beside it"):
        ctscan("folds", "fold-0", *on)


def test_folds_are_recorded_with_the_external_reports_of_their_models(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ctscan("folds", "fold-0", "fold-1", "fold-2")
    printed = capsys.readouterr().out.partition("\n\nmetrics/folds/blocked.json")[0]
    models = json.loads((repository / "metrics/folds/blocked.json").read_text())["finetuned_md5"]
    assert models == [hashlib.md5(predictions(number).encode()).hexdigest() for number in range(FOLDS)]
    Path("metrics/external").mkdir()
    for name, model in (("other-hospital", models[1]), ("by-another-model", "0")):
        Path(f"metrics/external/{name}.json").write_text(json.dumps({"run": {"model_md5": model}}))
        Path(f"metrics/external/{name}.md").write_text(f"## {name}\n")
        Path(f"plots/external_{name}").mkdir()
        Path(f"plots/external_{name}/roc.png").write_bytes(b"curve")
    asked = Namespace(name="five", strategy=None, base="fold-2")
    assert recorded_folds.run(asked) == 0
    page = Path("studies/five/README.md").read_text()
    assert printed in page
    assert "ctscan sweep split.fold=0,1,2 --until evaluate\n" in page
    assert "dvc exp apply evaluate,split.fold=1\nctscan external other-hospital --name other-hospital\n" in page
    assert "## other-hospital" in page
    assert '<img src="external/other-hospital/roc.png" width="420" alt="ROC curve, other-hospital">' in page
    kept = {path.relative_to("studies/five").as_posix() for path in Path("studies/five").rglob("*") if path.is_file()}
    assert {"README.md", "folds.json", "plots/roc.png", "external/other-hospital/roc.png"} < kept
    assert not [name for name in kept if "another" in name or name.endswith(".csv")]

    with pytest.raises(UserError, match=r"^metrics/folds/grouped\.json is missing; .*`ctscan folds`"):
        recorded_folds.run(Namespace(**{**vars(asked), "strategy": "grouped"}))
    Path("metrics/folds/random.json").write_text("{}")
    with pytest.raises(UserError, match=r"^metrics/folds/random\.json is of an older version"):
        recorded_folds.run(Namespace(**{**vars(asked), "strategy": "random"}))
    with pytest.raises(UserError, match=r"^folds of blocked and of random were pooled; choose with --strategy$"):
        recorded_folds.run(asked)
    Path("metrics/folds/random.json").unlink()
    Path("src/code").write_text("other code")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], check=True)
    subprocess.run(["git", "commit", "-qam", "other code"], check=True)
    with pytest.raises(UserError, match=r"^the folds ran other code than that of HEAD \(src/code\)"):
        recorded_folds.run(Namespace(**{**vars(asked), "base": "HEAD"}))
    assert Path("studies/five/README.md").read_text() == page
