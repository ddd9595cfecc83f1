"""Repeat the protocol with other seeds and say how its figures vary, which a single split hides.

    ctscan repeats [--strategy random|blocked|grouped] [--seeds 5] [--finetune]
    ctscan repeats --strategy blocked --seeds 10 --on slurm --jobs 10
    ctscan repeats --show

The first seed is `seed` of params.yaml, each next one is 1 more. Writes metrics/repeats/<strategy>.json and
plots/repeats_<strategy>.png, which are no stage's outs, and says in the former what they belong to. --show prints what
is there, strategies side by side, as Markdown. --on has each seed done by a worker (docs/cluster.md), and
`--only SEED` is what that does.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from ctscan.core.errors import UserError
from ctscan.core.files import SCRATCH, publish, read_json, read_record, write_json
from ctscan.core.params import Params, Split, read_params
from ctscan.experiments.driver import add_engine_arguments, elsewhere, experiments_at_home, run_elsewhere
from ctscan.experiments.programs import read_program, status
from ctscan.experiments.spread import difference, settings, summary, table
from ctscan.experiments.trials import SEEDS, experiment_refs

import numpy as np

if TYPE_CHECKING:  # help should not wait for it
    from ctscan.split.check import Scan

    import pandas as pd

STRATEGIES = get_args(Split.model_fields["strategy"].annotation)
RESULTS, PLOTS = Path("metrics/repeats"), Path("plots")
FEATURES, BACKBONE = Path("features.npy"), Path("metrics/backbone.json")
STAGES = ("prepare-split", "extract-features")  # what repeats take from the pipeline
INTERRUPTED = "earlier results are as they were"  # said after Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How to split, how often, and whether to fine-tune."""
    parser.add_argument("--strategy", choices=STRATEGIES, help="of the split; without it, params.yaml's")
    parser.add_argument("--seeds", type=int, default=5, metavar="K", help="how many (default 5)")
    parser.add_argument("--finetune", action="store_true", help="fine-tune as well, once a seed")
    parser.add_argument("--show", action="store_true", help="print the last results and do no more")
    parser.add_argument("--only", type=int, metavar="SEED", help=f"write the record of one seed to {SEEDS}, no more")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where there is nothing to repeat or to show."""
    if arguments.show:
        show()
        return 0
    params = read_params()
    strategy = arguments.strategy or params.split.strategy
    params = params.model_copy(update={"split": params.split.model_copy(update={"strategy": strategy})})
    if arguments.only is not None:
        (record,) = repeat_here(params, [arguments.only], arguments.finetune)
        with publish(SEEDS / f"{strategy}-{arguments.only}.json") as path:
            write_json(path, record)
        return 0
    if arguments.seeds < 2:
        raise UserError(f"--seeds {arguments.seeds}: it needs 2 or more, a single split has no spread")
    seeds = range(params.seed, params.seed + arguments.seeds)
    if elsewhere(arguments):
        records = repeat_elsewhere(strategy, seeds, arguments)
    else:
        records = repeat_here(params, seeds, arguments.finetune)
    if records:
        report(params, seeds, arguments.finetune, records)
    return 0


def repeat_here(params: Params, seeds: Sequence[int], finetuning: bool) -> list[dict[str, Any]]:
    """The records of `repeat`, from features.npy. Raises `UserError` where that is not of today's params and images."""
    require_features()
    # Here, as TensorFlow takes seconds that help and --show can do without.
    from ctscan.core.seeds import make_deterministic
    from ctscan.images.batches import image_batches
    from ctscan.images.manifest import read_manifest
    from ctscan.split.check import scan

    import keras

    make_deterministic()
    keras.config.set_dtype_policy(params.precision)
    folder = Path(params.dataset)
    found, features = scan(folder, params.classes, params.checks.min_size), np.load(FEATURES)
    names = found.manifest["path"].tolist()
    if names != read_manifest()["path"].tolist() or len(names) != len(features):
        raise UserError(f"{FEATURES} is not of the images in {folder}; run `dvc repro` first")
    paths = [folder / name for name in names]
    images = np.concatenate([batch.numpy() for batch in image_batches(paths, params.image_size)])
    return repeat(Material(found, paths, images, features), params, seeds, finetuning, SCRATCH)


