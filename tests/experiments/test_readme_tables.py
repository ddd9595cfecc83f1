"""The pages' figures and pictures are those of the committed files."""

import json
import subprocess
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import read_record
from ctscan.experiments.readme_figures import FOLDER, PICTURES, draw_all, read_three_tests
from ctscan.experiments.readme_tables import PAGES, TABLES, fill

import numpy as np
import pytest
import yaml
from PIL import Image
from repository import REPO


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The metrics as committed: the work tree may hold those of an experiment."""
    folder = tmp_path_factory.mktemp("committed")
    folders = ("metrics", "studies", "benchmarks")
    archive = subprocess.run(
        ["git", "archive", "--format=zip", "HEAD", *folders], cwd=REPO, stdout=-1, check=True
    ).stdout
    with zipfile.ZipFile(BytesIO(archive)) as files:
        files.extractall(folder)
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_figures_are_those_of_the_committed_files(committed: Path, name: str) -> None:
    page = (REPO / name).read_text(encoding="utf-8")
    assert "<!-- figures: " in page
    assert fill(page, committed) == page, "bring it in step with `ctscan readme-tables`"


def test_another_figure_is_noticed(committed: Path) -> None:
    page = (REPO / "studies/README.md").read_text(encoding="utf-8")
    assert ".929 | .927" in page
    assert fill(page.replace(".929 | .927", ".992 | .927"), committed) == page


def test_every_table_is_on_a_page() -> None:
    text = "".join((REPO / name).read_text(encoding="utf-8") for name in PAGES)
    assert [name for name in TABLES if f"<!-- figures: {name} -->" not in text] == []


def test_a_mark_of_no_known_name_is_refused(committed: Path) -> None:
    with pytest.raises(UserError, match="no figures are called 'speed of light'"):
        fill("<!-- figures: speed of light -->\n<!-- end -->", committed)


def test_the_pictures_are_those_of_the_committed_files(committed: Path, tmp_path: Path) -> None:
    draw_all(committed, tmp_path)
    for name in PICTURES:
        with Image.open(tmp_path / name) as drawn, Image.open(REPO / FOLDER / name) as kept:
            assert drawn.size == kept.size
            apart = np.abs(np.asarray(drawn.convert("L"), int) - np.asarray(kept.convert("L"), int))
        # Another processor may round a grey otherwise; a mark that moves by a pixel changes hundreds of greys.
        assert np.mean(apart > 8) < 2e-5, f"{name}: bring it in step with `ctscan readme-tables`"
        assert (REPO / FOLDER / name).stat().st_size < 150_000


def test_equal_files_give_pictures_of_equal_bytes(tmp_path: Path) -> None:
    for folder in ("once", "again"):
        draw_all(REPO, tmp_path / folder)
    for name in PICTURES:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_what_the_pages_say_of_weights_and_baselines_is_so(committed: Path) -> None:
    studies = committed / "studies"
    params = {path.parent.name: yaml.safe_load(path.read_text()) for path in studies.glob("*/params.yaml")}
    hold_out = params.pop("xception-random")
    started = {found["weights"] for found in params.values()}
    assert started == {"random"}, "studies/README.md says that all others start from random weights"

    folds = read_record(studies / "xception-blocked/folds.json")
    assert _apart(hold_out, folds["params"]) == {"split", "finetune_lr"}
    random_folds = read_record(studies / "xception-random-folds/folds.json")
    assert _apart(random_folds["params"], folds["params"]) == {"split"}, "the pages compare the folds of both splits"
    for found in (random_folds, folds):
        assert (found["params"]["split"]["folds"], found["params"]["split"]["block_size"]) == (5, 20)
        assert found["models"]["finetuned"]["win_probability"]["controls"] > 0.95
        assert found["models"]["initial"]["win_probability"]["controls"] < 0.5
    means = [f"{found['models']['finetuned']['mean']['roc_auc']:.3f}"[1:] for found in (random_folds, folds)]
    overview = " ".join((REPO / "studies/README.md").read_text(encoding="utf-8").split())
    assert f"network's is {means[0]} on the random split and {means[1]} on the blocked one" in overview
    alone, together = folds["models"]["finetuned"], folds["combination"]
    page = (REPO / "README.md").read_text(encoding="utf-8")
    assert f"this share is {alone['win_probability']['controls']:.3f}".replace("0.", ".") in page
    upper = alone["intervals"]["roc_auc"]["high"]
    assert min(together["gain"]["low"], together["win_probability"] - 0.95) > 0
    assert together["test"]["roc_auc"] < upper
    *_, other = read_three_tests(committed)
    assert other.aucs["finetuned"]["high"] < 0.65, "the pages call it near chance"

    mean = {}
    for split in ("random", "blocked"):
        summary = json.loads((studies / f"random-vs-blocked/{split}.json").read_text())["summary"]
        figures = {**summary["models"], **summary["baselines"]}
        mean[split] = {name: found["roc_auc"]["mean"] for name, found in figures.items()}
    assert mean["random"]["initial"] < min(mean["random"]["hog_svm"], mean["random"]["nearest_neighbour"])
    assert mean["blocked"]["initial"] < mean["blocked"]["hog_svm"]
    for name in ("random-split", "blocked-split", "random-split-224"):
        details = json.loads((studies / name / "metrics/details.json").read_text())
        best = max(row["roc_auc"] for row in details["controls"] if row["kind"] == "baseline")
        assert best > max(details[model]["test"]["roc_auc"] for model in ("initial", "finetuned")), name
    pooled = read_record(studies / "random-weights-blocked/folds.json")
    assert pooled["params"]["weights"] == "random"
    auc = {row["name"]: row["roc_auc"] for row in pooled["controls"]}
    assert auc["hog_svm"] > max(auc["initial"], auc["finetuned"])
    scratch = read_record(studies / "from-scratch-blocked/folds.json")
    assert scratch["params"]["weights"] == "random"
    assert _apart(scratch["params"]["split"], folds["params"]["split"]) == set(), "one table compares their folds"
    without, pretrained = scratch["models"]["finetuned"], folds["models"]["finetuned"]
    assert without["test"]["roc_auc"] > pretrained["test"]["roc_auc"]
    assert without["intervals"]["roc_auc"]["low"] < pretrained["test"]["roc_auc"], "the pages call neither better"


def _apart(first: Mapping[str, Any], second: Mapping[str, Any]) -> set[str]:
    return {key for key, value in first.items() if second[key] != value}
