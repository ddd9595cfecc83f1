import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import prepare_split
from ctscan.core.errors import UserError
from ctscan.core.params import Classes
from ctscan.core.stage import run_stage
from ctscan.split.check import natural_key, perceptual_hash, scan

import numpy as np
import pytest
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
    manifest = scan(folder, CLASSES, 32)
    assert list(manifest["path"][:3]) == ["COVID/Covid (1).png", "COVID/Covid (2).png", "COVID/Covid (3).png"]
    assert manifest["path"].iloc[11] == "COVID/Covid (12).png"
    assert list(manifest["label"]) == [1] * 12 + [0] * 12
    assert list(manifest[["width", "height", "mode"]].iloc[2]) == [60, 50, "RGBA"]
    assert manifest["pixel_hash"].is_unique
    assert manifest["listed_group"].isna().all()
    assert manifest.attrs["warnings"] == []


def test_swapped_classes_swap_the_labels(folder: Path) -> None:
    manifest = scan(folder, Classes(positive="non-COVID", negative="COVID"), 32)
    assert list(manifest["label"]) == [0] * 12 + [1] * 12


def test_names_of_every_kind(folder: Path) -> None:
    names = ["scan 01 [left] (ä).png", "肺 7.PNG", "'quoted', \"twice\".png", "a#b%20c.png", "-rf.png"]
    for seed, name in enumerate(names):
        Image.fromarray(texture(300 + seed)).save(folder / "COVID" / name, "PNG")
    assert {f"COVID/{name}" for name in names} <= set(scan(folder, CLASSES, 32)["path"])


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
    manifest = scan(folder, CLASSES, 32)
    assert len(manifest) == 26
    assert len(manifest.attrs["warnings"]) == 6
    shown = capsys.readouterr().err
    assert f"{folder}: 6 warnings" in shown
    for name in ("jpeg.png", "copy.png", "Thumbs.db", ".hidden.png", ".git", "README.txt"):
        assert name in shown


def test_a_link_inside_the_dataset_is_a_copy(folder: Path) -> None:
    (folder / "COVID/again.png").symlink_to(folder / "COVID/Covid (1).png")
    [warning] = scan(folder, CLASSES, 32).attrs["warnings"]
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
    manifest = scan(folder, CLASSES, 32)
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
    paths = [path for top in ("split", "metrics") for path in (folder / top).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_stage_copies_bytes_and_writes_manifest_and_metrics(workspace: Path) -> None:
    run_stage("prepare-split", prepare_split.prepare_split)
    made = outs(workspace)
    manifest = made.pop("split/manifest.csv").decode().splitlines()
    report = json.loads(made.pop("metrics/split.json"))
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
        assert made.pop(f"split/images/{side}/{path}") == (workspace / "sample" / path).read_bytes()
        assert label == ("1" if path.startswith("COVID/") else "0")
    assert made == {}

    first = outs(workspace)
    run_stage("prepare-split", prepare_split.prepare_split)
    assert outs(workspace) == first


def test_a_stage_that_fails_leaves_its_outs_as_they_were(workspace: Path) -> None:
    run_stage("prepare-split", prepare_split.prepare_split)
    before = outs(workspace)
    bad = workspace / "sample/COVID/Covid (5).png"
    bad.write_bytes(bad.read_bytes()[:100])
    with pytest.raises(SystemExit) as raised:
        run_stage("prepare-split", prepare_split.prepare_split)
    assert "sample/COVID/Covid (5).png: not a readable image" in str(raised.value.code)
    assert outs(workspace) == before
