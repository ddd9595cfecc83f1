"""What op determinism costs: `python benchmarks/determinism.py [head|tail]`, some minutes.

Times training steps of the head (on pooled features) and of a tail (on boundary activations, convolutions trained and
BatchNormalization frozen, as in fine-tuning), with and without `ctscan.core.seeds.make_deterministic`. The two
alternate, each time in a new process, because TensorFlow has no way back. A process gives the median of its steps; the
ratio is that of each kind's fastest process, as whatever else the machine does only ever adds time.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.params import read_params
from ctscan.core.seeds import make_deterministic
from ctscan.model.freezing import classify, cut_network, freeze, freeze_normalization
from ctscan.model.head import build_head
from ctscan.training.loop import compile_classifier

import keras
import numpy as np

ROUNDS = 7
BATCH = 16
STEPS = {"head": 400, "tail": 12}
WARM_UP = 3  # steps: the first one also traces
FEATURES = 2048  # of ResNet101V2
SIZE, DEPTH = 96, 45  # of ResNet50V2, whose last stages are those of the 101 layers in small


def head() -> tuple[keras.Model, list[np.ndarray]]:
    """The study's head and a batch for it."""
    model = build_head(FEATURES, read_params().head, seed=1)
    return keras.Model(model.inputs, model(model.inputs[0])), [_noise((FEATURES,))]


def tail() -> tuple[keras.Model, list[np.ndarray]]:
    """The last `DEPTH` layers with a head on top, and a batch of what crosses the frontier."""
    base = keras.applications.ResNet50V2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    classifier = build_head(base.output_shape[-1], read_params().head, seed=1)
    _, frontier = cut_network(base, DEPTH)
    freeze(base, DEPTH)
    freeze_normalization(classifier)
    return keras.Model(frontier, classify(base.output, classifier)), [_noise(t.shape[1:]) for t in frontier]


def seconds(part: str, deterministic: bool, channel: "multiprocessing.queues.Queue[float]") -> None:
    """Put the median time of a training step of `part` into `channel`."""
    if deterministic:
        make_deterministic()
    build: Callable[[], tuple[keras.Model, list[np.ndarray]]] = {"head": head, "tail": tail}[part]
    model, batch = build()
    compile_classifier(model, 1e-4)
    labels = np.arange(BATCH, dtype="float32") % 2
    taken = []
    for _ in range(WARM_UP + STEPS[part]):
        start = time.perf_counter()
        model.train_on_batch(batch, labels)
        taken.append(time.perf_counter() - start)
    channel.put(statistics.median(taken[WARM_UP:]))


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(BATCH, *shape)).astype("float32")


def main() -> None:
    context = multiprocessing.get_context("fork")  # nothing has run in this process yet, so its children are fresh
    for part in sys.argv[1:] or STEPS:
        times: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(ROUNDS):
            for deterministic in (False, True) if turn % 2 else (True, False):
                channel = context.Queue()
                process = context.Process(target=seconds, args=(part, deterministic, channel))
                process.start()
                times[deterministic].append(channel.get(timeout=600))
                process.join()
        free, fixed = (min(times[key]) * 1000 for key in (False, True))
        spread = sorted(b / a for a, b in zip(times[False], times[True], strict=True))
        print(
            f"{part}: {fixed:.1f} ms a step deterministic, {free:.1f} ms without: ratio {fixed / free:.3f} "
            f"(rounds {spread[0]:.3f} to {spread[-1]:.3f})"
        )


if __name__ == "__main__":
    main()
