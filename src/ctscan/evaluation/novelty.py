"""Detect images that the model was never shown anything like, by a novelty score.

The score is made of two distances, because each misses what the other sees. The first is that to the nearest training
image in the fine-tuned network's pooled features, brought to length 1 (Sun et al. 2022). The second is Mahalanobis'
distance from the training images on six statistics of the greys. Each is divided by its 95 % quantile on validation.
The larger of the two is then divided by a limit: validation says, with 95 % confidence, that 95 % of all such slices
stay below it. An image with a score above 1 is unfamiliar.

The detector finds images that are not chest CT slices. A chest CT slice of another hospital, window or orientation may
pass: `near` in metrics/details.json says how often that happens.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.files import require
from ctscan.core.seeds import INFERENCE_BATCH, generator
from ctscan.evaluation.unfamiliar_images import altered_slices, non_ct_images

import keras
import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from tqdm import tqdm

LEVEL = 0.95  # share of slices like the training images that is to pass
CONFIDENCE = 0.95  # that this share passes, over draws of the validation images
REFERENCES = 512  # training images that the detector compares with, at most
DRAWN = 32  # images of each kind that the detector is tried on

Features = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]
Network = Callable[[Images], Any]  # a model of `with_features`, called with slices


class NoveltyDetector(NamedTuple):
    """Gives the novelty score of a slice, from what is known of the training images."""

    references: Features  # (r, d) features of training images, of length 1
    centre: Features  # (6,) mean of the statistics of the training images
    precision: Features  # (6, 6) inverse covariance of those
    scales: Features  # (3,) of both distances and of the larger of the two

    def score(self, slices: Images, features: npt.ArrayLike) -> Features:
        """Novelty scores (n,), above 1 for unfamiliar images, of slices (n, s, s) and their features (n, d)."""
        both = np.column_stack(_distances(self, slices, np.asarray(features, np.float64))) / self.scales[:2]
        larger: Features = both.max(axis=1) / self.scales[2]
        return larger

    def unfamiliar_greys(self, slices: Images) -> npt.NDArray[np.bool_]:
        """Whether the greys of slices (n, s, s) alone, whatever their features, give a novelty score above 1: (n,)."""
        far: npt.NDArray[np.bool_] = _deviations(self, slices) / self.scales[1] / self.scales[2] > 1
        return far

    def save(self, path: Path) -> None:
        """Write an .npz file. NumPy puts no time into it, so equal detectors are equal bytes."""
        np.savez(path, **self._asdict())


def load_detector(path: Path) -> NoveltyDetector:
    """Read what `NoveltyDetector.save` wrote. Raises `UserError` where the file is missing or damaged."""
    require(path)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return NoveltyDetector(**arrays)
    except Exception as error:  # a damaged zip gives errors of any type
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged ({reason}); get it again with `dvc checkout --force {path}`") from None


def with_features(classifier: keras.Model, maps: bool = False) -> keras.Model:
    """The fine-tuned `classifier` with a second output, from the same pass: its pooled features (n, d).

    With `maps` there is a third, the feature maps (n, h, w, d) that are pooled.
    """
    pooling = classifier.get_layer("pooling")
    return keras.Model(classifier.input, [classifier.output, pooling.output, *([pooling.input] if maps else [])])


def observe(network: Network, slices: Images, title: str) -> tuple[Features, Features]:
    """Probabilities (n,) and features (n, d) float64 that `network` gives of slices (n, s, s, 1)."""
    starts = tqdm(range(0, len(slices), INFERENCE_BATCH), desc=title, unit="batch")
    batches = [network(slices[start : start + INFERENCE_BATCH])[:2] for start in starts]
    probabilities, features = (np.concatenate([batch[at] for batch in batches]).astype(float) for at in (0, 1))
    return probabilities[:, 0], features


def reference_rows(train: npt.NDArray[np.intp], seed: int) -> npt.NDArray[np.intp]:
    """Up to `REFERENCES` of the positions `train`, in their order, drawn without replacement."""
    number = min(REFERENCES, len(train))
    return np.sort(generator(seed, "novelty references").choice(train, number, replace=False))


def make_detector(network: Network, train: Images, val: Images, val_features: Features, seed: int) -> NoveltyDetector:
    """A detector from training and validation slices (n, s, s), and the features (n, d) of those of validation.

    Args:
        network: the fine-tuned model, of `with_features`.
        seed: the experiment's, for the draw of the training images that are kept as references.
    """
    references = train[reference_rows(np.arange(len(train)), seed)]
    _, features = observe(network, references[..., None], "features of training images")
    return fit_detector(references, features, val, val_features)


def fit_detector(train: Images, train_features: Features, val: Images, val_features: Features) -> NoveltyDetector:
    """A detector from training and validation slices (n, s, s) and their features (n, d)."""
    from sklearn.covariance import LedoitWolf  # its import takes a second, which a prediction need not wait for

    statistics = _statistics(train)
    shrunk = LedoitWolf().fit(statistics)
    unscaled = NoveltyDetector(_unit(train_features), statistics.mean(axis=0), shrunk.precision_, np.ones(3))
    distances = _distances(unscaled, val, val_features)
    # A network whose features are all alike has distances of 0, by which nothing can be divided.
    scales = [max(float(np.quantile(distance, LEVEL)), float(np.finfo(np.float32).tiny)) for distance in distances]
    larger = (np.column_stack(distances) / scales).max(axis=1)
    return unscaled._replace(scales=np.array([*scales, _tolerance_limit(larger)]))


def measure_detector(
    detector: NoveltyDetector, network: Network, test: Images, test_features: Features, seed: int
) -> dict[str, Any]:
    """How often `detector` is right, as metrics/details.json holds it.

    Returns:
        `test_passes`, the share of test slices (n, s, s) that it lets pass; the shares that it finds unfamiliar of
        images that are not chest CT slices, by kind (`far`), and of altered chest CT slices, by kind (`near`); the
        number of `references` and the `level`.
    """

    def found_unfamiliar(kind: str, images: Images) -> float:
        unfamiliar = detector.unfamiliar_greys(images)
        # The other distance can only add to what the greys alone show, so the network need not see those images.
        doubtful = images[~unfamiliar]
        if len(doubtful):
            _, features = observe(network, doubtful[..., None], f"novelty scores, {kind}")
            unfamiliar[~unfamiliar] = detector.score(doubtful, features) > 1
        return float(unfamiliar.mean())

    some = test[:: max(1, len(test) // DRAWN)][:DRAWN]
    return {
        "references": len(detector.references),
        "level": LEVEL,
        "test_passes": float((detector.score(test, test_features) <= 1).mean()),
        "far": {kind: found_unfamiliar(kind, images) for kind, images in non_ct_images(some, DRAWN, seed).items()},
        "near": {kind: found_unfamiliar(kind, images) for kind, images in altered_slices(some).items()},
    }


def _distances(detector: NoveltyDetector, slices: Images, features: Features) -> tuple[Features, Features]:
    nearest: Features = cdist(_unit(features), detector.references).min(axis=1)
    return nearest, _deviations(detector, slices)


def _deviations(detector: NoveltyDetector, slices: Images) -> Features:
    """Mahalanobis' distance (n,) from the training images on the statistics of slices (n, s, s)."""
    deviation = _statistics(slices) - detector.centre
    distances: Features = np.sqrt(np.einsum("ni,ij,nj->n", deviation, detector.precision, deviation))
    return distances


