"""What was run once is never run again, and a result follows its inputs: real runs of real DVC."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from ctscan.core.files import read_record

import keras
import pytest
import yaml
from quick_clone import commit, make_quick_clone, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a whole run, committed."""
    clone = make_quick_clone(tmp_path_factory.mktemp("run cache") / "clone")
    succeeds(clone, "dvc repro")
    commit(clone)
    return clone


@pytest.fixture
def clone(evaluated: Path) -> Path:
    """The same, back at its committed run."""
    succeeds(evaluated, "git reset -q --hard && git clean -qfd weights && dvc checkout -q --force dvc.yaml")
    return evaluated


def succeeds(clone: Path, command: str) -> subprocess.CompletedProcess[str]:
    done = run(clone, command)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def stages_run(clone: Path, command: str) -> list[str]:
    """The stages that `command` runs, those left out that did not change or come from DVC's run cache."""
    return re.findall("Running stage '(.+?)'", succeeds(clone, command).stdout)


def outputs(clone: Path) -> dict[str, str]:
    stages = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def test_an_experiment_that_was_run_before_is_restored_wherever_it_runs(clone: Path) -> None:
    first = outputs(clone)
    assert stages_run(clone, "dvc exp run -S lr=0.01") == ["train-initial", "finetune", "evaluate"]
    assert outputs(clone) != first
    assert stages_run(clone, "dvc exp run -S lr=0.0001") == []
    assert outputs(clone) == first
    assert stages_run(clone, "dvc exp run --temp -S lr=0.01") == []


def test_the_four_folders_follow_the_split_of_a_restored_run(clone: Path) -> None:
    def shown() -> dict[str, bytes]:
        files = [path for path in (clone / "split/images").rglob("*") if path.is_file()]
        return {path.relative_to(clone).as_posix(): path.read_bytes() for path in files}

    succeeds(clone, "ctscan folders")
    first = shown()
    assert stages_run(clone, "dvc exp run -S seed=8 prepare-split") == ["prepare-split"]
    assert len(shown()) == len(first)
    assert shown() != first
    assert stages_run(clone, "dvc exp run -S seed=7 prepare-split") == []
    succeeds(clone, "ctscan folders")
    assert shown() == first
    # A run in another workspace leaves this one's folders as they are.
    succeeds(clone, "dvc exp run --temp -S seed=9 prepare-split")
    assert shown() == first
    assert "0 links were put right" in succeeds(clone, "ctscan folders").stdout


def test_two_trials_on_another_dataset_extract_its_features_once(clone: Path) -> None:
    shutil.copytree(clone / "few", clone / "fewer")
    for folder in ("COVID", "non-COVID"):
        (clone / "fewer" / folder / "0.png").unlink()
    commit(clone)
    both = ["prepare-split", "extract-features", "train-initial"]
    assert stages_run(clone, "dvc exp run --temp -S dataset=fewer train-initial") == both
    assert stages_run(clone, "dvc exp run --temp -S dataset=fewer -S lr=0.01 train-initial") == ["train-initial"]


def test_another_split_of_the_same_slices_has_their_features_already(clone: Path) -> None:
    fold = "dvc exp run --temp -S split.folds=3 -S split.strategy=random -S split.fold={} train-initial"
    for number in (0, 1):
        assert stages_run(clone, fold.format(number)) == ["prepare-split", "train-initial"]


def test_a_result_follows_the_content_of_the_weights_file(clone: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        network = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3))
        network.save_weights(tmp_path / f"{name}.weights.h5")
    hashes: list[str] = []
    for name in ("one", "two", "one"):
        shutil.copy(tmp_path / f"{name}.weights.h5", tmp_path / "mine.weights.h5")
        succeeds(clone, f"ctscan weights '{tmp_path}/mine.weights.h5' --backbone MobileNetV2")
        ran = stages_run(clone, "dvc exp run -S backbone=MobileNetV2 -S weights=mine.weights.h5 extract-features")
        assert ran == (["extract-features"] if len(hashes) < 2 else [])
        record = read_record(clone / "metrics/backbone.json")
        assert record["weights"] == "mine.weights.h5"
        hashes.append(record["weights_sha256"])
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_stage_that_fails_says_how_the_earlier_results_come_back(clone: Path) -> None:
    before = outputs(clone)
    failed = run(clone, "dvc exp run -S checks.min_size=400")
    assert failed.returncode != 0
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("earlier results come back with"))
    assert not (clone / "split/manifest.csv").exists()
    for command in re.findall("`(.+?)`", line):
        succeeds(clone, command)
    assert outputs(clone) == before
    assert run(clone, "git status --porcelain").stdout == ""
    assert run(clone, "dvc status -q dvc.yaml").returncode == 0


def test_the_table_of_experiments_fits_120_columns(clone: Path) -> None:
    succeeds(clone, "dvc exp run -S lr=0.01")  # from the run cache, where an earlier test has run it
    shown = succeeds(clone, "COLUMNS=120 dvc exp show --only-changed --no-pager").stdout
    heading = next(line for line in shown.splitlines() if "Experiment" in line)
    columns = {"Created", "val_init", "val_ft", "acc_init", "auc_init", "acc_ft", "auc_ft", "lr"}
    files = ("val_initial", "val_finetune", "test")
    values = [json.loads((clone / f"metrics/{name}.json").read_text()) for name in files]
    assert {key for value in values for key in value} == {name for name in columns if "_" in name}
    assert columns - set(heading.split()) <= {name for name in columns if same_in_all(clone, name)}


def same_in_all(clone: Path, metric: str) -> bool:
    """Whether `--only-changed` leaves `metric` out, because all experiments have the same value of it."""
    rows = json.loads(succeeds(clone, "dvc exp show --json").stdout)
    text = json.dumps(rows)
    return len(set(re.findall(rf'"{metric}": ([0-9.e-]+)', text))) == 1


def test_a_run_that_ended_early_does_not_show_the_figures_of_another(clone: Path) -> None:
    assert "accuracy" in succeeds(clone, "ctscan results").stdout
    succeeds(clone, "dvc exp run -S lr=0.01 train-initial")
    assert succeeds(clone, "ctscan results").stdout.startswith("not evaluated: ")
    succeeds(clone, "ctscan report HEAD")
    report = (clone / "report/report.md").read_text()
    (early,) = (line for line in report.splitlines() if line.startswith("| workspace | finetuned |"))
    assert "not evaluated" in early
    assert not re.search(r"0\.\d", early)
    assert "reliability, workspace" not in report.replace(".png", "")
