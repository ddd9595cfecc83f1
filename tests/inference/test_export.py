"""`ctscan export`: what is written is the model, everywhere, and nothing is left of what is not."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from ctscan.__main__ import main
from ctscan.images.decode import load_slice
from ctscan.inference import export
from ctscan.inference.export import _reading
from ctscan.model.saving import load_model, save_model

import keras
import numpy as np
import pytest
import yaml
from dicom_files import write_dicom
from drawing import draw_dataset, texture
from networks import SIZE, tiny_network
from PIL import Image

pytestmark = pytest.mark.slow

MODEL = Path("models/finetuned.keras")
REPORT = {
    "finetuned": {
        "threshold": 0.5,
        "operating_points": {"youden": {"threshold": 0.25}},
        "calibration": {"temperature": 1.5, "prior": 0.5},
        "patients": {"rule": "mean"},
    }
}


@pytest.fixture
def evaluated(workspace: Path) -> Path:
    """A workspace as evaluate leaves it, as far as export reads it."""
    dataset = draw_dataset(workspace / "sample", images=2)
    for folder in ("models", "metrics", "split"):
        (workspace / folder).mkdir()
    paths = [path.relative_to(dataset).as_posix() for path in sorted(dataset.glob("*/*"))]
    (workspace / "split" / "manifest.csv").write_text("\n".join(["path,subset", *(f"{path},test" for path in paths)]))
    (workspace / "metrics" / "split.json").write_text('{"dataset": "sample"}')
    (workspace / "metrics" / "details.json").write_text(json.dumps(REPORT))
    _record(tiny_network())
    return workspace


def _record(model: keras.Model) -> None:
    save_model(model, MODEL)
    details = Path("metrics/details.json")
    model_entry, details_entry = (
        {"path": str(path), "md5": hashlib.md5(path.read_bytes()).hexdigest()} for path in (MODEL, details)
    )
    classes = {"positive": "COVID", "negative": "non-COVID"}
    stage = {"deps": [model_entry], "outs": [details_entry], "params": {"params.yaml": {"classes": classes}}}
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": {"evaluate": stage}}))


def _files() -> set[str]:
    return {str(path) for path in Path("models").rglob("*")}


def test_an_image_that_pillow_reads_otherwise_is_no_example(tmp_path: Path) -> None:
    """`convert("L")` cuts 16 bits at 255, and DICOM it does not read at all."""
    greys = texture(1)
    Image.fromarray(greys.astype(np.uint16) * 257).save(tmp_path / "a.png")
    Image.fromarray(greys).save(tmp_path / "b.png")
    write_dicom(tmp_path / "c.dcm", greys.astype(np.int16) * 6)
    example = _reading([tmp_path / name for name in ("c.dcm", "a.png", "b.png")], SIZE)
    assert f"Image.open('{tmp_path}/b.png')" in example
    example = _reading([tmp_path / name for name in ("c.dcm", "a.png")], SIZE)
    read: dict[str, np.ndarray] = {}
    exec(example, read)
    np.testing.assert_array_equal(read["slices"], load_slice(tmp_path / "c.dcm", SIZE))


@pytest.mark.usefixtures("evaluated")
@pytest.mark.parametrize("form", ["onnx", "savedmodel", "tflite"])
def test_the_printed_example_gives_what_keras_gives(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--format", form]) == 0
    said, example = capsys.readouterr().out.split("\n\n", 1)
    assert "differs from Keras by at most" in said
    assert len(example.strip().splitlines()) == 5
    image = Path("split/images/test/COVID/Covid (1).png")
    expected = load_model(MODEL).predict_on_batch(load_slice(image, SIZE)[None, ..., None])
    # With None in its place TensorFlow can't be imported.
    alone = "import sys; sys.modules['tensorflow'] = None\n" if form == "onnx" else ""
    ran = subprocess.run([sys.executable, "-c", alone + example], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout.strip().strip("[]")) == pytest.approx(expected.item(), abs=1e-5)

    facts = json.loads(Path(f"models/finetuned.{form}.json").read_text())
    assert facts["image_size"] == SIZE
    assert facts["classes"]["positive"] == "COVID"
    assert facts["thresholds"] == {"study": 0.5, "youden": 0.25}
    assert facts["temperature"] == 1.5
    assert facts["keras_sha256"] == hashlib.sha256(MODEL.read_bytes()).hexdigest()
    if form != "savedmodel":
        content = Path(f"models/finetuned.{form}").read_bytes()
        assert facts["sha256"] == hashlib.sha256(content).hexdigest()
    assert main(["export", "--format", form]) == 0, "what is there gives way"


@pytest.mark.usefixtures("evaluated", "float32_policy")
def test_a_mixed_precision_model_is_written_in_float32() -> None:
    weights = tiny_network().get_weights()
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = tiny_network()
    keras.config.set_dtype_policy("float32")
    model.set_weights(weights)
    _record(model)
    assert main(["export", "--format", "onnx"]) == 0
    slices = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 1), dtype=np.uint8)
    exported = export.FORMATS["onnx"].load(Path("models/finetuned.onnx"))(slices)
    np.testing.assert_allclose(exported, tiny_network().predict_on_batch(slices), atol=1e-5)


@pytest.mark.usefixtures("evaluated")
@pytest.mark.parametrize("wrong", [1.001, np.nan])
def test_a_wrong_export_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: float
) -> None:
    whole = export.FORMATS["savedmodel"]
    Path("models/finetuned.savedmodel").mkdir()
    (Path("models/finetuned.savedmodel") / "saved_model.pb").write_bytes(b"earlier")
    before = _files()
    broken = whole._replace(load=lambda path: lambda slices: wrong * whole.load(path)(slices))
    monkeypatch.setitem(export.FORMATS, "savedmodel", broken)
    assert main(["export", "--format", "savedmodel"]) == 1
    assert "probabilities differ from Keras'" in capsys.readouterr().err
    assert _files() == before
    assert (Path("models/finetuned.savedmodel") / "saved_model.pb").read_bytes() == b"earlier"


@pytest.mark.usefixtures("evaluated")
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("params.yaml/model.onnx", "params.yaml is no folder"),
        ("models", "a folder is in the way"),
    ],
)
def test_a_bad_output_is_a_line(capsys: pytest.CaptureFixture[str], output: str, message: str) -> None:
    assert main(["export", "--format", "onnx", "--output", output]) == 1
    error = capsys.readouterr().err
    assert error.startswith("export: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.usefixtures("evaluated")
def test_thresholds_of_another_model_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    save_model(tiny_network(seed=1), MODEL)
    assert main(["export", "--format", "onnx"]) == 1
    assert "models/finetuned.keras is not the model that evaluate saw" in capsys.readouterr().err


@pytest.mark.usefixtures("evaluated")
def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "tf2onnx" else name)
    assert main(["export", "--format", "onnx"]) == 1
    assert "--format onnx needs tf2onnx; `pip install" in capsys.readouterr().err
