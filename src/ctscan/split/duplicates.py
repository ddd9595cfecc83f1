"""Images that are copies of one another: identical, re-encoded or resized."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.neighbors import NearestNeighbors

# Bits of 256. Re-encoding and resizing real slices changes up to 4; the nearest neighbouring slices differ in 6.
COPY_DISTANCE = 4


def copy_pairs(manifest: pd.DataFrame) -> npt.NDArray[np.intp]:
    """Row positions (n, 2), first below second, of all pairs whose `perceptual_hash` differs in <= COPY_DISTANCE bits.

    Identical pixels have identical hashes, so such pairs are among them.
    """
    digests = [list(bytes.fromhex(text)) for text in manifest["perceptual_hash"]]
    bits = np.unpackbits(np.array(digests, np.uint8), axis=1).astype(np.float32)
    # Between vectors of bits the squared Euclidean distance is the number of bits that differ.
    search = NearestNeighbors(radius=COPY_DISTANCE + 0.5, metric="sqeuclidean", algorithm="brute").fit(bits)
    graph = search.radius_neighbors_graph(bits).tocoo()
    above = graph.row < graph.col
    pairs = sorted(zip(graph.row[above].tolist(), graph.col[above].tolist(), strict=True))
    return np.array(pairs, np.intp).reshape(-1, 2)
