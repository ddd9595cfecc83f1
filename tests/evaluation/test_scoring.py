"""What is said of an image does not depend on how many images are in memory with it."""

from pathlib import Path

from ctscan.core.files import read_record
from ctscan.core.params import Head
from ctscan.core.seeds import INFERENCE_BATCH
from ctscan.evaluation import scoring
from ctscan.evaluation.baselines import fit_baselines
from ctscan.evaluation.novelty import fit_detector, observe, with_features
from ctscan.evaluation.scoring import read_subsets, score_images
from ctscan.evaluation.tables import run_tables
from ctscan.model.forward import forward
from ctscan.model.head import build_head

import numpy as np
import pandas as pd
import pytest
from networks import SIZE, tiny_network
from PIL import Image
from repository import REPO

COUNTS = {"train": 12, "val": 20, "test": 50}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, split/manifest.csv and features.npy, in which the subsets are mixed."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    subsets = random.permutation(np.repeat(list(COUNTS), list(COUNTS.values())))
    names = [f"{number}.png" for number in range(len(subsets))]
    for name in names:
        Image.fromarray(random.integers(0, 256, (30, 28), dtype=np.uint8)).save(name)
    labels = pd.Series(subsets).groupby(subsets).cumcount() % 2
    columns = {"path": names, "label": labels, "subset": subsets, "group": names, "width": 28, "height": 30}
    Path("split").mkdir()
    pd.DataFrame(columns | {"mode": "L"}).to_csv("split/manifest.csv", index=False)
    np.save("features.npy", np.column_stack([np.arange(len(names)), random.normal(size=(len(names), 4))]).astype("f4"))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_subset_reads_its_own_features_and_slices() -> None:
    manifest = pd.read_csv("split/manifest.csv")
    subsets = read_subsets(".", SIZE)
    for name in COUNTS:
        subset, own = getattr(subsets, name), np.flatnonzero(manifest["subset"] == name)
        chosen = np.array([4, 1])
        assert subset.features(chosen)[:, 0].tolist() == own[chosen].tolist()
        assert not isinstance(subset.features(chosen), np.memmap)
        assert subset.manifest["path"].tolist() == manifest["path"][own].tolist()
        assert subset.slices[chosen].shape == (2, SIZE, SIZE, 1)
    assert subsets.val_and_test.manifest["subset"].tolist() == ["val"] * 20 + ["test"] * 50


@pytest.mark.usefixtures("folder")
def test_scores_by_blocks_are_those_of_all_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    subsets = read_subsets(".", SIZE)
    train, judged = subsets.train, subsets.val_and_test
    everything = np.arange(COUNTS["train"])
    network = forward(with_features(tiny_network()))
    initial = build_head(5, Head(units=8, l2=0.01, dropout=0.5), 0)
    slices = train.slices[everything]
    detector = fit_detector(slices[..., 0], observe(network, slices, "references")[1])
    baselines = fit_baselines(train.inputs(everything), train.labels, train.groups, seed=7)
    whole = score_images(initial, network, detector, baselines, judged)
    monkeypatch.setattr(scoring, "BLOCK", INFERENCE_BATCH)  # three blocks
    parts = score_images(initial, network, detector, baselines, judged)
    assert whole.distances.shape == (70, 2)
    np.testing.assert_allclose(parts.distances, whole.distances, rtol=1e-12)
    for model in ("initial", "finetuned"):
        assert np.array_equal(parts.scores[model], whole.scores[model])
    assert parts.baselines.keys() == whole.baselines.keys() == baselines.keys()
    for name, scores in whole.baselines.items():
        assert len(np.unique(scores)) > 1 or name == "image_size"
        np.testing.assert_allclose(parts.baselines[name], scores, rtol=1e-9)


def test_a_reader_of_the_results_is_told_of_a_sample_and_only_of_one() -> None:
    details = read_record(REPO / "metrics/details.json")
    drawn = details | {"baselines": {"exact": False, "learned_images": 12, "learned_groups": 3, "train_images": 90}}
    note = "Baselines and controls learned from 12 of 90 training images (drawn groups); all test images are scored."
    assert run_tables(drawn) == f"{run_tables(details)}\n{note}"
    older = {name: value for name, value in details.items() if name != "baselines"}
    assert run_tables(older) == run_tables(details)