def _tolerance_limit(distances: Features) -> float:
    """The limit that a share of `LEVEL` of all such distances stays below, with `CONFIDENCE` (Wilks 1941).

    Of fewer than 59 distances it is the largest.
    """
    from scipy.stats import binom  # its import takes half a second, which a prediction need not wait for

    rank = int(binom.ppf(CONFIDENCE, len(distances), LEVEL))
    return float(np.sort(distances)[min(rank, len(distances) - 1)])


def _unit(features: Features) -> Features:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit: Features = features / np.where(lengths > 0, lengths, 1)
    return unit


def _statistics(slices: Images) -> Features:
    """Six statistics of the greys (n, 6), all of the same order, with greys in [0, 1].

    They are the mean, the standard deviation, the shares of dark and of bright pixels, the mean step between neighbours
    and the mean of the upper and lower edge.
    """
    # In batches, because each pixel takes a few numbers of eight bytes while this runs.
    starts = range(0, len(slices), INFERENCE_BATCH)
    return np.concatenate([_batch_statistics(slices[start : start + INFERENCE_BATCH]) for start in starts])


def _batch_statistics(slices: Images) -> Features:
    greys = slices / 255
    steps = sum(np.abs(np.diff(greys, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))
    return np.column_stack(
        [
            greys.mean(axis=(1, 2)),
            greys.std(axis=(1, 2)),
            (slices < 16).mean(axis=(1, 2)),
            (slices > 240).mean(axis=(1, 2)),
            steps,
            greys[:, [0, -1]].mean(axis=(1, 2)),
        ]
    )
