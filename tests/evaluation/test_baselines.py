"""Each baseline finds a signal planted where it looks, and is blind to one planted elsewhere."""

from collections.abc import Callable

from ctscan.core.errors import UserError
from ctscan.evaluation import baselines
from ctscan.evaluation.baselines import (
    Inputs,
    Scorer,
    describe,
    fit_baselines,
    hog_svm,
    image_border,
    image_size,
    learned_report,
    learned_rows,
    nearest_neighbour,
    shuffle,
    shuffled_labels,
)

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

SIDE = 56
TRAIN, TEST = 60, 60

Baseline = Callable[[Inputs, npt.ArrayLike], Scorer]


def seen(images: npt.NDArray[np.uint8]) -> Inputs:
    return Inputs(*describe([images]), np.zeros((len(images), 0)), np.zeros((len(images), 0)))


def of_sizes(sizes: npt.ArrayLike) -> Inputs:
    return inputs(len(np.asarray(sizes)), 0)._replace(sizes=sizes)


def of_features(features: npt.NDArray[np.float64]) -> Inputs:
    empty = np.zeros((len(features), 0))
    return Inputs(empty.astype(np.uint8), empty, empty, features)


def noise(n: int, seed: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(60, 140, (n, SIDE, SIDE)).astype(np.uint8)


def labels_of(n: int) -> npt.NDArray[np.int64]:
    return np.arange(n) % 2


def centre(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    images[labels == 1, 16:40, 16:40] += 40


def border(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    images[labels == 1, :2] += 40


def just_inside(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    images[labels == 1, 2:-2, 2:-2] += 100


def stripes(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    for image, label in zip(images, labels, strict=True):
        grid = np.indices(image.shape)[label]
        image[:] = image // 4 + 100 * (grid // 4 % 2)


@pytest.mark.parametrize(
    ("baseline", "plant"), [(nearest_neighbour, centre), (hog_svm, stripes), (image_border, border)]
)
def test_finds_what_it_looks_at(baseline: Baseline, plant: Callable[..., None]) -> None:
    train, test = noise(TRAIN, 1), noise(TEST, 2)
    plant(train, labels_of(TRAIN))
    plant(test, labels_of(TEST))
    scores = baseline(seen(train), labels_of(TRAIN))(seen(test))
    assert scores.shape == (TEST,)
    assert 0 <= scores.min() <= scores.max() <= 1
    assert roc_auc_score(labels_of(TEST), scores) > 0.9
    assert ((scores >= 0.5) == labels_of(TEST)).mean() > 0.8


def test_border_is_blind_to_all_but_the_border() -> None:
    plain, planted = noise(TRAIN, 1), noise(TRAIN, 1)
    just_inside(planted, labels_of(TRAIN))
    test = seen(noise(TEST, 2))
    first, second = (image_border(seen(train), labels_of(TRAIN))(test) for train in (plain, planted))
    assert (first == second).all()


@pytest.mark.parametrize("baseline", [nearest_neighbour, hog_svm, image_border])
def test_no_signal_gives_chance(baseline: Baseline) -> None:
    scores = baseline(seen(noise(TRAIN, 1)), labels_of(TRAIN))(seen(noise(TEST, 2)))
    assert 0.3 < roc_auc_score(labels_of(TEST), scores) < 0.7


def test_nearest_neighbour_calls_as_the_library_does() -> None:
    train, test = noise(TRAIN, 1), noise(TEST, 2)
    small = [np.asarray(images, dtype=float).reshape(-1, 28, 2, 28, 2).mean(axis=(2, 4)) for images in (train, test)]
    library = KNeighborsClassifier(1).fit(small[0].reshape(TRAIN, -1), labels_of(TRAIN))
    calls = nearest_neighbour(seen(train), labels_of(TRAIN))(seen(test)) >= 0.5
    # Thumbnails are rounded to whole greys, so a near tie may fall otherwise.
    assert (calls == library.predict(small[1].reshape(TEST, -1))).mean() > 0.95


def test_nearest_neighbour_of_a_copy() -> None:
    train = noise(4, 1)
    assert nearest_neighbour(seen(train), [0, 1, 0, 1])(seen(train)).tolist() == [0, 1, 0, 1]
    twins = np.stack([train[0], train[0]])
    assert nearest_neighbour(seen(twins), [0, 1])(seen(train[:1])).tolist() == [0.5]


def sizes_of(n: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(200, 400, (n, 2))


def test_image_size_sees_size_alone() -> None:
    train, test = sizes_of(TRAIN, 1), sizes_of(TEST, 2)
    blind = image_size(of_sizes(train), labels_of(TRAIN))(of_sizes(test))
    assert 0.25 < roc_auc_score(labels_of(TEST), blind) < 0.75
    # The planted signal is in the aspect: neither width nor height tells the classes apart.
    for sizes in (train, test):
        sizes[:, 1] = sizes[:, 0] * (1 + 0.3 * labels_of(len(sizes)))
    scores = image_size(of_sizes(train), labels_of(TRAIN))(of_sizes(test))
    assert roc_auc_score(labels_of(TEST), scores) > 0.95


def test_equal_sizes_give_equal_scores() -> None:
    scores = image_size(of_sizes([[300, 200]] * 6), labels_of(6))(of_sizes([[300, 200]] * 4))
    assert scores == pytest.approx([0.5] * 4)


@pytest.mark.parametrize("seed", range(5))
def test_shuffling_moves_whole_groups_and_keeps_the_shares(seed: int) -> None:
    groups = np.repeat(np.arange(40), 4)
    labels = (groups < 24).astype(int)
    shuffled = shuffle(labels, groups, seed)
    by_group = shuffled.reshape(40, 4)
    cut = (by_group.min(axis=1) != by_group.max(axis=1)).sum()
    assert cut <= 2
    for label in (0, 1):
        assert shuffled[labels == label].mean() == pytest.approx(0.6, abs=0.01)
    assert (shuffle(labels, groups, seed) == shuffled).all()
    assert (shuffle(labels, groups, seed + 1) != shuffled).any()
    assert shuffle(labels, None, seed).mean() == pytest.approx(0.6, abs=0.01)


def test_shuffled_labels_land_at_chance_where_true_ones_do_not() -> None:
    """The worst leak: groups with features of their own, a class signal, and half of each group in the test set."""
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(60), 4)
    labels = groups % 2
    features = rng.normal(size=(60, 100))[groups] + 0.5 * labels[:, None] + 0.3 * rng.normal(size=(240, 100))
    train, test = np.arange(240) % 4 < 2, np.arange(240) % 4 >= 2
    aucs = [
        roc_auc_score(
            labels[test],
            shuffled_labels(of_features(features[train]), labels[train], groups[train], seed)(
                of_features(features[test])
            ),
        )
        for seed in range(10)
    ]
    assert 0.45 < np.mean(aucs) < 0.55
    assert 0.3 < min(aucs) < max(aucs) < 0.7
    assert roc_auc_score(labels[test], nearest_features(features[train], labels[train], features[test])) == 1


def nearest_features(
    train: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], test: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    predicted: npt.NDArray[np.int64] = KNeighborsClassifier(1).fit(train, labels).predict(test)
    return predicted


def inputs(n: int, seed: int) -> Inputs:
    return Inputs(*describe([noise(n, seed)]), sizes_of(n, seed), np.random.default_rng(seed).normal(size=(n, 8)))


def test_all_baselines_by_name_and_reproducibly() -> None:
    first, again = (fit_baselines(inputs(12, 1), labels_of(12), np.arange(12) // 2, 7) for _ in range(2))
    assert list(first) == ["nearest_neighbour", "hog_svm", "image_size", "image_border", "shuffled_labels"]
    asked = inputs(5, 2)
    for name, score in first.items():
        assert score(asked).shape == (5,), name
        assert (score(asked) == again[name](asked)).all(), name


def test_images_are_described_alike_in_batches_of_any_size() -> None:
    images = noise(5, 1)
    (thumbnails, gradients), parts = describe([images]), describe([images[:3], images[3:]])
    assert thumbnails.shape == (5, 28, 28)
    assert gradients.shape == (5, 1764)
    assert np.array_equal(thumbnails, parts[0])
    assert np.array_equal(gradients, parts[1])


def test_up_to_a_bound_all_training_images_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, labels = np.arange(60) // 3, labels_of(60)
    monkeypatch.setattr(baselines, "LEARNED", 60)
    rows = learned_rows(labels, groups, seed=7)
    assert rows.tolist() == list(range(60))
    report = {"exact": True, "learned_images": 60, "learned_groups": 20, "train_images": 60}
    assert learned_report(rows, groups) == report


def test_above_the_bound_whole_groups_of_both_classes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.random.default_rng(0).permutation(np.arange(60) // 3)
    labels = groups % 2
    monkeypatch.setattr(baselines, "LEARNED", 10)
    for seed in range(5):
        rows = learned_rows(labels, groups, seed)
        assert set(labels[rows]) == {0, 1}
        assert np.isin(groups, groups[rows]).sum() == len(rows)
        assert learned_rows(labels, groups, seed).tolist() == rows.tolist()
        report = learned_report(rows, groups)
        assert (report["exact"], report["learned_images"], report["train_images"]) == (False, len(rows), 60)
        assert report["learned_groups"] == len(rows) / 3
        assert 12 <= len(rows) < 60
    assert learned_rows(labels, groups, 0).tolist() != learned_rows(labels, groups, 1).tolist()


def test_bad_input_is_named() -> None:
    with pytest.raises(UserError, match="train: none of its 4 images is of the positive class"):
        nearest_neighbour(seen(noise(4, 1)), [0] * 4)
    with pytest.raises(UserError, match="train: 3 labels but 4 images"):
        hog_svm(seen(noise(4, 1)), [0, 1, 0])
    with pytest.raises(UserError, match="train: 4 images but groups of shape"):
        shuffle([0, 1, 0, 1], [1, 2], 0)
    with pytest.raises(UserError, match="train, labels shuffled: none of its 2 images"):
        shuffle([0, 1], None, 0)
