"""Compute Grad-CAM maps, which show what in a slice speaks for its predicted class, and check what they are worth.

A map is made as by Selvaraju et al. (2017). The feature maps of one layer are summed, each weighted by the gradient of
the class score averaged over its pixels, and negative values become 0. The network ends in a single sigmoid, so the
score of the positive class is the logit, and that of the negative class is minus the logit. The class that is
explained is the predicted one.

The feature maps are taken as their difference from a reference, the mean over training slices at the same place. A map
then shows what speaks for the class in this slice and not in the mean one. Without a reference, a network whose
score rises where its features are weaker than usual has maps that are 0 everywhere: features after a ReLU are positive,
and all that speaks for the class is what is missing. Sundararajan et al. (2017) say why attribution needs a reference.

A map shows what the score is sensitive to. It is not evidence that the network looks at disease.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.seeds import derive_seed
from ctscan.images.batches import Slices
from ctscan.model.forward import forward

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image
from scipy.special import expit
from scipy.stats import spearmanr
from tqdm import tqdm

BATCH = 8  # slices at a time: a gradient takes several times the memory of a score
COMPARED = 32  # slices that the sanity check averages over
REFERENCES = 64  # training slices that the reference is the mean of, at most


class GradCam:
    """Maps of a whole network, as `phases.finetune` builds it, at one layer of its backbone.

    Whatever fine-tuning froze, gradients reach the layer, and BatchNormalization and dropout are in inference mode.
    `reference` is what feature maps are compared with, (h, w, d) float32. It is 0 until `compare_with` is called, and
    with 0 the maps are those of Selvaraju et al.

    Args:
        model: from slices (n, s, s, 1) to probabilities (n, 1), with the layers `base` and `head`.
        layer: of `base`; None is the one that gives its output.
        observe: gives that output, feature maps (n, h, w, d), of slices (n, s, s, 1). Give it where `layer` is None and
            such a graph exists, because tracing another takes seconds.

    Raises:
        UserError: `layer` is not a layer of `base` that gives feature maps (n, h, w, d).
    """

    def __init__(
        self, model: keras.Model, layer: str | None = None, observe: Callable[[np.ndarray], Any] | None = None
    ) -> None:
        self.model = model
        base = model.get_layer("base")
        found = _find(base, layer)
        self.layer: str = found.name
        preprocessed = model.get_layer("preprocessing").output
        # The last layer's maps need no gradient of the layers before it, so these run once for all that is asked of it.
        given, through = (preprocessed, keras.Model(base.input, [found.output, base.output]))
        if found.output is base.output:
            given, through = model.get_layer("pooling").input, _twice
        self._observe = observe or forward(keras.Model(model.input, given))
        pooling, head = model.get_layer("pooling"), model.get_layer("head")
        # Taken before the sigmoid, because where a float32 probability is 1 its logit is lost.
        hidden, last = keras.Model(head.inputs, head.layers[-1].input), head.layers[-1]

        shape = tf.TensorSpec(given.shape, given.dtype)
        self.reference: np.ndarray = np.zeros(found.output.shape[1:], np.float32)

        @tf.function(input_signature=[shape])
        def sum_maps(observed: tf.Tensor) -> tf.Tensor:
            """The sum of the feature maps over slices (h, w, d)."""
            return tf.reduce_sum(tf.cast(through(observed, training=False)[0], tf.float32), 0)

        @tf.function(input_signature=[shape, tf.TensorSpec(self.reference.shape)])
        def weigh(observed: tf.Tensor, reference: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Logits (n, 1) and the weighted sum of the feature maps (n, h, w), for the positive class."""
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(observed)
                maps, features = through(observed, training=False)
                logit = tf.cast(hidden(pooling(features), training=False), tf.float32) @ last.kernel + last.bias
            weights = tf.reduce_mean(tf.cast(tape.gradient(logit, maps), tf.float32), (1, 2))
            return logit, tf.einsum("nhwd,nd->nhw", tf.cast(maps, tf.float32) - reference, weights)

        self._sum_maps, self._weigh = sum_maps, weigh

    def compare_with(self, training: np.ndarray) -> None:
        """Make the mean feature maps of slices (n, s, s, 1), as the network is now, the reference."""
        total = sum(self._sum_maps(observed).numpy().astype(float) for observed in self.observe(training))
        self.reference = (total / len(training)).astype(np.float32)

    def explain(self, slices: np.ndarray, threshold: float, positive: np.ndarray | None = None) -> "Maps":
        """Maps of `slices` (n, s, s, 1) uint8.

        Args:
            threshold: a probability at or above it predicts the positive class.
            positive: (n,) bool, the classes to explain instead of the predicted ones.
        """
        return self.explain_observed(self.observe(slices), threshold, positive)

    def observe(self, slices: np.ndarray) -> list[tf.Tensor]:
        """What the network computes of `slices` (n, s, s, 1) before any gradient, in batches, for `explain_observed`.

        That is all but the head where the layer is the last of the backbone.
        """
        return [self._observe(slices[start : start + BATCH]) for start in range(0, len(slices), BATCH)]

    def explain_observed(
        self, observed: list[tf.Tensor], threshold: float, positive: np.ndarray | None = None
    ) -> "Maps":
        """As `explain`, of what `observe` gave of the slices."""
        weighed = [self._weigh(batch, self.reference) for batch in observed]
        logits, signed = (np.concatenate(part) for part in zip(*weighed, strict=True))
        probabilities = expit(logits[:, 0].astype(float))
        called = probabilities >= threshold if positive is None else positive
        return Maps(probabilities, np.maximum(np.where(called, 1, -1)[:, None, None] * signed, 0))


