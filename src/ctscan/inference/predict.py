"""Predict CT slices with the fine-tuned model of the last run. Research only: not for diagnosis.

Prints for each slice the probability of the positive class, calibrated by the temperature that evaluate found, the
class at an operating point, and a notice where the slice is unlike the training images. A folder with the two class
folders is also judged: the study's metrics with 95 % intervals. DICOM is shown in a lung window (centre -600 HU, width
1500). A bad file is reported on stderr and left out; the exit status is then 1.
"""

import argparse
import csv
import gc
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from ctscan.core.errors import UserError, writing
from ctscan.core.params import Params, read_params
from ctscan.inference.bundle import LOCK, NOVELTY, Evaluation, load_bundle, read_evaluation
from ctscan.inference.inputs import GROUPS_FILE, LINKED, Found, class_folders, expand, find

from tqdm import tqdm

if TYPE_CHECKING:  # TensorFlow takes seconds, which a mistyped path should not wait for
    from ctscan.inference.predictor import Prediction

COLUMNS = ("path", "probability", "label", "unlike_training", "novelty", "colour", "score")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images (PNG, JPEG, TIFF, BMP ...), DICOM or NIfTI files, folders (with all below), globs",
    )
    parser.add_argument(
        "--point",
        default="study",
        help="operating point: study (evaluate.threshold of the run; the default, as the study's metrics are taken "
        "there), or one chosen on validation: youden, specificity_90, specificity_95",
    )
    parser.add_argument(
        "--format", choices=["table", "csv", "json"], help="default: by the ending of --output, else a table"
    )
    parser.add_argument(
        "--prevalence",
        type=float,
        metavar="P",
        help="share of the positive class, between 0 and 1, where the slices come from: probabilities are shifted to "
        "it, and the class at the operating point stays",
    )
    parser.add_argument(
        "--estimate-prevalence", action="store_true", help="estimate that share from the slices, with its interval"
    )
    parser.add_argument(
        "--patients",
        action="store_true",
        help="one more row for each patient of groups.csv or of DICOM (PatientID, else SeriesInstanceUID)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of the screen")


class LabelledSet(NamedTuple):
    """A folder with the two class folders: `labels` of its files, 1 = positive, and `groups` where groups.csv is.

    `unread` are files in the class folders that hold no slices by their content.
    """

    folder: Path
    labels: dict[Path, int]
    groups: dict[Path, str] | None
    unread: list[Path]


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where a file or a PATH was left out. Raises `UserError` where nothing can be predicted."""
    params = read_params()
    require_share(arguments.prevalence)
    faults: list[str] = []
    found_files = find(arguments.paths, faults)
    files = found_files.files
    sets = labelled_sets(arguments.paths, found_files, params)
    for line in (*faults, *found_files.passed_over()):
        print(line, file=sys.stderr)
    if not files:
        return 1

    # TensorFlow takes seconds: a mistyped PATH is told before it loads, and the model's hash is taken while it does.
    with _without_collecting(), ThreadPoolExecutor(1) as beside:
        tracked = beside.submit(read_evaluation, NOVELTY)
        from ctscan.core.seeds import INFERENCE_BATCH, make_deterministic
        from ctscan.inference.predictor import predict

        found_by_evaluate = tracked.result()
        _check(found_by_evaluate, params, arguments.point)
        make_deterministic()
        bundle = load_bundle(found_by_evaluate, traced=len(files) > INFERENCE_BATCH)
    reading: dict[str, Any] = {
        "positive": params.classes.positive,
        "point": arguments.point,
        "threshold": bundle.evaluation.thresholds[arguments.point],
        "temperature": bundle.evaluation.temperature,
        "prior": bundle.evaluation.prior,
        "prevalence": bundle.evaluation.prior if arguments.prevalence is None else arguments.prevalence,
        "model_md5": bundle.evaluation.md5,
    }
    judged: dict[Path, list[float]] = {path: [] for labelled in sets for path in labelled.labels}
    form = arguments.format or {".csv": "csv", ".json": "json"}.get(
        arguments.output.suffix.lower() if arguments.output else "", "table"
    )
    output = arguments.output.expanduser() if arguments.output else None
    with _opened(output) as stream:
        writer = _WRITERS[form](stream, reading)
        progress = tqdm(total=len(files), unit="file", disable=None)
        done: Path | None = None
        kept: list[Prediction] = []  # of all slices, where something is asked of them together
        for found in predict(bundle, files, arguments.point, params.checks.min_size):
            with tqdm.external_write_mode(file=sys.stderr):
                if isinstance(found, UserError):
                    faults.append(str(found))
                    print(found, file=sys.stderr, flush=True)
                    progress.update()
                    continue
                progress.update(found.path != done)
                done = found.path
                if arguments.patients or arguments.estimate_prevalence:
                    kept.append(found)
                probability = _shifted(found.probability, reading)
                values = (probability, found.label, found.unfamiliar, found.novelty, found.colour, found.score)
                writer.row(dict(zip(COLUMNS, (found.name, *values), strict=True)))
            if found.path in judged:
                judged[found.path].append(found.score)
        progress.close()
        tables = [_judge(labelled, judged, reading["threshold"], params, faults) for labelled in sets]
        together = _together(arguments, kept, sets, bundle.evaluation, params)
        writer.end([table for table in tables if table], faults, found_files.passed_over(), together)
    texts = [table["text"] for table in tables if table] + _texts(together, len(kept), bundle.evaluation)
    if form != "json" or arguments.output:
        for text in texts:
            print(text, file=sys.stdout if form == "table" or arguments.output else sys.stderr)
    return 1 if faults else 0


def require_share(prevalence: float | None) -> None:
    """Raises `UserError` unless `prevalence` is None or lies between 0 and 1."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise UserError(f"--prevalence {prevalence:g}: it needs a number > 0 and < 1")


