"""Time the study in plain Keras and in this repository's way: same images, same fixed numbers of epochs.

Both ways run in turn. Prints a table, and replaces benchmarks/results.json and results.png.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.files import write_json

import machine
import reporting
from measuring import BENCHMARKS, REPO, Run, Workspace, make_workspace, read_study, run_ours, run_plain
from scratch import scratch

SCRATCH = REPO / ".scratch" / "bench"  # not the system's temporary folder, which may be kept in memory
PLAIN = "plain float32"


def main(arguments: list[str] | None = None) -> None:
    """Exits 1 after a `UserError` and 130 after Ctrl-C; the scratch folder is removed either way."""
    options = _parse(arguments)
    with scratch(SCRATCH):
        result = _compare(options)
    write_json(options.output / "results.json", result)
    reporting.draw(options.output / "results.png", result)
    print(reporting.table(result))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Plain Keras against this repository's way.")
    parser.add_argument("--dataset", type=Path, help="folder of two class folders; default: params.yaml's")
    parser.add_argument("--images", type=int, help="of each class; default: all")
    parser.add_argument("--epochs", type=int, default=20, help="of phase 1")
    parser.add_argument("--finetune-epochs", type=int, default=10)
    parser.add_argument("--backbone", help="default: params.yaml's")
    parser.add_argument("--weights", help="random, imagenet or a file's name in weights/; default: params.yaml's")
    parser.add_argument("--unfreeze-depth", type=int, help="last layers that phase 2 trains; default: params.yaml's")
    parser.add_argument("--image-size", type=int, help="pixels; default: params.yaml's")
    parser.add_argument(
        "--precision", nargs="+", default=["float32", "mixed_bfloat16"], help="of ours; plain Keras runs in float32"
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each way runs, in turn")
    parser.add_argument("--output", type=Path, default=BENCHMARKS, help="folder of results.json and results.png")
    options = parser.parse_args(arguments)
    for name in ("images", "epochs", "finetune_epochs", "rounds"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} needs an integer >= 1")
    return options


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    start = machine.describe()
    workspace = _workspace(options)
    ways: dict[str, Callable[[], Run]] = {PLAIN: partial(run_plain, workspace)}
    for precision in options.precision:
        ways[f"ours {precision}"] = partial(run_ours, workspace, precision)
    runs: dict[str, list[Run]] = {way: [] for way in ways}
    for turn in range(options.rounds):
        for way, run in ways.items():
            print(f"round {turn + 1} of {options.rounds}: {way} ...", end=" ", flush=True)
            runs[way].append(run())
            print(f"{runs[way][-1]['total']:.0f} s", flush=True)
    medians = {way: reporting.medians(results) for way, results in runs.items()}
    return {
        "machine": start,
        "settings": _settings(options, workspace) | {"rounds": options.rounds},
        "medians": medians,
        "ratios": {way: reporting.ratios(medians[PLAIN], medians[way]) for way in ways if way != PLAIN},
        "runs": runs,
    }


def _workspace(options: argparse.Namespace) -> Workspace:
    varied = ("backbone", "weights", "image_size", "unfreeze_depth")
    overrides: dict[str, Any] = {name: value for name in varied if (value := getattr(options, name)) is not None}
    for phase, epochs in (("initial", options.epochs), ("finetune", options.finetune_epochs)):
        overrides[phase] = {"epochs": epochs, "patience": epochs}  # so much patience never stops early
    overrides["finetune"] |= {"schedule": "constant", "normalization": "frozen"}  # as plain_keras.py has it
    study = read_study(overrides)
    dataset = options.dataset or REPO / study["dataset"]
    return make_workspace(SCRATCH, study, dataset.resolve(), options.images)


def _settings(options: argparse.Namespace, workspace: Workspace) -> dict[str, Any]:
    params = workspace.params
    return {
        "dataset": (options.dataset or Path(params.dataset)).name,
        "backbone": params.backbone,
        "weights": params.weights,
        "image_size": params.image_size,
        "batch_size": params.batch_size,
        "unfreeze_depth": params.unfreeze_depth,
        "epochs": params.initial.epochs,
        "finetune_epochs": params.finetune.epochs,
        "seed": params.seed,
        "images": workspace.images,
    }


if __name__ == "__main__":
    main()
