"""`ctscan predict` on a run of evaluate: what it says, and what it makes of bad input."""

import csv
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import evaluate
from ctscan.__main__ import main
from ctscan.core.files import read_record
from ctscan.core.params import load_params
from ctscan.model.saving import save_model
from ctscan.split.folders import refresh

import keras
import numpy as np
import pytest
import yaml
from dicom_files import write_dicom
from drawing import texture
from networks import tiny_network
from PIL import Image
from repository import REPO

SIZE, IMAGES = 32, 24  # images of each class
TEST = Path("split/images/test")


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_lock() -> None:
    """What DVC would record of the last run of evaluate."""
    files = ("models/finetuned.keras", "metrics/details.json", "models/novelty.npz", "predictions.csv")
    entries = [{"path": name, "md5": md5(Path(name))} for name in files]
    classes = {"classes": {"positive": "COVID", "negative": "non-COVID"}}
    stage = {"deps": entries[:1], "outs": entries[1:], "params": {"params.yaml": classes}}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))


def small_models() -> None:
    """A network of the fine-tuned one's form whose scores lie on both sides of .5, and a head."""
    model = tiny_network(seed=5, channels=16, size=SIZE)
    head = model.get_layer("head")
    pooled = keras.Model(model.input, model.get_layer("pooling").output)
    hidden, last = keras.Model(head.inputs, head.layers[-1].input), head.layers[-1]
    seen = np.stack([np.asarray(Image.open(path).resize((SIZE, SIZE))) for path in sorted(TEST.rglob("*.png"))])
    values = hidden.predict_on_batch(pooled.predict_on_batch(seen[..., None]))
    ill = np.array([path.parent.name == "COVID" for path in sorted(TEST.rglob("*.png"))])
    kernel = (values[ill].mean(axis=0) - values[~ill].mean(axis=0))[:, None]
    kernel *= 2 / (values @ kernel).std()
    last.set_weights([kernel, -np.median(values @ kernel, axis=0)])
    Path("models").mkdir()
    save_model(model, Path("models/finetuned.keras"))
    initial = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    save_model(initial, Path("models/initial.keras"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder after evaluate has run on a small network and textures."""
    folder = tmp_path_factory.mktemp("run")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    shutil.copy(REPO / "dvc.yaml", folder)
    params = yaml.safe_load((REPO / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump({**params, "evaluate": {**params["evaluate"], "bootstrap": 200}}))
    lines = ["path,label,subset,group,width,height,mode"]
    for label, place in enumerate(("non-COVID", "COVID")):
        for number in range(IMAGES):
            subset = ("train", "val", "test")[number % 3]
            file = Path("sample", place, f"slice {number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(texture(1000 * label + number)).save(file)
            lines.append(f"{place}/{file.name},{label},{subset},{place}{number // 6},44,40,L")
    for name, text in (
        ("split/manifest.csv", "\n".join(lines) + "\n"),
        ("metrics/split.json", '{"dataset": "sample"}'),
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    refresh()
    np.save("features.npy", np.random.default_rng(1).standard_normal((2 * IMAGES, 4)).astype("float32"))
    small_models()
    # A switch of the whole process, which later tests would inherit.
    patch.setattr(evaluate, "make_deterministic", lambda: None)
    patch.setattr("ctscan.core.seeds.make_deterministic", lambda: None)
    evaluate.evaluate(load_params("evaluate"))
    write_lock()
    yield folder
    patch.undo()


@pytest.fixture
def copy(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, to be changed by one test."""
    shutil.copytree(run, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def predict(*arguments: str | Path) -> dict[str, Any]:
    """The JSON of a run that is told to write it, with the exit status in it."""
    output = Path("predictions.json")
    status = main(["predict", *map(str, arguments), "--output", str(output)])
    return {"status": status, **json.loads(output.read_text())}


def by_stem(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"/".join(Path(row["path"]).with_suffix("").parts[-2:]): row for row in result["predictions"]}


def test_metrics_on_the_test_images_are_those_of_evaluate(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = read_record(Path("metrics/details.json"))["finetuned"]
    assert 0 < expected["test"]["accuracy"] < 1
    listed = ["path,group"]
    for line in Path("split/manifest.csv").read_text().splitlines()[1:]:
        path, _, subset, group = line.split(",")[:4]
        listed += [f"{path},{group}"] * (subset == "test")
    (TEST / "groups.csv").write_text("\n".join(listed) + "\n")

    result = predict(TEST)
    assert result["status"] == 0
    (judged,) = result["metrics"]
    assert judged["test"] == expected["test"]
    assert judged["intervals"] == expected["intervals"]
    assert result["temperature"] == expected["calibration"]["temperature"]
    assert f"{expected['test']['roc_auc']:.3f}" in capsys.readouterr().out

    (TEST / "groups.csv").unlink()
    (alone,) = predict(TEST)["metrics"]
    assert alone["test"] == expected["test"]
    assert (alone["intervals"]["resampled"], alone["intervals"]["units"]) == ("image", 2 * IMAGES // 3)


@pytest.mark.parametrize("point", ["study", "youden", "specificity_90", "specificity_95"])
def test_the_call_is_on_the_scores_that_thresholds_were_chosen_on(copy: Path, point: str) -> None:
    report = read_record(Path("metrics/details.json"))["finetuned"]
    threshold = {"study": {"threshold": report["threshold"]}, **report["operating_points"]}[point]["threshold"]
    result = predict(TEST, "--point", point)
    assert result["threshold"] == threshold
    assert (point != "study") or len({row["label"] for row in result["predictions"]}) == 2
    for row in result["predictions"]:
        assert row["label"] == ("COVID" if row["score"] >= threshold else "non-COVID")
        odds = np.log(row["score"] / (1 - row["score"])) / result["temperature"]
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-6)


def test_format_order_and_batch_change_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_stem(predict(TEST))
    for path in sorted(TEST.rglob("*.png")):
        target = Path("tiff", path.parent.name, f"{path.stem}.tiff")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(target, compression="tiff_lzw")
    reverse = sorted(Path("tiff").rglob("*.tiff"), reverse=True)
    monkeypatch.setattr("ctscan.inference.predictor.predict.__defaults__", (3, False))
    # So many files that the network is traced, as it was not before.
    monkeypatch.setattr("ctscan.core.seeds.INFERENCE_BATCH", 3)
    got = by_stem(predict(*reverse))
    assert list(got) == sorted(got, reverse=True)
    assert got.keys() == expected.keys()
    for name, row in got.items():
        assert row["probability"] == pytest.approx(expected[name]["probability"], abs=1e-5)
        assert row["novelty"] == pytest.approx(expected[name]["novelty"], abs=1e-5)
        assert row["label"] == expected[name]["label"]


def test_merged_shards_are_what_one_run_gives(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctscan.inference.predictor.predict.__defaults__", (3, False))
    monkeypatch.setattr("ctscan.core.seeds.INFERENCE_BATCH", 3)
    list_groups()
    given = ("scans", TEST)
    Path("scans").mkdir()
    write_dicom(Path("scans/frames.dcm"), np.stack([texture(seed).astype(np.int16) * 8 for seed in (1, 2)]))
    Path("scans/cut.png").write_bytes(b"")
    for number in (1, 2, 3):
        status = main(["predict", *map(str, given), "--shard", f"{number}/3", "--output", f"part-{number}.jsonl"])
        assert status == (number == 1)  # whose file is cut
    asked = ("--patients", "--estimate-prevalence", "--prevalence", "0.1")
    parts = ("part-3.jsonl", "part-1.jsonl", "part-2.jsonl")
    for form in ("csv", "json"):
        for name, more in (("whole", ()), ("merged", ("--merge", *parts))):
            assert main(["predict", *map(str, given), *asked, *more, "--output", f"{name}.{form}"]) == 1
        assert Path(f"merged.{form}").read_bytes() == Path(f"whole.{form}").read_bytes()
    assert len(json.loads(Path("merged.json").read_text())["predictions"]) == 2 + 2 * IMAGES // 3


def test_parts_that_do_not_make_a_whole_are_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = str(labelled(Path("given"), 4))
    for number in (1, 2):
        assert main(["predict", given, "--shard", f"{number}/2", "--output", f"{number}.jsonl"]) == 0
    assert main(["predict", given, "--shard", "1/3", "--output", "of-3.jsonl"]) == 0
    lines = Path("2.jsonl").read_text().splitlines(keepends=True)
    Path("cut.jsonl").write_text("".join(lines[:-1]))
    Path("lost.jsonl").write_text("".join(lines[:2] + lines[3:]))
    Path("list.jsonl").write_text("[1]\n")
    Path("other model.jsonl").write_text("".join(lines).replace(md5(Path("models/finetuned.keras")), "0" * 32))
    Path("merged.csv").write_text("earlier")
    merge = ["predict", given, "--output", "merged.csv", "--merge", "1.jsonl"]
    for others, message in (
        ([], "no part of shard 2/2; predict it, or name its file"),
        (["2.jsonl", "1.jsonl"], "1.jsonl and 1.jsonl are both shard 1/2"),
        (["of-3.jsonl"], "the parts are of 2 and of 3 shards"),
        (["absent.jsonl"], "absent.jsonl: no such file"),
        (["cut.jsonl"], "cut.jsonl: damaged, lines are missing"),
        (["lost.jsonl"], "lost.jsonl: damaged, lines are missing"),
        (["list.jsonl"], "list.jsonl: damaged, or no part"),
        (["other model.jsonl"], f"predicted with model_md5 = {'0' * 32}, and here it is"),
        (["2.jsonl", "--point", "youden"], "1.jsonl: predicted with point = study, and here it is youden"),
    ):
        assert main([*merge, *others]) == 1
        assert message in capsys.readouterr().err
    Path("given/COVID/1.png").unlink()
    assert main([*merge, "2.jsonl"]) == 1
    assert "1.jsonl: predicted with files = 8, and here it is 7" in capsys.readouterr().err
    assert Path("merged.csv").read_text() == "earlier"
    for more, message in (
        (["--shard", "3/2", "--output", "x"], "--shard 3/2: it needs I/N"),
        (["--shard", "1/2"], "--shard needs --output"),
        (["--shard", "1/2", "--output", "x", "--patients"], "--patients does not go with --shard"),
    ):
        assert main(["predict", given, *more]) == 1
        assert message in capsys.readouterr().err


def test_a_full_disk_leaves_the_earlier_part(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fill(stream: TextIO, *rest: Any) -> None:
        stream.write("half a line")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Path("part.jsonl").write_text("earlier")
    monkeypatch.setattr("ctscan.inference.predict.write_part", fill)
    assert main(["predict", str(TEST), "--shard", "1/2", "--output", "part.jsonl"]) == 1
    assert "part.jsonl: No space left on device" in capsys.readouterr().err
    assert Path("part.jsonl").read_text() == "earlier"
    assert not Path("part.jsonl.part").exists()


def test_bad_files_are_a_line_each_and_the_others_are_predicted(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = next(TEST.rglob("*.png"))
    bad = Path("bad")
    (bad / "empty folder").mkdir(parents=True)
    (bad / "text.png").write_text("no image")
    (bad / "cut.png").write_bytes(good.read_bytes()[:-300])
    (bad / "zero.png").write_bytes(b"")
    Image.new("L", (1, 1)).save(bad / "tiny.png")
    Image.new("L", (40, 40), 9).save(bad / "constant.png")
    Image.new("1", (20000, 20000)).save(bad / "huge.png")
    write_dicom(bad / "mr.dcm", Modality="MR")
    write_dicom(bad / "bare.dcm", PixelData=None)
    shutil.copy(good, bad / "good.png")
    os.mkfifo(bad / "pipe.png")

    result = predict(bad, bad / "empty folder", "absent.png", "*.nothing")
    assert result["status"] == 1
    assert [row["path"] for row in result["predictions"]] == ["bad/good.png"]
    lines = capsys.readouterr().err.splitlines()
    for name, reason in {
        "bad/text.png": "not a readable image",
        "bad/cut.png": "not a readable image",
        "bad/zero.png": "empty (0 bytes)",
        "bad/tiny.png": "1x1 pixels, below checks.min_size = 32",
        "bad/constant.png": "constant, every pixel is 9",
        "bad/huge.png": "absurdly large",
        "bad/mr.dcm": "DICOM of modality MR",
        "bad/bare.dcm": "DICOM without pixels",
        "bad/pipe.png": "not a regular file",
        "bad/empty folder": "no image in this folder",
        "absent.png": "no such file or folder",
        "*.nothing": "no such file or folder",
    }.items():
        (line,) = [line for line in lines if line.startswith(f"{name}: ")]
        assert reason in line
        assert line in result["left_out"]
    assert len(result["left_out"]) == 12


def labelled(folder: Path, count: int, names: tuple[str, str] = ("COVID", "non-COVID")) -> Path:
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(texture(1000 * label + number)).save(folder / name / f"{number}.png")
    return folder


def test_figures_say_which_files_they_are_without(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (whole,) = predict(labelled(Path("whole"), 6))["metrics"]
    assert (whole["slices"], whole["left_out"]) == (12, "")
    assert "whole: 12 slices, threshold" in capsys.readouterr().out

    folder = labelled(Path("mixed"), 6)
    (folder / "COVID/0.png").write_text("no image")
    (folder / "COVID/raw").write_bytes(b"values of an unknown kind")
    (folder / "non-COVID/volume").write_bytes(b"NRRD0004")
    (folder / "COVID/.hidden").touch()
    frames = np.stack([texture(seed, 40, 44).astype(np.int16) * 4 for seed in (1, 2, 3)])
    frames[1] = 0
    write_dicom(folder / "COVID/1.2.3.3", frames)
    result = predict(folder)
    assert result["status"] == 1
    (judged,) = result["metrics"]
    assert judged["slices"] == 13
    assert judged["left_out"] == "WITHOUT 3 of 15 files and some slices of 1 more, which could not be read"
    printed = capsys.readouterr()
    assert "mixed: 13 slices, WITHOUT 3 of 15 files and some slices of 1 more" in printed.out
    passed = "2 files passed over, as no slices: 1 hidden, 1 of unknown content (mixed/COVID/.hidden, mixed/COVID/raw)"
    assert passed in printed.err
    assert result["passed_over"] == [passed]


def test_class_folders_in_another_case_are_judged(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (expected,) = predict(labelled(Path("exact"), 6))["metrics"]
    (judged,) = predict(labelled(Path("lower"), 6, ("covid", "Non-Covid")))["metrics"]
    assert judged["test"] == expected["test"]
    shutil.rmtree("lower/covid")
    capsys.readouterr()
    assert predict("lower")["metrics"] == []
    assert "lower: not judged, it holds Non-Covid alone of the classes COVID and non-COVID" in capsys.readouterr().err


def test_an_output_in_the_home_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(copy))
    assert main(["predict", str(TEST), "--output=~/out.csv"]) == 0
    assert (copy / "out.csv").is_file()


def test_notices(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save("colour.png")
    grey = texture(2, 40, 44)
    Image.fromarray(np.dstack([grey] * 3)).save("grey in RGB.png")
    rows = by_stem(predict("colour.png", "grey in RGB.png"))
    assert rows["colour"]["colour"]
    assert rows["colour"]["unlike_training"]
    assert rows["colour"]["novelty"] > 1
    assert not rows["grey in RGB"]["colour"]
    capsys.readouterr()
    assert main(["predict", "colour.png"]) == 0
    assert "[unlike the training images; in colour, read as grey]" in capsys.readouterr().out


def test_csv_and_a_table_say_the_same(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = predict(TEST)["predictions"]
    capsys.readouterr()
    assert main(["predict", str(TEST), "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["path"] for row in rows] == [row["path"] for row in expected]
    assert [float(row["probability"]) for row in rows] == [row["probability"] for row in expected]
    assert main(["predict", str(TEST)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not for diagnosis" in lines[0]
    for row in expected:
        (line,) = [line for line in lines if row["path"] in line]
        assert line.split()[:2] == [f"{row['probability']:.3f}", row["label"]]


def test_frames_of_a_multi_frame_file_are_slices(copy: Path) -> None:
    frames = np.stack([texture(seed, 40, 44).astype(np.int16) * 4 for seed in (1, 2)])
    write_dicom(Path("two.dcm"), frames)
    assert [row["path"] for row in predict("two.dcm")["predictions"]] == ["two.dcm#1", "two.dcm#2"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("models/finetuned.keras", "remove", "is missing; get it with `dvc checkout models/finetuned.keras`"),
        ("models/novelty.npz", "remove", "is missing"),
        ("metrics/details.json", "remove", "is missing"),
        ("dvc.lock", "remove", "records no run of evaluate"),
        ("models/finetuned.keras", "append", "is not the model that evaluate saw"),
        ("models/novelty.npz", "append", "is not what evaluate wrote"),
        ("metrics/details.json", "append", "is not what evaluate wrote"),
    ],
)
def test_a_model_that_evaluate_did_not_see_is_refused(
    copy: Path, capsys: pytest.CaptureFixture[str], name: str, change: str, message: str
) -> None:
    path = Path(name)
    if change == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes() + b"\n")
    Path("out.csv").write_text("earlier")
    assert main(["predict", str(TEST), "--output", "out.csv"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("predict: ")
    assert message in error
    assert Path("out.csv").read_text() == "earlier"


def test_other_mistakes_are_a_line(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(TEST), "--point", "best"]) == 1
    assert "it needs one of study, youden, specificity_90, specificity_95" in capsys.readouterr().err
    assert main(["predict", str(TEST), "--output", "nowhere/out.csv"]) == 1
    assert "nowhere/out.csv: no such folder" in capsys.readouterr().err
    (TEST / "groups.csv").write_text("path,group\nCOVID/absent.png,a\n")
    assert main(["predict", str(TEST)]) == 1
    assert "`COVID/absent.png` is no image" in capsys.readouterr().err
    (TEST / "groups.csv").unlink()
    shutil.copytree(TEST / "non-COVID", "incoming/non-COVID")
    Path("incoming/COVID").mkdir()
    assert main(["predict", "incoming"]) == 1
    printed = capsys.readouterr()
    assert "none of its 8 images is of the positive class" in printed.err
    assert printed.out.count(".png") == 8


def list_groups() -> dict[str, str]:
    """Write groups.csv for the test images: path and group."""
    rows = [line.split(",") for line in Path("split/manifest.csv").read_text().splitlines()[1:]]
    listed = {row[0]: row[3] for row in rows if row[2] == "test"}
    (TEST / "groups.csv").write_text("path,group\n" + "".join(f"{path},{group}\n" for path, group in listed.items()))
    return listed


def test_probabilities_are_shifted_to_the_prevalence_that_is_given(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, rare = by_stem(predict(TEST)), by_stem(predict(TEST, "--prevalence", "0.05"))
    assert rare.keys() == plain.keys()
    for name, row in rare.items():
        odds = plain[name]["probability"] / (1 - plain[name]["probability"]) / 19  # from 1 : 1 to 1 : 19
        assert row["probability"] == pytest.approx(odds / (1 + odds))
        assert (row["label"], row["score"]) == (plain[name]["label"], plain[name]["score"])
    main(["predict", str(TEST), "--prevalence", "0.05"])
    assert "shifted from a share of COVID of 0.50 to 0.05; COVID from 0.0" in capsys.readouterr().out
    assert main(["predict", str(TEST), "--prevalence", "5"]) == 1
    assert "--prevalence 5: it needs a number > 0 and < 1" in capsys.readouterr().err


def test_the_prevalence_is_estimated_over_patients_where_all_are_known(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = predict(TEST, "--estimate-prevalence")["estimated_prevalence"]
    assert (estimate["resampled"], estimate["units"]) == ("image", 2 * IMAGES // 3)
    assert 0 <= estimate["low"] <= estimate["prevalence"] <= estimate["high"] <= 1
    assert f"Estimated share of COVID among 16 slices: {estimate['prevalence']:.3f}" in capsys.readouterr().out
    groups = list_groups()
    known = predict(TEST, "--estimate-prevalence")["estimated_prevalence"]
    assert (known["resampled"], known["units"]) == ("group", len(set(groups.values())))
    assert known["prevalence"] == estimate["prevalence"]


def test_a_patient_is_a_row_by_the_rule_that_the_run_chose(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = list_groups()
    rule = read_record(Path("metrics/details.json"))["finetuned"]["patients"]["rule"]
    result = predict(TEST, "--patients")
    scores: dict[str, list[float]] = {}
    for row in result["predictions"]:
        scores.setdefault(groups["/".join(Path(row["path"]).parts[-2:])], []).append(row["score"])
    assert {row["patient"] for row in result["patients"]} == scores.keys()
    for row in result["patients"]:
        assert row["slices"] == len(scores[row["patient"]])
        assert row["mean"] == pytest.approx(np.mean(scores[row["patient"]]))
        assert row["label"] == ("COVID" if row[rule] >= result["threshold"] else "non-COVID")
    assert f"class by the rule '{rule}', chosen on validation" in capsys.readouterr().out


def test_patients_of_dicom_files_are_known_by_their_tags(copy: Path) -> None:
    folder = Path("scans")
    folder.mkdir()
    for number, tags in enumerate(
        ({"PatientID": "A"}, {"PatientID": "A"}, {"PatientID": "", "SeriesInstanceUID": "1.2.3"}, {})
    ):
        write_dicom(folder / f"{number}.dcm", texture(number).astype(np.int16) * 8, **tags)
    rows = predict(folder, "--patients")["patients"]
    assert [(row["patient"], row["slices"]) for row in rows] == [("1.2.3", 1), ("A", 2)]


def test_another_set_is_reported_beside_the_internal_test(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    details = read_record(Path("metrics/details.json"))["finetuned"]
    groups = list_groups()
    shutil.copytree(TEST, "hospital")
    (Path("hospital/COVID") / "cut.png").write_bytes(b"")
    (Path("hospital/COVID") / "gone.png").symlink_to("nowhere")
    (Path("hospital/COVID") / "more.zip").write_bytes(b"PK\x03\x04")
    with Path("hospital/groups.csv").open("a") as file:
        file.write("COVID/cut.png,COVID0\nCOVID/gone.png,COVID0\n")
    assert main(["external", "hospital", "--name", "other"]) == 1
    report = json.loads(Path("metrics/external/other.json").read_text())
    for place in ("external", "internal"):  # the same images, so the same figures
        found = report[place]
        assert found["metrics"]["roc_auc"]["value"] == pytest.approx(details["test"]["roc_auc"])
        assert found["metrics"]["accuracy"]["value"] == pytest.approx(details["test"]["accuracy"])
        assert found["metrics"]["sensitivity"]["value"] == pytest.approx(details["test"]["recall"])
        assert found["calibration"]["before"]["brier"] == pytest.approx(details["calibration"]["after"]["brier"])
        assert found["novelty"]["marked"]["slices"] + found["novelty"]["unmarked"]["slices"] == len(groups)
        assert found["patients"]["test"] == pytest.approx(details["patients"]["test"])
    assert report["data"]["files"] == len(groups) + 2
    cut, gone, passed = report["data"]["left_out"]
    assert cut.startswith("hospital/COVID/cut.png: empty (0 bytes)")
    assert gone.startswith("hospital/COVID/gone.png: no such file")
    assert passed == "hospital/COVID/more.zip: zip archive, passed over"
    assert report["run"]["model_md5"] == md5(Path("models/finetuned.keras"))
    text = Path("metrics/external/other.md").read_text()
    assert text in capsys.readouterr().out
    assert f"| ROC AUC | {details['test']['roc_auc']:.3f} (" in text
    pictures = {path.name for path in Path("plots/external_other").iterdir()}
    assert pictures == {"roc.png", "reliability.png", "scores.png", "net_benefit.png"}


def test_a_set_that_can_not_be_judged_is_refused(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["split/images", "--name", "x"], "no folders COVID and non-COVID with images"),
        ([str(TEST), "--name", "../x"], "--name ../x: it needs letters"),
    ):
        assert main(["external", *arguments]) == 1
        assert message in capsys.readouterr().err
    Path("predictions.csv").write_text("path,label,subset,group\n")
    assert main(["external", str(TEST), "--name", "x"]) == 1
    assert "predictions.csv is not what evaluate wrote" in capsys.readouterr().err
