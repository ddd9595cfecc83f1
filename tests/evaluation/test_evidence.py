"""The findings from a table of predictions, and the pictures of them."""

import json
from pathlib import Path

from ctscan.evaluation import evidence, evidence_figures
from ctscan.evaluation.calibration import apply_temperature, fit_temperature, reliability
from ctscan.evaluation.intervals import resample, roc_band
from ctscan.evaluation.predictions import MODELS
from ctscan.evaluation.tables import evidence_table

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import brier_score_loss, roc_auc_score

CONTROLS = ("nearest_neighbour", "hog_svm", "image_size", "image_border", "shuffled_labels")


def predictions(seed: int = 0, folds: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(40), 5)
    labels = groups % 2
    table = pd.DataFrame(
        {
            "path": [f"{row}.png" for row in range(200)],
            "label": labels,
            "subset": np.where(groups < 12, "val", "test"),
            "group": [f"block {group}" for group in groups],
        }
    )
    for name, lift in (("initial", 1), ("finetuned", 2), *((name, 0.2) for name in CONTROLS)):
        table[name] = 1 / (1 + np.exp(-3 * rng.normal(lift * (labels - 0.5), 0.5)))
    table["novelty"] = rng.random(200)
    if folds > 1:
        table["fold"] = groups // 2 % folds
    return table


@pytest.mark.parametrize("folds", [1, 2])
def test_each_score_of_each_fold_has_the_temperature_of_its_own_validation(folds: int) -> None:
    table = predictions(folds=folds)
    found = evidence.calibrated(table)
    for fold in range(folds):
        own = table[table["fold"] == fold] if folds > 1 else table
        val = own[own["subset"] == "val"]
        for name in (*MODELS, *CONTROLS):
            expected = apply_temperature(own[name], fit_temperature(val["label"], val[name], "val"))
            assert found.loc[own.index, name].to_numpy() == pytest.approx(expected)
    assert found["novelty"].equals(table["novelty"])


def test_calibration_is_shown_on_test_before_and_after_scaling() -> None:
    table = predictions()
    test, val = (table[table["subset"] == subset] for subset in ("test", "val"))
    panels = evidence.calibration_panels(table, 10)
    assert list(panels) == ["Before temperature scaling", "After temperature scaling"]
    for model in MODELS:
        scaled = apply_temperature(test[model], fit_temperature(val["label"], val[model], "val"))
        for rows, scores in zip(panels.values(), (test[model].to_numpy(), scaled), strict=True):
            assert rows[model] == reliability(test["label"], scores, 10, model)


def test_findings_are_those_of_the_test_rows_and_choices_those_of_validation() -> None:
    table = predictions()
    test = table[table["subset"] == "test"]
    draws = resample(test["label"], test["group"], 200, 0, "test")
    found = evidence.assess_models(table, 0.5, draws, 0)
    json.dumps(found, allow_nan=False)
    report = found["finetuned"]
    assert report["win_probability"]["controls"] > 0.95
    assert report["win_probability"]["initial"] + found["initial"]["win_probability"]["finetuned"] == pytest.approx(1)
    probable = evidence.calibrated(table).loc[test.index]
    assert report["brier"]["value"] == pytest.approx(brier_score_loss(test["label"], probable["finetuned"]))
    assert report["brier"]["low"] < report["brier"]["value"] < report["brier"]["high"]
    # Labels of test must decide nothing that is chosen.
    turned = table.assign(label=np.where(table["subset"] == "test", 1 - table["label"], table["label"]))
    other = evidence.assess_models(turned, 0.5, draws, 0)["finetuned"]
    assert other["predictive_values"].keys() == report["predictive_values"].keys()
    assert other["patients"]["rule"] == report["patients"]["rule"]
    answered = ([row["answered"] for row in one["selective"]["confidence"]] for one in (report, other))
    assert next(answered) == next(answered)
    reports = {
        model: {**found[model], "test": {"roc_auc": 0.9}, "intervals": {"roc_auc": {"low": 0.8, "high": 1}}}
        for model in MODELS
    }
    assert f"{report['win_probability']['controls']:.3f}" in evidence_table(reports).splitlines()[2]


def test_pictures_are_narrow_enough_for_a_phone(tmp_path: Path) -> None:
    table = predictions()
    test = table[table["subset"] == "test"]
    draws = resample(test["label"], test["group"], 100, 0, "test")
    evidence_figures.draw_decision_curves(tmp_path / "a.png", evidence.decision_panels(table, draws, "COVID"))
    evidence_figures.draw_risk_coverage(tmp_path / "b.png", evidence.risk_curves(table, 0.5, draws))
    band = roc_band(test["label"], test["initial"], draws, "test")["points"]
    evidence_figures.draw_roc(tmp_path / "c.png", {"initial": band}, "A note.")
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            assert image.width <= 700


def test_a_combination_gains_from_a_second_opinion_however_sure_that_one_is() -> None:
    table = predictions(seed=1)
    rng = np.random.default_rng(2)
    margin, other = rng.normal(table["label"] - 0.5, 0.8, (2, len(table)))  # each with noise of its own
    table["finetuned"] = 1 / (1 + np.exp(-2 * other))
    test = table[table["subset"] == "test"]
    resamples = resample(test["label"], test["group"], 200, 7, "test")
    found = []
    for sureness in (1, 5):
        table["hog_svm"] = 1 / (1 + np.exp(-sureness * margin))
        found.append(evidence.assess_combination(table, 0.5, resamples))
    assert found[1]["test"] == pytest.approx(found[0]["test"], abs=1e-3)
    alone = roc_auc_score(test["label"], test["finetuned"])
    assert found[0]["gain"]["difference"] == pytest.approx(found[0]["test"]["roc_auc"] - alone)
    assert found[0]["gain"]["difference"] > 0
    assert found[0]["win_probability"] > 0.95

    table["hog_svm"] = 0.5  # no opinion
    assert evidence.assess_combination(table, 0.5, resamples)["gain"]["difference"] == 0
    # Nor is it a gain that the temperatures of pooled folds bring their scores into line.
    table["fold"] = np.arange(len(table)) % 2
    table["finetuned"] = 1 / (1 + np.exp(-np.where(table["fold"], 8, 1) * (other - 0.3)))
    assert evidence.assess_combination(table, 0.5, resamples)["gain"]["difference"] == 0
    calibrated = evidence.calibrated(table)
    calibrated = calibrated[calibrated["subset"] == "test"]
    unlike = roc_auc_score(calibrated["label"], calibrated["finetuned"]) - roc_auc_score(
        calibrated["label"], table.loc[calibrated.index, "finetuned"]
    )
    assert abs(unlike) > 0.01, "the temperatures have to matter, or this tests nothing"
