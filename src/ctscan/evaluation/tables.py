"""Format the results as a table for people to read."""

from collections.abc import Callable, Mapping
from typing import Any

from ctscan.evaluation.metrics import HEADLINE
from ctscan.evaluation.predictions import MODELS

BENEFIT_AT = 0.2  # of `net_benefit.REPORTED`


def headline(report: Mapping[str, Any]) -> list[str]:
    """The study's five metrics of one model on test, each with its 95 % interval: `0.972 (0.931-1.000)`."""
    return [f"{report['test'][metric]:.3f} ({interval(report['intervals'][metric])})" for metric in HEADLINE]


def interval(bounds: Mapping[str, float], show: Callable[[float], str] = "{:.3f}".format) -> str:
    """`0.931-1.000`, or `no spread` where both ends are equal.

    The resamples of a set without errors hold no errors either, however small the set is; an interval of width 0 would
    promise too much.
    """
    return "no spread" if bounds["low"] == bounds["high"] else f"{show(bounds['low'])}-{show(bounds['high'])}"


def evidence_table(details: Mapping[str, Mapping[str, Any]]) -> str:
    """What says most of each model, as a person reads it in a terminal: its order, its probabilities, its use.

    ROC AUC; Brier score after temperature scaling; how much net benefit it adds to the better of treating all and
    treating nobody, for a reader who acts from a probability of 0.2 on; and the share of resamples in which its AUC is
    above that of every baseline and control. Below .95, the set does not show that the network is needed.
    """
    heads = ("ROC AUC", "Brier score", f"benefit at {BENEFIT_AT:g}", "beats controls")
    lines = ["test".ljust(11) + "".join(head.rjust(22) for head in heads)]
    for model, report in details.items():
        auc, brier = report["test"]["roc_auc"], report["brier"]
        benefit = next(row for row in report["net_benefit"] if row["threshold"] == BENEFIT_AT)
        gained = {"low": benefit["gain_low"], "high": benefit["gain_high"]}
        cells = (
            f"{auc:.3f} ({interval(report['intervals']['roc_auc'])})",
            f"{brier['value']:.3f} ({interval(brier)})",
            f"{benefit['gain']:+.3f} ({interval(gained)})",
            f"{report['win_probability']['controls']:.3f}",
        )
        lines.append(model.ljust(11) + "".join(cell.rjust(22) for cell in cells))
    return "\n".join(lines)


def learned_note(details: Mapping[str, Any]) -> str:
    """Says that baselines learned from a sample of the training images; empty where they learned from all.

    They learned from all in runs of an older revision, which say nothing of it.
    """
    learned = details.get("baselines", {"exact": True})
    if learned["exact"]:
        return ""
    return (
        f"Baselines and controls learned from {learned['learned_images']} of {learned['train_images']} training images "
        "(drawn groups); all test images are scored."
    )


def run_tables(details: Mapping[str, Any]) -> str:
    """The `evidence_table` of a run, its `results_table`, and its `learned_note`, as far as it has them.

    `details` is what metrics/details.json holds. A run of an older revision has no evidence.
    """
    reports = {model: details[model] for model in MODELS}
    has_evidence = all("win_probability" in report for report in reports.values())
    tables = (f"{evidence_table(reports)}\n\n" if has_evidence else "") + results_table(reports)
    return "\n".join(filter(None, [tables, learned_note(details)]))


def results_table(details: Mapping[str, Mapping[str, Any]]) -> str:
    """The headline metrics of each model, one line per model, for a terminal."""
    lines = ["test".ljust(11) + "".join(metric.rjust(22) for metric in HEADLINE)]
    for model, report in details.items():
        lines.append(model.ljust(11) + "".join(cell.rjust(22) for cell in headline(report)))
    return "\n".join(lines)
