"""The split as later stages read it."""

from ctscan.images.manifest import rows, together

import numpy as np
import pandas as pd


def test_together_each_subset_is_a_view_in_its_order() -> None:
    manifest = pd.DataFrame({"subset": ["train", "test", "val", "train", "val", "train"]})
    images = np.arange(6)
    order, (val, test, train) = together(manifest, "val", "test", "train")
    held = images[order]
    for subset, lies in (("val", val), ("test", test), ("train", train)):
        assert held[lies].tolist() == rows(manifest, subset).tolist()
        assert np.shares_memory(held, held[lies])
