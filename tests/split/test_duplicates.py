"""Pairs of copies are those that comparing each image with each other gives, found with little work."""

from collections.abc import Callable
from itertools import combinations

from ctscan.split.duplicates import CANDIDATE_DISTANCE, find_copies, near_pairs

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

Bits = npt.NDArray[np.uint8]
PIECES = CANDIDATE_DISTANCE + 1


def hashes(bits: Bits) -> list[str]:
    return [row.tobytes().hex() for row in np.packbits(bits, axis=1)]


def all_pairs(bits: Bits) -> list[list[int]]:
    """What `near_pairs` has to find, by comparing each hash with each other: both positions and the distance."""
    apart = ((one, other, int((bits[one] != bits[other]).sum())) for one, other in combinations(range(len(bits)), 2))
    return [[one, other, distance] for one, other, distance in apart if distance <= CANDIDATE_DISTANCE]


def copies_of_copies(random: np.random.Generator) -> Bits:
    """Random hashes, and copies of copies of them with up to 20 changed bits, in mixed order."""
    bits = random.integers(0, 2, (200, 256), np.uint8)
    for row in range(40, 200):
        bits[row] = bits[random.integers(row)]
        bits[row, random.choice(256, random.integers(20), replace=False)] ^= 1
    return random.permutation(bits)


def one_piece_in_common(random: np.random.Generator) -> Bits:
    """Copies that differ in one bit of each piece but one, so that they have only that piece in common."""
    bits = random.integers(0, 2, (2 * PIECES, 256), np.uint8)
    for row in range(PIECES):
        bits[PIECES + row] = bits[row]
        for piece in range(PIECES):
            bits[PIECES + row, piece + PIECES * random.integers(15)] ^= piece != row
    return bits


def strangers_with_a_piece_in_common(random: np.random.Generator) -> Bits:
    bits = random.integers(0, 2, (60, 256), np.uint8)
    bits[:, 2::PIECES] = 1
    return bits


def identical_among_others(random: np.random.Generator) -> Bits:
    bits = random.integers(0, 2, (90, 256), np.uint8)
    bits[20:60] = 0
    bits[50:60, 7] = 1  # copies of the others
    return random.permutation(bits)


@pytest.mark.parametrize(
    "draw", [copies_of_copies, one_piece_in_common, strangers_with_a_piece_in_common, identical_among_others]
)
def test_pairs_are_those_of_comparing_all_with_all(draw: Callable[[np.random.Generator], Bits]) -> None:
    bits = draw(np.random.default_rng(0))
    pairs, distances = near_pairs(hashes(bits))
    assert np.column_stack([pairs, distances]).tolist() == all_pairs(bits)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_for_a_pair(count: int) -> None:
    pairs, distances = near_pairs(hashes(np.zeros((count, 256), np.uint8)))
    assert (pairs.shape, distances.shape) == ((0, 2), (0,))


def test_few_of_many_images_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    bitwise_count = np.bitwise_count

    def count(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
        nonlocal compared
        compared += len(words)
        return np.asarray(bitwise_count(words))

    monkeypatch.setattr(np, "bitwise_count", count)
    bits = np.random.default_rng(0).integers(0, 2, (5000, 256), np.uint8)
    bits[-500:] = bits[:500]
    assert len(near_pairs(hashes(bits))[0]) == 500
    assert compared < 5000 * 4999 / 2 / 1000


def test_thumbnails_decide_from_five_bits_on_by_class() -> None:
    random = np.random.default_rng(0)
    original = random.integers(0, 256, (32, 32)).astype(float)
    noise = random.normal(size=(32, 32))

    def correlated(value: float) -> Bits:
        """A thumbnail that correlates with the original by about `value`."""
        scale = original.std() * (1 / value**2 - 1) ** 0.5
        return np.asarray(np.clip((original + scale * noise) / 2 + 64, 0, 255).round(), np.uint8)

    bits = np.repeat(random.integers(0, 2, (1, 256), np.uint8), 5, axis=0)
    for row, changed in enumerate([0, 4, 5, 5, 16]):
        bits[row, 10 * row : 10 * row + changed] ^= 1
    thumbnails = np.stack([original.astype(np.uint8), np.full((32, 32), 9), *map(correlated, (0.998, 0.95, 0.998))])
    manifest = pd.DataFrame({"perceptual_hash": hashes(bits), "label": [1, 1, 1, 0, 0]})
    found = find_copies(manifest, thumbnails.astype(np.uint8))
    # By hash; by thumbnails, in the other class; .998 is too little in the same one, and .95 is in both.
    assert found.pairs[found.by_hash].tolist() == [[0, 1]]
    assert found.pairs[~found.by_hash].tolist() == [[0, 4]]
