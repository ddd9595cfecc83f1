"""Probe a split for leaks: how much of the test set does a look-up in the training set know before any training?"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ctscan.images.decode import load_slice
from ctscan.split.duplicates import copy_pairs
from ctscan.split.strategies import SUBSETS

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

THUMBNAIL = 28  # pixels, square
KNOWN = 0.98  # probe accuracy from which a split can't be said to keep patients apart


def thumbnails(paths: Iterable[Path]) -> npt.NDArray[np.uint8]:
    """uint8 (n, 28, 28), in the order of `paths`. Raises what `decode.load_slice` raises."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(lambda path: load_slice(path, THUMBNAIL), paths)))


def probe_accuracy(
    known: npt.NDArray[np.uint8],
    known_labels: npt.NDArray[np.int_],
    asked: npt.NDArray[np.uint8],
    asked_labels: npt.NDArray[np.int_],
) -> float:
    """Share in [0, 1] of `asked` thumbnails (m, H, W) with the label of their nearest among `known` (n, H, W).

    The distance is Euclidean over the greys.
    """
    neighbour = KNeighborsClassifier(n_neighbors=1, algorithm="brute")
    neighbour.fit(known.reshape(len(known), -1).astype(np.float32), known_labels)
    return float(neighbour.score(asked.reshape(len(asked), -1).astype(np.float32), asked_labels))


def leak_report(manifest: pd.DataFrame, images: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """What metrics/split.json holds: counts, and signs that test images have relatives in training.

    Args:
        manifest: of `strategies.assign_subsets`.
        images: the thumbnails of its rows, uint8 (n, 28, 28).

    Returns:
        Headline figures at the top level, details below `images`, `near_duplicates` and `groups`. The probe goes from
        train and val to test. Pairs and groups are across when they lie in more than one of train, val and test.
    """
    label, subset = manifest["label"].to_numpy(), manifest["subset"].to_numpy()
    test = subset == "test"
    pairs = copy_pairs(manifest)
    pixels = manifest["pixel_hash"].to_numpy()
    apart = subset[pairs[:, 0]] != subset[pairs[:, 1]]
    into_test = test[pairs[:, 0]] != test[pairs[:, 1]]
    # Images of each group (rows) in each subset, and of each class (columns).
    members = pd.crosstab(manifest["group"], manifest["subset"]).reindex(columns=list(SUBSETS), fill_value=0)
    classes = pd.crosstab(manifest["group"], manifest["label"])
    shared = members["test"].gt(0) & members[["train", "val"]].gt(0).any(axis=1)
    return {
        "test_positive": int((test & (label == 1)).sum()),
        "test_negative": int((test & (label == 0)).sum()),
        "probe_accuracy": probe_accuracy(images[~test], label[~test], images[test], label[test]),
        "near_duplicate_pairs_across": int(apart.sum()),
        "groups_across": int((members.gt(0).sum(axis=1) > 1).sum()),
        "images": {
            part: {
                "positive": int(((subset == part) & (label == 1)).sum()),
                "negative": int(((subset == part) & (label == 0)).sum()),
            }
            for part in SUBSETS
        },
        "near_duplicates": {
            "pairs": len(pairs),
            "identical_pairs": int((pixels[pairs[:, 0]] == pixels[pairs[:, 1]]).sum()),
            "pairs_into_test": int(into_test.sum()),
        },
        "groups": {
            "number": len(members),
            "with_both_classes": int((classes.gt(0).sum(axis=1) > 1).sum()),
            "into_test": int(shared.sum()),
        },
    }


def contradiction(report: dict[str, Any]) -> str | None:
    """A warning where the probe knows nearly all test images of a split that says of itself that no group is across."""
    if report["groups_across"] > 0 or report["probe_accuracy"] < KNOWN:
        return None
    return (
        f"a nearest neighbour in training knows {report['probe_accuracy']:.3f} of the test images although no group is "
        "across: most likely images of one patient lie on both sides, or the classes differ by something trivial; say "
        "in groups.csv who belongs together, and do not trust scores on this split"
    )
