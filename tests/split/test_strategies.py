from collections.abc import Sequence
from typing import Literal

from ctscan.core.errors import UserError
from ctscan.core.params import Split
from ctscan.split.duplicates import COPY_DISTANCE, Pairs, near_pairs
from ctscan.split.strategies import assign_subsets

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Strategy = Literal["random", "blocked", "grouped"]
seeds = st.integers(0, 2**31 - 1)
fractions = st.sampled_from([0.1, 0.15, 0.3, 0.5])


def make_split(
    strategy: Strategy, test: float = 0.3, val: float = 0.15, block: int = 20, folds: int = 1, fold: int = 0
) -> Split:
    return Split(strategy=strategy, test_fraction=test, val_fraction=val, block_size=block, folds=folds, fold=fold)


def make_manifest(
    positive: Sequence[int], negative: Sequence[int], groups: Sequence[str] | None = None
) -> pd.DataFrame:
    """Images with the given file numbers and with hashes that are far apart."""
    paths = [f"COVID/Covid ({n}).png" for n in positive] + [f"non-COVID/Non-Covid ({n}).png" for n in negative]
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "path": paths,
            "label": [1] * len(positive) + [0] * len(negative),
            "pixel_hash": [f"{row:064x}" for row in range(len(paths))],
            "perceptual_hash": [random.bytes(32).hex() for _ in paths],
            "listed_group": None if groups is None else list(groups),
        }
    )


def copies(manifest: pd.DataFrame) -> Pairs:
    pairs, distance = near_pairs(manifest["perceptual_hash"].tolist())
    return pairs[distance <= COPY_DISTANCE]


def split_images(manifest: pd.DataFrame, split: Split, seed: int) -> pd.DataFrame:
    return assign_subsets(manifest, copies(manifest), split, seed)


def numbered(positive: int, negative: int) -> pd.DataFrame:
    return make_manifest(range(1, positive + 1), range(1, negative + 1))


def flip_bits(digest: str, bits: int) -> str:
    return f"{int(digest, 16) ^ (1 << bits) - 1:064x}"


def check(result: pd.DataFrame, split: Split, *, by_group: bool) -> None:
    """What holds for every split: all parts have both classes; shares are near; groups are whole if they should be."""
    assert set(result["subset"]) == {"train", "val", "test"}
    assert (result.groupby("subset")["label"].agg(["min", "max"]) == [0, 1]).all(axis=None)
    if by_group:
        assert (result.groupby("group")["subset"].agg(lambda parts: len(set(parts))) == 1).all()
    mixed = result.groupby("group")["label"].agg(lambda labels: len(set(labels)) > 1).any()
    rest = result[result["subset"] != "test"]
    for rows, name, fraction in ((result, "test", split.test_fraction), (rest, "val", split.val_fraction)):
        members = [rows[rows["label"] == label] for label in (0, 1)]
        # One group; two images at random, as the total and the class are both rounded.
        units = [(part.groupby("group").size().max() if by_group else 2) / len(part) for part in members]
        for part, unit in zip(members, units, strict=True):
            # A group of both classes may weigh most in one of them and drags the other along.
            bound = 0.01 + (max(units) if by_group and mixed else unit)
            assert abs((part["subset"] == name).mean() - fraction) <= bound


def attempt(manifest: pd.DataFrame, split: Split, seed: int) -> pd.DataFrame | str:
    """The split, or the message that refuses it."""
    try:
        return split_images(manifest, split, seed)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("strategy", ["random", "blocked", "grouped"])
def test_each_image_is_tested_in_exactly_one_fold_and_validation_comes_from_the_rest(strategy: Strategy) -> None:
    numbers = range(1, 121)
    manifest = make_manifest(numbers, numbers, [f"patient {number // 6}" for number in range(240)])
    split = make_split(strategy, block=6, folds=4)
    parts = [split_images(manifest, split.model_copy(update={"fold": fold}), 7) for fold in range(4)]
    assert (np.sum([part["subset"] == "test" for part in parts], axis=0) == 1).all()
    for part in parts:
        test, rest = part[part["subset"] == "test"], part[part["subset"] != "test"]
        assert test["label"].value_counts().tolist() == [30, 30]
        assert (rest["subset"] == "val").mean() == pytest.approx(0.15, abs=0.03)
        if strategy != "random":
            assert (part.groupby("group")["subset"].agg(lambda names: len(set(names))) == 1).all()


