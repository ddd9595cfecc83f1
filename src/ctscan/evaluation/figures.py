"""Draw the pictures of a run with matplotlib; they are legible in black and white and hold no date."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctscan.core.params import Classes
from ctscan.evaluation.net_benefit import TREAT_ALL, TREAT_NONE
from ctscan.images.batches import Slices

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

# Okabe & Ito's colours, which colour-blind readers can tell apart; each model also has its own line.
MODELS = {"initial": ("#0072B2", "--"), "finetuned": ("#D55E00", "-")}
NAMES = {
    "initial": "initial model",
    "finetuned": "fine-tuned model",
    "nearest_neighbour": "nearest neighbour",
    "hog_svm": "HOG + linear SVM",
    "image_size": "image size",
    "image_border": "image border",
    "shuffled_labels": "shuffled labels",
    "shifted": "fine-tuned, shifted prior",
    TREAT_ALL: "treat all",
    TREAT_NONE: "treat nobody",
}


@contextmanager
def new_figure(path: Path, rows: int, columns: int, width: float, height: float) -> Iterator[np.ndarray]:
    """The axes (rows, columns) of a picture `width` by `height` inches, which is written to `path` after the block."""
    matplotlib.use("Agg")
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
    yield axes
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_classes(path: Path, slices: Slices, manifest: pd.DataFrame, classes: Classes, each: int = 8) -> None:
    """Draw `each` slices of either class, evenly spaced over `manifest`, whose n rows are those of `slices`."""
    chosen: list[int] = []
    for label in (1, 0):
        candidates = np.flatnonzero(manifest["label"] == label)
        chosen += candidates[np.linspace(0, len(candidates) - 1, min(each, len(candidates))).astype(int)].tolist()
    names = {1: classes.positive, 0: classes.negative}
    titles = [f"{names[manifest['label'][row]]}\n{Path(manifest['path'][row]).stem}" for row in chosen]
    _draw_grid(path, slices[chosen][..., 0], titles, columns=each)


def draw_augmented(path: Path, images: np.ndarray, move: Callable[[np.ndarray], Any], times: int = 5) -> None:
    """Draw slices (n, s, s, 1), each beside `times` augmented versions of it."""
    moved = [np.asarray(move(images)) for _ in range(times)]
    grid = [image[..., 0] for row in range(len(images)) for image in (images[row], *(batch[row] for batch in moved))]
    _draw_grid(path, grid, ["original", *["augmented"] * times] * len(images), columns=times + 1)


def _draw_grid(path: Path, images: Sequence[np.ndarray] | np.ndarray, titles: Sequence[str], columns: int) -> None:
    rows = -(-len(images) // columns)
    with new_figure(path, rows, columns, 1.7 * columns, 1.9 * rows) as axes:
        for axis in axes.flat:
            axis.axis("off")
        for axis, image, title in zip(axes.flat, images, titles, strict=False):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_title(title, fontsize=7)


def draw_saliency(path: Path, images: np.ndarray, maps: np.ndarray, titles: Sequence[str], columns: int = 2) -> None:
    """Draw slices (n, s, s), each beside itself under its map (n, s, s) in [0, 1], `columns` such pairs per row.

    Where the map is higher, its colour is more opaque. The line is at half of the highest value.
    """
    rows = -(-len(images) // columns)
    with new_figure(path, rows, 2 * columns, 4.4 * columns, 2.75 * rows) as axes:
        for axis in axes.flat:
            axis.axis("off")
        pairs = axes.reshape(-1, 2)
        for (plain, explained), image, saliency, title in zip(pairs, images, maps, titles, strict=False):
            for axis in (plain, explained):
                axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            explained.imshow(saliency, cmap="plasma", vmin=0, vmax=1, alpha=0.55 * saliency)
            if saliency.min() < 0.5 < saliency.max():
                explained.contour(saliency, [0.5], colors="white", linewidths=0.8)
            plain.set_title(title, fontsize=7)
            what = "against the mean training slice" if saliency.any() else "0 everywhere"
            explained.set_title(f"Grad-CAM: {what}", fontsize=7)


def draw_histograms(path: Path, scores: Mapping[str, np.ndarray], labels: np.ndarray, classes: Classes) -> None:
    """Draw the test scores by true class, one panel per model, narrow enough for a phone."""
    bins = np.linspace(0, 1, 21)
    with new_figure(path, len(scores), 1, 5.0, 3.0 * len(scores)) as axes:
        for axis, (model, values) in zip(axes.flat, scores.items(), strict=True):
            axis.hist(values[labels == 0], bins, color="0.75", label=classes.negative)
            axis.hist(
                values[labels == 1], bins, histtype="step", color="#D55E00", linewidth=1.6, label=classes.positive
            )
            axis.set(title=NAMES[model], xlabel="predicted probability", ylabel="test images")
        axes[0, 0].legend(fontsize=8)


def draw_controls(path: Path, table: Sequence[Mapping[str, Any]], note: str = "") -> None:
    """Draw the ROC AUC with its interval of the models (dark) and of baselines and controls (light), beside chance.

    A `note` stands below.
    """
    with new_figure(path, 1, 1, 6.4, 0.42 * len(table) + 1.0) as axes:
        axis = axes[0, 0]
        for place, row in enumerate(reversed(table)):
            axis.barh(place, row["roc_auc"], color="0.35" if row["kind"] == "model" else "0.8", height=0.65)
            ends = [[row["roc_auc"] - row["low"]], [row["high"] - row["roc_auc"]]]
            axis.errorbar(row["roc_auc"], place, xerr=np.clip(ends, 0, 1), color="black", linewidth=1, capsize=3)
        axis.axvline(0.5, color="black", linestyle=":", linewidth=1)
        axis.set_yticks(range(len(table)), [NAMES[row["name"]] for row in reversed(table)])
        axis.set(xlabel="\n".join(filter(None, ["test ROC AUC, 95 % interval (dotted: chance)", note])), xlim=(0, 1.02))


def draw_repeats(path: Path, result: Mapping[str, Any]) -> None:
    """Draw each seed's figures as circles, lowest seed on top, with their mean as a bar, beside chance.

    `result` holds `strategy`, `repeats` (of `repeats.repeat`) and `summary` (of `spread.summary`).
    """
    rows = [
        (f"{name} {metric}".replace("_", " "), spread["mean"], [run[kind][name][metric] for run in result["repeats"]])
        for kind in ("models", "baselines")
        for name, figures in result["summary"][kind].items()
        for metric, spread in figures.items()
    ]
    with new_figure(path, 1, 1, 6.4, 0.36 * len(rows) + 1.0) as axes:
        axis = axes[0, 0]
        for place, (_, mean, values) in enumerate(reversed(rows)):
            apart = np.linspace(0.25, -0.25, len(values))
            axis.plot([mean, mean], [place - 0.36, place + 0.36], color="black", linewidth=2)
            axis.plot(values, place + apart, "o", color="black", markerfacecolor="none", markersize=4)
        axis.axvline(0.5, color="black", linestyle=":", linewidth=1)
        axis.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
        axis.grid(axis="x", color="0.9")
        axis.set_axisbelow(True)
        title = f"{result['strategy']} split, {len(result['repeats'])} seeds"
        axis.set(title=title, xlabel="test (circle: a seed, bar: mean, dotted: chance of the AUC)")
        axis.set_xlim(min(0.4, axis.get_xlim()[0]), 1.02)  # pictures of two strategies compare at a glance