def _shifted(probability: float, reading: Mapping[str, Any]) -> float:
    """The calibrated `probability` where the share of positives is `reading["prevalence"]`."""
    if reading["prevalence"] == reading["prior"]:
        return probability
    from ctscan.evaluation.prevalence import shift_prior

    return float(shift_prior([probability], reading["prior"], reading["prevalence"])[0])


def _together(
    arguments: argparse.Namespace,
    predictions: Sequence["Prediction"],
    sets: Sequence[LabelledSet],
    evaluation: Evaluation,
    params: Params,
) -> dict[str, Any]:
    """What is said of all slices together: `estimated_prevalence` and `patients`, where they are asked for."""
    if not predictions:
        return {}
    from ctscan.core.seeds import generator
    from ctscan.evaluation.prevalence import estimate_prevalence
    from ctscan.inference.patients import patient_of, patient_rows

    listed = {path: group for labelled in sets for path, group in (labelled.groups or {}).items()}
    known = {path: patient_of(path, listed) for path in dict.fromkeys(one.path for one in predictions)}
    patients = [known[one.path] for one in predictions]
    together: dict[str, Any] = {}
    if arguments.estimate_prevalence:
        named = [patient for patient in patients if patient is not None]
        whole = len(named) == len(patients) and len(set(named)) > 1  # patients are drawn where all are known
        together["estimated_prevalence"] = estimate_prevalence(
            [one.probability for one in predictions],
            evaluation.prior,
            named if whole else None,
            params.evaluate.bootstrap,
            generator(params.seed, "prevalence"),
        ) | {"unlike_training": sum(one.unfamiliar for one in predictions)}
    if arguments.patients:
        together["patients"] = patient_rows(predictions, patients, evaluation, arguments.point)
    return together


def _texts(together: Mapping[str, Any], slices: int, evaluation: Evaluation) -> list[str]:
    """`together` as a person reads it."""
    texts = []
    if estimate := together.get("estimated_prevalence"):
        unit = "patients" if estimate["resampled"] == "group" else "slices, too narrow where patients have several"
        texts.append(
            f"\nEstimated share of {evaluation.classes.positive} among {slices} slices: {estimate['prevalence']:.3f} "
            f"({estimate['low']:.3f}-{estimate['high']:.3f}; 95 % interval over {estimate['units']} {unit}). It holds "
            f"only if slices of each class look as in training: {estimate['unlike_training']} are unlike those."
        )
    if "patients" in together:
        rows = together["patients"]
        rule = evaluation.patient_rule
        judged = f"class by the rule '{rule}', chosen on validation" if rule else "the run could not choose a rule"
        lines = [f"\n{len(rows)} patients of {sum(row['slices'] for row in rows)} of {slices} slices; {judged}"]
        lines += [
            f"{row['mean']:.3f} mean  {row['share']:.3f} share  {row['top_3']:.3f} top 3  {row['slices']:>4} slices  "
            f"{row['label'] or '':<12}  {row['patient']}"
            for row in rows
        ]
        texts.append("\n".join(lines))
    return texts