def test_the_real_numbers_give_the_study_its_745_test_images() -> None:
    manifest = make_manifest(range(1, 1253), [n for n in range(1, 1231) if n != 151])
    result = split_images(manifest, make_split("random"), 7)
    counts = result.groupby(["subset", "label"]).size()
    assert (counts["test", 1], counts["test", 0]) == (376, 369)
    assert (counts["train", 1] + counts["val", 1], counts["train", 0] + counts["val", 0]) == (876, 860)
    assert (counts["val", 1], counts["val", 0]) == (132, 129)

    blocked = split_images(manifest, make_split("blocked"), 7)
    check(blocked, make_split("blocked"), by_group=True)
    assert blocked["group"].nunique() == 63 + 62
    shares = (blocked["subset"] == "test").groupby(blocked["label"]).mean()
    np.testing.assert_allclose(shares, 0.3, atol=0.01)


@settings(max_examples=30, deadline=None)
@given(positive=st.integers(12, 90), negative=st.integers(12, 90), test=fractions, val=fractions, seed=seeds)
def test_random_splits_are_stratified(positive: int, negative: int, test: float, val: float, seed: int) -> None:
    split = make_split("random", test, val)
    result = attempt(numbered(positive, negative), split, seed)
    if isinstance(result, str):  # right only where a part is too small for an image of each class
        assert min((1 - test) * val, test) * min(positive, negative) < 2, result
        return
    check(result, split, by_group=False)


@settings(max_examples=40, deadline=None)
@given(
    positive=st.sets(st.integers(0, 300), min_size=1, max_size=80),
    negative=st.sets(st.integers(0, 300), min_size=1, max_size=80),
    block=st.integers(1, 60),
    test=fractions,
    seed=seeds,
)
def test_blocked_splits_are_right_or_refused(
    positive: set[int], negative: set[int], block: int, test: float, seed: int
) -> None:
    split = make_split("blocked", test, block=block)
    blocks = [{(number - min(1, *numbers, 1)) // block for number in numbers} for numbers in (positive, negative)]
    manifest = make_manifest(sorted(positive), sorted(negative))
    result = attempt(manifest, split, seed)
    if isinstance(result, str):
        assert min(map(len, blocks)) < 3, result
        return
    assert result["group"].nunique() == sum(map(len, blocks))
    check(result, split, by_group=True)


@settings(max_examples=40, deadline=None)
@given(
    members=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 25)), min_size=6, max_size=120),
    test=fractions,
    seed=seeds,
)
def test_grouped_splits_are_right_or_refused(members: list[tuple[int, int]], test: float, seed: int) -> None:
    """Groups of any sizes, pure and mixed."""
    members = sorted(members, reverse=True)
    positive = sum(label for label, _ in members)
    manifest = make_manifest(
        range(1, positive + 1), range(1, len(members) - positive + 1), [f"p{group}" for _, group in members]
    )
    split = make_split("grouped", test)
    result = attempt(manifest, split, seed)
    if isinstance(result, str):
        assert result.startswith("split: ")
        assert "; add images or groups" in result
        return
    assert dict(zip(result["path"], result["group"], strict=True)) == dict(
        zip(manifest["path"], manifest["listed_group"], strict=True)
    )
    check(result, split, by_group=True)


@pytest.mark.parametrize("strategy", ["blocked", "grouped"])
@pytest.mark.parametrize("seed", range(20))
def test_a_feasible_grouped_split_is_never_refused(strategy: Strategy, seed: int) -> None:
    """60 pseudo-patients of 4 slices, as in the sample."""
    groups = [f"p{index // 4}" for index in range(240)]
    manifest = make_manifest(range(1, 121), range(1, 121), groups)
    split = make_split(strategy, block=4)
    result = split_images(manifest, split, seed)
    counts = result.groupby(["subset", "label"]).size()
    assert (counts["test", 0], counts["test", 1]) == (36, 36)
    assert (counts["val", 0], counts["val", 1]) == (12, 12)
    assert (result.groupby("listed_group")["subset"].agg(lambda parts: len(set(parts))) == 1).all()


def test_groups_of_both_classes_stay_whole() -> None:
    """Patients may have both findings."""
    groups = [f"p{index % 20}" for index in range(100)]
    result = split_images(make_manifest(range(1, 61), range(1, 41), groups), make_split("grouped"), 3)
    check(result, make_split("grouped"), by_group=True)
    assert (result.groupby("group")["label"].nunique() == 2).all()


