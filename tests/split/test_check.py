import gzip
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import prepare_split
from ctscan.core.errors import UserError
from ctscan.core.files import parse_record, read_record
from ctscan.core.params import Classes
from ctscan.core.stage import run_stage
from ctscan.phantoms import draw_slice
from ctscan.split.check import natural_key, perceptual_hash, scan
from ctscan.split.duplicates import COPY_DISTANCE

import numpy as np
import pytest
from dicom_files import write_dicom
from drawing import draw_dataset, texture
from PIL import Image
from repository import REPO

CLASSES = Classes(positive="COVID", negative="non-COVID")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw_dataset(tmp_path / "data", 12)


def faults(folder: Path) -> list[str]:
    with pytest.raises(UserError) as raised:
        scan(folder, CLASSES, 32)
    first, *lines = str(raised.value).split("\n  ")
    assert first.startswith(f"{folder}: {len(lines)} fault")
    return lines


def test_natural_order() -> None:
    names = ["b 1", "a (10)", "a (2)", "a (02)", "a", "10", "9"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "a (02)", "a (2)", "a (10)", "b 1"]


def test_manifest_of_a_sound_dataset(folder: Path) -> None:
    Image.fromarray(texture(77, 50, 60)).convert("RGBA").save(folder / "COVID/Covid (3).png")
    manifest = scan(folder, CLASSES, 32).manifest
    assert list(manifest["path"][:3]) == ["COVID/Covid (1).png", "COVID/Covid (2).png", "COVID/Covid (3).png"]
    assert manifest["path"].iloc[11] == "COVID/Covid (12).png"
    assert list(manifest["label"]) == [1] * 12 + [0] * 12
    assert list(manifest[["width", "height", "mode"]].iloc[2]) == [60, 50, "RGBA"]
    assert manifest["pixel_hash"].is_unique
    assert manifest["listed_group"].isna().all()
    assert manifest.attrs["warnings"] == []


def test_swapped_classes_swap_the_labels(folder: Path) -> None:
    manifest = scan(folder, Classes(positive="non-COVID", negative="COVID"), 32).manifest
    assert list(manifest["label"]) == [0] * 12 + [1] * 12


def test_names_of_every_kind(folder: Path) -> None:
    names = ["scan 01 [left] (ä).png", "肺 7.PNG", "'quoted', \"twice\".png", "a#b%20c.png", "-rf.png"]
    for seed, name in enumerate(names):
        Image.fromarray(texture(300 + seed)).save(folder / "COVID" / name, "PNG")
    assert {f"COVID/{name}" for name in names} <= set(scan(folder, CLASSES, 32).manifest["path"])


