"""The study's two phases of training: the head on the frozen backbone, then the last layers with it."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from ctscan.augmentation import augmented
from ctscan.boundary import boundary_cache
from ctscan.images import image_batches, slice_reader
from ctscan.manifest import rows
from ctscan.models import load_model
from ctscan.params import Params
from ctscan.partition import classify, freeze, freeze_normalization, partition
from ctscan.training import Record, compile_classifier, examples, train

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

BACKBONE = Path("models/backbone.keras")


def train_head(
    head: keras.Model,
    features: np.ndarray,
    manifest: pd.DataFrame,
    paths: Sequence[Path],
    params: Params,
    checkpoint: Path,
) -> list[Record]:
    """Train `head` on the training images of `manifest` at `lr`; it ends with the weights of its best epoch.

    Args:
        features: (n, d) of the frozen backbone, a row for each row of `manifest`.
        paths: the n image files; read only under augmentation, which leaves no features to keep.
        checkpoint: see `training.train`, which gives the result.
    """
    if params.augment.enabled:
        # No two epochs see the same image, so each goes through the whole network.
        backbone = load_model(BACKBONE)
        freeze(backbone.get_layer("base"), depth=0)
        whole = keras.Model(backbone.input, classify(backbone.output, head))
        classifier = augmented(whole, params.augment, params.seed)
        fetch, together = slice_reader(paths, size=backbone.input_shape[1]), 1
    else:
        classifier = keras.Model(head.inputs, head(head.inputs[0]))
        pooled = tf.constant(features)
        fetch = lambda positions: tf.gather(pooled, positions)  # noqa: E731
        together = math.ceil(len(rows(manifest, "train")) / params.batch_size)  # an epoch takes half a second
    compile_classifier(classifier, params.lr, together)
    return train(
        classifier,
        examples(manifest, "train", fetch),
        examples(manifest, "val", fetch),
        settings=params.initial,
        batch_size=params.batch_size,
        seed=params.seed,
        checkpoint=checkpoint,
    )


def finetune(
    head: keras.Model,
    manifest: pd.DataFrame,
    paths: Sequence[Path],
    params: Params,
    checkpoint: Path,
    boundary: Path,
) -> tuple[keras.Model, list[Record]]:
    """Train the last `unfreeze_depth` layers of the backbone, and a trained `head`, at `finetune_lr`.

    Args:
        paths: the image files, one for each row of `manifest`.
        checkpoint: see `training.train`, which gives the history.
        boundary: see `boundary.boundary_cache`.

    Returns:
        The whole network, from slices (n, s, s, 1) to probabilities (n, 1), and the history.
    """
    backbone = load_model(BACKBONE)
    base = backbone.get_layer("base")
    trunk, frontier = partition(base, params.unfreeze_depth)
    freeze(base, params.unfreeze_depth, params.finetune.normalization)
    if params.finetune.normalization == "frozen":
        freeze_normalization(head)
    whole = keras.Model(backbone.input, classify(backbone.output, head), name="classifier")
    size = backbone.input_shape[1]
    positions = rows(manifest, "train", "val")
    seen, files = manifest.iloc[positions], [paths[position] for position in positions]

    # No two epochs see the same augmented image, so there is no boundary to keep.
    caching = nullcontext() if params.augment.enabled else boundary_cache(boundary, len(seen), frontier)
    with caching as cache:
        if params.augment.enabled:
            classifier, fetch = augmented(whole, params.augment, params.seed), slice_reader(files, size)
        elif cache is None:
            classifier, fetch = whole, slice_reader(files, size)
        else:
            preprocessed = backbone.get_layer("preprocessing").output
            cache.fill(keras.Model(backbone.input, trunk(preprocessed)), image_batches(files, size))
            classifier, fetch = keras.Model(frontier, classify(base.output, head), name="tail"), cache.rows
        compile_classifier(classifier, _finetune_rate(params, len(rows(manifest, "train"))))
        history = train(
            classifier,
            examples(seen, "train", fetch),
            examples(seen, "val", fetch),
            settings=params.finetune,
            batch_size=params.batch_size,
            seed=params.seed,
            checkpoint=checkpoint,
        )
    return whole, history


def _finetune_rate(params: Params, images: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    if params.finetune.schedule == "constant":
        return params.finetune_lr
    steps = params.finetune.epochs * math.ceil(images / params.batch_size)
    return keras.optimizers.schedules.CosineDecay(params.finetune_lr, steps)
