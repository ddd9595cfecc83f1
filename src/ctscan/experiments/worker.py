"""Do one run of a sweep on this machine, from a fresh clone to its results on the hub and the remote.

    ctscan worker TRIAL.json

`ctscan sweep --on` writes the file and starts a worker for it; a person can do so over SSH. The clone, DVC's cache and
its other files lie in the folder for temporary files (TMPDIR) and are gone afterwards. A run that was killed continues
from its checkpoint when its worker is started again. One whose results could not be sent is kept, and only sent.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ctscan.core.errors import UserError, writing
from ctscan.core.files import SCRATCH, remove
from ctscan.experiments.programs import attempt, read_program, reason, start
from ctscan.experiments.trials import (
    ANSWER,
    SEEDS,
    TRANSFER,
    Trial,
    experiments_on,
    one_line,
    read_trial,
    retry,
    transfer,
)

import psutil
import zc.lockfile

FULL = 2**20  # bytes that a full disk may still have
OTHER = 24 * 3600  # seconds that another worker of the same trial may take
INTERRUPTED = "start the worker again to continue"  # said after Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which run."""
    parser.add_argument("trial", type=Path, metavar="TRIAL.json", help="what `ctscan sweep --on` wrote")


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the run can't be done or its results don't arrive."""
    trial = read_trial(arguments.trial)
    signal.signal(signal.SIGTERM, _interrupt)  # so that a job that is ended tidies up
    os.environ |= {"GIT_TERMINAL_PROMPT": "0"}  # nobody is there to answer
    with own_folder(trial) as folder:
        do(trial, folder)
    return 0


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def own_folder(trial: Trial) -> Iterator[Path]:
    """A folder on this machine that belongs to the trial; a second worker of the same trial waits here."""
    home = Path(tempfile.gettempdir()) / f"ctscan-{os.getuid()}"
    folder = home / hashlib.sha256(trial.model_dump_json(include={"hub", "base", "name"}).encode()).hexdigest()[:16]
    with writing(home):
        home.mkdir(exist_ok=True)
    lock, until = None, time.monotonic() + OTHER
    while lock is None:
        try:
            lock = zc.lockfile.LockFile(str(folder.with_suffix(".lock")))
        except zc.lockfile.LockError:
            if time.monotonic() > until:
                raise UserError(f"another worker has run {trial.name} here for {OTHER / 3600:g} h; end it") from None
            print(f"another worker runs {trial.name} here; waiting for it", flush=True)
            time.sleep(5)
    try:
        end_processes(folder)  # of a worker that was killed and left them
        yield folder
    finally:
        end_processes(folder)
        if not has_experiment(trial, folder / "clone"):
            remove(folder)
        lock.close()


def end_processes(folder: Path) -> None:
    """Kill what runs in `folder`: DVC, and the stage that it called, outlive a worker that was killed alone."""
    places = ((process, process.info["cwd"]) for process in psutil.process_iter(["cwd"]))
    left = [process for process, cwd in places if cwd and Path(cwd).is_relative_to(folder)]
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(left, timeout=ANSWER)
    if alive:
        raise UserError(f"process {alive[0].pid} in {folder} had not ended {ANSWER} s after it was killed")


def do(trial: Trial, folder: Path) -> None:
    """Run `trial` in `folder` unless the hub has its experiment. What was run and not sent is only sent."""
    if trial.name in retry(lambda: experiments_on(trial.hub, trial.base)):
        print(f"{trial.name}: there already")
        return
    clone = folder / "clone"
    os.environ["DVC_SITE_CACHE_DIR"] = str(folder / "site")
    if not has_experiment(trial, clone):
        try:
            with writing(folder):
                make_clone(trial, clone)
                probe(trial, clone)
                run_stages(trial, clone)
        except UserError as error:
            # Git and DVC don't always say so, or say it of the remote.
            if shutil.disk_usage(folder.parent).free < FULL:
                raise UserError(f"the disk of {folder} on {socket.gethostname()} is full ({error})") from None
            raise
    send(trial, clone)
    remove(folder)
    print(f"{trial.name}: done on {socket.gethostname()}")


def has_experiment(trial: Trial, clone: Path) -> bool:
    """Whether the run is over, so that its results have only to be sent."""
    return clone.is_dir() and not attempt("git", "show-ref", "--quiet", "--verify", trial.ref, at=clone).returncode


def make_clone(trial: Trial, clone: Path) -> None:
    """Clone the hub, at the trial's base, with a DVC configuration of its own. Raises `UserError`."""
    remove(clone.parent)
    clone.parent.mkdir()
    retry(lambda: _clone(trial, clone))
    read_program("git", "checkout", "--quiet", "--detach", trial.base, at=clone)
    lines = ["[core]", f"remote = {trial.remote}", f"['remote \"{trial.remote}\"']"]
    lines += [f"{key} = {value}" for key, value in trial.remote_options.items()]
    if trial.cache and Path(trial.cache).is_dir():
        lines += ["[cache]", f"dir = {trial.cache}"]
    elif trial.cache:
        print(f"the shared cache {trial.cache} is not on {socket.gethostname()}: all comes from the remote")
    (clone / ".dvc" / "config.local").write_text("\n".join(lines) + "\n", encoding="utf-8")
    checkpoints = Path(trial.checkpoints)
    with writing(checkpoints):
        checkpoints.mkdir(parents=True, exist_ok=True)
    (clone / SCRATCH).mkdir()
    (clone / SCRATCH / "checkpoints").symlink_to(checkpoints)


