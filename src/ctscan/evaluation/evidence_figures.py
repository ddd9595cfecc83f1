"""Draw what `evidence` computes, in pictures that say how to read them and are narrow enough for a phone."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctscan.evaluation.figures import MODELS, NAMES, new_figure
from ctscan.evaluation.net_benefit import TREAT_ALL, TREAT_NONE

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

WIDTH = 6.0  # inches
LINE = 88  # letters of the sentence below a picture
DEFAULTS = {TREAT_ALL: ":", TREAT_NONE: "-"}
# Lines of controls, all grey: dashes tell them apart.
DASHES = ((0, (6, 2)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 1, 2)), (0, (3, 3)))
HOW_TO_READ_BENEFIT = (
    "How to read it: choose the probability from which you would act. A model is worth using there if its line, with "
    "its band, lies above both 'treat all' and 'treat nobody'. Where a grey line is as high, no network is needed. "
    "Bands: 95 % bootstrap over groups."
)
HOW_TO_READ_RISK = (
    "How to read it: going left, the images that are trusted least are left to a person. The lower the line falls, the "
    "better the model knows when it is wrong; a flat line means that it does not. Bands: 95 % bootstrap over groups."
)
HOW_TO_READ_CALIBRATION = (
    "How to read it: on the diagonal, a probability means what it says. Bars: 95 % intervals (Wilson) over images."
)
ORDERS = {
    "confidence": ("#D55E00", "-", "least confident left out"),
    "novelty": ("#009E73", "--", "highest novelty score left out"),
}


def draw_decision_curves(
    path: Path, panels: Mapping[str, Sequence[Mapping[str, Any]]], note: str = HOW_TO_READ_BENEFIT
) -> None:
    """Decision curves, a panel for each title of `panels`, whose rows are those of `net_benefit.decision_curves`."""
    with new_figure(path, len(panels), 1, WIDTH, 3.6 * len(panels) + 1.4) as axes:
        for axis, (title, rows) in zip(axes.flat, panels.items(), strict=True):
            curves = {str(name): curve for name, curve in pd.DataFrame(rows).groupby("model", sort=False)}
            dashes = iter(DASHES)
            for name, curve in curves.items():
                label = NAMES.get(name, name)
                x, y = curve["threshold"], curve["net_benefit"]
                if name in MODELS:
                    colour, line = MODELS[name]
                    axis.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
                    axis.plot(x, y, color=colour, linestyle=line, linewidth=1.8, label=label, zorder=3)
                elif name in DEFAULTS:
                    axis.plot(x, y, color="black", linestyle=DEFAULTS[name], linewidth=1.2, label=label)
                else:
                    axis.plot(x, y, color="0.5", linestyle=next(dashes), linewidth=1, label=label)
            highest = max(curve["net_benefit"].max() for curve in curves.values())
            axis.set(
                title=title, xlabel="probability from which one acts", ylabel="net benefit", xlim=(0, 1),
                ylim=(-0.15 * highest, 1.15 * highest),
            )  # fmt: skip
        plt.gcf().legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", fontsize=8, ncols=3)
        _below(note)


def draw_risk_coverage(path: Path, curves: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Risk against coverage: a line for each order of `curves`, whose rows are those of `selective.risk_coverage`."""
    with new_figure(path, 1, 1, WIDTH, 4.6) as axes:
        axis = axes[0, 0]
        for order, rows in curves.items():
            colour, line, label = ORDERS[order]
            curve = pd.DataFrame(rows)
            axis.fill_between(curve["coverage"], curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
            axis.plot(curve["coverage"], curve["risk"], color=colour, linestyle=line, linewidth=1.8, label=label)
        every = next(iter(curves.values()))[-1]["risk"]
        axis.axhline(every, color="0.5", linewidth=1, linestyle=":", label="left out at random")
        axis.set(
            title="Errors of the fine-tuned model on what it answers", xlabel="share of test images answered",
            ylabel="share of wrong calls", xlim=(0, 1), ylim=(0, max(0.05, axis.get_ylim()[1])),
        )  # fmt: skip
        axis.legend(fontsize=8)
        _below(HOW_TO_READ_RISK)


def draw_roc(path: Path, curves: Mapping[str, Sequence[Mapping[str, float]]], note: str) -> None:
    """ROC curves with their bands: points `fpr`, `tpr`, `low` and `high` by the name of the curve, `note` below."""
    with new_figure(path, 1, 1, WIDTH, 5.6) as axes:
        axis = axes[0, 0]
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="chance")
        for (name, points), style in zip(curves.items(), _styles(curves), strict=True):
            curve = pd.DataFrame(points)
            axis.fill_between(curve["fpr"], curve["low"], curve["high"], color=style[0], alpha=0.12, linewidth=0)
            axis.plot(curve["fpr"], curve["tpr"], color=style[0], linestyle=style[1], label=NAMES.get(name, name))
        axis.set(xlabel="false-positive rate", ylabel="true-positive rate (recall)", xlim=(0, 1), ylim=(0, 1))
        axis.set_aspect("equal")
        axis.legend(loc="lower right", fontsize=8)
        _below(note)


def draw_calibration(path: Path, panels: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]], note: str) -> None:
    """Reliability diagrams: a panel for each title, with the rows of `calibration.reliability` by name of the curve."""
    with new_figure(path, len(panels), 1, WIDTH, 4.0 * len(panels) + 0.8) as axes:
        for axis, (title, curves) in zip(axes.flat, panels.items(), strict=True):
            axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="perfect")
            for (name, rows), (colour, line) in zip(curves.items(), _styles(curves), strict=True):
                bins = pd.DataFrame(rows)
                ends = np.clip([bins["observed"] - bins["low"], bins["high"] - bins["observed"]], 0, 1)
                axis.errorbar(
                    bins["mean_score"], bins["observed"], ends, color=colour, linestyle=line, marker="o",
                    markersize=5, linewidth=1.2, elinewidth=0.7, capsize=2, label=NAMES.get(name, name),
                )  # fmt: skip
            axis.set(title=title, xlabel="mean predicted probability", ylabel="observed fraction of positives")
            axis.set(xlim=(0, 1), ylim=(0, 1))
        axes[0, 0].legend(loc="upper left", fontsize=8)
        _below(note)


def _styles(curves: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Colour and line of each curve: a model's own, or the next ones for what is not a model."""
    others = iter((("#D55E00", "-"), ("#0072B2", "--"), ("#009E73", "-."), ("0.4", ":")))
    return [MODELS[name] if name in MODELS else next(others) for name in curves]


def _below(sentence: str) -> None:
    plt.gcf().supxlabel(textwrap.fill(sentence, LINE), fontsize=9, x=0.02, ha="left")
