"""`ctscan explain`, as its users call it."""

import json
from pathlib import Path

from ctscan.__main__ import main
from ctscan.model.saving import save_model
from ctscan.phantoms import SAMPLE_SEED, draw_slice

import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_files import write_dicom
from drawing import draw_dataset, texture
from networks import tiny_network
from PIL import Image


@pytest.fixture
def slices(workspace: Path) -> Path:
    """A workspace with a model and its split, and its folder of two slices and a file that is none."""
    (workspace / "models").mkdir()
    save_model(tiny_network(), workspace / "models" / "finetuned.keras")
    for name in ("a", "b"):
        (workspace / "slices" / name).mkdir(parents=True)
        Image.fromarray(texture(len(name))).save(workspace / "slices" / name / "one.png")
    (workspace / "slices" / "note.png").write_text("no image")
    draw_dataset(workspace / "sample", images=4)
    (workspace / "split").mkdir()
    paths = sorted(path.relative_to("sample").as_posix() for path in Path("sample").glob("*/*.png"))
    subsets = ["train", "train", "val", "test"] * 2
    columns = {"path": paths, "label": [1] * 4 + [0] * 4, "subset": subsets, "group": paths}
    pd.DataFrame(columns | {"width": 44, "height": 40, "mode": "L"}).to_csv("split/manifest.csv", index=False)
    return workspace / "slices"


def test_a_bad_file_is_named_and_the_others_drawn(slices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(slices / name) for name in ("a/one.png", "note.png", "b/one.png")]
    assert main(["explain", *paths, "--output", "maps/here"]) == 1
    output = capsys.readouterr()
    assert f"explain: {slices / 'note.png'}: not a readable image" in output.err
    assert "2 slices drawn in maps/here" in output.out
    assert "1 left out" in output.out
    assert "last, for the logit of the predicted class, against the mean of 4 training slices" in output.out
    drawn = {path.name: path.read_bytes() for path in Path("maps/here").iterdir()}
    assert set(drawn) == {"a_one.png", "b_one.png"}
    assert main(["explain", *paths[::2], "--output", "again"]) == 0
    assert drawn == {path.name: path.read_bytes() for path in Path("again").iterdir()}
    assert main(["explain", paths[0], "--layer", "wide", "--output", "wide"]) == 0
    assert (Path("wide") / "a_one.png").read_bytes() != drawn["a_one.png"]
    assert main(["explain", str(slices), "--output", "folder"]) == 1
    assert drawn == {path.name: path.read_bytes() for path in Path("folder").iterdir()}


def test_one_bad_file_or_frame_is_named_and_the_others_drawn(slices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without transfer syntax once ended all with a traceback, and a blank frame lost the frames beside it."""
    write_dicom(slices / "bare")
    dataset = pydicom.dcmread(slices / "bare")
    del dataset.file_meta.TransferSyntaxUID
    dataset.save_as(slices / "bare", implicit_vr=False, little_endian=True)
    frames = np.stack([texture(seed).astype(np.int16) * 4 for seed in (1, 2, 3)])
    frames[1] = 0
    write_dicom(slices / "1.2.840.3", frames)
    (slices / "note.png").unlink()
    (slices / "note.txt").write_text("no image")
    assert main(["explain", str(slices), "--output", "maps"]) == 1
    output = capsys.readouterr()
    assert f"explain: {slices / 'bare'}: DICOM without transfer syntax" in output.err
    assert f"explain: {slices / '1.2.840.3'}#2: constant, every pixel is -1024" in output.err
    assert "explain: 1 file passed over, as no slices: 1 of unknown content" in output.err
    assert "4 slices drawn in maps" in output.out
    assert "2 left out" in output.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "it needs image files, or --phantoms N"),
        (["a.png", "--phantoms", "3"], "it needs image files, or --phantoms N"),
        (["--phantoms", "0"], "--phantoms 0; it needs 1 to 120"),
        (["a.png", "--layer", "conv9"], "'conv9' is not a layer of this backbone"),
        (["a.png", "--output", "params.yaml/maps"], "--output params.yaml/maps: a file is in the way"),
        (["a.png", "--model", "absent.keras"], "absent.keras is missing"),
    ],
)
def test_what_it_can_not_do_is_a_line(
    slices: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["explain", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"explain: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("missing", ["split/manifest.csv", "sample/COVID/Covid (1).png"])
def test_without_the_training_images_it_stops_with_a_line(
    slices: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    Path(missing).unlink()
    assert main(["explain", str(slices / "a")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"explain: {missing}")
    assert error.count("\n") == 1
    assert not Path("explanations").exists()


@pytest.mark.usefixtures("slices")
def test_phantoms_tell_the_share_of_the_maps_in_the_lungs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--phantoms", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    drawn = [draw_slice(patient, 1, positive, SAMPLE_SEED + 1)[1] for patient in (1, 2) for positive in (True, False)]
    assert report["slices"] == 4
    assert report["lungs_share_of_area"] == pytest.approx(sum(lungs.mean() for lungs in drawn) / 4, rel=0.01)
    assert set(report["share_of_map_in_lungs"]) == {"trained", "head", "all"}
    for share in report["share_of_map_in_lungs"].values():
        assert share["blank"] == 4 or 0 <= share["mean"] <= 1
