"""The figures that README.md and MODEL_CARD.md show, taken from the files that hold them.

A page marks the place of each table: `<!-- figures: NAME -->` before it, `<!-- end -->` after it.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctscan.errors import UserError
from ctscan.metrics import HEADLINE
from ctscan.reports import results_table
from ctscan.spread import label, table

PAGES = ("README.md", "MODEL_CARD.md")
MODELS = ("initial", "finetuned")
BASELINES = ("nearest_neighbour", "hog_svm")
MARK = re.compile(r"(?<=<!-- figures: )([^>]+?)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


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
    details = _json(root / "metrics/details.json")
    return f"```text\n{results_table({model: details[model] for model in MODELS})}\n```"


def results(root: Path) -> str:
    """The study's figures, and those of each run here with 95 % intervals, as Markdown."""
    rows = [["test images", *(label(metric) for metric in HEADLINE)]]
    for row in _json(root / "studies/published.json")["rows"]:
        rows.append([row["name"], *(_short(row[metric][0] / row[metric][1]) for metric in HEADLINE)])
    for title, folder in _runs(root):
        details = _json(folder / "metrics/details.json")
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
                    [f"{title}, *{label(name)}*", _short(row["accuracy"]), *empty, _between(row["roc_auc"], row)]
                )
    return _markdown(rows)


def random_against_blocked(root: Path) -> str:
    folder = root / "studies/random-vs-blocked"
    text = table([_json(folder / f"{name}.json") for name in ("random", "blocked")])
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


TABLES: Mapping[str, Callable[[Path], str]] = {
    "sample-run": sample_run,
    "results": results,
    "random-against-blocked": random_against_blocked,
}


def _runs(root: Path) -> list[tuple[str, Path]]:
    """The run at the top, which is on the sample, and those that studies/ keeps, with their titles."""
    kept = sorted(path.parents[1] for path in (root / "studies").glob("*/metrics/details.json"))
    return [("synthetic sample", root), *((f"[{path.name}](studies/{path.name})", path) for path in kept)]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _between(value: float, interval: Mapping[str, float]) -> str:
    return f"{_short(value)} ({_short(interval['low'])}-{_short(interval['high'])})"


def _markdown(rows: list[list[str]]) -> str:
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
