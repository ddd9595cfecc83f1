"""Probe a split for leaks: how much of the test set does a look-up in the training set know before any training?"""

from typing import Any

from ctscan.core.sampling import whole_groups
from ctscan.core.seeds import generator
from ctscan.split.duplicates import Pairs
from ctscan.split.strategies import SUBSETS

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

KNOWN = 0.98  # probe accuracy from which a split can't be said to keep patients apart
PROBED = 20_000  # images up to which all are probed; the probe's time grows with their square


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


def probed_images(manifest: pd.DataFrame, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows (n,) the probe looks at: all, or of more than PROBED those of whole groups, drawn by `seed`.

    Groups are drawn until they hold PROBED images, and images on both sides of the split. They are whole, so that each
    test image that is asked for meets all of its relatives in training.
    """
    return whole_groups(manifest["group"], manifest["subset"] == "test", PROBED, generator(seed, "probe"))


def leak_report(manifest: pd.DataFrame, copies: Pairs, thumbnails: npt.NDArray[np.uint8], seed: int) -> dict[str, Any]:
    """What metrics/split.json holds: counts, and signs that test images have relatives in training.

    Args:
        manifest: of `strategies.assign_subsets`.
        copies: the positions (m, 2) of pairs of its rows that are copies, of `check.scan`.
        thumbnails: of its rows, uint8 (n, 28, 28), of `check.scan`.
        seed: of params.yaml, for `probed_images`.

    Returns:
        Headline figures at the top level, details below `images`, `near_duplicates`, `groups` and `probe`. The probe
        goes from train and val (`known` images) to test (`asked` images), and is `exact` if these are all there are.
        Pairs and groups are across when they lie in more than one of train, val and test.
    """
    label, subset = manifest["label"].to_numpy(), manifest["subset"].to_numpy()
    test = subset == "test"
    probed = probed_images(manifest, seed)
    known, asked = probed & ~test, probed & test
    pixels = manifest["pixel_hash"].to_numpy()
    apart = subset[copies[:, 0]] != subset[copies[:, 1]]
    into_test = test[copies[:, 0]] != test[copies[:, 1]]
    # Images of each group (rows) in each subset, and of each class (columns).
    members = pd.crosstab(manifest["group"], manifest["subset"]).reindex(columns=list(SUBSETS), fill_value=0)
    classes = pd.crosstab(manifest["group"], manifest["label"])
    shared = members["test"].gt(0) & members[["train", "val"]].gt(0).any(axis=1)
    return {
        "test_positive": int((test & (label == 1)).sum()),
        "test_negative": int((test & (label == 0)).sum()),
        "probe_accuracy": probe_accuracy(thumbnails[known], label[known], thumbnails[asked], label[asked]),
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
            "pairs": len(copies),
            "identical_pairs": int((pixels[copies[:, 0]] == pixels[copies[:, 1]]).sum()),
            "pairs_into_test": int(into_test.sum()),
        },
        "groups": {
            "number": len(members),
            "with_both_classes": int((classes.gt(0).sum(axis=1) > 1).sum()),
            "into_test": int(shared.sum()),
        },
        "probe": {
            "known": int(known.sum()),
            "asked": int(asked.sum()),
            "groups": int(manifest["group"][probed].nunique()),
            "exact": bool(probed.all()),
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
