"""The large synthetic dataset is one that the pipeline takes: named as the study's, with patients, without copies."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

from ctscan.core.params import Classes
from ctscan.split.check import scan

import pytest
from repository import REPO

CLASSES = Classes(positive="COVID", negative="non-COVID")


@pytest.fixture
def cohort(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    return importlib.import_module("cohort")


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_cohort_is_a_sound_dataset(cohort: Any, tmp_path: Path) -> None:
    cohort.main([str(tmp_path / "made"), "--images", "101", "--size", "64", "--slices", "20"])
    manifest, copies, _ = scan(tmp_path / "made", CLASSES, min_size=32)
    assert manifest.attrs["warnings"] == []
    assert (manifest["label"] == 1).sum() == 50
    assert manifest["path"].iloc[0] == "COVID/Covid (1).png"
    assert manifest["path"].iloc[-1] == "non-COVID/Non-Covid (51).png"
    assert set(zip(manifest["width"], manifest["height"], manifest["mode"], strict=True)) == {(64, 64, "L")}
    assert manifest["listed_group"].value_counts().to_dict() == {
        "covid-1": 20, "covid-2": 20, "covid-3": 10, "non-covid-1": 20, "non-covid-2": 20, "non-covid-3": 11,
    }  # fmt: skip
    assert len(copies) == 0

    cohort.main([str(tmp_path / "again"), "--images", "101", "--size", "64", "--slices", "20"])
    assert hashes(tmp_path / "again") == hashes(tmp_path / "made")


def test_patients_of_one_phantom_are_no_copies(cohort: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "PATIENTS", 1)
    cohort.main([str(tmp_path / "made"), "--images", "240", "--size", "32", "--slices", "3"])
    assert len(scan(tmp_path / "made", CLASSES, min_size=32).copies) == 0


def test_a_folder_that_exists_is_left_alone(cohort: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cohort.main([str(tmp_path), "--images", "10"])
    assert "is there already" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
