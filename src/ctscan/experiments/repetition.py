"""The evaluation protocol again with other seeds: each has a split, a head and a test of its own."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.params import Params
from ctscan.evaluation.baselines import Inputs, run_baselines
from ctscan.evaluation.metrics import headline
from ctscan.images.manifest import rows
from ctscan.model.forward import predict
from ctscan.model.head import build_head
from ctscan.split.strategies import assign_subsets
from ctscan.training.phases import finetune, train_head

import keras
import numpy as np
import pandas as pd


class Material(NamedTuple):
    """What no seed changes, in natural order of path: n images, and what the frozen backbone made of them."""

    found: pd.DataFrame  # of `check.scan`
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
    splits = {seed: assign_subsets(material.found, params.split, seed) for seed in seeds}
    return [
        _once(material, splits[seed], params.model_copy(update={"seed": seed}), finetuning, scratch) for seed in seeds
    ]


def _once(
    material: Material, manifest: pd.DataFrame, params: Params, finetuning: bool, scratch: Path
) -> dict[str, Any]:
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
    seen, asked = (Inputs(material.images[at, ..., 0], sizes[at], material.features[at]) for at in (train, test))
    baselines = run_baselines(seen, labels[train], asked, groups[train], params.seed)
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