class Gallery(NamedTuple):
    """Examples to draw: slices uint8 (k, s, s), their maps (k, s, s) in [0, 1], and k titles."""

    slices: np.ndarray
    maps: np.ndarray
    titles: list[str]


class Maps(NamedTuple):
    """Probabilities (n,) of the positive class, and maps (n, h, w) >= 0 at the resolution of the layer."""

    probabilities: np.ndarray
    maps: np.ndarray


def enlarge(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps (n, h, w) as float32 (n, size, size): bilinear, each scaled so that its highest value is 1.

    A map that is 0 everywhere stays so: nothing in that slice speaks more for the class than the reference does.
    """
    peaks = maps.max((1, 2), keepdims=True)
    scaled = np.divide(maps, peaks, out=np.zeros_like(maps), where=peaks > 0).astype(np.float32)
    return np.stack(
        [np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BILINEAR)) for one in scaled]
    )


def randomised(cam: GradCam, seed: int) -> Iterator[str]:
    """Draw weights of the network of `cam` anew by their layers' initialisers: those of the head (`head`), then all.

    These are the two ends of the cascade of Adebayo et al. (2018), named `head` and `all`. The network has these
    weights while the caller works on a level, and its own again at the end.
    """
    own = cam.model.get_weights()
    keras.utils.set_random_seed(derive_seed(seed, "saliency"))
    fresh = keras.models.clone_model(cam.model)
    try:
        cam.model.get_layer("head").set_weights(fresh.get_layer("head").get_weights())
        yield "head"
        cam.model.set_weights(fresh.get_weights())
        yield "all"
    finally:
        cam.model.set_weights(own)


def similarity(maps: np.ndarray, others: np.ndarray) -> dict[str, Any]:
    """Spearman's rank correlation of maps (n, h, w), each with the other of its slice: mean over slices, in [-1, 1].

    A map that is the same everywhere has no ranks. Pairs with such a map are left out and counted in `undefined`. The
    mean is None where no pair is left.
    """
    pairs = [(a.ravel(), b.ravel()) for a, b in zip(maps, others, strict=True)]
    ranked = [float(spearmanr(a, b).statistic) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]
    mean = float(np.mean(ranked)) if ranked else None
    return {"spearman": mean, "slices": len(ranked), "undefined": len(pairs) - len(ranked)}


def reference_rows(count: int) -> np.ndarray:
    """Up to `REFERENCES` of the positions of `count` training slices, evenly spaced, for `GradCam.compare_with`."""
    return _evenly(count, REFERENCES)


def sanity_check(
    cam: GradCam, slices: np.ndarray | Slices, training: np.ndarray, threshold: float, seed: int
) -> dict[str, Any]:
    """How much the maps of `cam` resemble those of networks that know less, by level of `randomised`.

    Where the maps of a trained network resemble those of a random one (a correlation near 1), they show the image and
    not what the network has learned (Adebayo et al. 2018). Both explain the class that the trained network predicts,
    and each has its own feature maps of `training` as reference. Up to `COMPARED` of `slices` (n, s, s, 1), evenly
    spaced, are compared; the trained network's map is 0 everywhere for `blank` of them.
    """
    some, reference = slices[_evenly(len(slices), COMPARED)], cam.reference
    observed = cam.observe(some)
    trained = cam.explain_observed(observed, threshold)
    called = trained.probabilities >= threshold
    levels = {}
    try:
        for level in tqdm(randomised(cam, seed), desc="maps of random weights", total=2, unit="network"):
            if level == "all":  # the head comes after what was observed
                observed = cam.observe(some)
                cam.compare_with(training)
            levels[level] = similarity(trained.maps, cam.explain_observed(observed, threshold, called).maps)
    finally:
        cam.reference = reference
    return {
        "layer": cam.layer,
        "resolution": list(trained.maps.shape[1:]),
        "slices": len(some),
        "blank": int((~trained.maps.any((1, 2))).sum()),
        "levels": levels,
    }


def gallery(cam: GradCam, manifest: pd.DataFrame, slices: Slices, scores: np.ndarray, threshold: float) -> Gallery:
    """The slices of a subset that `choose_examples` names, for `figures.draw_saliency`.

    Args:
        manifest: rows (path, label) of the subset.
        slices: the n slices of the subset.
        scores: (n,) of the network.
    """
    chosen = choose_examples(manifest["label"].to_numpy(), scores, threshold)
    rows = [row for row, _ in chosen]
    examples = slices[rows]
    maps = cam.explain(examples, threshold).maps
    titles = [f"{role}\n{Path(manifest['path'].iloc[row]).stem}: {scores[row]:.4f}" for row, role in chosen]
    return Gallery(examples[..., 0], enlarge(maps, slices.size), titles)


def choose_examples(labels: np.ndarray, scores: np.ndarray, threshold: float) -> list[tuple[int, str]]:
    """The most and the least certain of the true and false positives and negatives, as far as they exist.

    An image is the more certain, the further its score is from the threshold; of equals, the first is taken. The result
    is up to eight positions in `scores` (n,), each with what it stands for, such as `true positive, most certain`.
    """
    called = scores >= threshold
    chosen = []
    for label, positive in ((1, True), (0, True), (0, False), (1, False)):
        rows = np.flatnonzero((labels == label) & (called == positive))
        rows = rows[np.argsort(-np.abs(scores[rows] - threshold), kind="stable")]
        kind = f"{'true' if label == positive else 'false'} {'positive' if positive else 'negative'}"
        for row, extreme in zip((rows[:1], rows[1:][-1:]), ("most", "least"), strict=True):
            chosen += [(int(at), f"{kind}, {extreme} certain") for at in row]
    return chosen


def share_inside(maps: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share in [0, 1] of each map (n, s, s) >= 0 that lies in its mask (n, s, s) in [0, 1]; NaN for a map of 0."""
    total = maps.sum((1, 2))
    shares: np.ndarray = np.full(len(maps), np.nan)
    np.divide((maps * masks).sum((1, 2)), total, out=shares, where=total > 0)
    return shares


def _evenly(count: int, most: int) -> np.ndarray:
    """Up to `most` positions from 0 to `count` - 1, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _find(base: keras.Model, name: str | None) -> keras.layers.Layer:
    spatial = [layer for layer in base.layers if _is_spatial(layer)]
    for layer in spatial:
        if layer.name == name or (name is None and layer.output is base.output):
            return layer
    last = {tuple(layer.output.shape[1:3]): layer.name for layer in spatial}
    some = ", ".join(f"{layer} ({height}x{width})" for (height, width), layer in last.items())
    raise UserError(f"'{name}' is not a layer of this backbone with feature maps; the last of each size: {some}")


def _twice(maps: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """Stands for a model from the last feature maps to themselves, as those of the layer and as the backbone's."""
    return maps, maps


def _is_spatial(layer: keras.layers.Layer) -> bool:
    # The output of a nested model is not in the outer graph.
    if isinstance(layer, keras.layers.InputLayer | keras.Model):
        return False
    return len(getattr(layer.output, "shape", ())) == 4
