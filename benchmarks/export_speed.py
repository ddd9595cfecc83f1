"""Slices per second on the CPU: the exported ONNX file in ONNX Runtime beside the Keras model it was made from.

    ctscan export --format onnx && python benchmarks/export_speed.py [--batch-size 1 16] [--rounds 7]

Rounds alternate between the two; the figures are medians over the rounds, the ratio is ONNX Runtime / Keras.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.errors import UserError
from ctscan.inference.export import FORMATS
from ctscan.model.saving import load_model

import machine
import numpy as np

MODEL = Path("models/finetuned.keras")


def main() -> None:
    parser = argparse.ArgumentParser(description="ONNX Runtime against Keras, on the CPU.")
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, default=4, help="of a round")
    options = parser.parse_args()
    onnx = MODEL.with_suffix(".onnx")
    if not onnx.is_file():
        sys.exit(f"export-speed: {onnx} is missing; make it with `ctscan export --format onnx`")
    try:
        model = load_model(MODEL)
    except UserError as error:
        sys.exit(f"export-speed: {error}")
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "Keras": model.predict_on_batch,
        "ONNX Runtime": FORMATS["onnx"].load(onnx),
    }
    size = model.input_shape[1]
    print(machine.describe())
    for batch_size in options.batch_size:
        slices = np.random.default_rng(0).integers(0, 256, (batch_size, size, size, 1), dtype=np.uint8)
        for run in ways.values():
            run(slices)  # builds the graph
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, run in ways.items():
                clock = time.perf_counter()
                for _ in range(options.batches):
                    run(slices)
                seconds[name].append(time.perf_counter() - clock)
        rates = {name: batch_size * options.batches / statistics.median(times) for name, times in seconds.items()}
        line = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        print(f"{size} px, batch {batch_size}: {line} slices/s; ratio {rates['ONNX Runtime'] / rates['Keras']:.2f}")


if __name__ == "__main__":
    main()
