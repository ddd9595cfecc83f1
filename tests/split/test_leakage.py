from ctscan.split import leakage
from ctscan.split.leakage import leak_report, probe_accuracy, probed_images

import numpy as np
import pandas as pd
import pytest
from drawing import texture


def test_probe_knows_neighbours_and_only_those() -> None:
    random = np.random.default_rng(0)
    known = random.integers(0, 250, (200, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 2, 200)
    assert probe_accuracy(known, labels, known + np.uint8(5), labels) == 1
    assert probe_accuracy(known, labels, known + np.uint8(5), 1 - labels) == 0
    strangers = random.integers(0, 250, (400, 28, 28), dtype=np.uint8)
    assert 0.4 < probe_accuracy(known, labels, strangers, random.integers(0, 2, 400)) < 0.6


def test_the_distance_does_not_wrap_around() -> None:
    dark, bright = np.zeros((1, 28, 28), np.uint8), np.full((1, 28, 28), 250, np.uint8)
    known = np.concatenate([dark, bright])
    assert probe_accuracy(known, np.array([0, 1]), np.full((1, 28, 28), 255, np.uint8), np.array([1])) == 1


def test_report_on_a_hand_counted_split() -> None:
    images = np.stack([texture(seed, 28, 28) for seed in (0, 1, 2, 3, 0, 1, 6, 7)])
    # Identical pixels in training and test, a copy of a validation image in test, identical pixels in training.
    copies = np.array([[0, 4], [1, 5], [2, 3]])
    manifest = pd.DataFrame(
        {
            "label": [1, 1, 0, 0, 1, 0, 0, 1],
            "subset": ["train", "val", "train", "train", "test", "test", "val", "val"],
            "group": ["a", "b", "c", "c", "a", "b", "c", "d"],
            "pixel_hash": ["p", "q", "r", "r", "p", "s", "t", "u"],
        }
    )
    assert leak_report(manifest, copies, images, seed=7) == {
        "test_positive": 1,
        "test_negative": 1,
        "probe_accuracy": 0.5,
        "near_duplicate_pairs_across": 2,
        "groups_across": 3,
        "images": {
            "train": {"positive": 1, "negative": 2},
            "val": {"positive": 2, "negative": 1},
            "test": {"positive": 1, "negative": 1},
        },
        "near_duplicates": {"pairs": 3, "identical_pairs": 2, "pairs_into_test": 2},
        "groups": {"number": 4, "with_both_classes": 1, "into_test": 2},
        "probe": {"known": 6, "asked": 2, "groups": 4, "exact": True},
    }


def test_a_large_set_is_probed_on_a_seeded_sample_of_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "PROBED", 200)
    random = np.random.default_rng(0)
    manifest = pd.DataFrame(
        {
            "label": random.integers(0, 2, 1000),
            "subset": random.choice(["train", "val", "test"], 1000),
            "group": [f"patient {number}" for number in random.integers(0, 50, 1000)],
            "pixel_hash": [str(row) for row in range(1000)],
        }
    )
    probed = probed_images(manifest, seed=7)
    assert 200 <= probed.sum() < 200 + manifest.groupby("group").size().max()
    assert not set(manifest["group"][probed]) & set(manifest["group"][~probed])
    assert (probed == probed_images(manifest, seed=7)).all()
    assert (probed != probed_images(manifest, seed=8)).any()

    # Each test image's twin is a training image of its group: with whole groups, the sample knows all of them.
    manifest["subset"] = ["train", "test"] * 500
    manifest["group"] = [f"patient {row // 20}" for row in range(1000)]
    manifest["label"] = np.repeat(random.integers(0, 2, 500), 2)
    images = np.repeat(random.integers(0, 256, (500, 28, 28), dtype=np.uint8), 2, axis=0)
    report = leak_report(manifest, np.empty((0, 2), np.intp), images, seed=7)
    assert report["probe_accuracy"] == 1
    assert report["probe"] == {"known": 100, "asked": 100, "groups": 10, "exact": False}


def test_the_sample_has_both_sides_whatever_the_sizes_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "PROBED", 10)
    manifest = pd.DataFrame({"group": ["a"] * 50 + ["b"] * 50, "subset": ["train"] * 50 + ["test"] * 50})
    assert all(probed_images(manifest, seed).all() for seed in range(4))
