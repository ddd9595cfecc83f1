"""Compare this repository's Xception on a processor with PyTorch's eager mode: the frozen part, and a step of training.

    python3.11 -m venv .scratch/torch && .scratch/torch/bin/pip install torch
    python benchmarks/eager.py .scratch/torch/bin/python

Both run in turn, each in a process of its own, on the same number of random images; each takes the median of its
rounds. Of PyTorch's two layouts of memory the faster one counts. Replaces benchmarks/eager.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.files import write_json

import machine
from reporting import aligned

BENCHMARKS = Path(__file__).resolve().parent
BACKBONE, DEPTH = "Xception", 56  # xception_torch.py has this network, cut here
SIZE, BATCH, STEP = 224, 32, 16  # pixels; images of a forward pass; images of a step
PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # by PyTorch's name, what params.yaml calls it
LAYOUTS = ("channels_last", "contiguous")

Seconds = dict[str, dict[str, float]]  # by way or precision, of the parts `forward` and `step`


def main() -> None:
    parser = argparse.ArgumentParser(description="Xception here against PyTorch's eager mode.")
    parser.add_argument("torch", nargs="?", help="a Python that has torch")
    parser.add_argument("--turns", type=int, default=3, help="how often each runs")
    parser.add_argument("--rounds", type=int, default=5, help="forward passes and steps that are timed in each")
    parser.add_argument("--ours", choices=PRECISIONS.values(), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ours:
        print(json.dumps(time_ours(options.ours, options.rounds)))
    elif options.torch:
        result = compare(options.torch, options.turns, options.rounds)
        write_json(BENCHMARKS / "eager.json", result)
        print(table(result))
    else:
        parser.error("name a Python that has torch")


def compare(torch: str, turns: int, rounds: int) -> dict[str, Any]:
    start, version = machine.describe(), _output([torch, "-c", "import torch; print(torch.__version__)"])
    commands = {}
    for name, ours in PRECISIONS.items():
        commands[f"ours {name}"] = [sys.executable, __file__, f"--ours={ours}", f"--rounds={rounds}"]
        for layout in LAYOUTS:
            given = [f"--precision={name}", f"--memory={layout}", f"--rounds={rounds}", f"--batch={BATCH}"]
            commands[f"PyTorch {name} {layout}"] = [torch, str(BENCHMARKS / "xception_torch.py"), *given]
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in commands}
    for _ in range(turns):
        for way, command in commands.items():
            runs[way].append(json.loads(_output(command)))
            print(f"{way}: {runs[way][-1]}", flush=True)
    seconds = {
        way: {part: statistics.median(run[part] for run in measured) for part in ("forward", "step")}
        for way, measured in runs.items()
    }
    settings = {"backbone": BACKBONE, "unfreeze_depth": DEPTH, "image_size": SIZE, "forward": BATCH, "step": STEP}
    measured = {"seconds": seconds, "ratios": ratios(seconds), "runs": runs}
    return {"machine": start | {"torch": version}, "settings": settings, **measured}


def ratios(seconds: Seconds) -> Seconds:
    """By precision, how many times ours PyTorch's faster layout takes for each part."""
    found = {}
    for name in PRECISIONS:
        layouts = [seconds[f"PyTorch {name} {layout}"] for layout in LAYOUTS]
        ours = seconds[f"ours {name}"]
        found[name] = {part: min(other[part] for other in layouts) / taken for part, taken in ours.items()}
    return found


def table(result: dict[str, Any]) -> str:
    """Seconds of each way and the ratios, as aligned text."""
    rows = [["seconds", f"frozen part, {BATCH} images", f"step, {STEP} images"]]
    rows += [[way, *(f"{value:.3f}" for value in parts.values())] for way, parts in result["seconds"].items()]
    for name, parts in result["ratios"].items():
        rows.append([f"PyTorch / ours, {name}", *(f"{ratio:.2f}x" for ratio in parts.values())])
    return aligned(rows)


def time_ours(precision: str, rounds: int) -> dict[str, float]:
    """Seconds of the frozen part's forward pass and of a step, as extract-features and finetune run them."""
    from ctscan.core.params import Head
    from ctscan.core.seeds import configure_keras
    from ctscan.model.backbone import build_backbone
    from ctscan.model.bfloat16 import use_fused_normalization, use_matrix_products
    from ctscan.model.forward import forward
    from ctscan.model.freezing import classify, cut_network, freeze, freeze_normalization
    from ctscan.model.head import build_head
    from ctscan.training.loop import compile_classifier

    import keras
    import numpy as np

    configure_keras(precision)
    backbone = build_backbone(BACKBONE, "random", SIZE, seed=7)
    base = backbone.get_layer("base")
    frozen_part, cut = cut_network(base, DEPTH)
    network = forward(keras.Model(backbone.input, frozen_part(backbone.get_layer("preprocessing").output)))
    freeze(base, DEPTH)
    use_matrix_products(base)
    use_fused_normalization(base)
    head = build_head(base.output_shape[-1], Head(units=1024, l2=0.01, dropout=0.5), seed=7)
    freeze_normalization(head)
    classifier = keras.Model(cut, classify(base.output, head))
    compile_classifier(classifier, 1e-5)

    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (BATCH, SIZE, SIZE, 1), dtype=np.uint8)
    crossing = [tensor[:STEP] for tensor in keras.tree.flatten(network(images))]
    labels = rng.integers(0, 2, (STEP, 1)).astype("float32")
    return {
        "forward": _seconds(lambda: network(images), rounds),
        "step": _seconds(lambda: classifier.train_on_batch(crossing, labels), rounds),
    }


def _seconds(work: Callable[[], object], rounds: int) -> float:
    """The median of `rounds` after two that warm up."""
    taken = []
    for _ in range(rounds + 2):
        clock = time.perf_counter()
        work()
        taken.append(time.perf_counter() - clock)
    return statistics.median(taken[2:])


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    main()
