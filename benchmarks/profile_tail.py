"""Images per second of a fine-tuning step on the cached boundary, part by part: what the tail's time goes into.

    python benchmarks/profile_tail.py [--precision mixed_bfloat16] [--batch-size 16 32 64]

The network has random weights and the images are noise: neither changes what a step costs.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.params import Head
from ctscan.core.seeds import make_deterministic
from ctscan.model.backbone import build_backbone
from ctscan.model.bfloat16 import use_fused_normalization, use_matrix_products
from ctscan.model.freezing import classify, cut_network, freeze, freeze_normalization
from ctscan.model.head import build_head
from ctscan.training.activation_cache import activation_cache
from ctscan.training.loop import Examples, compile_classifier

import keras
import numpy as np
import tensorflow as tf

SCRATCH = Path(__file__).parents[1] / ".scratch" / "profile"

Work = Callable[[Any, tf.Tensor], Any]


def main() -> None:
    options = _parse()
    make_deterministic()
    print(f"{'images/s at batch':40}", *(f"{size:>7}" for size in options.batch_size))
    for precision in options.precision:
        keras.config.set_dtype_policy(precision)
        print(f"{options.backbone}, last {options.unfreeze_depth} layers, {options.image_size} px, {precision}")
        _profile(options)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Where the time of the tail goes.")
    parser.add_argument("--backbone", default="ResNet101V2")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--unfreeze-depth", type=int, default=150)
    parser.add_argument("--precision", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--images", type=int, default=192, help="that each figure is measured on")
    return parser.parse_args()


def _profile(options: argparse.Namespace) -> None:
    backbone = build_backbone(options.backbone, "random", options.image_size, seed=0)
    base = backbone.get_layer("base")
    head = build_head(base.output_shape[-1], Head(units=1024, l2=0.01, dropout=0.5), seed=0)
    trunk, frontier = cut_network(base, options.unfreeze_depth)
    freeze(base, options.unfreeze_depth)
    freeze_normalization(head)
    # A copy, because filling the cache gives the trunk faster layers.
    whole = keras.models.clone_model(keras.Model(backbone.input, classify(backbone.output, head)))
    freeze(whole.get_layer("base"), options.unfreeze_depth)
    tail = keras.Model(frontier, classify(base.output, head))
    products, both = keras.models.clone_model(tail), keras.models.clone_model(tail)
    for model in (products, both):
        use_matrix_products(model)
    use_fused_normalization(both)
    trunk = keras.Model(backbone.input, trunk(backbone.get_layer("preprocessing").output))
    for model in (whole, tail, products, both):
        compile_classifier(model, 1e-5)

    rng = np.random.default_rng(0)
    count = options.images
    slices = tf.constant(rng.integers(0, 256, (count, options.image_size, options.image_size, 1), dtype=np.uint8))
    labels = np.arange(count) % 2
    memory = [
        tf.concat(tensors, 0)
        for tensors in zip(*(tf.nest.flatten(trunk(batch)) for batch in _split(slices, 32)), strict=True)
    ]
    from_memory = Examples(
        np.arange(count), labels, lambda positions: tuple(tf.gather(tensor, positions) for tensor in memory)
    )
    from_slices = Examples(np.arange(count), labels, lambda positions: tf.gather(slices, positions))

    with _cached(trunk, frontier, slices) as rows:
        from_cache = Examples(np.arange(count), labels, rows)
        parts: dict[str, tuple[Work, Examples]] = {
            "forward, whole network": (_forward(whole), from_slices),
            "forward, trunk": (_forward(trunk), from_slices),
            "forward, tail": (_forward(tail), from_memory),
            "forward and backward, tail": (_gradients(tail), from_memory),
            "step, tail, NumPy arrays": (_numpy_step(tail), from_memory),
            "step, tail, tensors in memory": (_step(tail), from_memory),
            "step, tail, streamed cache": (_step(tail), from_cache),
            "step, tail, matrix products": (_step(products), from_memory),
            "step, tail, and fused normalization": (_step(both), from_memory),
            "step, whole network": (_step(whole), from_slices),
            "reading the cache alone": (lambda inputs, labels: None, from_cache),
        }
        for name, (work, source) in parts.items():
            print(f"  {name:38}", end="", flush=True)
            for size in options.batch_size:
                print(f" {_time(work, source, size):7.1f}", end="", flush=True)
            print()


@contextmanager
def _cached(trunk: keras.Model, frontier: list[keras.KerasTensor], slices: tf.Tensor) -> Iterator[Any]:
    with activation_cache(SCRATCH, len(slices), frontier) as cache:
        if cache is None:
            sys.exit("profile-tail: too little disk for the boundary cache")
        cache.fill(trunk, _split(slices, 32))
        yield cache.rows


def _split(slices: tf.Tensor, size: int) -> list[tf.Tensor]:
    return [slices[start : start + size] for start in range(0, len(slices), size)]


def _time(work: Work, source: Examples, batch_size: int) -> float:
    """Images/s of `work` over whole batches of `source`; a pass of two batches before it builds the graph."""
    batches = len(source.labels) // batch_size
    if not batches:
        sys.exit(f"profile-tail: {len(source.labels)} images are less than a batch of {batch_size}; raise --images")
    data = source.ordered(batch_size)
    for inputs, labels in data.take(min(2, batches)):
        work(inputs, labels)
    clock = time.perf_counter()
    for inputs, labels in data.take(batches):
        work(inputs, labels)
    return batches * batch_size / (time.perf_counter() - clock)


def _forward(model: keras.Model) -> Work:
    run = tf.function(lambda inputs: model(inputs, training=False))
    return lambda inputs, labels: tf.nest.map_structure(lambda tensor: tensor.numpy(), run(inputs))


def _gradients(model: keras.Model) -> Work:
    @tf.function
    def run(inputs: Any, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(labels[:, None], model(inputs, training=True)))
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        return tf.add_n([tf.reduce_sum(tf.cast(gradient, tf.float32)) for gradient in gradients])  # so none is pruned

    return lambda inputs, labels: run(inputs, labels).numpy()


def _step(model: keras.Model) -> Work:
    return lambda inputs, labels: model.train_on_batch(inputs, labels)


def _numpy_step(model: keras.Model) -> Work:
    return lambda inputs, labels: model.train_on_batch([tensor.numpy() for tensor in inputs], labels.numpy())


if __name__ == "__main__":
    main()
