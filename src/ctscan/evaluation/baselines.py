"""Score images with what a model has to beat: simple classifiers, and controls that see no lung at all.

Every function learns from training data with labels, and gives a function from the `Inputs` of n other images to their
scores (n,) in [0, 1]. A score of .5 or more means that the classifier calls the image positive.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ctscan.core import seeds
from ctscan.core.errors import UserError
from ctscan.core.sampling import whole_groups
from ctscan.evaluation.metrics import Labels, Scores, checked_labels

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.special import expit
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

THUMBNAIL = 28  # pixels, square
HOG_SIDE = 128  # pixels, square
# Training images up to which the baselines learn from all. Above, their memory and, for each image that they score,
# the time of the nearest neighbour would grow with the set.
LEARNED = 10_000

Images = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


class Inputs(NamedTuple):
    """What the baselines see of n images; `describe` gives the first two."""

    thumbnails: Images  # (n, 28, 28) grey
    gradients: Matrix  # (n, 1764) histograms of oriented gradients
    sizes: npt.ArrayLike  # (n, 2) width and height of the files in pixels
    features: npt.ArrayLike  # (n, d) features of the frozen backbone


Scorer = Callable[[Inputs], Scores]


def describe(batches: Iterable[Images]) -> tuple[Images, Matrix]:
    """Thumbnails (n, 28, 28) and gradients (n, 1764) of n images, which come in batches (b, s, s) of grey.

    Gradients are the histograms of Dalal & Triggs (2005) of 128x128 images: 9 orientations, cells of 16x16 pixels,
    blocks of 2x2 cells.
    """
    described = [(_resized(images, THUMBNAIL), _gradients(images)) for images in batches]
    return np.concatenate([thumbnails for thumbnails, _ in described]), np.concatenate([rows for _, rows in described])


def learned_rows(labels: npt.ArrayLike, groups: npt.ArrayLike, seed: int) -> npt.NDArray[np.intp]:
    """Positions of the training images that the baselines learn from: all, or of more than `LEARNED` a seeded sample.

    The sample is of whole groups and has both classes. It holds `LEARNED` images and the rest of the last group.
    """
    return np.flatnonzero(whole_groups(groups, labels, LEARNED, seeds.generator(seed, "baselines")))


def learned_report(rows: npt.NDArray[np.intp], groups: npt.ArrayLike) -> dict[str, Any]:
    """What metrics/details.json says of `learned_rows`: `exact` where these are all training images, and counts."""
    every = np.asarray(groups)
    return {
        "exact": len(rows) == len(every),
        "learned_images": len(rows),
        "learned_groups": len(np.unique(every[rows])),
        "train_images": len(every),
    }


def fit_baselines(train: Inputs, labels: npt.ArrayLike, groups: npt.ArrayLike | None, seed: int) -> dict[str, Scorer]:
    """Every baseline and control, by name.

    Raises:
        UserError: one class only among the training `labels`, or inputs that aren't one for each label.
    """
    return {
        "nearest_neighbour": nearest_neighbour(train, labels),
        "hog_svm": hog_svm(train, labels),
        "image_size": image_size(train, labels),
        "image_border": image_border(train, labels),
        "shuffled_labels": shuffled_labels(train, labels, groups, seed),
    }


def nearest_neighbour(train: Inputs, labels: npt.ArrayLike) -> Scorer:
    """One nearest neighbour by Euclidean distance on 28x28 thumbnails.

    The score is d0 / (d0 + d1), where d0 and d1 are the distances to the nearest negative and positive training image.
    It is above .5 where the nearest image is positive and .5 at equal distances, and it is graded, so that it has an
    AUC.
    """
    truth = _matched(labels, train.thumbnails)
    known = [_pixels(train)[truth == label] for label in (0, 1)]

    def score(asked: Inputs) -> Scores:
        to_negative, to_positive = (pairwise_distances_argmin_min(_pixels(asked), images)[1] for images in known)
        both = to_negative + to_positive
        scores: Scores = np.where(both > 0, to_negative / np.where(both > 0, both, 1), 0.5)
        return scores

    return score


def hog_svm(train: Inputs, labels: npt.ArrayLike) -> Scorer:
    """Linear support vector machine on histograms of oriented gradients, standardised.

    The score is the sigmoid of the signed distance to the boundary, not a calibrated probability.
    """
    # With dual=False, nothing is drawn at random.
    machine = make_pipeline(StandardScaler(), LinearSVC(C=0.001, dual=False))
    machine.fit(train.gradients, _matched(labels, train.gradients))

    def score(asked: Inputs) -> Scores:
        scores: Scores = expit(machine.decision_function(asked.gradients))
        return scores

    return score


def image_size(train: Inputs, labels: npt.ArrayLike) -> Scorer:
    """Logistic regression on width, height, aspect and area of the image files."""
    return _logistic(train, labels, _shape, c=1.0)


def image_border(train: Inputs, labels: npt.ArrayLike) -> Scorer:
    """Logistic regression on the outermost pixels of 28x28 thumbnails, a ring without lung.

    The ring is as wide as 1/28 of the side. Thumbnails are means of areas, so nothing from further inside reaches it.
    """
    return _logistic(train, labels, _border, c=0.01)


def shuffled_labels(train: Inputs, labels: npt.ArrayLike, groups: npt.ArrayLike | None, seed: int) -> Scorer:
    """Logistic regression on features whose training labels `shuffle` has permuted; its AUC must be near .5."""
    shuffled = shuffle(_matched(labels, train.features), groups, seed)
    return _logistic(train, shuffled, lambda images: np.asarray(images.features), c=0.01)


def shuffle(labels: npt.ArrayLike, groups: npt.ArrayLike | None, seed: int) -> Labels:
    """Labels (n,) permuted between groups (n,), or between images where no groups are given.

    All images of a group get the same new label, except in at most one group per class, which is cut to reach the
    counts. The share of positives is the same in both true classes, so the new labels say nothing about the true ones.
    A free permutation of a few dozen groups often does by accident, and then the control is not at chance.

    Raises:
        UserError: one class only, not one group per label, or too few images for both classes to remain.
    """
    truth = checked_labels(labels, "train")
    group = np.arange(len(truth)) if groups is None else np.asarray(groups)
    if group.shape != truth.shape:
        raise UserError(f"train: {len(truth)} images but groups of shape {group.shape}; give each image one group")
    _, group = np.unique(group, return_inverse=True)
    rank = seeds.generator(seed, "shuffled labels").permutation(group.max() + 1)[group]
    shuffled = np.zeros_like(truth)
    for label in (0, 1):
        members = np.flatnonzero(truth == label)
        members = members[np.argsort(rank[members], kind="stable")]
        shuffled[members[: round(len(members) * truth.mean())]] = 1
    return checked_labels(shuffled, "train, labels shuffled")


def _matched(labels: npt.ArrayLike, rows: npt.ArrayLike) -> Labels:
    truth = checked_labels(labels, "train")
    if len(np.asarray(rows)) != len(truth):
        raise UserError(f"train: {len(truth)} labels but {len(np.asarray(rows))} images; give each image one label")
    return truth


def _logistic(train: Inputs, labels: npt.ArrayLike, columns: Callable[[Inputs], Matrix], c: float) -> Scorer:
    # A few features need no shrinking. With about as many features as images, it keeps the fit finite and quick.
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
    known = columns(train)
    model.fit(known, _matched(labels, known))

    def score(asked: Inputs) -> Scores:
        scores: Scores = model.predict_proba(columns(asked))[:, 1]
        return scores

    return score


def _resized(images: Images, side: int) -> Images:
    return np.stack([np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling.BOX)) for i in images])


def _gradients(images: Images) -> Matrix:
    return np.stack(
        [hog(image, pixels_per_cell=(16, 16), cells_per_block=(2, 2)) for image in _resized(images, HOG_SIDE)]
    )


def _pixels(images: Inputs) -> Matrix:
    return images.thumbnails.reshape(len(images.thumbnails), -1).astype(np.float64)


def _border(images: Inputs) -> Matrix:
    ring = np.ones((THUMBNAIL, THUMBNAIL), dtype=bool)
    ring[1:-1, 1:-1] = False
    return _pixels(images)[:, ring.ravel()]


def _shape(images: Inputs) -> Matrix:
    width, height = np.asarray(images.sizes, dtype=np.float64).T
    return np.column_stack([width, height, width / height, width * height])
