"""The study as people write it in plain Keras: a directory loader, and the full network in every step of both phases.

    python benchmarks/plain_keras.py FOLDER --json times.json

FOLDER holds train/, val/ and test/, each with a folder a class. Nothing of this repository is imported: what a notebook
does is what is timed. Some things differ from a notebook, so that both ways train the same thing: training never stops
early, BatchNormalization stays frozen in fine-tuning, the head is drawn from a seed of its own, and with --draws each
epoch takes the training images in a given order and draws its dropout from a given seed.
"""

import argparse
import json
import os
import resource
import sys
import time
from functools import reduce
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from keras import layers
from sklearn.metrics import roc_auc_score


def main() -> None:
    options = parse()
    seconds = {}
    clock = time.perf_counter()
    keras.utils.set_random_seed(options.seed)
    family = sys.modules[getattr(keras.applications, options.backbone).__module__]
    shape = (options.image_size, options.image_size, 3)
    weights = None if options.weights == "random" else options.weights
    base = getattr(keras.applications, options.backbone)(include_top=False, weights=weights, input_shape=shape)
    base.trainable = False

    inputs = keras.Input(shape)
    x = family.preprocess_input(inputs)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, head(x, options.head_seed))

    train = load(options, "train", shuffle=True)
    val = load(options, "val")
    test = load(options, "test")
    truth = [Path(path).parent.name == test.class_names[1] for path in test.file_paths]

    compile_model(model, options.lr)
    fit(options, model, train, val, options.epochs, "initial")
    seconds["phase_1"], clock = lap(clock)
    auc_initial = roc_auc_score(truth, model.predict(test)[:, 0])
    evaluation, clock = lap(clock)

    base.trainable = True
    for layer in base.layers[: len(base.layers) - options.unfreeze_depth]:
        layer.trainable = False
    for layer in base.layers + model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    compile_model(model, options.finetune_lr)
    fit(options, model, train, val, options.finetune_epochs, "finetuned")
    seconds["phase_2"], clock = lap(clock)
    auc_finetuned = roc_auc_score(truth, model.predict(test)[:, 0])
    seconds["evaluation"] = evaluation + lap(clock)[0]

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = {
        "seconds": seconds,
        "peak_mib": peak / (2**20 if sys.platform == "darwin" else 2**10),
        "auc": {"initial": float(auc_initial), "finetuned": float(auc_finetuned)},
        "images": {part: len(dataset.file_paths) for part, dataset in (("train", train), ("val", val), ("test", test))},
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The study in plain Keras, timed.")
    parser.add_argument("folder", type=Path, help="holds train/, val/ and test/, each with a folder a class")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--finetune-epochs", type=int, default=10)
    parser.add_argument("--backbone", default="ResNet101V2", help="a model of keras.applications")
    parser.add_argument("--weights", default="random", help="random, imagenet or the path of a weights file")
    parser.add_argument("--image-size", type=int, default=224, help="pixels, square")
    parser.add_argument("--unfreeze-depth", type=int, default=150, help="last layers that fine-tuning trains")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--finetune-lr", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=7, help="of the backbone and of the order of images")
    parser.add_argument("--head-seed", type=int, default=7, help="of the head")
    parser.add_argument("--classes", nargs=2, metavar="NAME", help="labelled 0 and 1; default: as the folders sort")
    parser.add_argument(
        "--draws", type=draws, help="JSON: `orders`, the training files of each epoch, and `dropout`, its seeds"
    )
    parser.add_argument("--json", type=Path, help="also write the times there")
    return parser.parse_args()


def draws(path: str) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def head(x: Any, seed: int) -> Any:
    keras.utils.set_random_seed(seed)
    x = layers.Dense(1024, activation="relu", kernel_regularizer=keras.regularizers.l2(0.01))(x)
    x = layers.BatchNormalization()(x)
    # Without a seed of its own it would draw one, and so change what comes after.
    x = layers.Dropout(0.5, seed=seed, name="dropout")(x)
    return layers.Dense(1, activation="sigmoid")(x)


def load(options: argparse.Namespace, part: str, shuffle: bool = False) -> Any:
    return keras.utils.image_dataset_from_directory(
        options.folder / part,
        label_mode="binary",
        class_names=options.classes,
        image_size=(options.image_size, options.image_size),
        batch_size=options.batch_size,
        shuffle=shuffle,
        seed=options.seed,
    )


def compile_model(model: keras.Model, learning_rate: float) -> None:
    model.compile(
        optimizer=keras.optimizers.RMSprop(learning_rate),
        loss="binary_crossentropy",
        metrics=["accuracy", keras.metrics.AUC(name="auc")],
    )


def fit(options: argparse.Namespace, model: keras.Model, train: Any, val: Any, epochs: int, name: str) -> None:
    callbacks = [
        # So much patience never stops early; it leaves the restoring of the best weights.
        keras.callbacks.EarlyStopping(patience=epochs, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(f"{name}.keras", save_best_only=True),
    ]
    steps = None
    if options.draws:
        source = model.get_layer("dropout").seed_generator
        reseed = lambda epoch, logs: source.state.assign([options.draws["dropout"][epoch], 0])  # noqa: E731
        callbacks.append(keras.callbacks.LambdaCallback(on_epoch_begin=reseed))
        steps = len(train)
        train = in_order(train, options.draws["orders"][:epochs], options.batch_size)
    model.fit(train, validation_data=val, epochs=epochs, steps_per_epoch=steps, callbacks=callbacks)


def in_order(loader: Any, orders: list[list[str]], batch_size: int) -> Any:
    """The images of `loader`, read as it reads them, in an order for each epoch of `class/file` names."""
    paths = {"/".join(Path(path).parts[-2:]): path for path in loader.file_paths}

    def read(path: Any, label: Any) -> tuple[Any, Any]:
        return tf.cast(tf.io.decode_png(tf.io.read_file(path), channels=3), "float32"), label

    epochs = []
    for order in orders:
        labels = [[float(loader.class_names.index(name.split("/")[0]))] for name in order]
        files = tf.data.Dataset.from_tensor_slices(([paths[name] for name in order], labels))
        epochs.append(files.map(read, tf.data.AUTOTUNE).batch(batch_size))
    return reduce(tf.data.Dataset.concatenate, epochs).prefetch(tf.data.AUTOTUNE)


def lap(since: float) -> tuple[float, float]:
    """Seconds since then, and now."""
    now = time.perf_counter()
    return now - since, now


if __name__ == "__main__":
    main()
