"""What a single split hides: the protocol once a seed, and how its figures vary.

    python src/repeats.py [--strategy random|blocked|grouped] [--seeds 5] [--finetune]
    python src/repeats.py --show

The first seed is `seed` of params.yaml, each next one is 1 more. Writes metrics/repeats/<strategy>.json and
plots/repeats_<strategy>.png, which are no stage's outs, and says in the former what they belong to. --show prints what
is there, strategies side by side, as Markdown.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

from ctscan.core.errors import UserError
from ctscan.core.files import SCRATCH, publish, write_json
from ctscan.core.params import Params, Split, read_params
from ctscan.evaluation.figures import draw_repeats
from ctscan.experiments.spread import difference, settings, summary, table
from ctscan.images.manifest import read_manifest
from ctscan.split.check import scan

import numpy as np

STRATEGIES = get_args(Split.model_fields["strategy"].annotation)
RESULTS, PLOTS = Path("metrics/repeats"), Path("plots")
FEATURES, BACKBONE = Path("features.npy"), Path("metrics/backbone.json")
STAGES = ("prepare-split", "extract-features")  # what repeats take from the pipeline


def main(arguments: list[str] | None = None) -> None:
    """Exits 1 after a `UserError`, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Repeat split, training and test with other seeds.")
    parser.add_argument("--strategy", choices=STRATEGIES, help="of the split; without it, params.yaml's")
    parser.add_argument("--seeds", type=int, default=5, metavar="K", help="how many (default 5)")
    parser.add_argument("--finetune", action="store_true", help="fine-tune as well, once a seed")
    parser.add_argument("--show", action="store_true", help="print the last results and do no more")
    options = parser.parse_args(arguments)
    try:
        if options.show:
            show()
        else:
            run(read_params(), options.strategy, options.seeds, options.finetune)
    except UserError as error:
        sys.exit(f"repeats: {error}")
    except KeyboardInterrupt:
        print("\nrepeats: interrupted; earlier results are as they were", file=sys.stderr)
        sys.exit(130)


def run(params: Params, strategy: str | None, count: int, finetuning: bool) -> None:
    if count < 2:
        raise UserError(f"--seeds {count}: it needs 2 or more, a single split has no spread")
    require_features()
    from ctscan.core.seeds import (
        make_deterministic,  # here, as TensorFlow takes seconds that --show can do without
    )
    from ctscan.experiments.repetition import Material, repeat
    from ctscan.images.batches import image_batches

    import keras

    make_deterministic()
    keras.config.set_dtype_policy(params.precision)
    split = params.split.model_copy(update={"strategy": strategy or params.split.strategy})
    params = params.model_copy(update={"split": split})
    seeds = range(params.seed, params.seed + count)
    folder = Path(params.dataset)
    found, features = scan(folder, params.classes, params.checks.min_size), np.load(FEATURES)
    if found["path"].tolist() != read_manifest()["path"].tolist() or len(found) != len(features):
        raise UserError(f"{FEATURES} is not of the images in {folder}; run `dvc repro` first")
    paths = [folder / path for path in found["path"]]
    images = np.concatenate([batch.numpy() for batch in image_batches(paths, params.image_size)])

    repeats = repeat(Material(found, paths, images, features), params, seeds, finetuning, SCRATCH)
    result: dict[str, Any] = {
        "strategy": split.strategy,
        "settings": settings(params, json.loads(BACKBONE.read_text(encoding="utf-8")), seeds, finetuning),
        "summary": summary(repeats),
        "repeats": repeats,
    }
    with publish(PLOTS / f"repeats_{split.strategy}.png") as path:
        draw_repeats(path, result)
    with publish(RESULTS / f"{split.strategy}.json") as path:
        write_json(path, result)

    beside = []
    for other in results():
        if unlike := difference(result["settings"], other["settings"]):
            print(f"{other['strategy']} is left out, it has other settings: {unlike}", file=sys.stderr)
        else:
            beside.append(other)
    print(table(beside))


def show() -> None:
    found = results()
    if not found:
        raise UserError(f"{RESULTS} holds no result; make one with `make repeats`")
    for other in found[1:]:
        if unlike := difference(found[0]["settings"], other["settings"]):
            raise UserError(
                f"{RESULTS}: {found[0]['strategy']} and {other['strategy']} have different settings ({unlike}); "
                "repeat one of them"
            )
    kept = found[0]["settings"]
    backbone = json.loads(BACKBONE.read_text(encoding="utf-8")) if BACKBONE.is_file() else kept
    if unlike := difference(kept, settings(read_params(), backbone, kept["seeds"], kept["finetuning"])):
        print(f"{RESULTS} belongs to other settings than today's: {unlike}", file=sys.stderr)
    print(table(found))


def results() -> list[dict[str, Any]]:
    """What metrics/repeats holds, in the order of `STRATEGIES`."""
    files = (RESULTS / f"{strategy}.json" for strategy in STRATEGIES)
    return [json.loads(path.read_text(encoding="utf-8")) for path in files if path.is_file()]


def require_features() -> None:
    """Raises `UserError` unless features.npy is there and is what params.yaml, the dataset and the code would give."""
    for path in (FEATURES, BACKBONE):
        if not path.is_file():
            raise UserError(f"{path} is missing; run `dvc repro` first")
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json", *STAGES], capture_output=True, text=True, check=False
    )
    if status.returncode or json.loads(status.stdout):
        raise UserError(f"{FEATURES} is not of this dataset, these params and this code; run `dvc repro` first")


if __name__ == "__main__":
    main()
