"""Score the test images with what a model has to beat: simple classifiers, and controls that see no lung at all.

Every function takes training data with labels and test data without, and returns test scores (n,) in [0, 1]. A score
of .5 or more means that the classifier calls the image positive.
"""

from typing import NamedTuple

from ctscan.core import seeds
from ctscan.core.errors import UserError
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

Images = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


class Inputs(NamedTuple):
    """What the baselines may see of a subset of n images."""

    images: Images  # (n, s, s) grey
    sizes: npt.ArrayLike  # (n, 2) width and height of the files in pixels
    features: npt.ArrayLike  # (n, d) features of the frozen backbone


def run_baselines(
    train: Inputs, train_labels: npt.ArrayLike, test: Inputs, train_groups: npt.ArrayLike | None, seed: int
) -> dict[str, Scores]:
    """Test scores of every baseline and control, by name.

    Raises:
        UserError: one class only among `train_labels`, or inputs that aren't one for each label.
    """
    return {
        "nearest_neighbour": nearest_neighbour(train.images, train_labels, test.images),
        "hog_svm": hog_svm(train.images, train_labels, test.images),
        "image_size": image_size(train.sizes, train_labels, test.sizes),
        "image_border": image_border(train.images, train_labels, test.images),
        "shuffled_labels": shuffled_labels(train.features, train_labels, test.features, train_groups, seed),
    }


def nearest_neighbour(train_images: Images, train_labels: npt.ArrayLike, test_images: Images) -> Scores:
    """One nearest neighbour by Euclidean distance on 28x28 thumbnails.

    The score is d0 / (d0 + d1), where d0 and d1 are the distances to the nearest negative and positive training image.
    It is above .5 where the nearest image is positive and .5 at equal distances, and it is graded, so that it has an
    AUC.
    """
    labels = _matched(train_labels, train_images)
    train, test = _pixels(train_images), _pixels(test_images)
    to_negative, to_positive = (pairwise_distances_argmin_min(test, train[labels == label])[1] for label in (0, 1))
    both = to_negative + to_positive
    scores: Scores = np.where(both > 0, to_negative / np.where(both > 0, both, 1), 0.5)
    return scores


def hog_svm(train_images: Images, train_labels: npt.ArrayLike, test_images: Images) -> Scores:
    """Linear support vector machine on histograms of oriented gradients (Dalal & Triggs 2005) of 128x128 images.

    9 orientations, cells of 16x16 pixels, blocks of 2x2 cells: 1764 features, standardised. The score is the sigmoid of
    the signed distance to the boundary, not a calibrated probability.
    """
    labels = _matched(train_labels, train_images)
    # With dual=False, nothing is drawn at random.
    machine = make_pipeline(StandardScaler(), LinearSVC(C=0.001, dual=False))
    machine.fit(_gradients(train_images), labels)
    scores: Scores = expit(machine.decision_function(_gradients(test_images)))
    return scores


def image_size(train_sizes: npt.ArrayLike, train_labels: npt.ArrayLike, test_sizes: npt.ArrayLike) -> Scores:
    """Logistic regression on width, height, aspect and area of the image files; sizes are (n, 2) in pixels."""
    return _logistic(_shape(train_sizes), _matched(train_labels, train_sizes), _shape(test_sizes), c=1.0)


def image_border(train_images: Images, train_labels: npt.ArrayLike, test_images: Images) -> Scores:
    """Logistic regression on the outermost pixels of 28x28 thumbnails, a ring without lung.

    The ring is as wide as 1/28 of the side. Thumbnails are means of areas, so nothing from further inside reaches it.
    """
    labels = _matched(train_labels, train_images)
    ring = np.ones((THUMBNAIL, THUMBNAIL), dtype=bool)
    ring[1:-1, 1:-1] = False
    return _logistic(_pixels(train_images)[:, ring.ravel()], labels, _pixels(test_images)[:, ring.ravel()], c=0.01)


def shuffled_labels(
    train_features: npt.ArrayLike,
    train_labels: npt.ArrayLike,
    test_features: npt.ArrayLike,
    train_groups: npt.ArrayLike | None,
    seed: int,
) -> Scores:
    """Logistic regression on features (n, d) whose training labels `shuffle` has permuted; its AUC must be near .5."""
    labels = _matched(train_labels, train_features)
    shuffled = shuffle(labels, train_groups, seed)
    return _logistic(np.asarray(train_features), shuffled, np.asarray(test_features), c=0.01)


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


def _logistic(train: Matrix, labels: Labels, test: Matrix, c: float) -> Scores:
    # A few features need no shrinking. With about as many features as images, it keeps the fit finite and quick.
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
    scores: Scores = model.fit(train, labels).predict_proba(test)[:, 1]
    return scores


def _resized(images: Images, side: int) -> Images:
    return np.stack([np.asarray(Image.fromarray(i).resize((side, side), Image.Resampling.BOX)) for i in images])


def _pixels(images: Images) -> Matrix:
    return _resized(images, THUMBNAIL).reshape(len(images), -1).astype(np.float64)


def _gradients(images: Images) -> Matrix:
    return np.stack(
        [hog(image, pixels_per_cell=(16, 16), cells_per_block=(2, 2)) for image in _resized(images, HOG_SIDE)]
    )


def _shape(sizes: npt.ArrayLike) -> Matrix:
    width, height = np.asarray(sizes, dtype=np.float64).T
    return np.column_stack([width, height, width / height, width * height])
