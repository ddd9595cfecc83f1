"""The README's commands work as printed."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ctscan.phantoms import SAMPLE_SEED, draw_slice

import pytest
import yaml
from PIL import Image
from repository import REPO

README = (REPO / "README.md").read_text(encoding="utf-8")

# The README's commands in the order in which they are run, and what each prints. The first makes the run itself.
RUN = {
    "make repro": "finetuned",
    "make help": "list the targets",
    "dvc repro": "Data and pipelines are up to date.",
    "dvc exp run -S lr=3e-4": "Ran experiment",
    "python -m ctscan predict split/images/test": "intervals over",
    "python -m ctscan explain split/images/test/COVID/*1*.png": "drawn in explanations",
    "python -m ctscan export --format onnx": "use it so",
    "make plots": "dvc_plots/index.html",
    "make report": "report/report.md",
    "dvc exp show --only-changed": "lr",
    "dvc metrics diff": "metrics/initial.json",
    "dvc params diff": "0.0003",
    "dvc plots diff": "index.html",
    "dvc plots show": "index.html",
    "dvc repro --force extract-features": "Running stage 'extract-features'",
    "dvc status data.dvc": "data",
    "dvc add data": "git add data.dvc",
    "git tag -a ct-classifier@v1.0.0 -m model": "",
    "dvc artifacts get . ct-classifier -o got.keras": "",
}
# Those that no test can run as printed, and why.
NOT_RUN = {
    "git clone <this repository> && cd <its folder>": "names no repository; what follows is run in a copy of this one",
    "source .venv/bin/activate": "puts .venv first on the path of a shell, as the commands here have it",
    "make repro GPU=1": "downloads TensorFlow with CUDA",
    "make data": "downloads the dataset; tests/test_fetch.py serves it one",
    "make data ARCHIVE=path": "needs the dataset's archive; tests/test_fetch.py makes one",
    "make weights": "downloads the weights; tests/test_weights.py serves it some",
    "dvc exp run -n study -S dataset=data -S weights=imagenet": "needs the dataset and the weights",
    "pip download --require-hashes -r requirements.txt -d wheels": "downloads every package",
    "PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheels make repro": "needs the downloaded packages",
    'make repeats ARGS="--strategy blocked"': "takes minutes; tests/test_repeats.py runs it on few images",
    'make sweep GRID="lr=1e-4,3e-4,1e-3"': "takes minutes; tests/test_sweep.py has what it queues and how it ranks",
    "dvc exp run -S split.strategy=grouped": "takes minutes; tests/test_splitting.py splits so",
    "dvc exp run -S dataset=scans -S classes.positive=covid -S classes.negative=healthy -S split.strategy=grouped": (
        "takes minutes; tests/test_dataset.py reads such folders"
    ),
    "dvc exp run -S backbone=DenseNet121 -S unfreeze_depth=120": "takes minutes; tests/test_backbones.py builds it",
    "dvc exp run --queue -S lr=1e-4,3e-4,1e-3": "queues what `make sweep` runs, under names of DVC's own",
    "dvc queue start -j 2": "returns at once and goes on in the background",
    "pip install tf2onnx onnx onnxruntime": "downloads packages that requirements-dev.txt holds",
    "dvc exp apply NAME": "names no experiment",
    "dvc checkout": "fails as the README says, while the dataset is not there",
    "make verify": "runs the pipeline once more; tests/test_verification.py compares runs",
    "make bench": "takes hours; tests/test_benchmarks.py runs it at its smallest",
}
QUICK = {
    "dataset": "few",
    "backbone": "MobileNetV2",
    "image_size": 32,
    "unfreeze_depth": 20,
    "initial": {"epochs": 2, "patience": 2},
    "finetune": {"epochs": 1, "patience": 1, "schedule": "constant", "normalization": "frozen"},
    "evaluate": {"threshold": 0.5, "bootstrap": 100, "bins": 5},
}


def printed_commands(text: str) -> list[str]:
    """Every line of a console block without its comment, and whatever else stands in backticks and is a command."""
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL)).splitlines()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    inline = re.findall(r"`((?:[A-Z_]+=\S+ )*(?:dvc|make|python3?|pip|pytest|git|source|bash|ctscan) [^`]+)`", prose)
    return list(dict.fromkeys([*(re.sub(r"\s+#.*", "", line) for line in blocks if line), *inline]))


def test_every_command_is_run_or_there_is_a_reason() -> None:
    commands = set(printed_commands(README))
    assert commands - {*RUN, *NOT_RUN} == set(), "add it to RUN, or to NOT_RUN with the reason"
    assert {*RUN, *NOT_RUN} - commands == set(), "the README prints it no longer"
    assert not set(RUN) & set(NOT_RUN)


def test_commands_are_found_wherever_they_stand() -> None:
    block = "```console\nmake all   # or\nls -l\n```\n```text\ndvc no\n```"
    text = f"`a.py`, `dvc pull x`\n{block}\n| `A=1 make b` | `dvc.yaml` |\n"
    assert printed_commands(text) == ["make all", "ls -l", "dvc pull x", "A=1 make b"]


@pytest.fixture
def quick_clone(tmp_path: Path) -> Path:
    """This work tree as a fresh clone, set up, with params committed under which a run takes seconds."""
    clone = tmp_path / "a clone"
    for name in subprocess.check_output(["git", "ls-files"], cwd=REPO, text=True).splitlines():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, clone / name)
    params = yaml.safe_load((clone / "params.yaml").read_text())
    (clone / "params.yaml").write_text(yaml.safe_dump({**params, **QUICK}))
    draw_images(clone / "few")
    # What `make` would install is what runs this test.
    programs = clone / ".venv" / "bin"
    programs.mkdir(parents=True)
    # src on the path, as the Makefile puts it there.
    (programs / "python").write_text(f'#!/bin/sh\nPYTHONPATH="{clone}/src" exec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    (programs / "dvc").symlink_to(Path(sys.executable).with_name("dvc"))
    (programs / "run-ready").touch()
    run(clone, "git init -q && git config user.name test && git config user.email test@example.org")
    commit(clone)
    return clone


@pytest.mark.slow
def test_the_commands_work_as_printed(quick_clone: Path) -> None:
    first, *rest = RUN
    works(quick_clone, first)
    commit(quick_clone)
    for command in rest:
        if command.startswith("dvc exp run"):
            run(quick_clone, "git checkout -q . && dvc checkout -q")  # each starts from the committed run
        if command == "dvc status data.dvc":  # not before: `dvc checkout` removes what data.dvc pins and no cache holds
            draw_images(quick_clone / "data")
        works(quick_clone, command)
    the_model_is_the_released_one(quick_clone)


def the_model_is_the_released_one(clone: Path) -> None:
    outs = yaml.safe_load(run(clone, "git show HEAD:dvc.lock").stdout)["stages"]["finetune"]["outs"]
    (md5,) = (out["md5"] for out in outs if out["path"] == "models/finetuned.keras")
    assert hashlib.md5((clone / "got.keras").read_bytes()).hexdigest() == md5


def works(clone: Path, command: str) -> None:
    done = run(clone, command)
    seen = f"{command}\n{done.stdout}{done.stderr}"
    assert done.returncode == 0, seen
    assert RUN[command] in done.stdout, seen
    assert not re.search("^ERROR|Traceback", done.stderr, re.MULTILINE), seen


def run(clone: Path, command: str) -> subprocess.CompletedProcess[str]:
    """The command in bash, as with .venv activated."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(clone / ".venv" / "bin"), os.environ["PATH"]])}
    environment.pop("PYTHONPATH", None)
    shell = ["bash", "-c", command]
    return subprocess.run(shell, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def commit(clone: Path) -> None:
    done = run(clone, "git add -A && git commit -qm 'a run'")
    assert done.returncode == 0, done.stderr


def draw_images(folder: Path) -> None:
    """A few phantoms as a dataset of their own."""
    for name, ill in (("COVID", True), ("non-COVID", False)):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            pixels, _ = draw_slice(number // 3 + 1, number % 3 + 1, ill, SAMPLE_SEED)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
