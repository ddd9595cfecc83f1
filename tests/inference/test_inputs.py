"""Which files of a folder are taken for slices, and what is said of the others."""

import gzip
import shutil
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.params import Classes
from ctscan.inference.inputs import class_folders, find, read

import numpy as np
import pytest
from dicom_files import write_dicom
from drawing import texture
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder, with an empty folder in it that is returned."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "scans").mkdir()
    return tmp_path / "scans"


def test_slices_are_told_by_content_whatever_their_name(folder: Path) -> None:
    write_dicom(folder / "1.2.826.0.1.3680043.8.498.1001")
    write_dicom(folder / "IM0001.img")
    write_dicom(folder / "slice.dcm.bak")
    write_dicom(folder / "plain")
    Image.fromarray(texture(1)).save(folder / "one.jfif", "JPEG")
    Image.fromarray(texture(1)).save(folder / "two.scan", "PNG")
    (folder / "packed.gz").write_bytes(gzip.compress((folder / "plain").read_bytes()))
    (folder / "note.txt").write_text("BM is how a text may begin, and P5 too")
    (folder / "other.txt").write_text("P5 is how a text may begin")
    (folder / "values.csv").write_text("a,b")
    (folder / "groups.csv").write_text("path,group")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "more.zip").write_bytes(b"PK\x03\x04")
    (folder / "volume.nrrd").write_bytes(b"NRRD0004")
    faults: list[str] = []
    found = find([str(folder)], faults)
    names = {"1.2.826.0.1.3680043.8.498.1001", "IM0001.img", "slice.dcm.bak", "plain", "one.jfif", "two.scan"}
    assert {path.name for path in found.files} == {*names, "packed.gz", "other.txt"}
    assert faults == [
        f"{folder}/volume.nrrd: holds NRRD, which is not read here; convert it to PNG, DICOM or NIfTI, or remove it"
    ]
    (line,) = found.passed_over()
    assert line.startswith("4 files passed over, as no slices: 1 hidden, 2 of unknown content, 1 zip archive (")
    for path in found.files:
        results = read(path, 32, 32)
        assert len(results) == 1
        assert isinstance(results[0], UserError) == (path.name == "other.txt")


def test_of_many_bad_slices_a_few_are_named(folder: Path) -> None:
    frames = np.stack([texture(seed).astype(np.int16) * 4 for seed in range(9)])
    frames[1:7] = 0
    write_dicom(folder / "a.dcm", frames)
    results = read(folder / "a.dcm", 32, 32)
    assert [found.frame for found in results if not isinstance(found, UserError)] == [1, 8, 9]
    faults = [str(found) for found in results if isinstance(found, UserError)]
    assert [fault.partition(":")[0].rpartition("/")[2] for fault in faults] == [
        "a.dcm#2",
        "a.dcm#3",
        "a.dcm#4",
        "a.dcm#5 to #7",
    ]
    assert "3 more slices with faults" in faults[-1]


def test_links_are_followed_once(folder: Path) -> None:
    far, own = folder.parent / "far", folder / "own"
    far.mkdir()
    own.mkdir()
    Image.fromarray(texture(1)).save(far / "far.png")
    Image.fromarray(texture(2)).save(own / "own.png")
    (folder / "a link out").symlink_to(far)
    (folder / "another").symlink_to(far)
    (folder / "a link to own").symlink_to(own)
    (far / "back").symlink_to(folder)
    (folder / "lost").symlink_to(folder / "absent")
    faults: list[str] = []
    found = find([str(folder)], faults)
    assert found.files == [folder / "lost", folder / "a link out" / "far.png", own / "own.png"]
    assert len(found.passed) == 3
    assert faults == []
    (lost,) = read(folder / "lost", 32, 32)
    assert "no such file" in str(lost)


def test_a_tilde_is_the_home_folder_unless_a_file_has_that_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(texture(1)).save(folder / "one.png")
    assert find(["~/scans"], []).files == find(["~/scans/*.png"], []).files == [folder / "one.png"]
    monkeypatch.chdir(folder)
    shutil.copy("one.png", "~")
    assert find(["~"], []).files == [Path("~")]


@pytest.mark.parametrize("names", [("covid", "NON-covid"), ("COVID", "non-COVID")])
def test_class_folders_are_found_in_any_case(folder: Path, names: tuple[str, str]) -> None:
    for name in names:
        (folder / name).mkdir()
    classes = Classes(positive="COVID", negative="non-COVID")
    assert class_folders(folder, classes) == {1: folder / names[0], 0: folder / names[1]}
    (folder / "Covid").mkdir()
    if names[0] == "COVID":
        assert class_folders(folder, classes)[1] == folder / "COVID"
    else:
        with pytest.raises(UserError, match="Covid and covid may both be class COVID; rename one"):
            class_folders(folder, classes)


def test_class_folders_are_found_with_accents_in_either_form(folder: Path) -> None:
    (folder / "gru\u0308n").mkdir()
    assert class_folders(folder, Classes(positive="gr\u00fcn", negative="rot")) == {1: folder / "gru\u0308n"}