def _check(evaluation: Evaluation, params: Params, point: str) -> None:
    """Raises `UserError` unless `evaluation` is of the classes of params.yaml, and has the operating point."""
    require_classes(evaluation, params)
    if point not in evaluation.thresholds:
        raise UserError(f"--point {point}: it needs one of {', '.join(evaluation.thresholds)}")


def require_classes(evaluation: Evaluation, params: Params) -> None:
    """Raises `UserError` unless `evaluation` is of the classes of params.yaml."""
    if evaluation.classes != params.classes:
        raise UserError(f"params.yaml: classes are not those that evaluate read ({LOCK}); run `dvc repro`")


@contextmanager
def _without_collecting() -> Iterator[None]:
    """TensorFlow and the network are millions of objects that stay: to look for garbage among them takes a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def labelled_sets(given: Sequence[str], found: Found, params: Params) -> list[LabelledSet]:
    """Of the PATHs that hold both class folders. Says on stderr where one holds a single class, so isn't judged."""
    sets = []
    for folder in map(Path, dict.fromkeys(map(expand, given))):
        if not folder.is_dir():
            continue
        places = class_folders(folder, params.classes)
        if len(places) == 2:
            sets.append(_labelled(folder, places, found))
        elif places:
            (only,) = places.values()
            names = f"{params.classes.positive} and {params.classes.negative}"
            print(f"{folder}: not judged, it holds {only.name} alone of the classes {names}", file=sys.stderr)
    return sets


def _labelled(folder: Path, places: dict[int, Path], found: Found) -> LabelledSet:
    """Raises `UserError` where groups.csv has faults: before hours of predictions, not after."""

    def within(paths: Sequence[Path]) -> dict[Path, int]:
        return {path: label for label, place in places.items() for path in paths if path.is_relative_to(place)}

    labels = within(found.files)
    passed = [path for path, reason in found.passed.items() if reason not in ("hidden", LINKED)]
    unread = list(within([*passed, *found.refused]))
    listing = folder / GROUPS_FILE
    if not listing.exists():
        return LabelledSet(folder, labels, None, unread)
    from ctscan.split.check import read_groups

    errors: list[str] = []
    groups = read_groups(listing, [path.relative_to(folder).as_posix() for path in labels], errors)
    if errors:
        raise UserError("\n  ".join([f"{listing}: {len(errors)} faults, nothing was predicted", *errors]))
    return LabelledSet(folder, labels, {path: groups[path.relative_to(folder).as_posix()] for path in labels}, unread)


def _left_out(labelled: LabelledSet, scores: dict[Path, list[float]], faults: Sequence[str]) -> str:
    """What a figure on a labelled set must say of files that it is not about; "" where it is about all."""
    files = len(labelled.labels) + len(labelled.unread)
    lost = len(labelled.unread) + sum(not scores[path] for path in labelled.labels)
    of_frames = {Path(fault.partition(": ")[0].partition("#")[0]) for fault in faults if "#" in fault}
    cut = sum(bool(scores.get(path)) for path in of_frames)
    parts = [f"{lost} of {files} files"] * bool(lost) + [f"some slices of {cut} more"] * bool(cut)
    return f", WITHOUT {' and '.join(parts)}, which could not be read" if parts else ""


