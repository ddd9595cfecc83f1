"""Metrics and params of the work tree and of revisions: commits, branches, tags, DVC's experiments."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError

import dvc.api

WORK_TREE = "workspace"  # DVC's name for it
DETAILS = Path("metrics/details.json")
MODELS = ("initial", "finetuned")

Table = list[list[str]]  # rows of cells, the first one heads


def headline_table(revisions: Sequence[str]) -> Table:
    """The study's five metrics on test with 95 % intervals, a row for each model of each revision.

    The last column holds the share of resamples in which the model beats every control, where the run has it.

    Raises:
        UserError: a revision holds no run.
    """
    # Here, as scikit-learn takes half a second that help can do without.
    from ctscan.evaluation.metrics import HEADLINE
    from ctscan.evaluation.tables import headline

    table = [["revision", "model", *HEADLINE, "beats controls"]]
    for revision in revisions:
        details = _details(revision)
        for model in MODELS:
            won = details[model].get("win_probability")
            table.append([revision, model, *headline(details[model]), f"{won['controls']:.3f}" if won else ""])
    return table


def params_table(revisions: Sequence[str]) -> Table:
    """The params whose values differ between the revisions, a column for each revision; no row where all agree."""
    values = {revision: params(revision) for revision in revisions}
    keys = dict.fromkeys(key for found in values.values() for key in found)
    rows = [[key, *(str(values[revision].get(key, "")) for revision in revisions)] for key in keys]
    return [["param", *revisions], *(row for row in rows if len(set(row[1:])) > 1)]


def params(revision: str) -> dict[str, Any]:
    """params.yaml, flat: `{"lr": 0.0001, "split.strategy": "random"}`."""
    return _flat(dvc.api.params_show("params.yaml", rev=_commit(revision)))


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _details(revision: str) -> dict[str, Any]:
    try:
        with dvc.api.open(str(DETAILS), rev=_commit(revision)) as file:
            details: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        raise UserError(f"{revision}: {DETAILS} is missing; run the pipeline with `make repro`") from None
    return details


def _commit(revision: str) -> str | None:
    return None if revision == WORK_TREE else revision.split(",")[0]  # DVC joins names of one commit by commas
