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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ctscan.core.errors import UserError, writing
from ctscan.core.params import Params, read_params
from ctscan.inference.bundle import LOCK, NOVELTY, Evaluation, load_bundle, read_evaluation
from ctscan.inference.inputs import find

from tqdm import tqdm

COLUMNS = ("path", "probability", "label", "unlike_training", "novelty", "colour", "score")
GROUPS_FILE = "groups.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images (PNG, JPEG, TIFF, BMP ...) or DICOM files, folders (with all below), globs",
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
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of the screen")


class LabelledSet(NamedTuple):
    """A folder with the two class folders: `labels` of its files, 1 = positive, and `groups` where groups.csv is."""

    folder: Path
    labels: dict[Path, int]
    groups: dict[Path, str] | None


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where a file or a PATH was left out. Raises `UserError` where nothing can be predicted."""
    params = read_params()
    faults: list[str] = []
    files = find(arguments.paths, faults)
    sets = [_labelled(folder, files, params) for folder in _with_classes(arguments.paths, params)]
    for fault in faults:
        print(fault, file=sys.stderr)
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
        "model_md5": bundle.evaluation.md5,
    }
    judged: dict[Path, list[float]] = {path: [] for labelled in sets for path in labelled.labels}
    form = arguments.format or {".csv": "csv", ".json": "json"}.get(
        arguments.output.suffix.lower() if arguments.output else "", "table"
    )
    with _opened(arguments.output) as stream:
        writer = _WRITERS[form](stream, reading)
        progress = tqdm(total=len(files), unit="file", disable=None)
        done: Path | None = None
        for found in predict(bundle, files, arguments.point, params.checks.min_size):
            with tqdm.external_write_mode(file=sys.stderr):
                if isinstance(found, UserError):
                    faults.append(str(found))
                    print(found, file=sys.stderr, flush=True)
                    progress.update()
                    continue
                progress.update(found.path != done)
                done = found.path
                values = (found.probability, found.label, found.unfamiliar, found.novelty, found.colour, found.score)
                writer.row(dict(zip(COLUMNS, (found.name, *values), strict=True)))
            if found.path in judged:
                judged[found.path].append(found.score)
        progress.close()
        tables = [_judge(labelled, judged, reading["threshold"], params, faults) for labelled in sets]
        writer.end([table for table in tables if table], faults)
    if tables and (form != "json" or arguments.output):
        screen = sys.stdout if form == "table" or arguments.output else sys.stderr
        for table in filter(None, tables):
            print(table["text"], file=screen)
    return 1 if faults else 0


def _check(evaluation: Evaluation, params: Params, point: str) -> None:
    """Raises `UserError` unless `evaluation` is of the classes of params.yaml, and has the operating point."""
    if evaluation.classes != params.classes:
        raise UserError(f"params.yaml: classes are not those that evaluate read ({LOCK}); run `dvc repro`")
    if point not in evaluation.thresholds:
        raise UserError(f"--point {point}: it needs one of {', '.join(evaluation.thresholds)}")


@contextmanager
def _without_collecting() -> Iterator[None]:
    """TensorFlow and the network are millions of objects that stay: to look for garbage among them takes a second."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _with_classes(given: Sequence[str], params: Params) -> list[Path]:
    """The PATHs that hold both class folders."""
    names = (params.classes.positive, params.classes.negative)
    return [Path(text) for text in dict.fromkeys(given) if all(Path(text, name).is_dir() for name in names)]


def _labelled(folder: Path, files: Sequence[Path], params: Params) -> LabelledSet:
    """Raises `UserError` where groups.csv has faults: before hours of predictions, not after."""
    labels = {
        path: label
        for label, name in enumerate((params.classes.negative, params.classes.positive))
        for path in files
        if path.is_relative_to(folder / name)
    }
    listing = folder / GROUPS_FILE
    if not listing.exists():
        return LabelledSet(folder, labels, None)
    from ctscan.split.check import read_groups

    errors: list[str] = []
    groups = read_groups(listing, [path.relative_to(folder).as_posix() for path in labels], errors)
    if errors:
        raise UserError("\n  ".join([f"{listing}: {len(errors)} faults, nothing was predicted", *errors]))
    return LabelledSet(folder, labels, {path: groups[path.relative_to(folder).as_posix()] for path in labels})


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
    text = f"\n{name}: {len(labels)} slices, threshold {threshold:g}, intervals over {resamples.units} {unit}\n{table}"
    return {"path": name, "slices": len(labels), "test": measured, "intervals": spread, "text": text}


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
        fresh.unlink(missing_ok=True)


class _Table:
    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        from ctscan.evaluation.calibration import apply_temperature

        self.stream = stream
        positive, temperature = reading["positive"], reading["temperature"]
        limit = float(apply_temperature([reading["threshold"]], temperature)[0])
        print(
            f"Research only, not for diagnosis. Probability of {positive}, calibrated (temperature {temperature:.3g}); "
            f"{positive} from {limit:.3f} on (point {reading['point']})",
            file=stream,
        )

    def row(self, row: dict[str, Any]) -> None:
        notices = [
            *["unlike the training images"] * row["unlike_training"],
            *["in colour, read as grey"] * row["colour"],
        ]
        notice = f"  [{'; '.join(notices)}]" if notices else ""
        print(f"{row['probability']:.3f}  {row['label']:<12}  {row['path']}{notice}", file=self.stream)

    def end(self, tables: Sequence[dict[str, Any]], faults: Sequence[str]) -> None:
        self.stream.flush()


class _Csv:
    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        self.writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        self.writer.writeheader()

    def row(self, row: dict[str, Any]) -> None:
        self.writer.writerow(row)

    def end(self, tables: Sequence[dict[str, Any]], faults: Sequence[str]) -> None:
        pass


class _Json:
    """One object, written row by row: how to read it, `predictions`, `left_out`, and `metrics` of labelled sets."""

    def __init__(self, stream: TextIO, reading: dict[str, Any]) -> None:
        self.stream, self.separator = stream, "\n"
        stream.write("{\n" + "".join(f'  "{key}": {json.dumps(value)},\n' for key, value in reading.items()))
        stream.write('  "predictions": [')

    def row(self, row: dict[str, Any]) -> None:
        self.stream.write(f"{self.separator}    {json.dumps(row, ensure_ascii=False, allow_nan=False)}")
        self.separator = ",\n"

    def end(self, tables: Sequence[dict[str, Any]], faults: Sequence[str]) -> None:
        kept = [{key: value for key, value in table.items() if key != "text"} for table in tables]
        self.stream.write(f'\n  ],\n  "left_out": {json.dumps(list(faults))},\n')
        self.stream.write(f'  "metrics": {json.dumps(kept, ensure_ascii=False, allow_nan=False)}\n}}\n')


_WRITERS: dict[str, Callable[[TextIO, dict[str, Any]], _Table | _Csv | _Json]] = {
    "table": _Table,
    "csv": _Csv,
    "json": _Json,
}