def test_the_seed_alone_decides() -> None:
    manifest = numbered(60, 60)
    for split in (make_split("random"), make_split("blocked", block=3)):
        first = split_images(manifest, split, 1)
        pd.testing.assert_frame_equal(split_images(manifest, split, 1), first)
        assert (split_images(manifest, split, 2)["subset"] != first["subset"]).any()


def test_every_image_is_tested_under_some_seed() -> None:
    manifest = numbered(30, 30)
    for split in (make_split("random"), make_split("blocked", block=3)):
        tested = [set(split_images(manifest, split, seed).query("subset == 'test'")["path"]) for seed in range(40)]
        assert set().union(*tested) == set(manifest["path"])


@settings(max_examples=20, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 89), st.integers(0, 89), st.integers(0, COPY_DISTANCE)), max_size=5),
    strategy=st.sampled_from(["blocked", "grouped"]),
    seed=seeds,
)
def test_copies_never_lie_on_two_sides(pairs: list[tuple[int, int, int]], strategy: Strategy, seed: int) -> None:
    manifest = make_manifest(range(1, 51), range(1, 41), [f"p{index // 2}" for index in range(90)])
    digests = list(manifest["perceptual_hash"])
    for source, target, bits in pairs:
        digests[target] = flip_bits(digests[source], bits)
    manifest["perceptual_hash"] = digests
    result = split_images(manifest, make_split(strategy, block=2), seed)
    subsets = result["subset"].to_numpy()[copies(result)]
    assert (subsets[:, 0] == subsets[:, 1]).all()
    check(result, make_split(strategy), by_group=True)


def test_joined_groups_have_the_name_of_the_first() -> None:
    manifest = numbered(40, 40)
    hashes = manifest["perceptual_hash"].tolist()
    hashes[35] = hashes[2]
    manifest["perceptual_hash"] = hashes
    result = split_images(manifest, make_split("blocked", block=5), 1)
    assert set(result["group"][:5]) == set(result["group"][35:40]) == {"COVID#0"}
    assert result["group"].nunique() == 15


def test_blocks_follow_the_last_number_and_bear_gaps() -> None:
    manifest = make_manifest([1, 20, 21, 40, 41, 99, 100, 101], range(1, 200))
    manifest.loc[0, "path"] = "COVID/3 scan-7.v2 (0005).png"
    result = split_images(manifest, make_split("blocked"), 1).set_index("path")["group"]
    assert result["COVID/3 scan-7.v2 (0005).png"] == "COVID/3 scan-7.v2 (#0"
    assert result["COVID/Covid (20).png"] == "COVID/Covid (#0"
    assert result["COVID/Covid (21).png"] == result["COVID/Covid (40).png"] == "COVID/Covid (#1"
    assert result["COVID/Covid (99).png"] == result["COVID/Covid (100).png"] == "COVID/Covid (#4"
    assert result["COVID/Covid (101).png"] == "COVID/Covid (#5"
    assert result["non-COVID/Non-Covid (41).png"] == "non-COVID#2"  # one text for all: the block alone is the name


def test_the_first_block_begins_at_the_lowest_of_0_and_1() -> None:
    result = split_images(make_manifest(range(60), range(1, 61)), make_split("blocked"), 1).set_index("path")["group"]
    assert result["COVID/Covid (0).png"] == result["COVID/Covid (19).png"] == "COVID#0"
    assert result["COVID/Covid (20).png"] == "COVID#1"
    assert result["non-COVID/Non-Covid (20).png"] == "non-COVID#0"


