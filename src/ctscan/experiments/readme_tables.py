"""Fill the tables of README.md, of the model card and of the pages on studies and benchmarks from recorded files.

A page marks the place of each table: `<!-- figures: NAME -->` before it, `<!-- end -->` after it.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import read_record
from ctscan.experiments.compare import MODELS
from ctscan.experiments.readme_figures import BLOCKED_FOLDS, FOLDER, STYLES, draw_all, read_three_tests
from ctscan.experiments.spread import label, table

PAGES = (
    "README.md",
    "docs/MODEL_CARD.md",
    "studies/README.md",
    "studies/random-vs-blocked/README.md",
    "benchmarks/README.md",
)
BASELINES = ("nearest_neighbour", "hog_svm")
REPEATED = ("random", "blocked")  # the splits of which repeats over seeds are recorded
WORTH = (  # recorded folds of the blocked split, and the model or baseline of them
    ("nearest neighbour on thumbnails", BLOCKED_FOLDS, "nearest_neighbour"),
    ("Xception, ImageNet weights, frozen", BLOCKED_FOLDS, "initial"),
    ("HOG + linear SVM", BLOCKED_FOLDS, "hog_svm"),
    ("Xception, ImageNet weights, last layers trained", BLOCKED_FOLDS, "finetuned"),
    ("ResNet101V2, random weights, last layers trained", "random-weights-blocked", "finetuned"),
    ("MobileNet from scratch, augmented, all layers trained", "from-scratch-blocked", "finetuned"),
)
UNITS = {"phase_1": "s", "phase_2": "s", "total": "s", "peak_mib": "MiB"}  # of benchmarks/results.json
TIMED = {
    "phase_1": "phase 1, initial",
    "phase_2": "phase 2, fine-tuning",
    "total": "whole run",
    "peak_mib": "peak memory",
    "auc_initial": "test AUC, initial",
    "auc_finetuned": "test AUC, fine-tuned",
}
MARK = re.compile(r"(?<=<!-- figures: )([^>]+?)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Bring all pages and the README's pictures in step with the files that git keeps.

    Raises:
        UserError: a page can't be filled.
    """
    for name in PAGES:
        page = Path(name)
        page.write_text(fill(page.read_text(encoding="utf-8"), Path()), encoding="utf-8")
    draw_all(Path(), FOLDER)
    return 0


def fill(text: str, root: Path) -> str:
    """`text` with the table at each mark made anew from the files under `root`.

    Raises:
        UserError: a mark of no known name.
    """

    def anew(match: re.Match[str]) -> str:
        name = match[1]
        if name not in TABLES:
            raise UserError(f"no figures are called '{name}'; known are {', '.join(TABLES)}")
        return f"{name}{match[2]}{TABLES[name](root)}\n"

    return MARK.sub(anew, text)


def sample_run(root: Path) -> str:
    # Here and below, as scikit-learn takes half a second that help can do without.
    from ctscan.evaluation.tables import run_tables

    return f"```text\n{run_tables(read_record(root / 'metrics/details.json'))}\n```"


def finding(root: Path) -> str:
    """The fine-tuned network's ROC AUC on three tests, as three sentences and a picture whose text holds it too."""
    tests = read_three_tests(root)
    _, study = _published(root)
    random, blocked, other = (test.aucs["finetuned"] for test in tests)
    hog = tests[1].aucs["hog_svm"]
    folds = read_record(root / "studies" / BLOCKED_FOLDS / "folds.json")
    ahead = folds["models"]["finetuned"]["win_probability"]["controls"]
    sentences = (
        f"On a random split of slices, the study's kind, the fine-tuned network has a test ROC AUC of "
        f"**{_cell(random)}**; the study reports {_fraction(study['roc_auc'])}. Where neighbouring slices stay "
        f"together it has **{_cell(blocked)}**, beside {_cell(hog)} of a classical method, {_named('hog_svm')}; it is "
        f"ahead of all simple methods in {100 * ahead:.1f} % of the bootstrap resamples. On slices of another source "
        f"one of these networks has **{_cell(other)}**; chance is .5."
    )
    aucs = ", ".join(f"{test.name} {_short(test.aucs['finetuned']['roc_auc'])}" for test in tests)
    alternative = f"ROC AUC of the fine-tuned network: {aucs}"
    picture = f'<img src="{FOLDER}/three-tests.png" width="440" alt="{alternative}">'
    return f"{sentences}\n\n{picture}"


