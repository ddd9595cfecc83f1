"""Train in the study's two phases: the head on the frozen backbone, then the last layers of the backbone with it."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ctscan.core.params import Params
from ctscan.core.seeds import INFERENCE_BATCH, generator
from ctscan.images.batches import slice_reader
from ctscan.images.manifest import rows
from ctscan.model.augmentation import augmented
from ctscan.model.bfloat16 import use_fused_normalization, use_matrix_products
from ctscan.model.freezing import classify, cut_network, freeze, freeze_normalization
from ctscan.model.saving import load_model
from ctscan.training.activation_cache import FrozenPart, choose_activations
from ctscan.training.examples import Fetch, block_size, examples, is_blockwise
from ctscan.training.loop import Record, compile_classifier, train

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
        features: (n, d) of the frozen backbone, one row per row of `manifest`; a memory map is not read as a whole.
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
        fetch = _feature_reader(features)
    blockwise = is_blockwise(manifest, params.augment.enabled)
    training = examples(manifest, "train", fetch, blockwise)
    # An epoch on features takes half a second. On images it takes a minute, in which the user looks for progress.
    together = 1 if params.augment.enabled else training.steps(params.batch_size)
    compile_classifier(classifier, params.lr, together)
    return train(
        classifier,
        training,
        examples(manifest, "val", fetch, blockwise),
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
        activations: the folder of the activation cache; see `activation_cache.choose_activations`.

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
    blockwise = is_blockwise(manifest, params.augment.enabled)
    parts = _in_reading_order(manifest, blockwise, params.seed)
    positions = np.concatenate(parts)
    seen, files = manifest.iloc[positions], [paths[position] for position in positions]

    with ExitStack() as stack:
        if params.augment.enabled:
            # No two epochs see the same augmented image, so there are no activations to keep.
            classifier, fetch = augmented(whole, params.augment, params.seed), slice_reader(files, size)
        else:
            preprocessed = backbone.get_layer("preprocessing").output
            network = keras.Model(backbone.input, frozen_part(preprocessed))
            block = block_size(params.batch_size) if blockwise else INFERENCE_BATCH
            frozen = FrozenPart(network, files, block)
            lengths = [len(part) for part in parts]
            source = choose_activations(activations, frozen, lengths, params.finetune.epochs, blockwise)
            fetch = stack.enter_context(source).rows
            classifier = keras.Model(cut, classify(base.output, head), name="trained_part")
        training = examples(seen, "train", fetch, blockwise)
        compile_classifier(classifier, _finetune_rate(params, training.steps(params.batch_size)))
        history = train(
            classifier,
            training,
            examples(seen, "val", fetch, blockwise),
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


def _feature_reader(features: np.ndarray) -> Fetch:
    """A function from positions (b,) to those rows of `features` (n, d)."""

    def read(positions: np.ndarray) -> np.ndarray:
        mapped = features
        if isinstance(features, np.memmap) and features.filename:
            # A map that lives for one batch, so that memory does not grow with the number of images.
            mapped = np.memmap(features.filename, features.dtype, "r", features.offset, features.shape)
        chosen: np.ndarray = mapped[positions]
        return chosen

    return lambda positions: tf.ensure_shape(
        tf.numpy_function(read, [positions], features.dtype, stateful=False), (None, features.shape[1])
    )


def _in_reading_order(manifest: pd.DataFrame, blockwise: bool, seed: int) -> list[np.ndarray]:
    """Positions of the training and validation images in the order in which activations are kept, in one or two parts.

    Where training reads blockwise, the training images are the first part and are shuffled, because neighbours in the
    manifest are of one class and often of one patient, and a block of those teaches little.
    """
    if not blockwise:
        return [rows(manifest, "train", "val")]
    return [generator(seed, "activations").permutation(rows(manifest, "train")), rows(manifest, "val")]
