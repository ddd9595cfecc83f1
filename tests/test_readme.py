"""The README's figures are those of the committed run."""

import json
import subprocess

from ctscan.metrics import HEADLINE
from ctscan.reports import results_table
from ctscan.spread import table

from conftest import REPO

README = (REPO / "README.md").read_text(encoding="utf-8")
# As committed: the work tree may hold the metrics of an experiment.
COMMITTED = subprocess.run(
    ["git", "show", "HEAD:metrics/details.json"], cwd=REPO, capture_output=True, text=True, check=True
).stdout
DETAILS = {model: report for model, report in json.loads(COMMITTED).items() if model in ("initial", "finetuned")}


def test_the_readme_shows_what_make_repro_prints() -> None:
    assert results_table(DETAILS) in README


def test_the_readmes_rows_are_the_committed_metrics() -> None:
    for title, model in (("initial model", "initial"), ("fine-tuned", "finetuned")):
        cells = [f"{DETAILS[model]['test'][metric]:.3f}".removeprefix("0") for metric in HEADLINE]
        assert f"| synthetic sample, {title} | {' | '.join(cells)} |" in README


def test_the_random_against_blocked_table_is_that_of_the_recorded_repeats() -> None:
    study = REPO / "studies" / "random-vs-blocked"
    results = [json.loads((study / f"{name}.json").read_text(encoding="utf-8")) for name in ("random", "blocked")]
    rows = [line for line in table(results).splitlines() if line.startswith("|")]
    for text in (README, (study / "README.md").read_text(encoding="utf-8")):
        assert "\n".join(rows) in text
