"""Read metrics and params of the work tree and of revisions: commits, branches, tags and DVC's experiments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import parse_record
from ctscan.core.params import parse_lock
from ctscan.experiments.programs import calling_dvc

import dvc.api

WORK_TREE = "workspace"  # DVC's name for it
DETAILS = Path("metrics/details.json")
MODELS = ("initial", "finetuned")

Table = list[list[str]]  # rows of cells, the first one heads


def headline_table(revisions: Sequence[str]) -> Table:
    """The study's five metrics on test with 95 % intervals, one row for each model of each revision.

    A revision that was not evaluated says so in place of figures.

    The last column holds the share of resamples in which the model beats every control, where the run has it.

    Raises:
        UserError: a revision holds no run.
    """
    # Here, as scikit-learn takes half a second that help can do without.
    from ctscan.evaluation.metrics import HEADLINE
    from ctscan.evaluation.tables import headline

    table = [["revision", "model", *HEADLINE, "beats controls"]]
    for revision in revisions:
        details, evaluated = read_details(revision), is_evaluated(revision)
        for model in MODELS:
            cells = headline(details[model]) if evaluated else ["not evaluated", *[""] * (len(HEADLINE) - 1)]
            won = details[model].get("win_probability") if evaluated else None
            table.append([revision, model, *cells, f"{won['controls']:.3f}" if won else ""])
    return table


def is_evaluated(revision: str) -> bool:
    """Whether the test figures of `revision` are about its own models.

    A run that ends before evaluate, as those of a sweep do, still holds the test figures of an earlier run. Then
    dvc.lock shows that evaluate read other files than the stages before it have written since.
    """
    stages = parse_lock(_read("dvc.lock", revision))
    if "evaluate" not in stages:
        return False
    written = {out["path"]: out["md5"] for name in stages for out in stages[name].get("outs", ())}
    return all(written.get(read["path"], read["md5"]) == read["md5"] for read in stages["evaluate"]["deps"])


def params_table(revisions: Sequence[str]) -> Table:
    """The params whose values differ between the revisions, a column for each revision; no row where all agree."""
    values = {revision: params(revision) for revision in revisions}
    keys = dict.fromkeys(key for found in values.values() for key in found)
    rows = [[key, *(str(values[revision].get(key, "")) for revision in revisions)] for key in keys]
    return [["param", *revisions], *(row for row in rows if len(set(row[1:])) > 1)]


def params(revision: str) -> dict[str, Any]:
    """params.yaml, flat: `{"lr": 0.0001, "split.strategy": "random"}`."""
    with calling_dvc():
        return _flat(dvc.api.params_show("params.yaml", rev=_commit(revision)))


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def read_details(revision: str) -> dict[str, Any]:
    """What metrics/details.json holds at `revision`. Raises `UserError` where it holds no run."""
    return parse_record(_read(str(DETAILS), revision), str(DETAILS))


def _read(path: str, revision: str) -> str:
    try:
        if revision == WORK_TREE:
            return Path(path).read_text(encoding="utf-8")
        with calling_dvc():
            return str(dvc.api.read(path, rev=_commit(revision)))
    except FileNotFoundError:
        raise UserError(f"{revision}: {path} is missing; run the pipeline with `make repro`") from None


def _commit(revision: str) -> str | None:
    return None if revision == WORK_TREE else revision.split(",")[0]  # DVC joins names of one commit by commas
