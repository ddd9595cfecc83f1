"""Run stages to their end or to a SIGKILL; test_kill.py starts each function in a process of its own."""

import io
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import finetune
import train_initial
from ctscan.core.params import Head
from ctscan.core.stage import run_stage
from ctscan.images.batches import image_batches
from ctscan.model.head import build_head
from ctscan.model.saving import save_model
from ctscan.training import activation_cache, devices, examples, loop
from ctscan.training.activation_cache import Speeds

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

SIZE, FEATURES = 16, 6


def run(folder: Path, stage: str, moment: tuple[str, int] | None) -> None:
    """Run `stage` in `folder`, its words going to a file there; with `moment`, a kind and a count, die at that."""
    os.chdir(folder)
    log = os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if moment:
        {"step": _die_at_step, "writing": _die_writing, "publishing": _die_publishing, "filling": _die_filling}[
            moment[0]
        ](moment[1])
    run_stage(stage, {"train-initial": train_initial.train_initial, "finetune": finetune.finetune}[stage])


def run_blockwise(folder: Path, stage: str, moment: tuple[str, int] | None, caching: bool) -> None:
    """As `run`, with a training set that counts as large; without `caching`, the frozen part goes over every epoch."""
    examples.BLOCKWISE_ABOVE = 8
    vars(activation_cache)["_memory"] = lambda: 0
    vars(activation_cache)["_measure"] = lambda *_: Speeds(computing=1, writing=0, reading=0 if caching else 2)
    run(folder, stage, moment)


def run_on_two_devices(folder: Path, stage: str, moment: tuple[str, int] | None) -> None:
    """As `run`, with two halves of the processor as if they were GPUs."""
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
    vars(devices)["_devices"] = lambda: ["CPU:0", "CPU:1"]
    run(folder, stage, moment)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_at_step(step: int) -> None:
    """In the training step of that number, counted from the beginning of the phase, or at the end of its epoch where
    one goes by without a stop; with the checkpoint of the epoch before on disk, as it is a moment into an epoch."""

    def counted(self: Any, batch: int, logs: Any = None) -> None:
        shown(self, batch, logs)
        if self.progress.n >= step:
            self.state.finish()
            _die()

    shown = loop._Epochs.on_train_batch_end
    loop._Epochs.on_train_batch_end = counted  # type: ignore[method-assign]


def _die_writing(count: int) -> None:
    """Half-way through the file of that number that the checkpoints write."""
    written = 0

    def half(stream: io.BufferedWriter, **arrays: np.ndarray) -> None:
        nonlocal written
        written += 1
        whole = io.BytesIO()
        save(whole, **arrays)
        stream.write(whole.getvalue() if written < count else whole.getvalue()[: whole.tell() // 2])
        if written == count:
            stream.flush()
            _die()

    save: Callable[..., None] = np.savez
    loop.np.savez = half  # type: ignore[attr-defined]


def _die_publishing(count: int) -> None:
    """With the model in its place and the metrics not yet."""
    for script in (train_initial, finetune):
        script.publish_history = lambda *arguments: _die()  # type: ignore[attr-defined]


def _die_filling(count: int) -> None:
    """When so many batches of images have gone into the activation cache."""

    def batches(files: list[Path], size: int, block: int) -> Iterator[Any]:
        for index, batch in enumerate(image_batches(files, size, 8)):
            if index == count:
                _die()
            yield batch

    vars(activation_cache)["image_batches"] = batches


def prepare(folder: Path) -> None:
    """The inputs of both stages: 40 slices of noise, a network of one residual block, features at random."""
    os.chdir(folder)
    rng = np.random.default_rng(5)
    rows = []
    for number in range(40):
        label, subset = number % 2, "test" if number >= 36 else "val" if number >= 28 else "train"
        name = f"{'COVID' if label else 'non-COVID'}/Slice ({number}).png"
        path = Path("sample") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 156, (SIZE, SIZE), dtype=np.uint8) + np.uint8(100 * label)).save(path)
        rows.append({"path": name, "label": label, "subset": subset, "group": number})
    Path("split").mkdir()
    pd.DataFrame(rows).to_csv("split/manifest.csv", index=False)
    labels = np.array([[row["label"]] for row in rows])
    np.save("features.npy", (rng.normal(size=(40, FEATURES)) + 0.3 * labels).astype("float32"))

    Path("models").mkdir()
    keras.utils.set_random_seed(5)
    image = keras.Input((SIZE, SIZE, 3))
    first = keras.layers.Conv2D(FEATURES, 3, 2, "same")(image)
    second = keras.layers.ReLU()(keras.layers.BatchNormalization()(first))
    second = keras.layers.Conv2D(FEATURES, 3, padding="same")(second)
    base = keras.Model(image, keras.layers.Add()([first, second]), name="base")
    slices = keras.Input((SIZE, SIZE, 1))
    rgb = keras.layers.Concatenate()([slices, slices, slices])
    scaled = keras.layers.Rescaling(1 / 127.5, -1, name="preprocessing")(rgb)
    save_model(keras.Model(slices, base(scaled)), Path("models/backbone.keras"))
    save_model(build_head(FEATURES, Head(units=8, l2=0.01, dropout=0.5), seed=5), Path("models/initial.keras"))
