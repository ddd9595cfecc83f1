"""Does `predict` cost more than the network's bare forward pass? Prints both, their ratio, and the start-up.

    python benchmarks/predict_speed.py [--images 256] [--rounds 3]

Run it at the top of the repository after `dvc repro`: it takes the models/finetuned.keras that lies there, and the
images of split/images over and over. The forward pass has its slices in memory, decoded; `predict` decodes files.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ctscan.core.params import read_params
from ctscan.core.seeds import INFERENCE_BATCH
from ctscan.images.decode import load_slice
from ctscan.inference.bundle import NOVELTY, load_bundle, read_evaluation
from ctscan.inference.predictor import predict

import numpy as np
import tensorflow as tf

IMAGES = Path("split/images")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time predict against the bare forward pass.")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    params = read_params()
    bundle = load_bundle(read_evaluation(NOVELTY))
    files = list(itertools.islice(itertools.cycle(sorted(IMAGES.rglob("*.png"))), options.images))
    slices = np.stack([load_slice(path, bundle.size) for path in files])[..., None]

    def forward() -> None:
        for start in range(0, len(slices), INFERENCE_BATCH):
            bundle.network(tf.constant(slices[start : start + INFERENCE_BATCH]))[0].numpy()

    def whole() -> None:
        assert sum(1 for _ in predict(bundle, files, "study", params.checks.min_size)) == len(files)

    forward()  # traces the network, which belongs to the start-up
    # In turn, so that whatever else the machine does meets both.
    pairs = [(_seconds(forward), _seconds(whole)) for _ in range(options.rounds)]
    bare, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{params.backbone} at {bundle.size} pixels, {len(files)} slices, median of {options.rounds} rounds")
    print(f"bare forward pass  {bare:6.2f} s  {len(files) / bare:6.1f} slices/s")
    print(f"predict            {ours:6.2f} s  {len(files) / ours:6.1f} slices/s")
    print(f"ratio              {ours / bare:6.2f}")
    imports = _seconds(lambda: _python("-c", "import ctscan, tensorflow, keras"))
    start_up = _seconds(lambda: _python("-m", "ctscan", "predict", str(files[0])))
    print(f"predict of one file, from nothing: {start_up:.1f} s, of which {imports:.1f} s import TensorFlow and Keras")


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _python(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)


if __name__ == "__main__":
    main()
