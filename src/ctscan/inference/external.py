"""Score a labelled folder of another source once, and report it beside the internal test. Research only.

    ctscan external covid-ct --name covid-ct

FOLDER holds the two class folders, and groups.csv where patients are known. The model is that of the last run. Its
threshold, its temperature and the share of positives that it assumes come from the run; nothing is chosen on FOLDER, so
do not choose models by the result. Writes metrics/external/NAME.json and .md, and pictures in plots/external_NAME.
"""

import argparse
import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.files import publish, write_json
from ctscan.core.params import Params, parse_lock, read_params
from ctscan.inference.bundle import LOCK, NOVELTY, STUDY, Evaluation, load_bundle, read_evaluation
from ctscan.inference.inputs import find
from ctscan.inference.labelled import LabelledSet, labelled_sets
from ctscan.inference.predict import require_classes

if TYPE_CHECKING:  # help should not wait for it
    from ctscan.evaluation.other_sets import Settings

    import numpy as np
    import pandas as pd

RESULTS, PLOTS, PREDICTED = Path("metrics/external"), Path("plots"), Path("predictions.csv")
MODEL = "finetuned"
COLUMNS = {"roc_auc": "ROC AUC", "accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity"}


class Scored(NamedTuple):
    """What the model says of the n slices of a set, beside what is true of them."""

    labels: "np.ndarray"  # (n,)
    scores: "np.ndarray"  # (n,)
    novelty: "np.ndarray"  # (n,)
    groups: "np.ndarray | None"  # (n,)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and what it is called in the report."""
    parser.add_argument("folder", metavar="FOLDER", help="holds the two class folders of params.yaml")
    parser.add_argument("--name", required=True, help="of the set in the report and in the names of its files")


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where a file was left out. Raises `UserError` where the set can't be judged."""
    if not re.fullmatch(r"[\w.-]+", arguments.name):
        raise UserError(f"--name {arguments.name}: it needs letters, digits, '.', '_' and '-' alone")
    params = read_params()
    faults: list[str] = []
    found = find([arguments.folder], faults)
    sets = labelled_sets([arguments.folder], found, params)
    if not sets:
        names = f"{params.classes.positive} and {params.classes.negative}"
        raise UserError(f"{arguments.folder}: no folders {names} with images; create them, or correct `classes`")
    (labelled,) = sets
    for line in (*faults, *found.passed_over()):
        print(line, file=sys.stderr)
    evaluation = read_evaluation(NOVELTY, PREDICTED)
    require_classes(evaluation, params)
    external = _score(evaluation, labelled, params, faults)
    passed = [f"{path}: {found.passed[path]}, passed over" for path in labelled.unread if path in found.passed]
    internal = _internal()
    report = assess(external, internal, evaluation, params, arguments.name) | {
        "name": arguments.name,
        "data": {"files": len(labelled.labels), "sha256": data_hash(labelled), "left_out": [*faults, *passed]},
        "run": run_of_model(evaluation),
    }
    with publish(PLOTS / f"external_{arguments.name}") as folder:
        draw(folder, external, evaluation, params, report)
    with publish(RESULTS / f"{arguments.name}.json") as path:
        write_json(path, report)
    text = section(report)
    with publish(RESULTS / f"{arguments.name}.md") as path:
        path.write_text(text, encoding="utf-8")
    print(text)
    return 1 if faults else 0


def _score(evaluation: Evaluation, labelled: LabelledSet, params: Params, faults: list[str]) -> Scored:
    """Scores of the slices of all files that can be read; the others add a line to `faults`, which is printed, too."""
    from ctscan.core.seeds import make_deterministic
    from ctscan.inference.predictor import predict

    import numpy as np
    from tqdm import tqdm

    make_deterministic()
    bundle = load_bundle(evaluation)
    paths = list(labelled.labels)
    found = []
    for _, one in tqdm(
        predict(bundle, paths, STUDY, params.checks.min_size), total=len(paths), unit="slice", disable=None
    ):
        if isinstance(one, UserError):
            faults.append(str(one))
            print(one, file=sys.stderr)
        else:
            found.append(one)
    groups = labelled.groups
    return Scored(
        np.array([labelled.labels[one.path] for one in found]),
        np.array([one.score for one in found]),
        np.array([one.novelty for one in found]),
        None if groups is None else np.array([groups[one.path] for one in found]),
    )


def _internal() -> Scored:
    """The test images of the run, as evaluate scored them."""
    from ctscan.evaluation.predictions import NOVELTY as COLUMN
    from ctscan.evaluation.predictions import parse_predictions

    table = parse_predictions(PREDICTED.read_text(encoding="utf-8"), str(PREDICTED))
    test: pd.DataFrame = table[table["subset"] == "test"]
    return Scored(*(test[column].to_numpy() for column in ("label", MODEL, COLUMN, "group")))


