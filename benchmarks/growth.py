"""Run the pipeline on synthetic cohorts of growing size, and measure what each further image costs each step.

    python benchmarks/growth.py [--images 1000 10000 100000]

Each cohort (cohort.py) goes through `dvc add`, each stage by `dvc repro --single-item`, and a `dvc repro` that finds
nothing to do. The network is a MobileNet with random weights at 64 pixels, trained for a few epochs: what is measured
is how the work grows, not what it finds out. Prints a table, and replaces growth.json and growth.png.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from ctscan.core.files import read_record, write_json
from ctscan.core.params import PARAMS_FILE, PIPELINE_FILE, validate

import machine
import matplotlib
import yaml
from process_cost import Cost, measure
from reporting import aligned
from scratch import scratch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BENCHMARKS = Path(__file__).resolve().parent
REPO = BENCHMARKS.parent
SCRATCH = REPO / ".scratch" / "growth"  # not the system's temporary folder, which may be kept in memory
STAGES = ("prepare-split", "extract-features", "train-initial", "finetune", "evaluate")
SIZE = 64  # pixels
OVERRIDES: Mapping[str, Any] = {
    "dataset": "cohort",
    "backbone": "MobileNet",
    "weights": "random",
    "image_size": SIZE,
    "unfreeze_depth": 20,
}
EPOCHS = {"initial": 5, "finetune": 2}
LIMIT_MIB = 3 * 1024  # the memory that a hundred thousand slices are to need at most
MARKERS = "osD^vPX*<"


def main(arguments: list[str] | None = None) -> None:
    """Exits 1 after a `UserError` and 130 after Ctrl-C; the scratch folder is removed either way."""
    parser = argparse.ArgumentParser(description="What each further image costs each step of the pipeline.")
    parser.add_argument("--images", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="in rising order")
    parser.add_argument("--output", type=Path, default=BENCHMARKS, help="folder of growth.json and growth.png")
    options = parser.parse_args(arguments)
    if len(options.images) < 2 or options.images != sorted(set(options.images)):
        parser.error("--images needs two or more numbers in rising order")
    with scratch(SCRATCH):
        start = machine.describe()
        rows = [_measure(images) for images in options.images]
    result = {"machine": start, "settings": {**OVERRIDES, "epochs": EPOCHS}, "table": table(rows), "rows": rows}
    write_json(options.output / "growth.json", result)
    draw(options.output / "growth.png", rows)
    print(aligned(result["table"]))


def _measure(images: int) -> dict[str, Any]:
    """Run all steps on a cohort of `images`.

    `steps` has the `Cost` of each; of a stage, `dvc` and `alone`: with what DVC does around it, and its process alone.
    `disk_ratio` is what the dataset, DVC's cache and split/ take on the disk after prepare-split, over the dataset.
    """
    folder, program = SCRATCH / "workspace", [sys.executable, "-m", "dvc"]
    _make_workspace(folder)
    steps: dict[str, Any] = {}

    def step(name: str, *command: str) -> None:
        print(f"{images} images: {name} ...", end=" ", flush=True)
        cost = measure([*command], folder, SCRATCH / f"{name}.log")
        print(f"{cost.seconds:.0f} s", flush=True)
        steps[name] = {"dvc": cost._asdict()}

    cohort = [str(BENCHMARKS / "cohort.py"), "cohort", "--images", str(images), "--size", str(SIZE)]
    step("draw cohort", sys.executable, *cohort)
    dataset = _bytes_on_disk(folder / "cohort")
    step("dvc add", *program, "add", "--quiet", "cohort")
    for stage in STAGES:
        step(stage, *program, "repro", "--single-item", stage)
        steps[stage]["alone"] = read_record(folder / "cost.json")
        if stage == "prepare-split":
            ratio = _bytes_on_disk(folder / "cohort", folder / ".dvc" / "cache", folder / "split") / dataset
    step("nothing to do", *program, "repro", STAGES[-1])
    return {"images": images, "steps": steps, "disk_ratio": ratio}


def _make_workspace(folder: Path) -> None:
    """An empty `folder` made a repository with the pipeline's code; each stage leaves its own cost in cost.json."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(REPO / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copytree(REPO / "weights", folder / "weights")
    for name in (".dvcignore", ".gitignore"):
        shutil.copyfile(REPO / name, folder / name)
    measured = f"cmd: {sys.executable} {BENCHMARKS / 'process_cost.py'} cost.json {sys.executable} "
    pipeline = (REPO / PIPELINE_FILE).read_text(encoding="utf-8")
    (folder / PIPELINE_FILE).write_text(pipeline.replace("cmd: python ", measured), encoding="utf-8")
    values = yaml.safe_load((REPO / PARAMS_FILE).read_text(encoding="utf-8")) | dict(OVERRIDES)
    values["split"]["strategy"] = "grouped"
    for phase, epochs in EPOCHS.items():
        values[phase] |= {"epochs": epochs, "patience": epochs}  # so much patience never stops early
    validate(values)
    (folder / PARAMS_FILE).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    git = ["git", "-c", "user.name=growth", "-c", "user.email=growth@localhost"]
    for command in (
        ["git", "init", "--quiet"],
        [sys.executable, "-m", "dvc", "init", "--quiet"],
        [*git, "commit", "--quiet", "--message", "DVCLive needs a commit"],
    ):
        measure(command, folder, SCRATCH / "init.log")
    shutil.copyfile(REPO / ".dvc" / "config", folder / ".dvc" / "config")


