"""Predict CT slices with the fine-tuned model of the last run. Research only: not for diagnosis.

Prints for each slice the probability of the positive class, calibrated by the temperature that evaluate found, the
class at an operating point, and a notice where the slice is unlike the training images. A folder with the two class
folders is also judged: the study's metrics with 95 % intervals. DICOM is shown in a lung window (centre -600 HU, width
1500). A bad file is reported on stderr and left out; the exit status is then 1.

Several machines share the files by shards, and a last call, with the same PATHs, puts their parts together:

    ctscan predict FOLDER --shard 2/8 --output part-2.jsonl
    ctscan predict FOLDER --merge part-*.jsonl --output all.csv
"""

import argparse
import gc
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import Params, read_params
from ctscan.inference.bundle import LOCK, NOVELTY, Evaluation, Prediction, load_bundle, read_evaluation
from ctscan.inference.formats import COLUMNS, WRITERS, opened, shifted
from ctscan.inference.inputs import find
from ctscan.inference.labelled import LabelledSet, judge, labelled_sets
from ctscan.inference.shards import Result, Shard, origin, parse_shard, read_parts, write_part

from tqdm import tqdm


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
    parser.add_argument(
        "--shard", metavar="I/N", help="predict only every N-th file, from the I-th on, and write a part to --output"
    )
    parser.add_argument(
        "--merge",
        nargs="+",
        type=Path,
        metavar="PART",
        help="do not predict, but take what the parts of all shards say, as if one run had predicted all files",
    )


def run(arguments: argparse.Namespace) -> int:
    """The exit status: 1 where a file or a PATH was left out. Raises `UserError` where nothing can be predicted."""
    params = read_params()
    require_share(arguments.prevalence)
    shard = _shard(arguments)
    faults: list[str] = []
    found_files = find(arguments.paths, faults)
    files = found_files.files
    sets = labelled_sets(arguments.paths, found_files, params)
    for line in (*faults, *found_files.passed_over()):
        print(line, file=sys.stderr)
    if not files:
        return 1

    chosen = files if shard is None else shard.files(files)
    # TensorFlow takes seconds: a mistyped PATH is told before it loads, and the model's hash is taken while it does.
    with _without_collecting(), ThreadPoolExecutor(1) as beside:
        tracked = beside.submit(read_evaluation, NOVELTY)
        if not arguments.merge:
            from ctscan.core.seeds import INFERENCE_BATCH, make_deterministic
            from ctscan.inference.predictor import predict
        evaluation = tracked.result()
        _check(evaluation, params, arguments.point)
        reading = _reading(evaluation, arguments)
        whole = origin(reading, params.checks.min_size, arguments.paths, files)
        if arguments.merge:
            results = read_parts(arguments.merge, whole, files)
        else:
            make_deterministic()
            many = len(files) > INFERENCE_BATCH  # of all shards, so that each shard says what one run would
            bundle = load_bundle(evaluation, traced=many)
            results = predict(bundle, chosen, arguments.point, params.checks.min_size, fill=many)
    results = _reported(results, len(chosen), faults)
    output = arguments.output.expanduser() if arguments.output else None
    if shard:
        with opened(output) as stream:
            write_part(stream, shard, whole, chosen, results)
        return 1 if faults else 0

    judged: dict[Path, list[float]] = {path: [] for labelled in sets for path in labelled.labels}
    form = arguments.format or {".csv": "csv", ".json": "json"}.get(output.suffix.lower() if output else "", "table")
    with opened(output) as stream:
        writer = WRITERS[form](stream, reading)
        kept: list[Prediction] = []  # of all slices, where something is asked of them together
        for path, found in results:
            if isinstance(found, UserError):
                continue
            if arguments.patients or arguments.estimate_prevalence:
                kept.append(found)
            probability = shifted(found.probability, reading)
            values = (probability, found.label, found.unfamiliar, found.novelty, found.colour, found.score)
            with tqdm.external_write_mode(file=sys.stderr):
                writer.row(dict(zip(COLUMNS, (found.name, *values), strict=True)))
            if path in judged:
                judged[path].append(found.score)
        tables = [judge(labelled, judged, reading["threshold"], params, faults) for labelled in sets]
        together = _together(arguments, kept, sets, evaluation, params)
        writer.end([table for table in tables if table], faults, found_files.passed_over(), together)
    texts = [table["text"] for table in tables if table] + _texts(together, len(kept), evaluation)
    if form != "json" or output:
        for text in texts:
            print(text, file=sys.stdout if form == "table" or output else sys.stderr)
    return 1 if faults else 0


def _shard(arguments: argparse.Namespace) -> Shard | None:
    """The shard that is asked for. Raises `UserError` where other arguments do not go with it."""
    if arguments.shard is None:
        return None
    if arguments.output is None:
        raise UserError("--shard needs --output, the file of the part")
    for name in ("merge", "format", "prevalence", "estimate_prevalence", "patients"):
        if getattr(arguments, name):
            raise UserError(f"--{name.replace('_', '-')} does not go with --shard; give it with --merge PART... alone")
    return parse_shard(arguments.shard)


def _reading(evaluation: Evaluation, arguments: argparse.Namespace) -> dict[str, Any]:
    """How the scores are read."""
    return {
        "positive": evaluation.classes.positive,
        "point": arguments.point,
        "threshold": evaluation.thresholds[arguments.point],
        "temperature": evaluation.temperature,
        "prior": evaluation.prior,
        "prevalence": evaluation.prior if arguments.prevalence is None else arguments.prevalence,
        "model_md5": evaluation.md5,
    }


def _reported(results: Iterable[Result], files: int, faults: list[str]) -> Iterator[Result]:
    """Each of `results` as it comes, under a progress bar; what is wrong with a file is printed and put in `faults`."""
    with tqdm(total=files, unit="file", disable=None) as progress:
        done: Path | None = None
        for path, found in results:
            progress.update(path != done)
            done = path
            if isinstance(found, UserError):
                faults.append(str(found))
                with tqdm.external_write_mode(file=sys.stderr):
                    print(found, file=sys.stderr, flush=True)
            yield path, found


def require_share(prevalence: float | None) -> None:
    """Raises `UserError` unless `prevalence` is None or lies between 0 and 1."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise UserError(f"--prevalence {prevalence:g}: it needs a number > 0 and < 1")


def _together(
    arguments: argparse.Namespace,
    predictions: Sequence[Prediction],
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