def _judge(
    labelled: LabelledSet, scores: dict[Path, list[float]], threshold: float, params: Params, faults: list[str]
) -> dict[str, Any] | None:
    """The study's metrics on a labelled set, with intervals; None, and a fault, where they are not defined."""
    from ctscan.evaluation import intervals, metrics, tables

    slices = [(path, score) for path in labelled.labels for score in scores[path]]
    labels = [labelled.labels[path] for path, _ in slices]
    values = [score for _, score in slices]
    name = str(labelled.folder)
    try:
        measured = metrics.headline(labels, values, threshold, name)
        groups = None if labelled.groups is None else [labelled.groups[path] for path, _ in slices]
        resamples = intervals.resample(labels, groups, params.evaluate.bootstrap, params.seed, name)
        spread = intervals.headline_intervals(labels, values, threshold, resamples, name)
    except UserError as error:
        faults.append(str(error))
        print(error, file=sys.stderr)
        return None
    table = tables.results_table({"finetuned": {"test": measured, "intervals": spread}})
    unit = "groups of groups.csv" if groups else f"slices (no {GROUPS_FILE}: too narrow where patients have several)"
    left_out = _left_out(labelled, scores, faults)
    basis = f"threshold {threshold:g}, intervals over {resamples.units} {unit}"
    text = f"\n{name}: {len(labels)} slices{left_out}, {basis}\n{table}"
    return {
        "path": name,
        "slices": len(labels),
        "left_out": left_out.removeprefix(", "),
        "test": measured,
        "intervals": spread,
        "text": text,
    }


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """The screen, or a file that takes its name when it is whole."""
    if output is None:
        yield sys.stdout
        return
    fresh = output.with_name(f"{output.name}.part")
    try:
        with writing(output):
            try:
                with fresh.open("w", encoding="utf-8", newline="") as stream:
                    yield stream
            except FileNotFoundError:
                raise UserError(f"{output}: no such folder; create it, or correct --output") from None
            fresh.replace(output)
    finally:
        with suppress(OSError):  # on a disk that can't be written to, it was never made
            fresh.unlink()


class _Table:
    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        from ctscan.evaluation.calibration import apply_temperature

        self.stream = stream
        positive, temperature = reading["positive"], reading["temperature"]
        limit = _shifted(float(apply_temperature([reading["threshold"]], temperature)[0]), reading)
        prior, prevalence = reading["prior"], reading["prevalence"]
        shift = (
            "" if prior == prevalence else f" and shifted from a share of {positive} of {prior:.2f} to {prevalence:g}"
        )
        print(
            f"Research only, not for diagnosis. Probability of {positive}, calibrated (temperature {temperature:.3g})"
            f"{shift}; {positive} from {limit:.3f} on (point {reading['point']})",
            file=stream,
        )

    def row(self, row: dict[str, Any]) -> None:
        notices = [
            *["unlike the training images"] * row["unlike_training"],
            *["in colour, read as grey"] * row["colour"],
        ]
        notice = f"  [{'; '.join(notices)}]" if notices else ""
        print(f"{row['probability']:.3f}  {row['label']:<12}  {row['path']}{notice}", file=self.stream)

    def end(
        self, tables: Sequence[dict[str, Any]], faults: Sequence[str], passed: Sequence[str], more: Mapping[str, Any]
    ) -> None:
        self.stream.flush()


class _Csv:
    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        self.writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        self.writer.writeheader()

    def row(self, row: dict[str, Any]) -> None:
        self.writer.writerow(row)

    def end(
        self, tables: Sequence[dict[str, Any]], faults: Sequence[str], passed: Sequence[str], more: Mapping[str, Any]
    ) -> None:
        pass


class _Json:
    """One object, written row by row: how to read it, `predictions`, files left out, and `metrics` of labelled sets."""

    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        self.stream, self.separator = stream, "\n"
        self.escaped = (getattr(stream, "encoding", None) or "utf-8").lower() not in ("utf-8", "utf8")
        stream.write("{\n" + "".join(f'  "{key}": {json.dumps(value)},\n' for key, value in reading.items()))
        stream.write('  "predictions": [')

    def row(self, row: dict[str, Any]) -> None:
        self.stream.write(f"{self.separator}    {json.dumps(row, ensure_ascii=self.escaped, allow_nan=False)}")
        self.separator = ",\n"

    def end(
        self, tables: Sequence[dict[str, Any]], faults: Sequence[str], passed: Sequence[str], more: Mapping[str, Any]
    ) -> None:
        kept = [{key: value for key, value in table.items() if key != "text"} for table in tables]
        self.stream.write(f'\n  ],\n  "left_out": {json.dumps(list(faults))},\n')
        self.stream.write(f'  "passed_over": {json.dumps(list(passed))},\n')
        for key, value in more.items():
            self.stream.write(f'  "{key}": {json.dumps(value, ensure_ascii=self.escaped, allow_nan=False)},\n')
        self.stream.write(f'  "metrics": {json.dumps(kept, ensure_ascii=self.escaped, allow_nan=False)}\n}}\n')


_WRITERS: dict[str, Callable[[TextIO, dict[str, Any]], _Table | _Csv | _Json]] = {
    "table": _Table,
    "csv": _Csv,
    "json": _Json,
}
