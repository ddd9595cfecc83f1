"""Summarise how figures vary over seeds, and set strategies of splitting side by side in a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.params import Params

import numpy as np

Record = Mapping[str, Any]
KINDS = ("models", "baselines")
NAMES = {"f1": "F1", "roc_auc": "ROC AUC", "finetuned": "fine-tuned", "hog_svm": "HOG and linear SVM"}


def settings(params: Params, backbone: Mapping[str, Any], seeds: Sequence[int], finetuning: bool) -> dict[str, Any]:
    """All that a result over `seeds` belongs to, but for the strategy of the split.

    Args:
        backbone: what metrics/backbone.json holds.
        finetuning: whether fine-tuning was part of it; its parameters count only then.
    """
    values = params.model_dump()
    chosen = ["dataset", "classes", "backbone", "weights", "image_size", "precision", "lr", "batch_size"]
    chosen += ["head", "augment", "initial"]
    if finetuning:
        chosen += ["finetune_lr", "unfreeze_depth", "finetune"]
    return {
        **{name: values[name] for name in chosen},
        "weights_sha256": backbone["weights_sha256"],
        "split": {name: value for name, value in values["split"].items() if name != "strategy"},
        "threshold": values["evaluate"]["threshold"],
        "finetuning": finetuning,
        "seeds": list(seeds),
    }


def summary(repeats: Sequence[Record]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Mean, sd (of a sample: n - 1), min and max of every figure over the records of `repeats.repeat`.

    `summary(...)["models"]["initial"]["roc_auc"]["sd"]`, and likewise below `baselines`.

    Raises:
        UserError: fewer than two records, which have no spread.
    """
    if len(repeats) < 2:
        raise UserError(f"{len(repeats)} seed shows no spread; repeat with --seeds 2 or more")
    return {
        kind: {
            name: {metric: _spread([record[kind][name][metric] for record in repeats]) for metric in figures}
            for name, figures in repeats[0][kind].items()
        }
        for kind in KINDS
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)),
        "min": float(min(values)),
        "max": float(max(values)),
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Where two `settings` differ, `lr = 0.0001 and 0.0003`; empty where they agree."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(f"{name} = {one.get(name)} and {other.get(name)}" for name in names)


def label(name: str) -> str:
    """A model, baseline or metric in words: `nearest_neighbour` is `nearest neighbour`."""
    return NAMES.get(name, name.replace("_", " "))


def table(results: Sequence[Record]) -> str:
    """Markdown: a row a figure, a column a strategy, each cell `mean ± sd (min-max)`; below, what it belongs to.

    Args:
        results: what metrics/repeats/<strategy>.json hold: `strategy`, `settings` (the same in all) and `summary`.
    """
    first = results[0]
    given = first["settings"]
    lines = [["test", *(_column(result) for result in results)]]
    for kind in KINDS:
        for name, figures in first["summary"][kind].items():
            for metric in figures:
                spreads = (result["summary"][kind][name][metric] for result in results)
                lines.append([f"{label(name)}, {label(metric)}", *(_cell(spread) for spread in spreads)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    rows = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    seeds = ", ".join(map(str, given["seeds"]))
    below = (
        f"Mean ± sd (range) over {len(given['seeds'])} splits (seeds {seeds}) of `{given['dataset']}`; "
        f"{given['backbone']}, weights {given['weights']}, {given['image_size']} pixels"
    )
    return "\n".join([*rows, "", below + "."])


def _column(result: Record) -> str:
    size = result["settings"]["split"]["block_size"]
    return f"blocked, {size} numbers" if result["strategy"] == "blocked" else str(result["strategy"])


def _cell(spread: Mapping[str, float]) -> str:
    return f"{spread['mean']:.3f} ± {spread['sd']:.3f} ({spread['min']:.3f}-{spread['max']:.3f})"
