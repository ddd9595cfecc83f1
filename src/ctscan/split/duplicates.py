"""Find images that are copies of one another: identical, re-encoded or resized."""

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.neighbors import NearestNeighbors

# Bits of 256. Re-encoding and resizing real slices changes up to 4; the nearest neighbouring slices differ in 6.
COPY_DISTANCE = 4


# Copies that are halved without smoothing, or of low JPEG quality, differ in up to 12 bits, and so do neighbouring
# slices: thumbnails of 32 x 32 decide. Copies of real slices correlate by .9973 and more, by .9995 unless halved
# without smoothing; the most similar two slices of unlike class in two public datasets by .9958, of like by .9977.
CANDIDATE_DISTANCE = 16
THUMBNAIL = 32
COPY_CORRELATION = {True: 0.9985, False: 0.997}  # by whether two have the same label


def copy_pairs(manifest: pd.DataFrame, distance: int = COPY_DISTANCE) -> npt.NDArray[np.intp]:
    """Row positions (n, 2), first below second, of all pairs whose `perceptual_hash` differs in <= `distance` bits.

    Identical pixels have identical hashes, so such pairs are among them.
    """
    digests = [list(bytes.fromhex(text)) for text in manifest["perceptual_hash"]]
    bits = np.unpackbits(np.array(digests, np.uint8), axis=1).astype(np.float32)
    # Between vectors of bits the squared Euclidean distance is the number of bits that differ.
    search = NearestNeighbors(radius=distance + 0.5, metric="sqeuclidean", algorithm="brute").fit(bits)
    graph = search.radius_neighbors_graph(bits).tocoo()
    above = graph.row < graph.col
    pairs = sorted(zip(graph.row[above].tolist(), graph.col[above].tolist(), strict=True))
    return np.array(pairs, np.intp).reshape(-1, 2)


def all_copies(manifest: pd.DataFrame, thumbnails: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Row positions of pairs, first below second, that are copies by hash or by `thumbnails`, uint8 (n, 32, 32).

    What `copy_pairs` finds is among them, and copies that are changed more: those are told of, but join no groups.
    """
    label = manifest["label"].to_numpy()
    close = set(map(tuple, copy_pairs(manifest).tolist()))
    return [
        (one, other)
        for one, other in copy_pairs(manifest, CANDIDATE_DISTANCE).tolist()
        if (one, other) in close
        or _correlation(thumbnails[one], thumbnails[other]) >= COPY_CORRELATION[bool(label[one] == label[other])]
    ]


def _correlation(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    return float(np.corrcoef(one.ravel().astype(float), other.ravel().astype(float))[0, 1])
