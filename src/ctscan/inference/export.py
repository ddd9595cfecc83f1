"""Write the fine-tuned model for other runtimes, check it on the test images against Keras, and say how to use it.

What is written takes grey slices `slices` (n, s, s, 1) uint8, 0 black to 255 white, and gives the probability of the
positive class (n, 1) float32; preprocessing is inside. Resizing to s is the caller's: Pillow, bilinear, aspect ratio
not kept. Beside it lies a JSON file with the size, the classes, the thresholds, the temperature that calibrates the
probability, and hashes. The network computes in float32, whatever precision it was trained in. Exported again, it may
have other bytes, since the libraries number what they write: compare `keras_sha256` in the JSON file. For research
only, not for diagnosis.
"""

import argparse
import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ctscan.core.errors import UserError, writing
from ctscan.core.files import write_json
from ctscan.split.folders import refresh

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:  # TensorFlow takes seconds, help should not
    import keras

IMAGES = Path("split/images/test")
TOLERANCE = 1e-4  # of the probability, between Keras and what is written
BATCH = 16
Predict = Callable[[np.ndarray], np.ndarray]

BY_PILLOW = """\
from PIL import Image
slices = np.asarray(Image.open({image!r}).convert("L").resize(({size}, {size}), Image.Resampling.BILINEAR))  # 8-bit
"""
BY_THIS_PROJECT = """\
from ctscan.images.decode import load_slice; from pathlib import Path
slices = load_slice(Path({image!r}), {size})  # Pillow alone reads it otherwise
"""
ONNX = """\
import numpy as np, onnxruntime
{read}\
session = onnxruntime.InferenceSession({path!r})
print(session.run(None, {{"slices": slices[None, ..., None]}})[0])
"""
SAVEDMODEL = """\
import numpy as np, tensorflow as tf
{read}\
model = tf.saved_model.load({path!r})
print(model.serve(tf.constant(slices[None, ..., None])).numpy())
"""
TFLITE = """\
import numpy as np, tensorflow as tf
{read}\
run = tf.lite.Interpreter({path!r}).get_signature_runner()
print(next(iter(run(slices=slices[None, ..., None]).values())))
"""


class _Format(NamedTuple):
    suffix: str
    write: Callable[["keras.Model", Path], None]
    load: Callable[[Path], Predict]
    example: str
    needs: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--output", type=Path, help="default: models/finetuned.onnx, .savedmodel or .tflite")


def run(arguments: argparse.Namespace) -> int:
    """0. Raises `UserError`, which leaves what was there before."""
    form = FORMATS[arguments.format]
    absent = [package for package in form.needs if find_spec(package) is None]
    if absent:
        raise UserError(
            f"--format {arguments.format} needs {', '.join(absent)}; `pip install tf2onnx onnx onnxruntime`"
        )
    from ctscan.inference.bundle import MODEL, read_evaluation

    output: Path = arguments.output.expanduser() if arguments.output else MODEL.with_suffix(form.suffix)
    evaluation = read_evaluation()
    refresh()
    paths = sorted(path for path in IMAGES.glob("*/*") if path.is_file())
    if not paths:
        raise UserError(f"{IMAGES} holds no images to check the export on; get the dataset that it links to")
    _check_target(output, is_folder=arguments.format == "savedmodel")

    from ctscan.model.saving import load_model

    model = in_float32(load_model(MODEL))
    size = model.input_shape[1]
    with writing(output.parent), tempfile.TemporaryDirectory(prefix=".export-", dir=output.parent) as scratch:
        fresh = Path(scratch) / output.name
        form.write(model, fresh)
        difference = _difference(model, form.load(fresh), paths)
        if not difference <= TOLERANCE:
            raise UserError(
                f"{output}: probabilities differ from Keras' by up to {difference:.1e}, above {TOLERANCE:g}; not kept"
            )
        described = {
            "format": arguments.format,
            "image_size": size,
            "classes": evaluation.classes.model_dump(),
            "thresholds": evaluation.thresholds,
            "temperature": evaluation.temperature,
            "calibrated": "1 / (1 + exp(-log(p / (1 - p)) / temperature)), p clipped to [1e-7, 1 - 1e-7]",
            "keras_sha256": _hash(MODEL),
            "sha256": _hash(fresh),
        }
        if output.is_dir():
            shutil.rmtree(output)
        fresh.replace(output)
        write_json(output.with_name(f"{output.name}.json"), described)
    print(f"{output}: differs from Keras by at most {difference:.1e} on {len(paths)} test images; use it so:\n")
    print(form.example.format(path=str(output), read=_reading(paths, size)))
    return 0


