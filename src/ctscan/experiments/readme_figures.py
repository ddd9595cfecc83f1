"""Draw the pictures of the pages: three tests of one network, random against blocked split, and synthetic slices.

The same files and library versions give the same bytes.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.files import read_json
from ctscan.phantoms import SAMPLE_SEED, draw_slice

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

FOLDER = Path("docs/images")
STRATEGIES = ("random", "blocked")
# Recorded studies of one protocol on the real images: the folds of each split. Of the models of the blocked folds one
# was scored on the other source.
RANDOM_FOLDS, BLOCKED_FOLDS, OTHER_SOURCE = "xception-random-folds", "xception-blocked", "covid-ct"
SHOWN = {"COVID, synthetic": (True, (1, 2)), "non-COVID, synthetic": (False, (1, 2))}  # patients of each class
POSITION = 2  # of the three slices of a patient
CELL = (270, 200)  # pixels, width and height of a slice
GAP, CAPTION = 6, 44  # pixels between slices; height of the line of text above them


class Style(NamedTuple):
    """How one model or control looks in the chart, and its name as people write it."""

    name: str
    colour: str  # of Okabe and Ito, whose colours colour-blind readers can tell apart
    marker: str
    line: str | tuple[int, tuple[int, ...]]  # as matplotlib takes it
    width: float = 1.5


class Tested(NamedTuple):
    """ROC AUCs on one test: `{"roc_auc": ..., "low": ..., "high": ...}` by the name of a model or control."""

    name: str
    images: int
    aucs: dict[str, dict[str, float]]


STYLES = {
    "hog_svm": Style("HOG + linear SVM", "#009E73", "^", "-."),
    "initial": Style("Network, initial", "#0072B2", "o", "-", 2.6),
    "finetuned": Style("Network, fine-tuned", "#D55E00", "o", "-", 2.6),
    "combination": Style("Fine-tuned and HOG together", "0.15", "P", "-"),
    "nearest_neighbour": Style("Nearest neighbour\non thumbnails", "#CC79A7", "s", "--"),
    "image_border": Style("Image border alone", "#56B4E9", "D", ":"),
    "image_size": Style("Image size alone", "#E69F00", "v", (0, (6, 2, 1, 2, 1, 2))),
    "shuffled_labels": Style("Shuffled labels", "0.45", "x", (0, (1, 3))),
}


def read_three_tests(root: Path) -> tuple[Tested, Tested, Tested]:
    """All folds of the random and of the blocked split, and the other source, as recorded under `root`/studies."""
    external = read_json(root / "studies" / BLOCKED_FOLDS / f"external/{OTHER_SOURCE}.json")["external"]
    auc = external["metrics"]["roc_auc"]
    return (
        _pooled(root, "random split", RANDOM_FOLDS),
        _pooled(root, "blocked split", BLOCKED_FOLDS),
        Tested(
            "another source",
            external["slices"],
            {"finetuned": {"roc_auc": auc["value"], "low": auc["low"], "high": auc["high"]}},
        ),
    )


def draw_three_tests(root: Path, path: Path) -> None:
    """ROC AUC with its 95 % interval of the network and of baselines on three tests, as a PNG of 880 pixels.

    What the study reports stands beside them, without an interval, as it gives none.
    """
    from matplotlib.figure import Figure

    tests = read_three_tests(root)
    figure = Figure(figsize=(4.4, 3.9), layout="constrained")
    axis = figure.subplots()
    backbone = read_json(root / "studies" / BLOCKED_FOLDS / "folds.json")["params"]["backbone"]
    _, study, *_ = read_json(root / "studies/published.json")["rows"]
    shown = ("finetuned", "initial", "hog_svm", "nearest_neighbour")
    for place, test in enumerate(tests):
        names = [name for name in shown if name in test.aucs]
        for order, name in enumerate(names):
            style, auc = STYLES[name], test.aucs[name]
            first = not any(name in earlier.aucs for earlier in tests[:place])
            ends = np.array([[auc["roc_auc"] - auc["low"]], [auc["high"] - auc["roc_auc"]]])
            across = place + 0.16 * (order - (len(names) - 1) / 2)
            axis.errorbar(
                across, auc["roc_auc"], ends, color=style.colour, marker=style.marker, linestyle="none",
                markersize=6, elinewidth=1.4, capsize=3, label=style.name.replace("\n", " ") if first else None,
            )  # fmt: skip
    published = study["roc_auc"][0] / study["roc_auc"][1]
    axis.plot(-0.42, published, "*", color="black", markersize=8, label="The study (ResNet101V2, 745 slices)")
    axis.axhline(0.5, color="0.75", linewidth=0.8, zorder=0)
    axis.text(-0.47, 0.495, "chance", fontsize=8, color="0.35", va="top")
    ticks = [
        f"{test.name}\n{test.images} slices" + (",\nnetwork only" if len(test.aucs) == 1 else "") for test in tests
    ]
    axis.set_xticks(range(len(tests)), ticks, fontsize=9)
    axis.set(xlim=(-0.5, len(tests) - 0.5), ylim=(0.4, 1.01))
    axis.set_ylabel("test ROC AUC with its 95 % interval", fontsize=9)
    axis.tick_params(axis="y", labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(f"Three tests of the study's protocol ({backbone})", fontsize=10, weight="bold", loc="left")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 0.19), fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=200, metadata={"Software": None})


def draw_random_against_blocked(root: Path, path: Path) -> None:
    """ROC AUC of the network, of the baselines and of the controls on both splits: mean, lowest and highest split.

    Args:
        root: holds studies/random-vs-blocked.
        path: of the PNG, 880 pixels wide.
    """
    from matplotlib.figure import Figure

    results = [read_json(root / f"studies/random-vs-blocked/{strategy}.json") for strategy in STRATEGIES]
    given = results[1]["settings"]
    figure = Figure(figsize=(4.4, 4.3), layout="constrained")
    axis = figure.subplots()
    # The repeats end with the initial model.
    shown = [name for name in STYLES if name not in ("finetuned", "combination")]
    for place, name in enumerate(shown):
        style = STYLES[name]
        aucs = [_aucs(result, name) for result in results]
        means = np.array([values.mean() for values in aucs])
        ends = np.abs([[values.min() for values in aucs], [values.max() for values in aucs]] - means)
        across = np.array([0, 1]) + 0.02 * (place - 2)  # side by side, so that the bars don't hide each other
        axis.errorbar(
            across, means, ends, color=style.colour, marker=style.marker, linestyle=style.line,
            markersize=5, linewidth=style.width, elinewidth=1.1, capsize=2.5,
        )  # fmt: skip
        axis.text(1.12, means[1], style.name, color="0.15", fontsize=9, va="center", linespacing=0.95)
    axis.axhline(0.5, color="0.75", linewidth=0.8, zorder=0)
    blocks = f"blocked split: {given['split']['block_size']} file\nnumbers kept together"
    axis.set_xticks([0, 1], ["random split\nof slices", blocks], fontsize=9)
    axis.set(xlim=(-0.15, 1.9), ylim=(0.4, 1.01))
    axis.set_ylabel("ROC AUC on test images (0.5: chance)", fontsize=9)
    axis.tick_params(axis="y", labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title("A line that falls shows what a random split hides", fontsize=10, weight="bold", loc="left", pad=31)
    axis.text(
        0, 1.02,
        f"Real slices; the network's backbone has {given['weights']} weights.\n"
        f"Mark: mean of {len(given['seeds'])} splits. Bar: lowest to highest.",
        fontsize=9, linespacing=1.15, transform=axis.transAxes,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=200, metadata={"Software": None})


def draw_slices(path: Path) -> None:
    """Four slices of the synthetic sample in a row, two of each class, with the name of the class above them.

    The PNG at `path` is grey, 1098 pixels wide.
    """
    patients = [(positive, patient) for positive, patients in SHOWN.values() for patient in patients]
    width, height = CELL
    strip = Image.new("L", (len(patients) * (width + GAP) - GAP, CAPTION + height), 255)
    for place, (positive, patient) in enumerate(patients):
        grey, _ = draw_slice(patient, POSITION, positive, SAMPLE_SEED)
        slice_ = ImageOps.fit(Image.fromarray(grey), CELL, Image.Resampling.LANCZOS)
        strip.paste(slice_, (place * (width + GAP), CAPTION))
    pen = ImageDraw.Draw(strip)
    left = 0
    for caption, (_, shown) in SHOWN.items():
        pen.text((left, 0), caption, fill=0, font=ImageFont.load_default(size=34))
        left += len(shown) * (width + GAP)
    path.parent.mkdir(parents=True, exist_ok=True)
    strip.save(path, format="PNG", optimize=True)


def draw_all(root: Path, folder: Path) -> None:
    """Draw every picture into `folder`, with what is recorded under `root`."""
    for name, draw in PICTURES.items():
        draw(root, folder / name)


PICTURES: Mapping[str, Callable[[Path, Path], None]] = {
    "three-tests.png": draw_three_tests,
    "random-against-blocked.png": draw_random_against_blocked,
    "synthetic-slices.png": lambda root, path: draw_slices(path),
}


def _pooled(root: Path, name: str, study: str) -> Tested:
    pooled = read_json(root / "studies" / study / "folds.json")
    combined = pooled["combination"]
    aucs = {row["name"]: {key: row[key] for key in ("roc_auc", "low", "high")} for row in pooled["controls"]}
    aucs["combination"] = {"roc_auc": combined["test"]["roc_auc"], **combined["intervals"]["roc_auc"]}
    return Tested(name, pooled["images"], aucs)


def _aucs(result: Mapping[str, Any], name: str) -> np.ndarray:
    """(k,) the test ROC AUC of one model or control in each of the k splits."""
    return np.array([{**run["models"], **run["baselines"]}[name]["roc_auc"] for run in result["repeats"]])
