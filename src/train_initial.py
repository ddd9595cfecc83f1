"""Stage train-initial: the study's head, on the features of the frozen backbone."""

from pathlib import Path

from ctscan.augmentation import augmented
from ctscan.determinism import make_deterministic
from ctscan.heads import build_head
from ctscan.history import publish_history
from ctscan.images import slice_reader
from ctscan.manifest import read_manifest
from ctscan.models import load_model, save_model
from ctscan.params import Params
from ctscan.partition import classify, freeze
from ctscan.stage import checkpoint, publish, run_stage
from ctscan.training import compile_classifier, examples, train

import keras
import numpy as np
import tensorflow as tf


def recipe(params: Params) -> None:
    make_deterministic()
    keras.config.set_dtype_policy(params.precision)
    manifest = read_manifest()
    features = np.load("features.npy")
    head = build_head(features.shape[1], params.head, params.seed)

    if params.augment.enabled:
        # No two epochs see the same image, so there are no features to keep: each goes through the whole network.
        backbone = load_model(Path("models/backbone.keras"))
        freeze(backbone.get_layer("base"), depth=0)
        whole = keras.Model(backbone.input, classify(backbone.output, head))
        classifier = augmented(whole, params.augment, params.seed)
        fetch = slice_reader(manifest, size=backbone.input_shape[1])
    else:
        classifier = keras.Model(head.inputs, head(head.inputs[0]))
        pooled = tf.constant(features)
        fetch = lambda positions: tf.gather(pooled, positions)  # noqa: E731
    compile_classifier(classifier, params.lr)

    with checkpoint("train-initial") as folder:
        history = train(
            classifier,
            examples(manifest, "train", fetch),
            examples(manifest, "val", fetch),
            settings=params.initial,
            batch_size=params.batch_size,
            seed=params.seed,
            checkpoint=folder,
        )
        with publish(Path("models/initial.keras")) as path:
            save_model(head, path)
        publish_history("initial", history, params.lr)


if __name__ == "__main__":
    run_stage("train-initial", recipe)
