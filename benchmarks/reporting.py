"""Draw the comparison with plain Keras as a table and as a figure."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLUMNS = ("start_up", "phase_1", "phase_2", "evaluation", "total", "peak_mib", "auc_initial", "auc_finetuned")
TITLES = ("start-up", "phase 1", "phase 2", "evaluation", "whole run", "peak MiB", "AUC initial", "AUC fine-tuned")
RATIOS = ("phase_1", "phase_2", "evaluation", "total", "peak_mib")
PARTS = {"start_up": ("white", ""), "phase_1": ("0.75", "//"), "phase_2": ("0.45", ""), "evaluation": ("0.9", "..")}


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The median over `runs` of every column."""
    return {column: statistics.median(run[column] for run in runs) for column in COLUMNS}


def ratios(plain: Mapping[str, float], ours: Mapping[str, float]) -> dict[str, float]:
    """Plain Keras / ours for seconds and memory: above 1 where ours needs less. AUC: ours - plain."""
    quotients = {name: plain[name] / ours[name] for name in RATIOS}
    return quotients | {name: ours[name] - plain[name] for name in ("auc_initial", "auc_finetuned")}


def table(result: Mapping[str, Any]) -> str:
    """The medians of every way, and the ratios, as aligned text."""
    images = sum(result["settings"]["images"].values())
    rows = [[f"seconds, {images} images", *TITLES]]
    for way, middle in result["medians"].items():
        rows.append([way, *(_number(column, middle[column]) for column in COLUMNS)])
    for way, ratio in result["ratios"].items():
        rows.append([f"plain / {way}", *(_ratio(column, ratio) for column in COLUMNS)])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """`rows` as text in aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def _number(column: str, value: float) -> str:
    return f"{value:.4f}" if column.startswith("auc") else f"{value:.0f}" if column == "peak_mib" else f"{value:.1f}"


def _ratio(column: str, ratio: Mapping[str, float]) -> str:
    if column not in ratio:
        return ""
    return f"{ratio[column]:+.4f}" if column.startswith("auc") else f"{ratio[column]:.2f}x"


def draw(path: Path, result: Mapping[str, Any]) -> None:
    """Whole runs as bars of their parts."""
    figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    ways = list(result["medians"])
    left = [0.0] * len(ways)
    for part, (shade, hatch) in PARTS.items():
        values = [result["medians"][way][part] / 60 for way in ways]
        axis.barh(
            range(len(ways)), values, left=left, color=shade, edgecolor="black", hatch=hatch, height=0.6,
            label=TITLES[COLUMNS.index(part)],
        )  # fmt: skip
        left = [start + value for start, value in zip(left, values, strict=True)]
    for place, way in enumerate(ways):
        if way in result["ratios"]:
            axis.text(
                left[place], place, f" plain / this = {result['ratios'][way]['total']:.1f}", va="center", fontsize=8
            )
    axis.set_yticks(range(len(ways)), ways)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.3 * max(left))
    settings = result["settings"]
    axis.set(
        xlabel="minutes",
        title=f"{settings['backbone']}, {sum(settings['images'].values())} images, "
        f"{settings['epochs']} + {settings['finetune_epochs']} epochs",
    )
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(PARTS), fontsize=8, frameon=False)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)