def _bytes_on_disk(*folders: Path) -> int:
    """What all files below `folders` take on the disk; bytes that several names share count once."""
    blocks = {}
    for folder in folders:
        for path in folder.rglob("*"):
            found = path.lstat()
            blocks[found.st_dev, found.st_ino] = 512 * found.st_blocks
    return sum(blocks.values())


def table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each step, milliseconds for each further image between two sizes, their growth, and peak memory (MiB)."""
    sizes = [row["images"] for row in rows]
    spans = [f"ms a further image, {few} to {many}" for few, many in pairwise(sizes)]
    title = ["step", *spans, "last / first", *(f"MiB at {images}" for images in sizes), f"last / {sizes[-2]}"]
    return [title, *(_row(name, costs) for name, costs in _costs(rows).items())]


def _row(name: str, costs: Sequence[tuple[int, Cost]]) -> list[str]:
    further = [1000 * (more.seconds - less.seconds) / (many - few) for (few, less), (many, more) in pairwise(costs)]
    peaks = [cost.peak_mib for _, cost in costs]
    # Below a tenth of a millisecond, what is left of two almost equal times says nothing.
    ratio = f"{further[-1] / further[0]:.2f}" if min(further) > 0.1 else ""
    cells = [*(f"{value:.2f}" for value in further), ratio, *(f"{peak:.0f}" for peak in peaks)]
    return [name, *cells, f"{peaks[-1] / peaks[-2]:.2f}"]


def _costs(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, Cost]]]:
    """Of each step, the images and the cost at each size; a stage is itself alone, and DVC's own work is a step."""
    costs: dict[str, list[tuple[int, Cost]]] = {}
    for row in rows:
        for name, step in row["steps"].items():
            costs.setdefault(name, []).append((row["images"], Cost(**step.get("alone", step["dvc"]))))
        around = [step for step in row["steps"].values() if "alone" in step]
        dvc = Cost(
            sum(step["dvc"]["seconds"] - step["alone"]["seconds"] for step in around),
            sum(step["dvc"]["cpu_seconds"] - step["alone"]["cpu_seconds"] for step in around),
            row["steps"]["nothing to do"]["dvc"]["peak_mib"],
        )
        costs.setdefault("DVC around the stages", []).append((row["images"], dvc))
    return costs


def draw(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Seconds and peak memory of each step over the images; parallel to the grey lines, time is linear."""
    figure, (time, memory) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    sizes = [row["images"] for row in rows]
    costs = _costs(rows)
    for (name, points), marker in zip(costs.items(), cycle(MARKERS), strict=False):
        style = {"marker": marker, "markersize": 5, "linewidth": 1.2, "label": name}
        time.plot(sizes, [cost.seconds for _, cost in points], **style)
        memory.plot(sizes, [cost.peak_mib for _, cost in points], **style)
    lowest, highest = time.get_ylim()
    for start in (0.01, 0.1, 1, 10):
        time.plot(sizes, [start * images / sizes[0] for images in sizes], color="0.85", linewidth=0.8, zorder=0)
    time.set(xscale="log", yscale="log", ylim=(max(lowest, 0.3), highest), xlabel="images", ylabel="seconds")
    time.set_title("time; parallel to the grey lines it is linear", fontsize=10)
    memory.axhline(LIMIT_MIB, color="0.4", linestyle="--", linewidth=0.8)
    memory.annotate("3 GiB", (sizes[0], LIMIT_MIB), va="bottom", fontsize=8)
    memory.set(xscale="log", ylim=(0, 1.08 * LIMIT_MIB), xlabel="images", ylabel="MiB")
    memory.set_title("peak memory of the largest process", fontsize=10)
    memory.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