def three_tests(root: Path) -> str:
    """ROC AUC of the study, and of models and baselines here on each of the three tests, as Markdown."""
    tests = read_three_tests(root)
    rows = [["test ROC AUC (95 % interval)", *(test.name for test in tests)]]
    for model, row in zip(MODELS, _published(root), strict=True):
        rows.append([f"study, {label(model)}", _fraction(row["roc_auc"]), *["not reported"] * 2])
    for name in (*MODELS, "combination", *BASELINES):
        title = label(name) if name in MODELS else _named(name)
        cells = (_cell(test.aucs[name]) if name in test.aucs else "not scored" for test in tests)
        rows.append([f"here, {title}", *cells])
    params = read_record(root / "studies" / BLOCKED_FOLDS / "folds.json")["params"]
    about = f"Here: {params['backbone']}, `weights: {params['weights']}`, {params['image_size']} pixels."
    return f"{_markdown(rows)}\n\n{about}"


def worth(root: Path) -> str:
    """What each way to a network reaches on the blocked split, and the baselines there, as Markdown."""
    found = []
    for title, study, name in WORTH:
        pooled = read_record(root / "studies" / study / "folds.json")
        (row,) = (row for row in pooled["controls"] if row["name"] == name)
        found.append((row["roc_auc"], [title, _short(row["accuracy"]), _cell(row)]))
    rows = [row for _, row in sorted(found)]
    return _markdown([["blocked split, five folds", "accuracy", "ROC AUC"], *rows])


def results(root: Path) -> str:
    """The study's figures, and those of each run here with 95 % intervals, as Markdown."""
    from ctscan.evaluation.metrics import HEADLINE

    rows = [["test images", *(label(metric) for metric in HEADLINE)]]
    for row in read_record(root / "studies/published.json")["rows"]:
        rows.append([row["name"], *(_fraction(row[metric]) for metric in HEADLINE)])
    for title, folder, details in _reports(root):
        for model in MODELS:
            report = details[model]
            cells = (_between(report["test"][metric], report["intervals"][metric]) for metric in HEADLINE)
            rows.append([f"{title}, {label(model)}", *cells])
        if folder != root:
            controls = {row["name"]: row for row in details["controls"]}
            for name in BASELINES:
                row = controls[name]
                empty = [""] * (len(HEADLINE) - 2)
                rows.append(
                    [f"{title}, *{_named(name)}*", _short(row["accuracy"]), *empty, _between(row["roc_auc"], row)]
                )
    return _markdown(rows)


def random_against_blocked(root: Path) -> str:
    """Every figure of the repeats over seeds, a column for each split, and below what they belong to, as Markdown."""
    folder = root / "studies/random-vs-blocked"
    return table([read_record(folder / f"{strategy}.json") for strategy in REPEATED])


def novelty_and_maps(root: Path) -> str:
    """Of each run, what the novelty detector marks, and how alike the maps of a random network are, as Markdown."""
    rows = [
        [
            "run",
            "test slices not marked",
            "other pictures that are marked",
            "altered slices that are marked",
            "maps alike, random head",
            "maps alike, all random",
        ]
    ]
    for title, folder in _runs(root, "../studies/"):
        details = read_record(folder / "metrics/details.json")
        detector, levels = details["novelty"], details["saliency"]["levels"]
        marked = (
            ", ".join(f"{label(kind)} {_short(share)}" for kind, share in detector[group].items())
            for group in ("far", "near")
        )
        alike = (
            f"{level['spearman']:.2f} ({level['slices']} slices)" if level["slices"] else "no map but 0"
            for level in (levels["head"], levels["all"])
        )
        rows.append([title, _short(detector["test_passes"]), *marked, *alike])
    return _markdown(rows)


