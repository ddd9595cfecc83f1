"""Tables and the figure of the benchmark's results."""

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


def table(part: str, result: Mapping[str, Any]) -> str:
    """`result` of the part `comparison` or `growth` as text."""
    rows = _comparison_rows(result) if part == "comparison" else _growth_rows(result)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def _comparison_rows(result: Mapping[str, Any]) -> list[list[str]]:
    images = sum(result["settings"]["images"].values())
    rows = [[f"seconds, {images} images", *TITLES]]
    for way, middle in result["medians"].items():
        rows.append([way, *(_number(column, middle[column]) for column in COLUMNS)])
    for way, ratio in result["ratios"].items():
        rows.append([f"plain / {way}", *(_ratio(column, ratio) for column in COLUMNS)])
    return rows


def _number(column: str, value: float) -> str:
    return f"{value:.4f}" if column.startswith("auc") else f"{value:.0f}" if column == "peak_mib" else f"{value:.1f}"


def _ratio(column: str, ratio: Mapping[str, float]) -> str:
    if column not in ratio:
        return ""
    return f"{ratio[column]:+.4f}" if column.startswith("auc") else f"{ratio[column]:.2f}x"


def _growth_rows(result: Mapping[str, Any]) -> list[list[str]]:
    stages = list(result["rows"][0]["stages"])
    rows = [["ours", "images", "seconds", "ms / further image", "change", "peak MiB", "against 1x", *stages]]
    before = None
    for row in result["rows"]:
        further = row["seconds_per_further_image"]
        cells = [f"{1000 * further:.0f}" if further else "", f"{further / before - 1:+.1%}" if before else ""]
        before = further
        peak = row["peak_mib"] / result["rows"][0]["peak_mib"] - 1
        rows.append(
            [
                f"{row['factor']}x",
                str(row["images"]),
                f"{row['seconds']:.0f}",
                *cells,
                f"{row['peak_mib']:.0f}",
                f"{peak:+.1%}",
                *(f"{stage['seconds']:.0f} s, {stage['peak_mib']:.0f} MiB" for stage in row["stages"].values()),
            ]
        )
    return rows


def draw(path: Path, results: Mapping[str, Any]) -> None:
    """Whole runs as bars of their parts, and growth, whichever of both `results` holds."""
    panels = [part for part in ("comparison", "growth") if part in results]
    figure, axes = plt.subplots(1, len(panels), figsize=(6.4 * len(panels), 3.2), squeeze=False, layout="constrained")
    for axis, part in zip(axes.flat, panels, strict=True):
        (_draw_comparison if part == "comparison" else _draw_growth)(axis, results[part])
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def _draw_comparison(axis: Any, result: Mapping[str, Any]) -> None:
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


def _draw_growth(axis: Any, result: Mapping[str, Any]) -> None:
    rows = result["rows"]
    images = [row["images"] for row in rows]
    line = (rows[-1]["seconds"] - rows[0]["seconds"]) / (images[-1] - images[0])
    axis.plot(
        [0, images[-1]],
        [rows[0]["seconds"] + line * (at - images[0]) for at in (0, images[-1])],
        color="0.6", label=f"{1000 * line:.0f} ms an image, from first to last",
    )  # fmt: skip
    axis.plot(images, [row["seconds"] for row in rows], "ko", label="all stages")
    for row in rows:
        axis.annotate(f"  {row['peak_mib']:.0f} MiB", (row["images"], row["seconds"]), va="top", fontsize=8)
    axis.set_xticks(images)
    axis.set(
        xlabel="images", ylabel="seconds", xlim=(0, 1.2 * images[-1]), ylim=(0, None),
        title=f"Growth, ours {result['settings']['precision']}, with peak memory",
    )  # fmt: skip
    axis.legend(fontsize=8, loc="upper left")
