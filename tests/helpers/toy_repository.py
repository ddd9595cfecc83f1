"""A repository whose stages take no time, with a hub and a remote: for tests of how runs are spread over machines."""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from repository import REPO

# Each stage writes a hash of what it reads. Two environment variables let a test take part in a run: a stage with the
# lr FAILS ends with an error, and one with the lr HOLDS leaves a checkpoint and waits to be killed.
STAGE = """
import hashlib, json, os, signal, sys
from pathlib import Path
import yaml

name = sys.argv[1]
stage, params = yaml.safe_load(open("dvc.yaml"))["stages"][name], yaml.safe_load(open("params.yaml"))
if name == "train-initial" and str(params["lr"]) == os.environ.get("FAILS"):
    sys.exit("train-initial: lr is not to my taste")
if name == "train-initial" and str(params["lr"]) == os.environ.get("HOLDS"):
    checkpoint = Path(".scratch/checkpoints/train-initial")
    if checkpoint.exists():
        print("continuing after epoch 1")
    else:
        checkpoint.touch()
        print("holding", flush=True)
        signal.pause()
digest = hashlib.sha256(json.dumps([params[key] for key in stage["params"]]).encode())
for path in stage.get("deps", []):
    digest.update(Path(path).read_bytes())
for path in stage["outs"]:
    Path(path).write_text(f"{path} {digest.hexdigest()}")
if stage.get("metrics"):
    Path("metrics").mkdir(exist_ok=True)
    auc = int(digest.hexdigest()[:4], 16) / 65536
    Path("metrics/val_initial.json").write_text(json.dumps({"val_init": auc}))
    best = {"best_epoch": 1, "epochs": 2, "val_accuracy": auc, "val_loss": 1 - auc}
    Path("metrics/initial.json").write_text(json.dumps([best]))
"""
STAGES: dict[str, dict[str, Any]] = {
    "prepare-split": {"params": ["seed", "split"], "outs": ["split.txt"]},
    "extract-features": {"deps": ["split.txt"], "params": ["backbone"], "outs": ["features.txt"]},
    "train-initial": {
        "deps": ["features.txt", "sample"],
        "params": ["lr"],
        "outs": ["initial.txt"],
        "metrics": [{f"metrics/{name}.json": {"cache": False}} for name in ("val_initial", "initial")],
    },
}


class Toy(NamedTuple):
    """Where things lie."""

    home: Path  # the repository, with a run committed
    hub: Path  # bare
    remote: Path

    def run(self, *command: str) -> str:
        """What the command prints in the repository. DVC is the one of this Python."""
        called = [sys.executable, "-m", *command] if command[0] == "dvc" else command
        done = subprocess.run(called, cwd=self.home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def on_hub(self) -> dict[str, str]:
        """Name and commit of every experiment that the hub has."""
        listed = self.run("git", "ls-remote", str(self.hub), "refs/exps/*").splitlines()
        return {ref.rsplit("/", 1)[1]: commit for commit, ref in (line.split("\t") for line in listed)}

    def outputs(self, revision: str) -> dict[str, str]:
        """The md5 of each output in the dvc.lock of a revision."""
        stages = yaml.safe_load(self.run("git", "show", f"{revision}:dvc.lock"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def make_toy(folder: Path) -> Toy:
    """A toy repository in `folder`."""
    toy = Toy(folder / "home", folder / "hub", folder / "remote")
    (toy.home / "src").mkdir(parents=True)
    toy.remote.mkdir()
    (toy.home / "sample").write_text("the dataset, which DVC tracks")
    (toy.home / "src" / "stage.py").write_text(STAGE)
    (toy.home / "params.yaml").write_text((REPO / "params.yaml").read_text())
    stages = {name: {"cmd": f"python src/stage.py {name}", **parts} for name, parts in STAGES.items()}
    (toy.home / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (toy.home / ".gitignore").write_text(".scratch\n/*.txt\n")
    toy.run("git", "init", "--quiet")
    for key, value in (("user.name", "test"), ("user.email", "test@example.org")):
        toy.run("git", "config", key, value)
    toy.run("git", "init", "--quiet", "--bare", str(toy.hub))
    toy.run("git", "remote", "add", "origin", str(toy.hub))
    toy.run("dvc", "init", "--quiet")
    for key, value in (("core.analytics", "false"), ("core.check_update", "false"), ("core.remote", "store")):
        toy.run("dvc", "config", key, value)
    toy.run("dvc", "remote", "add", "--quiet", "store", str(toy.remote))
    toy.run("dvc", "add", "--quiet", "sample")
    toy.run("dvc", "repro", "--quiet")
    toy.run("git", "add", "--all")
    toy.run("git", "commit", "--quiet", "--message", "a run")
    return toy