def _clone(trial: Trial, clone: Path) -> None:
    remove(clone)  # of an attempt that ended on the way
    branch = ["--single-branch", "--branch", trial.branch]
    read_program("git", "clone", "--quiet", "--no-tags", *branch, trial.hub, str(clone), patience=TRANSFER)


def probe(trial: Trial, clone: Path) -> None:
    """Raises `UserError` where the hub or the remote takes nothing from this machine, before hours of work."""
    push = ("git", "push", "--quiet", "--dry-run", "origin", f"HEAD:{trial.ref}")
    retry(lambda: read_program(*push, at=clone, patience=ANSWER))
    retry(lambda: _write_to_remote(trial, clone))


def _write_to_remote(trial: Trial, clone: Path) -> None:
    from dvc.repo import Repo

    try:
        with Repo(str(clone)) as repo:
            store = repo.cloud.get_remote_odb(trial.remote)
            path = store.fs.join(store.path, f"probe-{socket.gethostname()}-{os.getpid()}")
            store.fs.makedirs(store.path)
            store.fs.pipe_file(path, b"")
            store.fs.rm_file(path)
    except Exception as error:  # each kind of store has its own
        url = trial.remote_options["url"]
        raise UserError(f"the remote {trial.remote} ({url}) can't be written to: {one_line(error)}") from None


def run_stages(trial: Trial, clone: Path) -> None:
    """Make the experiment in the clone, with the clone's code. Raises `UserError` with what a stage or DVC says."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(clone / "src"), os.environ.get("PYTHONPATH", "")])
    if trial.pull:
        retry(lambda: transfer("pull", *trial.pull, at=clone))
    if trial.repeats:
        follow(trial, clone, "python", "-m", "ctscan", "repeats", *trial.repeats)
        # With a target, as without one DVC wants every .dvc file's data to be there.
        record = ("--include-untracked", str(SEEDS))
        read_program("dvc", "exp", "save", "--name", trial.name, *record, "extract-features", at=clone)
        return
    changes = [part for setting in trial.settings for part in ("--set-param", setting)]
    experiment = ("dvc", "exp", "run", "--pull", "--allow-missing", "--name", trial.name)
    follow(trial, clone, *experiment, *changes, trial.stages[-1])


def follow(trial: Trial, clone: Path, *command: str) -> None:
    """Run `command` in the clone and print what it says. Raises `UserError` with the line that says why it failed."""
    said = []
    with start(*command, at=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            said.append(line)
    if process.returncode:
        named = tuple(f"{name}: " for name in (*trial.stages, "repeats"))
        telling = [line for line in said if line.startswith(named)] or said[-9:]
        raise UserError(f"{trial.name} failed on {socket.gethostname()}: {reason(''.join(telling))}")


def send(trial: Trial, clone: Path) -> None:
    """Push the outputs, then the experiment, and check that both arrived.

    Raises:
        UserError: they did not; or the hub has an experiment of that name with other results.
    """
    if trial.stages:
        retry(lambda: _send_outputs(trial, clone))
    retry(lambda: _send_experiment(trial, clone))


def _send_outputs(trial: Trial, clone: Path) -> None:
    transfer("push", "--remote", trial.remote, *trial.stages, at=clone)
    compare = ("dvc", "status", "--cloud", "--json", "--remote", trial.remote, *trial.stages)
    compared = read_program(*compare, at=clone, patience=TRANSFER)
    # `deleted` is what the remote has and this clone did not need.
    missing = [path for path, state in json.loads(compared).items() if state != "deleted"]
    if missing:
        raise UserError(f"the remote {trial.remote} lacks {', '.join(missing)} after a push; look at its disk")


def _send_experiment(trial: Trial, clone: Path) -> None:
    own = read_program("git", "rev-parse", trial.ref, at=clone).strip()
    if trial.name not in experiments_on(trial.hub, trial.base):
        read_program("git", "push", "--quiet", "origin", f"{trial.ref}:{trial.ref}", at=clone, patience=TRANSFER)
    if experiments_on(trial.hub, trial.base).get(trial.name) == own:
        return
    # Two workers of one trial on two machines, or the same trial of two people.
    read_program("git", "fetch", "--quiet", "origin", trial.ref, at=clone, patience=TRANSFER)
    if attempt("git", "diff", "--quiet", "FETCH_HEAD", trial.ref, "--", "dvc.lock", at=clone).returncode:
        raise UserError(f"{trial.hub} has another {trial.name}, with other results; it was left as it is")
    print(f"{trial.name}: the hub has it from another worker, with the same results")