def numbered_by_patient(patients: int, slices: int, name: str) -> pd.DataFrame:
    """As many patients of each class, whose slices are each numbered from 1."""
    manifest = numbered(patients * slices, patients * slices)
    names = [name.format(patient=row // slices + 1, slice=row % slices + 1) for row in range(patients * slices)]
    manifest["path"] = [f"COVID/{name}" for name in names] + [f"non-COVID/{name}" for name in names]
    return manifest


@pytest.mark.parametrize(
    "name",
    [
        "patient{patient:03d}_slice_{slice}.png",
        "LIDC-IDRI-{patient:04d}_slice_{slice:03d}.png",
        "NCP_{patient}_1328_{slice:04d}.png",
    ],
)
def test_slices_numbered_by_patient_stay_with_their_patient_or_stop(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    short = numbered_by_patient(12, 20, name)
    patient = [path.rpartition("_")[0] for path in short["path"]]
    for strategy in ("blocked", "random"):
        result = split_images(short, make_split(strategy), 3)
        assert result.groupby(patient)["group"].agg(set).map(len).max() == 1
        assert result["group"].nunique() == 24
        doubts = result.attrs["warnings"]
        assert len([line for line in doubts if "file number 1 comes 12 times" in line and "groups.csv" in line]) == 2
        assert "file number 1 comes 12 times" in capsys.readouterr().err
        if strategy == "blocked":
            assert result.groupby(patient)["subset"].agg(set).map(len).max() == 1

    long = numbered_by_patient(12, 40, name)
    with pytest.raises(UserError, match=r"blocks of 20 would cut the series .*groups\.csv.*raise split\.block_size"):
        split_images(long, make_split("blocked"), 3)
    assert split_images(long, make_split("blocked", block=40), 3)["group"].nunique() == 24
    assert split_images(long, make_split("random"), 3)["group"].nunique() == 24  # a bootstrap takes patients whole


def test_a_number_twice_after_one_text_is_told_of() -> None:
    manifest = numbered(100, 100)
    manifest.loc[5, "path"] = "COVID/Covid (7).tif"
    result = split_images(manifest, make_split("blocked"), 1)
    assert result["group"].nunique() == 10
    assert any("COVID: file number 7 comes 2 times (after `Covid (`)" in line for line in result.attrs["warnings"])


def test_a_part_that_misses_its_fraction_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    """One group of 250 among 292 images can't be in test, and what is left gives no 30 %."""
    manifest = make_manifest(range(1, 147), range(1, 147), [f"p{max(0, row % 146 - 125)}" for row in range(292)])
    result = split_images(manifest, make_split("grouped"), 7)
    tested = int((result["subset"] == "test").sum())
    assert tested < 0.2 * 292
    line = f"test has {tested // 2} of 146 images of class 'COVID' ({tested / 292:.1%}) and "
    assert line in "\n".join(result.attrs["warnings"])
    assert line in capsys.readouterr().err
    assert split_images(numbered(100, 100), make_split("random"), 7).attrs["warnings"] == []


def test_random_names_groups_from_the_csv_then_the_number_then_the_image() -> None:
    manifest = numbered(20, 20)
    manifest.loc[0, "path"] = "COVID/scan.png"
    plain = split_images(manifest, make_split("random", block=10), 1).set_index("path")["group"]
    assert plain["COVID/scan.png"] == "COVID/scan.png"
    assert plain["COVID/Covid (11).png"] == "COVID#1"
    manifest["listed_group"] = "one"
    assert set(split_images(manifest, make_split("random"), 1)["group"]) == {"one"}


@pytest.mark.parametrize(
    ("manifest", "split", "message"),
    [
        (numbered(40, 40), make_split("grouped"), "grouped needs groups.csv"),
        (numbered(20, 100), make_split("blocked"), r"class 'COVID' has 1 group\(s\).*split.block_size"),
        (numbered(100, 40), make_split("blocked"), r"class 'non-COVID' has 2 group\(s\).*split.block_size"),
        (numbered(100, 100), make_split("blocked", test=0.9), "no choice of whole groups gives 90%"),
        (numbered(3, 3), make_split("random"), "too few images to stratify.*; add images"),
        (numbered(5, 400), make_split("random", val=0.05), "no image of class 'COVID' in val; add images"),
        (make_manifest(range(9), range(9), ["one"] * 18), make_split("grouped"), r"has 1 group\(s\)"),
    ],
)
def test_impossible_splits_are_refused(manifest: pd.DataFrame, split: Split, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_images(manifest, split, 7)


def test_blocked_needs_numbers() -> None:
    manifest = numbered(40, 40)
    manifest.loc[4, "path"] = "COVID/scan.png"
    with pytest.raises(UserError, match=r"COVID/scan\.png: .*needs a number in each file name; number the files"):
        split_images(manifest, make_split("blocked", block=4), 1)


def test_a_group_larger_than_the_test_share_stays_in_training() -> None:
    groups = ["large"] * 30 + [f"p{index}" for index in range(20)] + [f"n{index // 2}" for index in range(50)]
    manifest = make_manifest(range(1, 51), range(1, 51), groups)
    result = split_images(manifest, make_split("grouped"), 5)
    assert set(result.loc[result["group"] == "large", "subset"]) == {"train"}
    assert ((result["subset"] == "test") & (result["label"] == 1)).sum() == 15
