"""Get the weights that the backbone starts from: the published ImageNet weights, or a file of your own.

`ctscan weights` downloads the ImageNet weights of the backbone in params.yaml ahead of a run, so that the run needs no
network. `ctscan weights FILE` puts a weights file of that backbone without its top into weights/ and tracks it with
DVC, so that a run follows what is in the file, in this folder, with `--temp` and from the queue.
"""

import argparse
import subprocess
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.files import publish
from ctscan.core.params import Params, read_params

INTERRUPTED = "weights/ is as it was; `ctscan weights` downloads the rest"  # said after Ctrl-C
RESERVED = ("random", "imagenet")  # what `weights` in params.yaml means other than a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, if any, and for which backbone."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="a Keras weights file, .h5 or .weights.h5")
    parser.add_argument("--backbone", metavar="NAME", help="in place of the one in params.yaml")


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the weights can't be had or don't fit the backbone."""
    params = read_params()
    if arguments.backbone:
        params = params.model_copy(update={"backbone": arguments.backbone})
    if arguments.file:
        track(arguments.file.expanduser(), params)
    else:
        fetch(params)
    return 0


def track(file: Path, params: Params) -> None:
    """Put a copy of `file` into weights/ and track it with DVC, and its .dvc file with Git.

    Raises:
        UserError: the file is absent or does not fit the backbone, its name is taken by another meaning, or DVC or Git
            refuses.
    """
    from ctscan.model.backbone import WEIGHTS_FOLDER, require_fitting

    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    if file.name in RESERVED:
        raise UserError(f"{file}: the name '{file.name}' has another meaning in params.yaml; rename the file")
    require_fitting(params.backbone, params.image_size, file)
    target = WEIGHTS_FOLDER / file.name
    if file.resolve() != target.resolve():
        with publish(target) as path:
            path.write_bytes(file.read_bytes())
    try:
        with Repo() as repo:
            repo.add([str(target)])
    except DvcException as error:
        raise UserError(f"{target}: DVC can't track it: {' '.join(str(error).split())}") from None
    # Queued and `--temp` runs have what Git tracks, whether it is committed or not.
    tracked = [f"{target}.dvc", str(WEIGHTS_FOLDER / ".gitignore")]
    try:
        added = subprocess.run(["git", "add", *tracked], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{target}.dvc: git, which has to track it, is not installed; install it and repeat") from None
    if added.returncode:
        raise UserError(f"{target}.dvc: `git add` failed: {' '.join(added.stderr.split())}")
    print(f"{target}: tracked; commit {target}.dvc. `dvc exp run -S weights={file.name}` starts from it")


def fetch(params: Params) -> None:
    """Download the ImageNet weights into Keras' cache, and say what they are. Raises `UserError` where that fails."""
    from ctscan.model.backbone import fetch_imagenet

    folder, values = fetch_imagenet(params.backbone, params.image_size)
    print(f"{folder}: holds the ImageNet weights of {params.backbone}, whose values have the sha256 {values}")
    if params.weights != "imagenet":
        print(f"params.yaml: weights = {params.weights}; `dvc exp run -S weights=imagenet` starts from them")