def benchmark(root: Path, folder: str = "benchmarks") -> str:
    """Seconds, memory and test AUC of plain Keras and of each way here, and their ratios, as Markdown."""
    result = read_record(root / folder / "results.json")
    settings = result["settings"]
    images = sum(settings["images"].values())
    rows = [[f"{images} slices, {settings['epochs']} + {settings['finetune_epochs']} epochs", *TIMED.values()]]
    for way, middle in result["medians"].items():
        rows.append([way, *(f"{middle[column]:.0f} {unit}" for column, unit in UNITS.items()), *_aucs(middle, ".3f")])
    for way, ratio in result["ratios"].items():
        rows.append([f"**plain / {way}**", *(f"**{ratio[column]:.2f}**" for column in UNITS), *_aucs(ratio, "+.3f")])
    return _markdown(rows)


def pytorch(root: Path) -> str:
    """Seconds of Xception's frozen part and of a step that trains the rest, here and in PyTorch, as Markdown."""
    result = read_record(root / "benchmarks/eager.json")
    settings = result["settings"]
    rows = [["seconds", f"frozen part, {settings['forward']} images", f"step, {settings['step']} images"]]
    rows += [[way, *(f"{value:.3f}" for value in parts.values())] for way, parts in result["seconds"].items()]
    for precision, ratios in result["ratios"].items():
        rows.append([f"**PyTorch's faster / ours**, {precision}", *(f"**{ratio:.2f}**" for ratio in ratios.values())])
    return _markdown(rows)


def growth(root: Path) -> str:
    """What each further image costs each step of the pipeline, as Markdown."""
    return _markdown(read_record(root / "benchmarks/growth.json")["table"])


TABLES: Mapping[str, Callable[[Path], str]] = {
    "sample-run": sample_run,
    "finding": finding,
    "three-tests": three_tests,
    "worth": worth,
    "results": results,
    "random-against-blocked": random_against_blocked,
    "novelty-and-maps": novelty_and_maps,
    "benchmark": benchmark,
    "benchmark-xception": partial(benchmark, folder="benchmarks/xception"),
    "pytorch": pytorch,
    "growth": growth,
}


def _reports(root: Path) -> list[tuple[str, Path, Any]]:
    """The title, folder and report of the run at the top, of each recorded run, and of all folds of a recorded study.

    A report holds what is known of each model, under its name, and `controls`.
    """
    found = [(title, folder, read_record(folder / "metrics/details.json")) for title, folder in _runs(root, "")]
    for path in sorted((root / "studies").glob("*/folds.json")):
        pooled, name = read_record(path), path.parent.name
        title = f"[{name}]({name}), {pooled['folds']} folds pooled"
        found.append((title, path.parent, {**pooled["models"], "controls": pooled["controls"]}))
    return found


def _published(root: Path) -> tuple[Any, Any]:
    """What the study reports of its initial and of its fine-tuned model."""
    initial, finetuned, *_ = read_record(root / "studies/published.json")["rows"]
    return initial, finetuned


def _runs(root: Path, studies: str) -> list[tuple[str, Path]]:
    """The run at the top, which is on the sample, and those that studies/ keeps, with their titles.

    The title of a recorded study links to it; `studies` is what leads from the page into the folder studies/.
    """
    kept = sorted(path.parents[1] for path in (root / "studies").glob("*/metrics/details.json"))
    return [("synthetic sample", root), *((f"[{path.name}]({studies}{path.name})", path) for path in kept)]


def _named(name: str) -> str:
    """A model or baseline as the chart in README.md calls it, within a sentence."""
    words = STYLES[name].name.replace("\n", " ")
    return words if words.startswith("HOG") else words[0].lower() + words[1:]


def _aucs(values: Mapping[str, float], form: str) -> list[str]:
    return [f"{values[column]:{form}}" for column in ("auc_initial", "auc_finetuned")]


def _cell(auc: Mapping[str, float]) -> str:
    return _between(auc["roc_auc"], auc)


def _fraction(pair: Sequence[float]) -> str:
    return _short(pair[0] / pair[1])


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _between(value: float, bounds: Mapping[str, float]) -> str:
    from ctscan.evaluation.tables import interval

    return f"{_short(value)} ({interval(bounds, _short)})"


def _markdown(rows: list[list[str]]) -> str:
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