def repeat_elsewhere(strategy: str, seeds: Sequence[int], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The same records, each from a worker. There are none where they were only submitted.

    Raises:
        UserError: a seed has no record.
    """
    more = ["--finetune"] if arguments.finetune else []
    runs = {
        f"repeats,{strategy},{'finetune,' if more else ''}seed={seed}": [
            "--strategy",
            strategy,
            "--only",
            str(seed),
            *more,
        ]
        for seed in seeds
    }
    base = run_elsewhere(runs, None, arguments)
    if base is None:
        return []
    if missing := sorted(runs.keys() - experiments_at_home(base)):
        raise UserError(f"no result of {', '.join(missing)}; their logs say why")
    files = (
        f"{experiment_refs(base)}{name}:{SEEDS}/{strategy}-{seed}.json" for name, seed in zip(runs, seeds, strict=True)
    )
    return [json.loads(read_program("git", "show", file)) for file in files]


def report(params: Params, seeds: Sequence[int], finetuning: bool, records: list[dict[str, Any]]) -> None:
    """Write and draw the result, and print it beside those of other strategies that have the same settings."""
    from ctscan.evaluation.figures import draw_repeats

    strategy = params.split.strategy
    result: dict[str, Any] = {
        "strategy": strategy,
        "settings": settings(params, read_record(BACKBONE), seeds, finetuning),
        "summary": summary(records),
        "repeats": records,
    }
    with publish(PLOTS / f"repeats_{strategy}.png") as path:
        draw_repeats(path, result)
    with publish(RESULTS / f"{strategy}.json") as path:
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
        raise UserError(f"{RESULTS} holds no result; make one with `ctscan repeats`")
    for other in found[1:]:
        if unlike := difference(found[0]["settings"], other["settings"]):
            raise UserError(
                f"{RESULTS}: {found[0]['strategy']} and {other['strategy']} have different settings ({unlike}); "
                "repeat one of them"
            )
    kept = found[0]["settings"]
    backbone = read_record(BACKBONE) if BACKBONE.is_file() else kept
    if unlike := difference(kept, settings(read_params(), backbone, kept["seeds"], kept["finetuning"])):
        print(f"{RESULTS} belongs to other settings than today's: {unlike}", file=sys.stderr)
    print(table(found))


def results() -> list[dict[str, Any]]:
    """What metrics/repeats holds, in the order of `STRATEGIES`."""
    files = (RESULTS / f"{strategy}.json" for strategy in STRATEGIES)
    return [read_json(path) for path in files if path.is_file()]


def require_features() -> None:
    """Raises `UserError` unless features.npy is there and is what params.yaml, the dataset and the code would give."""
    for path in (FEATURES, BACKBONE):
        if not path.is_file():
            raise UserError(f"{path} is missing; run `dvc repro` first")
    if status(*STAGES):
        raise UserError(f"{FEATURES} is not of this dataset, these params and this code; run `dvc repro` first")


class Material(NamedTuple):
    """What no seed changes, in natural order of path: n images, and what the frozen backbone made of them."""

    found: "Scan"
    paths: Sequence[Path]  # the n files
    images: np.ndarray  # (n, s, s, 1) uint8
    features: np.ndarray  # (n, d) float32


def repeat(
    material: Material, params: Params, seeds: Sequence[int], finetuning: bool, scratch: Path
) -> list[dict[str, Any]]:
    """Split, train and test once a seed, as the stages do with `seed` set to it; the backbone stays what it is.

    A seed's record depends on that seed alone, not on the others.

    Args:
        finetuning: fine-tune, too, from each seed's own head.
        scratch: each training's state gets a folder of its own in there, so that several may run side by side.

    Returns:
        A record a seed: `seed`; `split_sha256` of the subsets in order; the counts `test_positive` and `test_negative`;
        `models`, the headline metrics on test of `initial` and, fine-tuned, of `finetuned`; `baselines`, the test
        `roc_auc` of each.

    Raises:
        UserError: a seed's split is impossible, which shows before any training; a test without both classes.
    """
    from ctscan.split.strategies import assign_subsets

    found = material.found
    splits = {seed: assign_subsets(found.manifest, found.copies, params.split, seed) for seed in seeds}
    return [
        _once(material, splits[seed], params.model_copy(update={"seed": seed}), finetuning, scratch) for seed in seeds
    ]


def _once(
    material: Material, manifest: "pd.DataFrame", params: Params, finetuning: bool, scratch: Path
) -> dict[str, Any]:
    from ctscan.evaluation.baselines import Inputs, describe, fit_baselines
    from ctscan.evaluation.metrics import headline
    from ctscan.images.manifest import rows
    from ctscan.model.forward import predict
    from ctscan.model.head import build_head
    from ctscan.training.phases import finetune, train_head

    import keras

    keras.utils.clear_session()
    train, test = rows(manifest, "train"), rows(manifest, "test")
    labels, groups = manifest["label"].to_numpy(), manifest["group"].to_numpy()

    scratch.mkdir(parents=True, exist_ok=True)
    head = build_head(material.features.shape[1], params.head, params.seed)
    with tempfile.TemporaryDirectory(prefix="repeat-", dir=scratch) as name:
        folder = Path(name)
        train_head(head, material.features, manifest, material.paths, params, folder / "initial")
        scores = {"initial": predict(head, material.features[test], f"seed {params.seed}, initial")}
        if finetuning:
            whole, _ = finetune(
                head, manifest, material.paths, params, folder / "finetune", activations=folder / "activations"
            )
            scores["finetuned"] = predict(whole, material.images[test], f"seed {params.seed}, finetuned")

    sizes = manifest[["width", "height"]].to_numpy()
    seen, asked = (
        Inputs(*describe([material.images[at, ..., 0]]), sizes[at], material.features[at]) for at in (train, test)
    )
    fitted = fit_baselines(seen, labels[train], groups[train], params.seed)
    baselines = {name: score(asked) for name, score in fitted.items()}
    threshold, truth = params.evaluate.threshold, labels[test]
    name = f"test of seed {params.seed}"
    return {
        "seed": params.seed,
        "split_sha256": hashlib.sha256("\n".join(manifest["subset"]).encode()).hexdigest(),
        "test_positive": int(truth.sum()),
        "test_negative": int((1 - truth).sum()),
        "models": {model: headline(truth, values, threshold, f"{name}, {model}") for model, values in scores.items()},
        "baselines": {
            baseline: {"roc_auc": headline(truth, values, threshold, f"{name}, {baseline}")["roc_auc"]}
            for baseline, values in baselines.items()
        },
    }