def test_every_fault_is_reported_at_once_with_file_and_remedy(folder: Path, tmp_path: Path) -> None:
    covid = folder / "COVID"
    sound = (covid / "Covid (1).png").read_bytes()
    outside = tmp_path / "outside.png"
    outside.write_bytes(sound)
    (covid / "empty.png").touch()
    (covid / "text.png").write_text("no image\n" * 20)
    (covid / "truncated.png").write_bytes(sound[: len(sound) // 2])
    Image.fromarray(texture(50, 31, 60)).save(covid / "small.png")
    Image.new("L", (40, 40), 7).save(covid / "constant.png")
    Image.fromarray(texture(51)).save(covid / "film.gif", save_all=True, append_images=[Image.fromarray(texture(52))])
    Image.new("1", (5000, 5000)).save(covid / "huge.png")
    (covid / "link.png").symlink_to(outside)
    (covid / "broken.png").symlink_to(folder / "absent.png")
    (covid / "nested").mkdir()
    os.mkfifo(covid / "pipe.png")
    (folder / "non-COVID" / "Non-Covid (99).png").write_bytes(sound)
    (folder / "Healthy").mkdir()

    expected = {
        covid / "empty.png": ("empty", "export it again"),
        covid / "text.png": ("not a readable image", "export it again"),
        covid / "truncated.png": ("not a readable image", "export it again"),
        covid / "small.png": ("60x31 pixels, below checks.min_size = 32", "export it larger"),
        covid / "constant.png": ("every pixel is 7", "export it again"),
        covid / "film.gif": ("several frames", "export each slice"),
        covid / "huge.png": ("absurdly large", "export it smaller"),
        covid / "link.png": ("a link out of the dataset", "put the file itself there"),
        covid / "broken.png": ("no such file", "restore it"),
        covid / "nested": ("a folder inside a class folder", "move its images up"),
        covid / "pipe.png": ("not a regular file", "put the image itself there"),
        folder / "non-COVID/Non-Covid (99).png": (f"same pixels as {covid / 'Covid (1).png'}", "remove the one"),
        folder / "Healthy": ("unknown class folder", "correct `classes`"),
    }
    lines = faults(folder)
    assert len(lines) == len(expected)
    for path, (what, remedy) in expected.items():
        [line] = [line for line in lines if line.startswith(f"{path}: ")]
        assert what in line
        assert remedy in line.split("; ", 1)[1]


def test_a_name_that_is_not_utf8_is_a_fault(folder: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/COVID/\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    [line] = faults(folder)
    assert "\\udcff.png" in line
    assert "rename it" in line


def test_harmless_oddities_are_counted_and_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    covid = folder / "COVID"
    Image.fromarray(texture(60)).save(covid / "jpeg.png", "JPEG")
    (covid / "copy.png").write_bytes((covid / "Covid (1).png").read_bytes())
    (covid / "Thumbs.db").touch()
    (covid / ".hidden.png").touch()
    (folder / ".git").mkdir()
    (folder / "README.txt").touch()
    manifest = scan(folder, CLASSES, 32).manifest
    assert len(manifest) == 26
    assert len(manifest.attrs["warnings"]) == 6
    shown = capsys.readouterr().err
    assert f"{folder}: 6 warnings" in shown
    for name in ("jpeg.png", "copy.png", "Thumbs.db", ".hidden.png", ".git", "README.txt"):
        assert name in shown


def test_a_copy_halved_without_smoothing_is_found_in_the_other_class(folder: Path) -> None:
    """Its hash is as far from the original's as that of a neighbouring slice, so thumbnails decide."""
    grey, _ = draw_slice(5, 1, True, 8)
    Image.fromarray(grey).save(folder / "COVID/Covid (1).png")
    Image.fromarray(grey[::2, ::2]).save(folder / "non-COVID/Non-Covid (50).png")
    hashes = [int(perceptual_hash(pixels), 16) for pixels in (grey, grey[::2, ::2])]
    assert (hashes[0] ^ hashes[1]).bit_count() > COPY_DISTANCE
    [line] = faults(folder)
    assert line.startswith(
        f"{folder}/non-COVID/Non-Covid (50).png: a copy of {folder}/COVID/Covid (1).png in the other"
    )
    neighbour, _ = draw_slice(5, 2, True, 8)
    Image.fromarray(neighbour).save(folder / "non-COVID/Non-Covid (50).png")
    assert scan(folder, CLASSES, 32).manifest.attrs["warnings"] == []


@pytest.mark.parametrize(("kind", "scale"), [("JPEG", 1), ("PNG", 2), ("JPEG", 2)])
def test_a_copy_saved_again_or_resized_is_a_fault_in_the_other_class_and_a_warning_in_its_own(
    folder: Path, tmp_path: Path, kind: str, scale: int
) -> None:
    original = Image.fromarray(texture(1, 120, 160))
    original.save(folder / "COVID/Covid (1).png")
    copy = original.resize((160 // scale, 120 // scale))
    suffix = {"JPEG": "jpg", "PNG": "png"}[kind]
    copy.save(folder / f"COVID/Covid (50).{suffix}")
    [warning] = scan(folder, CLASSES, 32).manifest.attrs["warnings"]
    first = f"{folder}/COVID/Covid (1).png"
    assert warning == f"{folder}/COVID/Covid (50).{suffix}: a copy of {first}, saved again or resized"

    (folder / f"COVID/Covid (50).{suffix}").rename(folder / f"non-COVID/Non-Covid (50).{suffix}")
    [line] = faults(folder)
    assert line.startswith(f"{folder}/non-COVID/Non-Covid (50).{suffix}: a copy of {first} in the other class")
    assert "remove the one that is wrong" in line


def test_images_that_hold_fewer_bits_than_they_declare_are_one_line_a_class(folder: Path) -> None:
    """12 bits in 16 would be 7 to 16 greys near black, and a network would train on them."""
    for number in range(1, 13):
        dark = Image.fromarray(texture(number).astype(np.uint16) * 16)
        dark.save(folder / f"COVID/Covid ({number}).png")
    lines = faults(folder)
    [line] = [line for line in lines if "images use few of" in line]
    first = f"{folder}/COVID/Covid (1).png"
    assert line.startswith(f"{folder}/COVID: 12 images use few of the greys that they declare; the first is {first}")
    assert "save it with black at 0 and white at the highest value" in line
    for number in range(1, 13):
        Image.fromarray(texture(number).astype(np.uint16) * 257).save(folder / f"COVID/Covid ({number}).png")
    assert scan(folder, CLASSES, 32).manifest.attrs["warnings"] == []


def test_slices_are_told_by_content(folder: Path) -> None:
    stored = texture(70).astype(np.int16) * 8
    write_dicom(folder / "COVID/1.2.826.0.1.3680043.8.498.1001", stored)
    Image.fromarray(texture(71)).save(folder / "COVID/scan.jfif", "JPEG")
    (folder / "COVID/packed.gz").write_bytes(gzip.compress((folder / "COVID/Covid (3).png").read_bytes()))
    (folder / "COVID/Covid (3).png").unlink()
    (folder / "COVID/note").write_text("no image")
    manifest = scan(folder, CLASSES, 32).manifest
    assert len(manifest) == 26
    ignored, mixed = manifest.attrs["warnings"]
    assert ignored == f"{folder}/COVID/note: no image by its content, ignored"
    assert "0 of 12 images of class non-COVID and 1 of 14 images of class COVID are in Hounsfield units" in mixed
    modes = dict(zip(manifest["path"], manifest["mode"], strict=True))
    assert modes["COVID/1.2.826.0.1.3680043.8.498.1001"] == "HU"
    assert modes["COVID/packed.gz"] == "L"
    (folder / "COVID/volume").write_bytes(b"NRRD0004")
    assert faults(folder) == [
        f"{folder}/COVID/volume: holds NRRD, which is not read here; convert it to PNG, DICOM or NIfTI, or remove it"
    ]


def test_links_into_a_cache_of_dvc_are_files(folder: Path, tmp_path: Path) -> None:
    """`dvc config cache.type symlink` makes every file of a dataset a link."""
    for path in sorted(folder.glob("*/*.png")):
        digest = hashlib.md5(path.read_bytes()).hexdigest()
        place = tmp_path / "cache/files/md5" / digest[:2] / digest[2:]
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)
        path.symlink_to(place)
    assert len(scan(folder, CLASSES, 32).manifest) == 24


def test_links_that_lead_nowhere_are_a_line_each(folder: Path) -> None:
    for name, target in (("gone.png", "nowhere"), ("loop.png", "loop.png")):
        (folder / "COVID" / name).symlink_to(target)
    assert faults(folder) == [
        f"{folder}/COVID/{name}: no such file; restore it, or correct the path" for name in ("gone.png", "loop.png")
    ]


def test_names_match_with_accents_in_either_form(folder: Path) -> None:
    composed, decomposed = "gr\u00fcn", "gru\u0308n"
    (folder / "COVID").rename(folder / decomposed)
    shutil.copy(folder / decomposed / "Covid (1).png", folder / decomposed / f"{decomposed} (60).png")
    (folder / decomposed / "Covid (1).png").unlink()
    write_groups(folder, lambda lines: [unicodedata.normalize("NFC", line) for line in lines])
    manifest = scan(folder, Classes(positive=composed, negative="non-COVID"), 32).manifest
    assert manifest["label"].sum() == 12
    assert f"{decomposed}/{decomposed} (60).png" in set(manifest["path"])
    assert manifest["listed_group"].notna().all()


def test_a_link_inside_the_dataset_is_a_copy(folder: Path) -> None:
    (folder / "COVID/again.png").symlink_to(folder / "COVID/Covid (1).png")
    [warning] = scan(folder, CLASSES, 32).manifest.attrs["warnings"]
    assert "same pixels" in warning


def test_damage_that_pillow_only_warns_of_is_a_fault(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    path = folder / "COVID/Covid (1).jpg"
    Image.fromarray(texture(61)).save(path, exif=exif.tobytes()[:-8])
    [line] = faults(folder)
    assert line.startswith(f"{path}: not a readable image")


@pytest.mark.parametrize(
    ("name", "remedy"), [("data", "ctscan data"), ("sample", "dvc pull sample"), ("mine", "correct `dataset`")]
)
def test_a_missing_dataset_says_how_to_get_it(name: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no such dataset folder; .*{remedy}"):
        scan(tmp_path / name, CLASSES, 32)


def test_missing_and_empty_class_folders(folder: Path) -> None:
    for path in (folder / "COVID").iterdir():
        path.unlink()
    assert faults(folder) == [f"{folder / 'COVID'}: holds no image; run `ctscan data`"]
    (folder / "COVID").rmdir()
    [line] = faults(folder)
    assert line == f"{folder / 'COVID'}: no such class folder; create it, or correct `classes` in params.yaml"


def write_groups(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.png"))
    lines = ["path,group", *(f"{path},p{index // 3}" for index, path in enumerate(paths))]
    (folder / "groups.csv").write_text("\n".join(change(lines)) + "\n", encoding="utf-8")


def test_groups_csv_is_read(folder: Path) -> None:
    write_groups(folder, lambda lines: lines)
    manifest = scan(folder, CLASSES, 32).manifest
    listed = dict(zip(manifest["path"], manifest["listed_group"], strict=True))
    assert listed["COVID/Covid (1).png"] == listed["COVID/Covid (10).png"] == "p0"
    assert set(listed.values()) == {f"p{index}" for index in range(8)}
    assert manifest.attrs["warnings"] == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda lines: lines[1:], r"first line is not `path,group`; write that header"),
        (lambda lines: lines[:0], r"first line is not `path,group`; write that header"),
        (lambda lines: lines[:-1], r"`non-COVID/Non-Covid \(9\).png` is not listed; add a line"),
        (lambda lines: [*lines, lines[1]], r"`COVID/Covid \(1\).png` is listed twice; remove one line"),
        (lambda lines: [*lines, "COVID/absent.png,p1"], r"`COVID/absent.png` is no image of this dataset; remove"),
        (lambda lines: [*lines[:-1], lines[-1].split(",")[0] + ","], r"is not a path and a group; correct it"),
        (lambda lines: [*lines, "a,b,c"], r"the line `a,b,c` is not a path and a group; correct it"),
        (lambda lines: [*lines, '"open,p1'], r"not a readable CSV file.*; write it again"),
    ],
)
def test_faults_of_groups_csv(change: Callable[[list[str]], list[str]], what: str, folder: Path) -> None:
    write_groups(folder, change)
    [line] = faults(folder)
    assert line.startswith(f"{folder / 'groups.csv'}: ")
    assert re.search(what, line)


def test_perceptual_hash_tells_copies_from_other_images() -> None:
    def distance(one: str, other: str) -> int:
        assert len(one) == len(other) == 64
        return (int(one, 16) ^ int(other, 16)).bit_count()

    hashes = [perceptual_hash(texture(seed, 90, 120)) for seed in range(12)]
    for seed, own in enumerate(hashes):
        larger = Image.fromarray(texture(seed, 90, 120)).resize((240, 180), Image.Resampling.BICUBIC)
        assert distance(own, perceptual_hash(np.asarray(larger))) <= 4
        assert all(distance(own, other) > 40 for other in hashes[:seed])


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw_dataset(tmp_path / "sample", 30)
    (tmp_path / "params.yaml").write_bytes((REPO / "params.yaml").read_bytes())
    stage = {"stages": {"prepare-split": {"params": ["dataset", "classes", "seed", "split", "checks"]}}}
    (tmp_path / "dvc.yaml").write_text(json.dumps(stage))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def outs(folder: Path) -> dict[str, bytes]:
    """The content of each file that the stage writes, and where each link leads."""
    paths = [path for top in ("split", "metrics") for path in (folder / top).rglob("*") if not path.is_dir()]
    return {
        path.relative_to(folder).as_posix(): bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in paths
    }


def test_the_stage_writes_manifest_metrics_and_folders_of_links(workspace: Path) -> None:
    run_stage("prepare-split", prepare_split.prepare_split)
    made = outs(workspace)
    manifest = made.pop("split/manifest.csv").decode().splitlines()
    assert made.pop("split/slices.csv").decode().splitlines() == [line.split(",")[0] for line in manifest]
    report = parse_record(made.pop("metrics/split.json").decode(), "split.json")
    assert manifest[0] == "path,label,subset,group,width,height,mode"
    assert len(manifest) == 61
    assert list(report)[:5] == [
        "test_positive",
        "test_negative",
        "probe_accuracy",
        "near_duplicate_pairs_across",
        "groups_across",
    ]
    assert (report["test_positive"], report["test_negative"]) == (9, 9)
    for line in manifest[1:]:
        path, label, subset, *_ = line.split(",")
        side = "test" if subset == "test" else "train"
        image = f"split/images/{side}/{path}"
        assert made.pop(image).decode() == f"../../../../sample/{path}"
        assert (workspace / image).samefile(workspace / "sample" / path)
        assert label == ("1" if path.startswith("COVID/") else "0")
    assert made == {}

    first = outs(workspace)
    run_stage("prepare-split", prepare_split.prepare_split)
    assert outs(workspace) == first


def test_a_split_that_the_probe_contradicts_is_told_of(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Slices of one patient that look alike, numbered so that blocks tear patients apart."""
    shutil.rmtree(workspace / "sample")
    for offset, (place, name) in enumerate((("COVID", "Covid"), ("non-COVID", "Non-Covid"))):
        (workspace / "sample" / place).mkdir(parents=True)
        for number in range(60):
            pixels = (texture(1000 * offset + number % 6) * 0.4 + texture(number + 500) * 0.2).astype(np.uint8)
            Image.fromarray(pixels).save(workspace / "sample" / place / f"{name} ({number + 1}).png")
    params = (workspace / "params.yaml").read_text()
    blocked = params.replace("strategy: random", "strategy: blocked").replace("block_size: 20", "block_size: 6")
    (workspace / "params.yaml").write_text(blocked)
    run_stage("prepare-split", prepare_split.prepare_split)
    report = read_record(workspace / "metrics/split.json")
    assert (report["groups_across"], report["probe_accuracy"], report["warnings"]) == (0, 1.0, 1)
    shown = capsys.readouterr().err
    assert "WARNING: a nearest neighbour" in shown
    assert "knows 1.000 of the test images although no group is across" in shown


def test_a_stage_that_fails_leaves_its_outs_as_they_were(workspace: Path) -> None:
    run_stage("prepare-split", prepare_split.prepare_split)
    before = outs(workspace)
    bad = workspace / "sample/COVID/Covid (5).png"
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(SystemExit) as raised:
        run_stage("prepare-split", prepare_split.prepare_split)
    assert "sample/COVID/Covid (5).png: not a readable image" in str(raised.value.code)
    assert outs(workspace) == before
