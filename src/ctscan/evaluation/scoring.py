"""Load the images of each subset, and score validation and test images with both models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.evaluation.assess import ScoredSubset
from ctscan.evaluation.baselines import Inputs
from ctscan.evaluation.novelty import observe
from ctscan.images.batches import load_slices
from ctscan.images.manifest import image_paths, read_manifest, together
from ctscan.model.forward import predict

import keras
import numpy as np
import pandas as pd

FEATURES = Path("features.npy")


class Subset(NamedTuple):
    """What is known of the n images of a subset before a model has seen them."""

    manifest: pd.DataFrame  # n rows, numbered from 0
    images: np.ndarray  # uint8 (n, s, s, 1)
    features: np.ndarray  # float32 (n, d), pooled, of the frozen backbone

    @property
    def greys(self) -> np.ndarray:
        """The images without their channel, uint8 (n, s, s)."""
        greys: np.ndarray = self.images[..., 0]
        return greys

    @property
    def labels(self) -> np.ndarray:
        """The labels (n,), 1 = positive class."""
        return self.manifest["label"].to_numpy()

    @property
    def groups(self) -> np.ndarray:
        """The groups (n,) that the images belong to."""
        return self.manifest["group"].to_numpy()

    @property
    def inputs(self) -> Inputs:
        """What the baselines may see."""
        return Inputs(self.greys, self.manifest[["width", "height"]].to_numpy(), self.features)


class Subsets(NamedTuple):
    """The three subsets, and validation and test together, in this order, as a view of the same images."""

    train: Subset
    val: Subset
    test: Subset
    val_and_test: Subset


def load_subsets(dataset: str, size: int) -> Subsets:
    """Read split/manifest.csv, features.npy and the images of the folder `dataset`.

    Images are resized to `size` pixels and held in memory once.

    Raises:
        UserError: an image is missing or damaged.
    """
    whole = read_manifest()
    order, (val, test, train) = together(whole, "val", "test", "train")
    manifest, features = whole.iloc[order], np.load(FEATURES)[order]
    images = load_slices(image_paths(manifest, dataset), size)

    def subset(rows: slice) -> Subset:
        return Subset(manifest.iloc[rows].reset_index(drop=True), images[rows], features[rows])

    return Subsets(subset(train), subset(val), subset(test), subset(slice(val.start, test.stop)))


def score_models(
    initial: keras.Model, network: Callable[[Any], Any], subsets: Subsets
) -> tuple[ScoredSubset, ScoredSubset]:
    """Validation and test images with the scores of both models.

    Args:
        initial: the initial model, from features (n, d) of the frozen backbone to probabilities (n, 1).
        network: the fine-tuned model, of `novelty.with_features`.
    """
    both, count = subsets.val_and_test, len(subsets.val.labels)
    finetuned, pooled = observe(network, both.images, "finetuned")
    scores = {"initial": predict(initial, both.features, "initial"), "finetuned": finetuned}

    def scored(subset: Subset, rows: slice) -> ScoredSubset:
        values = {model: values[rows] for model, values in scores.items()}
        return ScoredSubset(subset.labels, subset.groups, values, pooled[rows])

    return scored(subsets.val, slice(count)), scored(subsets.test, slice(count, None))