def data_hash(labelled: LabelledSet) -> str:
    """sha256 over the names and the contents of the labelled files, in the order of their names.

    What can't be read (a link that leads nowhere, a pipe) counts by its name alone.
    """
    lines = []
    for path in labelled.labels:
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        except OSError:
            content = ""
        lines.append(f"{path.relative_to(labelled.folder).as_posix()} {content}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def run_of_model(evaluation: Evaluation) -> dict[str, Any]:
    """What names the run: hashes of the model, of dvc.lock and of the data that it was made from, and main params."""
    text = LOCK.read_bytes()
    stages = parse_lock(text.decode())
    found: dict[str, Any] = {
        "model_md5": evaluation.md5,
        "lock_md5": hashlib.md5(text, usedforsecurity=False).hexdigest(),
    }
    if "prepare-split" in stages:
        given = stages["prepare-split"]["params"]["params.yaml"]
        dataset = given["dataset"]
        data: dict[str, Any] = next((dep for dep in stages["prepare-split"]["deps"] if dep["path"] == dataset), {})
        found |= {"dataset": dataset, "dataset_md5": data.get("md5"), "split": given["split"], "seed": given["seed"]}
    return found


def assess(
    external: Scored, internal: Scored, evaluation: Evaluation, params: Params, name: str
) -> dict[str, dict[str, Any]]:
    """The figures of both sets, `external` and `internal`, and how they were read (`reading`)."""
    from ctscan.evaluation import other_sets

    reading = other_sets.Reading(evaluation.thresholds[STUDY], evaluation.temperature, evaluation.prior)
    settings = other_sets.Settings(params.evaluate.bootstrap, params.evaluate.bins, params.seed)
    report: dict[str, dict[str, Any]] = {"reading": reading._asdict()}
    for place, found in (("external", external), ("internal", internal)):
        title = name if place == "external" else "internal test"
        report[place] = {
            "patients": _by_patient(found, evaluation, reading.threshold, settings, title),
            **other_sets.assess_set(found.labels, found.scores, found.groups, reading, settings, title),
            "novelty": other_sets.by_novelty(found.labels, found.scores, found.novelty, reading.threshold),
        }
    return report


def _by_patient(
    found: Scored, evaluation: Evaluation, threshold: float, settings: "Settings", title: str
) -> dict[str, Any] | None:
    """The metrics over patients by the rule that the run chose; None where patients, or the rule, are not known."""
    from ctscan.evaluation.patients import measure_patients

    if found.groups is None or evaluation.patient_rule is None:
        return None
    try:
        return measure_patients(
            evaluation.patient_rule, found.labels, found.scores, found.groups, threshold, settings.bootstrap,
            settings.seed, title,
        )  # fmt: skip
    except UserError:  # every patient has slices of both classes, or all are of one
        return None


def draw(
    folder: Path, external: Scored, evaluation: Evaluation, params: Params, report: Mapping[str, Mapping[str, Any]]
) -> None:
    """Draw the ROC curve, calibration before and after the shift, scores by class, and decision curves of the set."""
    from ctscan.evaluation import calibration, evidence_figures, figures, intervals, net_benefit
    from ctscan.evaluation.other_sets import shifted

    name, labels = str(report["name"]), external.labels
    resamples = intervals.resample(labels, external.groups, params.evaluate.bootstrap, params.seed, name)
    band = intervals.roc_band(labels, external.scores, resamples, name)
    unit = "slices, which is too narrow if several are of one patient" if external.groups is None else "groups"
    evidence_figures.draw_roc(
        folder / "roc.png",
        {MODEL: band["points"]},
        f"On {name}, which the model has not seen. Band: 95 %, over {unit}.",
    )
    calibrated = calibration.apply_temperature(external.scores, evaluation.temperature)
    estimate = report["external"]["prevalence"]["estimate"]["prevalence"]
    moments = {
        "As calibrated on validation": calibrated,
        f"Shifted to the estimated share of positives, {estimate:.2f}": shifted(calibrated, evaluation.prior, estimate),
    }
    evidence_figures.draw_calibration(
        folder / "reliability.png",
        {
            title: {MODEL: calibration.reliability(labels, values, params.evaluate.bins, name)}
            for title, values in moments.items()
        },
        f"On {name}. The estimate is made without the labels. The shift helps only where classes look as in training.",
    )
    figures.draw_histograms(folder / "scores.png", {MODEL: external.scores}, labels, params.classes)
    curves = net_benefit.decision_curves(
        labels, {MODEL: calibrated, "shifted": list(moments.values())[1]}, resamples, name, float(labels.mean())
    )
    title = f"{name} as it is ({labels.mean():.0%} {params.classes.positive})"
    note = (
        "A model is worth using at a probability if its line, with its band, lies above both 'treat all' and 'treat "
        f"nobody'. Bands: 95 % bootstrap over {unit}."
    )
    evidence_figures.draw_decision_curves(folder / "net_benefit.png", {title: curves}, note)


def section(report: Mapping[str, Any]) -> str:
    """The report as Markdown, to be pasted into a page."""
    name, places = report["name"], {"external": report["name"], "internal": "internal test"}
    rows = [["", *places.values()], ["---"] * 3]

    def add(title: str, cell: Any) -> None:
        rows.append([title, *(cell(report[place]) for place in places)])

    add("slices (positive)", lambda found: f"{found['slices']} ({found['positive']})")
    for metric, title in COLUMNS.items():
        add(title, lambda found, metric=metric: _between(found["metrics"][metric], "value"))
    add(
        "share of positives, estimated without labels",
        lambda found: _between(found["prevalence"]["estimate"], "prevalence"),
    )
    for moment, title in (("before", "as calibrated"), ("after", "shifted to the estimate")):
        add(f"Brier score, {title}", lambda found, moment=moment: f"{found['calibration'][moment]['brier']:.3f}")
        add(f"calibration error, {title}", lambda found, moment=moment: f"{found['calibration'][moment]['ece']:.3f}")
    for row, at in enumerate(line["threshold"] for line in report["external"]["net_benefit"]["before"]):
        add(
            f"benefit over treating all or nobody, acting from {at:g}",
            lambda found, row=row: _gain(found["net_benefit"]["before"][row]),
        )
    add("marked by the novelty detector", lambda found: f"{found['novelty']['marked']['share']:.3f}")
    for part in ("marked", "unmarked"):
        add(f"accuracy, ROC AUC of {part} slices", lambda found, part=part: _pair(found["novelty"][part]))
    if all(report[place]["patients"] for place in places):
        add("patients (positive)", lambda found: f"{found['patients']['patients']} ({found['patients']['positive']})")
        for metric in ("roc_auc", "accuracy"):
            add(f"{COLUMNS[metric]} over patients", lambda found, metric=metric: _over_patients(found, metric))
    about, reading = report["run"], report["reading"]
    unit = "groups of groups.csv"
    if report["external"]["resampled"] != "group":
        unit = "slices (no groups.csv names patients, so they are too narrow if several slices are of one)"
    left_out = report["data"]["left_out"]
    lines = [
        f"## {name}: a set that the model was not made with",
        "",
        "> For research only. Not for diagnosis. Nothing was chosen on this set: the threshold "
        f"{reading['threshold']:g}, the temperature {reading['temperature']:.3g} and the assumed share of positives "
        f"{reading['prior']:.2f} are those of the run.",
        "",
        *(f"| {' | '.join(cells)} |" for cells in rows),
        "",
        f"95 % intervals, over {report['external']['units']} {unit}, and over {report['internal']['units']} groups of "
        "the internal test. The share of positives is estimated without the labels.",
        "",
        f"- **data:** {report['data']['files']} files, sha256 `{report['data']['sha256'][:16]}`"
        + (f"; {len(left_out)} could not be read" if left_out else ""),
        f"- **model:** md5 `{about['model_md5']}`, of the run with dvc.lock of md5 `{about['lock_md5']}`",
    ]
    if "dataset" in about:
        split = about["split"]
        fold = f"fold {split['fold']} of {split['folds']}, " if split.get("folds", 1) > 1 else ""
        lines.append(
            f"- **made from:** `{about['dataset']}` (`{about['dataset_md5']}`), {split['strategy']} split, {fold}"
            f"seed {about['seed']}"
        )
    return "\n".join(lines) + "\n"


def _between(row: Mapping[str, float], key: str) -> str:
    from ctscan.evaluation.tables import interval

    return f"{row[key]:.3f} ({interval(row)})"


def _over_patients(found: Mapping[str, Any], metric: str) -> str:
    report = found["patients"]
    return _between({"value": report["test"][metric], **report["intervals"][metric]}, "value")


def _gain(row: Mapping[str, float]) -> str:
    return f"{row['gain']:+.3f} ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})"


def _pair(part: Mapping[str, float | None]) -> str:
    return ", ".join("none" if part[key] is None else f"{part[key]:.3f}" for key in ("accuracy", "roc_auc"))
