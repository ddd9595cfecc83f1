"""Find images that are copies of one another: identical, re-encoded or resized."""

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

# Bits of 256. Re-encoding and resizing real slices changes up to 4; the nearest neighbouring slices differ in 6.
COPY_DISTANCE = 4


# Copies that are halved without smoothing, or of low JPEG quality, differ in up to 12 bits, and so do neighbouring
# slices: thumbnails of 32 x 32 decide. Copies of real slices correlate by .9973 and more, by .9995 unless halved
# without smoothing; the most similar two slices of unlike class in two public datasets by .9958, of like by .9977.
CANDIDATE_DISTANCE = 16
THUMBNAIL = 32
COPY_CORRELATION = {True: 0.9985, False: 0.997}  # by whether two have the same label
_AT_ONCE = 1000  # pairs of thumbnails, 8 MB for each side of them

Pairs = npt.NDArray[np.intp]
Positions = npt.NDArray[np.intp]


class Copies(NamedTuple):
    """Row positions `pairs` (n, 2), sorted, first below second; `by_hash` (n,) tells those of at most COPY_DISTANCE."""

    pairs: Pairs
    by_hash: npt.NDArray[np.bool_]


def find_copies(manifest: pd.DataFrame, thumbnails: npt.NDArray[np.uint8]) -> Copies:
    """All pairs of rows whose images are copies by their `perceptual_hash` or by `thumbnails`, uint8 (n, 32, 32).

    Identical pixels have identical hashes, so such pairs are among those by hash. Those by thumbnails alone are changed
    more: they are told of, but join no groups.
    """
    pairs, distance = near_pairs(manifest["perceptual_hash"].tolist())
    by_hash = distance <= COPY_DISTANCE
    label = manifest["label"].to_numpy()
    copies = by_hash.copy()
    asked = np.flatnonzero(~by_hash)
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        one, other = pairs[part].T
        least = np.where(label[one] == label[other], COPY_CORRELATION[True], COPY_CORRELATION[False])
        copies[part] = _correlations(thumbnails[one], thumbnails[other]) >= least
    return Copies(pairs[copies], by_hash[copies])


def near_pairs(hashes: Sequence[str]) -> tuple[Pairs, npt.NDArray[np.int_]]:
    """Positions (n, 2), sorted, first below second, of all pairs of `hashes` (64 hex digits each) that differ in at
    most CANDIDATE_DISTANCE of their 256 bits; and in how many (n,).

    Where at most d bits differ, at least one of d + 1 pieces of the hash is the same (the pigeonhole principle). So
    only images that share a piece are compared: of a thousand pairs of real slices, six.
    """
    digests = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32)
    words = digests.view(np.uint64)
    # The whole hash comes first, so that many identical images are not compared once more for each piece.
    pieces = np.stack([pd.factorize(np.array(hashes, object))[0], *_pieces(digests)])
    keys = array("q")  # a pair and its distance in one number; it grows in place, unlike a list of arrays
    for number, piece in enumerate(pieces):
        for first, second in _equal(piece):
            if number:
                new = pieces[0, first] != pieces[0, second]
                first, second = first[new], second[new]
            distance = np.bitwise_count(words[first] ^ words[second]).sum(axis=1, dtype=np.int64)
            near = distance <= CANDIDATE_DISTANCE
            near[near] = (pieces[1:number, first[near]] != pieces[1:number, second[near]]).all(axis=0)
            keys.frombytes((((first * len(words) + second) * 256 + distance)[near]).tobytes())
    found = np.frombuffer(keys, np.int64)
    found.sort()
    pairs = np.empty((len(found), 2), np.intp)
    np.divmod(found // 256, len(words), out=(pairs[:, 0], pairs[:, 1]))
    return pairs, found % 256


def _pieces(digests: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint16]]:
    """CANDIDATE_DISTANCE + 1 pieces, of 15 or 16 bits, of each of the digests (n, 32), as integers (n,).

    A piece takes every 17th bit, so that each has its share of the low frequencies, in which CT slices are alike.
    """
    bits = np.unpackbits(digests, axis=1)
    for start in range(CANDIDATE_DISTANCE + 1):
        packed = np.packbits(bits[:, start :: CANDIDATE_DISTANCE + 1], axis=1)
        yield np.ascontiguousarray(packed).view(np.uint16)[:, 0]


def _equal(codes: npt.NDArray[np.int_]) -> Iterator[tuple[Positions, Positions]]:
    """All pairs of positions that hold the same code, first below second, in arrays no longer than `codes`."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    # Equal codes now stand next to each other. Each is paired with the next one, then with the one after it, ...
    places: Positions = np.arange(len(codes))
    for step in range(1, len(codes)):
        places = places[: np.searchsorted(places, len(codes) - step)]
        places = places[ordered[places] == ordered[places + step]]
        if not len(places):
            return
        yield order[places], order[places + step]


def _correlations(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Pearson's correlation of each of `one` with its partner in `other`, (m, H, W) both; NaN where one is constant."""
    left, right = (part.reshape(len(part), -1) - part.mean(axis=(1, 2))[:, None] for part in (one, other))
    squares = (left**2).sum(axis=1) * (right**2).sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.asarray((left * right).sum(axis=1) / np.sqrt(squares))
