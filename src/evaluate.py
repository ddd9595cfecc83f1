"""Run stage evaluate: judge both models on the test images, and compare them with baselines and controls."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ctscan.core.files import publish, write_json, write_record
from ctscan.core.params import Params
from ctscan.core.seeds import make_deterministic
from ctscan.core.stage import run_stage
from ctscan.evaluation import baselines, evidence, evidence_figures, figures, gradcam, intervals, novelty
from ctscan.evaluation.assess import (
    ScoredSubset,
    assess,
    confusion_rows,
    controls_table,
    headline_metrics,
    pr_points,
    roc_points,
)
from ctscan.evaluation.predictions import NOVELTY, PREDICTIONS, predictions_table, write_predictions
from ctscan.evaluation.scoring import Subset, Subsets, read_subsets, score_images
from ctscan.evaluation.tables import learned_note, run_tables
from ctscan.model.augmentation import augmentation
from ctscan.model.forward import forward
from ctscan.model.saving import load_model

import numpy as np
import pandas as pd

MODELS, METRICS, PLOTS = Path("models"), Path("metrics"), Path("plots")


def evaluate(params: Params) -> None:
    """Judge both models on the test images, and compare them with baselines and controls.

    Reads split/, features.npy, models/initial.keras and models/finetuned.keras. Writes models/novelty.npz,
    predictions.csv, metrics/test.json, metrics/details.json, and in plots/: roc.json, pr.json,
    confusion_initial.json, confusion_finetuned.json, reliability.png, scores.png, controls.png, net_benefit.png,
    risk_coverage.png and the folder images.
    """
    make_deterministic()
    threshold, seed = params.evaluate.threshold, params.seed
    finetuned = load_model(MODELS / "finetuned.keras")
    network = forward(novelty.with_features(finetuned, maps=True))

    subsets = read_subsets(params.dataset, size=finetuned.input_shape[1])
    train, judged = subsets.train, subsets.val_and_test
    references = train.slices[novelty.reference_rows(np.arange(len(train.labels)), seed)]
    _, reference_features = novelty.observe(network, references, "features of training images")
    unscaled = novelty.fit_detector(references[..., 0], reference_features)
    learned = baselines.learned_rows(train.labels, train.groups, seed)
    fitted = baselines.fit_baselines(train.inputs(learned), train.labels[learned], train.groups[learned], seed)
    found = score_images(load_model(MODELS / "initial.keras"), network, unscaled, fitted, judged)

    count = len(subsets.val.labels)
    val, test = (
        ScoredSubset(subset.labels, subset.groups, {model: scores[rows] for model, scores in found.scores.items()})
        for subset, rows in ((subsets.val, slice(count)), (subsets.test, slice(count, None)))
    )
    detector = unscaled.scaled(found.distances[:count])
    novelty_scores = detector.score_distances(found.distances)
    resamples = intervals.resample(test.labels, test.groups, params.evaluate.bootstrap, seed, "test")
    reports = {model: assess(model, val, test, resamples, params.evaluate, params.classes) for model in test.scores}

    on_test = {name: values[count:] for name, values in found.baselines.items()}
    predictions = predictions_table(judged.manifest, {**found.scores, **found.baselines, NOVELTY: novelty_scores})

    cam = gradcam.GradCam(finetuned, observe=lambda slices: network(slices)[2])
    compared = train.slices[gradcam.reference_rows(len(train.labels))]
    cam.compare_with(compared)
    maps = gradcam.gallery(cam, subsets.test.manifest, subsets.test.slices, test.scores["finetuned"], threshold)
    tried = subsets.test.slices[novelty.tried_rows(len(test.labels))]

    findings = {
        "comparison": evidence.compare_models(predictions, threshold, resamples, seed),
        "controls": controls_table(test, on_test, threshold, resamples),
        "baselines": baselines.learned_report(learned, train.groups),
        "novelty": novelty.measure_detector(detector, network, tried[..., 0], novelty_scores[count:], seed),
        "saliency": gradcam.sanity_check(cam, subsets.test.slices, compared, threshold, seed),
    }
    for model, more in evidence.assess_models(predictions, threshold, resamples, seed).items():
        reports[model] |= more
    _publish(params, subsets, test, resamples, reports, findings, predictions, detector, maps)
    print(run_tables({**reports, **findings}))


def _publish(
    params: Params,
    subsets: Subsets,
    test: ScoredSubset,
    resamples: intervals.Resamples,
    reports: dict[str, dict[str, Any]],
    findings: dict[str, Any],
    predictions: pd.DataFrame,
    detector: novelty.NoveltyDetector,
    maps: gradcam.Gallery,
) -> None:
    """Write all outputs; they take their places together, once the last is written."""
    with ExitStack() as stack:

        def output(path: Path) -> Path:
            return stack.enter_context(publish(path))

        detector.save(output(MODELS / "novelty.npz"))
        write_predictions(output(PREDICTIONS), predictions)
        write_json(output(METRICS / "test.json"), headline_metrics(reports))
        write_record(output(METRICS / "details.json"), {**reports, **findings})
        for name, points in (("roc", roc_points), ("pr", pr_points)):
            curves = [point for model in reports for point in points(model, test, resamples)]
            write_json(output(PLOTS / f"{name}.json"), curves)
        for model in reports:
            calls = confusion_rows(model, test, params.evaluate, params.classes)
            write_json(output(PLOTS / f"confusion_{model}.json"), calls)

        evidence_figures.draw_calibration(
            output(PLOTS / "reliability.png"),
            evidence.calibration_panels(predictions, params.evaluate.bins),
            evidence_figures.HOW_TO_READ_CALIBRATION,
        )
        figures.draw_histograms(output(PLOTS / "scores.png"), test.scores, test.labels, params.classes)
        figures.draw_controls(output(PLOTS / "controls.png"), findings["controls"], learned_note(findings))
        evidence_figures.draw_decision_curves(
            output(PLOTS / "net_benefit.png"),
            evidence.decision_panels(predictions, resamples, params.classes.positive),
            " ".join(filter(None, [evidence_figures.HOW_TO_READ_BENEFIT, learned_note(findings)])),
        )
        evidence_figures.draw_risk_coverage(
            output(PLOTS / "risk_coverage.png"),
            evidence.risk_curves(predictions, params.evaluate.threshold, resamples),
        )
        _draw_images(output(PLOTS / "images"), subsets.train, maps, params)


def _draw_images(folder: Path, train: Subset, maps: gradcam.Gallery, params: Params) -> None:
    """Draw examples of the classes, of augmentation and of the maps of Grad-CAM."""
    augment = augmentation(params.augment, train.slices.size, params.seed)
    figures.draw_classes(folder / "classes.png", train.slices, train.manifest, params.classes)
    figures.draw_augmented(folder / "augmented.png", train.slices[:4], lambda slices: augment(slices, training=True))
    figures.draw_saliency(folder / "saliency.png", *maps)


if __name__ == "__main__":
    run_stage("evaluate", evaluate)
