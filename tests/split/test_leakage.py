from pathlib import Path

from ctscan.split.leakage import leak_report, probe_accuracy, thumbnails

import numpy as np
import pandas as pd
from drawing import texture
from PIL import Image


def test_thumbnails_are_in_order_and_small(tmp_path: Path) -> None:
    paths = [tmp_path / f"{value}.png" for value in (9, 200, 3)]
    for path in paths:
        Image.new("L", (50, 40), int(path.stem)).save(path)
    images = thumbnails(paths)
    assert images.shape == (3, 28, 28)
    assert images.dtype == np.uint8
    assert images.mean(axis=(1, 2)).tolist() == [9, 200, 3]


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
    digests = [np.random.default_rng(row).bytes(32).hex() for row in range(8)]
    digests[4] = digests[0]  # identical to a training image
    digests[5] = f"{int(digests[1], 16) ^ 3:064x}"  # a copy of a validation image, re-encoded
    digests[3] = digests[2]  # identical, in training both
    manifest = pd.DataFrame(
        {
            "label": [1, 1, 0, 0, 1, 0, 0, 1],
            "subset": ["train", "val", "train", "train", "test", "test", "val", "val"],
            "group": ["a", "b", "c", "c", "a", "b", "c", "d"],
            "pixel_hash": ["p", "q", "r", "r", "p", "s", "t", "u"],
            "perceptual_hash": digests,
        }
    )
    assert leak_report(manifest, images) == {
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
    }
