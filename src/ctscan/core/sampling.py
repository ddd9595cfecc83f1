"""Draw whole groups of images where there are more of them than a computation can look at."""

import numpy as np
import numpy.typing as npt
import pandas as pd


def whole_groups(
    groups: npt.ArrayLike, kinds: npt.ArrayLike, number: int, random: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Which of n images a bounded computation looks at, (n,): all, or of more than `number` those of drawn groups.

    Groups are drawn until they hold `number` images, and images of each of the kinds.

    Args:
        groups: (n,), what the images belong to.
        kinds: (n,), such as the label of each image.
        random: draws nothing where all images are taken.
    """
    group, kind = np.asarray(groups), np.asarray(kinds)
    if len(group) <= number:
        return np.ones(len(group), bool)
    codes, names = pd.factorize(group)
    rank = random.permutation(len(names))[codes]
    last = max(np.sort(rank)[number - 1], *(rank[kind == one].min() for one in np.unique(kind)))
    return np.asarray(rank <= last)
