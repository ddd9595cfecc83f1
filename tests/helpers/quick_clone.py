"""A clone of this work tree, under params with which a run takes seconds, for tests of real runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ctscan.phantoms import SAMPLE_SEED, draw_slice

import yaml
from PIL import Image
from repository import REPO

QUICK = {
    "dataset": "few",
    "backbone": "MobileNet",
    "image_size": 32,
    "unfreeze_depth": 20,
    "initial": {"epochs": 2, "patience": 2},
    "finetune": {"epochs": 1, "patience": 1, "schedule": "constant", "normalization": "frozen"},
    "evaluate": {"threshold": 0.5, "bootstrap": 100, "bins": 5},
}


def make_quick_clone(clone: Path) -> Path:
    """This work tree as a fresh clone at `clone`, set up, with quick params and 48 images committed."""
    for name in subprocess.check_output(["git", "ls-files"], cwd=REPO, text=True).splitlines():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, clone / name)
    params = yaml.safe_load((clone / "params.yaml").read_text())
    (clone / "params.yaml").write_text(yaml.safe_dump({**params, **QUICK}))
    draw_images(clone / "few")
    # What `make` would install is what runs this test.
    programs = clone / ".venv" / "bin"
    programs.mkdir(parents=True)
    # src on the path, as an editable install puts it there.
    (programs / "python").write_text(f'#!/bin/sh\nPYTHONPATH="{clone}/src" exec "{sys.executable}" "$@"\n')
    (programs / "python").chmod(0o755)
    (programs / "ctscan").write_text('#!/bin/sh\nexec python -m ctscan "$@"\n')
    (programs / "ctscan").chmod(0o755)
    (programs / "dvc").symlink_to(Path(sys.executable).with_name("dvc"))
    (programs / "run-ready").touch()
    run(clone, "git init -q && git config user.name test && git config user.email test@example.org")
    commit(clone)
    return clone


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