def _reading(paths: Sequence[Path], size: int) -> str:
    """Code that reads one of `paths`, by Pillow alone where that gives the greys that the network knows."""
    from ctscan.images.decode import read_slice

    for path in paths:
        with suppress(UnidentifiedImageError), Image.open(path) as image:
            if np.array_equal(np.asarray(image.convert("L")), read_slice(path)):
                return BY_PILLOW.format(image=str(path), size=size)
    return BY_THIS_PROJECT.format(image=str(paths[0]), size=size)


def in_float32(model: "keras.Model") -> "keras.Model":
    """`model`, whose weights are float32 under every precision, computing in float32 from now on."""
    for layer in model._flatten_layers():
        layer.dtype_policy = "float32"
    return model


def _check_target(output: Path, is_folder: bool) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--output {output}: {output.parent} is no folder; name another path") from None
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror}; name another path") from None
    if output.is_dir() and not (is_folder and (output / "saved_model.pb").is_file()):
        raise UserError(f"--output {output}: a folder is in the way; name another path")
    if is_folder and output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: a file is in the way; name another path")


def _difference(model: "keras.Model", exported: Predict, paths: list[Path]) -> float:
    from ctscan.images.decode import load_slice

    from tqdm import tqdm

    worst = 0.0
    for start in tqdm(range(0, len(paths), BATCH), desc="checking", unit="batch"):
        slices = np.stack([load_slice(path, model.input_shape[1]) for path in paths[start : start + BATCH]])[..., None]
        # NaN, which is above nothing, would pass for equal in `max`.
        worst = float(np.maximum(worst, np.abs(exported(slices) - model.predict_on_batch(slices)).max()))
    return worst


def _hash(path: Path) -> str:
    """SHA-256 of a file, or of the files of a folder in order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _signature(model: "keras.Model") -> list[Any]:
    import keras

    # Integers, because a network that reads 0 to 255 can't tell an image scaled to [0, 1] from a black one.
    return [keras.InputSpec("uint8", model.input_shape, name="slices")]


def _write_onnx(model: "keras.Model", path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tf2onnx asks NumPy for a name that it no longer has
        model.export(path, format="onnx", verbose=False, input_signature=_signature(model))


def _write_saved_model(model: "keras.Model", path: Path) -> None:
    model.export(path, format="tf_saved_model", verbose=False, input_signature=_signature(model))


def _write_tflite(model: "keras.Model", path: Path) -> None:
    import tensorflow as tf

    folder = path.with_suffix(".savedmodel")
    _write_saved_model(model, folder)
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder)).convert())


def _load_onnx(path: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda slices: np.asarray(session.run(None, {"slices": slices})[0])


def _load_saved_model(path: Path) -> Predict:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda slices: np.asarray(loaded.serve(tf.constant(slices)))


def _load_tflite(path: Path) -> Predict:
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"\s*Warning: tf.lite.Interpreter is deprecated")
        runner = tf.lite.Interpreter(str(path)).get_signature_runner()
    return lambda slices: np.asarray(next(iter(runner(slices=slices).values())))


FORMATS = {
    "onnx": _Format(".onnx", _write_onnx, _load_onnx, ONNX, ("tf2onnx", "onnx", "onnxruntime")),
    "savedmodel": _Format(".savedmodel", _write_saved_model, _load_saved_model, SAVEDMODEL),
    "tflite": _Format(".tflite", _write_tflite, _load_tflite, TFLITE),
}
