"""Train in the study's two phases: the head on the frozen backbone, then the last layers of the backbone with it."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from ctscan.core.params import Params
from ctscan.images.batches import image_batches, slice_reader
from ctscan.images.manifest import rows
from ctscan.model.augmentation import augmented
from ctscan.model.bfloat16 import use_fused_normalization, use_matrix_products
from ctscan.model.freezing import classify, cut_network, freeze, freeze_normalization
from ctscan.model.saving import load_model
from ctscan.training.activation_cache import activation_cache
from ctscan.training.loop import Record, compile_classifier, examples, train

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
        features: (n, d) of the frozen backbone, one row per row of `manifest`.
        paths: the n image files. They are read only under augmentation, whose images have other features each time.
        checkpoint: see `loop.train`, which gives the result.
    """
    if params.augment.enabled:
        # No two epochs see the same image, so every image goes through the whole network.
        backbone = load_model(BACKBONE)
        freeze(backbone.get_layer("base"), depth=0)
        use_fused_normalization(backbone)
        whole = keras.Model(backbone.input, classify(backbone.output, head))
        classifier = augmented(whole, params.augment, params.seed)
        fetch = slice_reader(paths, size=backbone.input_shape[1])
    else:
        classifier = keras.Model(head.inputs, head(head.inputs[0]))
        pooled = tf.constant(features)
        fetch = lambda positions: tf.gather(pooled, positions)  # noqa: E731
    training = examples(manifest, "train", fetch)
    # An epoch on features takes half a second. On images it takes a minute, in which the user looks for progress.
    together = 1 if params.augment.enabled else training.steps(params.batch_size)
    compile_classifier(classifier, params.lr, together)
    return train(
        classifier,
        training,
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
    activations: Path,
) -> tuple[keras.Model, list[Record]]:
    """Train the last `unfreeze_depth` layers of the backbone, and a trained `head`, at `finetune_lr`.

    Args:
        paths: the image files, one for each row of `manifest`.
        checkpoint: see `loop.train`, which gives the history.
        activations: the folder of the activation cache; see `activation_cache.activation_cache`.

    Returns:
        The whole network, from slices (n, s, s, 1) to probabilities (n, 1), and the history.
    """
    backbone = load_model(BACKBONE)
    base = backbone.get_layer("base")
    frozen_part, cut = cut_network(base, params.unfreeze_depth)
    freeze(base, params.unfreeze_depth, params.finetune.normalization)
    use_matrix_products(base)
    use_fused_normalization(base)
    if params.finetune.normalization == "frozen":
        freeze_normalization(head)
    whole = keras.Model(backbone.input, classify(backbone.output, head), name="classifier")
    size = backbone.input_shape[1]
    positions = rows(manifest, "train", "val")
    seen, files = manifest.iloc[positions], [paths[position] for position in positions]

    # No two epochs see the same augmented image, so there are no activations to keep.
    caching = nullcontext() if params.augment.enabled else activation_cache(activations, len(seen), cut)
    with caching as cache:
        if params.augment.enabled:
            classifier, fetch = augmented(whole, params.augment, params.seed), slice_reader(files, size)
        elif cache is None:
            classifier, fetch = whole, slice_reader(files, size)
        else:
            preprocessed = backbone.get_layer("preprocessing").output
            cache.fill(keras.Model(backbone.input, frozen_part(preprocessed)), image_batches(files, size))
            classifier, fetch = keras.Model(cut, classify(base.output, head), name="trained_part"), cache.rows
        training = examples(seen, "train", fetch)
        compile_classifier(classifier, _finetune_rate(params, training.steps(params.batch_size)))
        history = train(
            classifier,
            training,
            examples(seen, "val", fetch),
            settings=params.finetune,
            batch_size=params.batch_size,
            seed=params.seed,
            checkpoint=checkpoint,
        )
    return whole, history


def _finetune_rate(params: Params, steps: int) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate of fine-tuning, whose epochs have `steps` steps."""
    if params.finetune.schedule == "constant":
        return params.finetune_lr
    return keras.optimizers.schedules.CosineDecay(params.finetune_lr, params.finetune.epochs * steps)
