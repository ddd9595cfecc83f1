"""Find the images of each subset, and score those of validation and test, block by block."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ctscan.evaluation.baselines import Inputs, Scorer, describe
from ctscan.evaluation.novelty import Network, NoveltyDetector, observe
from ctscan.images.batches import Slices
from ctscan.images.manifest import image_paths, read_manifest, rows
from ctscan.model.forward import predict

import keras
import numpy as np
import pandas as pd

FEATURES = Path("features.npy")
# Images that are decoded and scored together. It decides how much memory scoring takes, however many images there are,
# and is a multiple of the batches that the networks are given. In a smaller set all images are one block.
BLOCK = 2048


class Subset(NamedTuple):
    """What is known of the n images of a subset before a model has seen them. Images and features stay on disk."""

    manifest: pd.DataFrame  # n rows, numbered from 0
    positions: np.ndarray  # (n,) of their rows in features.npy
    slices: Slices

    @property
    def labels(self) -> np.ndarray:
        """The labels (n,), 1 = positive class."""
        return self.manifest["label"].to_numpy()

    @property
    def groups(self) -> np.ndarray:
        """The groups (n,) that the images belong to."""
        return self.manifest["group"].to_numpy()

    @property
    def sizes(self) -> np.ndarray:
        """Width and height (n, 2) of the image files in pixels."""
        return self.manifest[["width", "height"]].to_numpy()

    def features(self, chosen: np.ndarray) -> np.ndarray:
        """The features (k, d) float32 of the frozen backbone, of the images at `chosen` (k,)."""
        # The map is closed at once, because what was read through it counts as memory of the process.
        found: np.ndarray = np.load(FEATURES, mmap_mode="r")[self.positions[chosen]]
        return found

    def inputs(self, chosen: np.ndarray) -> Inputs:
        """What the baselines see of the images at `chosen` (k,)."""
        thumbnails, gradients = describe(batch[..., 0] for batch in self.slices.batches(chosen))
        return Inputs(thumbnails, gradients, self.sizes[chosen], self.features(chosen))


class Subsets(NamedTuple):
    """The three subsets, and validation and test together, in this order."""

    train: Subset
    val: Subset
    test: Subset
    val_and_test: Subset


class Findings(NamedTuple):
    """What is said of the n images of a subset."""

    scores: dict[str, np.ndarray]  # by model: probabilities (n,) float64
    baselines: dict[str, np.ndarray]  # by name of the baseline or control: scores (n,)
    distances: np.ndarray  # (n, 2) of the novelty detector


def read_subsets(dataset: str, size: int) -> Subsets:
    """Read split/manifest.csv. The images of the folder `dataset` are resized to `size` pixels when they are read."""
    manifest = read_manifest()

    def subset(*names: str) -> Subset:
        positions = np.concatenate([rows(manifest, name) for name in names])
        own = manifest.iloc[positions].reset_index(drop=True)
        return Subset(own, positions, Slices(image_paths(own, dataset), size))

    return Subsets(subset("train"), subset("val"), subset("test"), subset("val", "test"))


def score_images(
    initial: keras.Model,
    network: Network,
    detector: NoveltyDetector,
    baselines: Mapping[str, Scorer],
    subset: Subset,
) -> Findings:
    """What both models, the baselines and the novelty detector say of the images of `subset`.

    Args:
        initial: the initial model, from features (n, d) of the frozen backbone to probabilities (n, 1).
        network: the fine-tuned model, of `novelty.with_features`.
        detector: scaled or not.

    Raises:
        UserError: an image is missing or damaged.
    """
    count = len(subset.manifest)
    blocks = [np.arange(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK)]
    found = []
    for number, block in enumerate(blocks, start=1):
        part = f", part {number} of {len(blocks)}" if len(blocks) > 1 else ""
        images, features = subset.slices[block], subset.features(block)
        finetuned, pooled = observe(network, images, f"finetuned{part}")
        inputs = Inputs(*describe([images[..., 0]]), subset.sizes[block], features)
        found.append(
            Findings(
                {"initial": predict(initial, features, f"initial{part}"), "finetuned": finetuned},
                {name: score(inputs) for name, score in baselines.items()},
                detector.distances(images[..., 0], pooled),
            )
        )
    return Findings(
        {model: np.concatenate([part.scores[model] for part in found]) for model in ("initial", "finetuned")},
        {name: np.concatenate([part.baselines[name] for part in found]) for name in baselines},
        np.concatenate([part.distances for part in found]),
    )
