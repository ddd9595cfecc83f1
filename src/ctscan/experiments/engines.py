"""Start workers on this machine, on a Slurm cluster or on a Ray cluster. An engine hands over the path of a trial only.

Whether a run succeeded is asked of the hub, not of an engine: an engine says which workers are still to end.
"""

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from ctscan.core.errors import UserError
from ctscan.experiments.programs import read_program, reason
from ctscan.experiments.trials import ANSWER, retry

ENGINES = ("local", "slurm", "ray")
PINS = {"submitit": "submitit==1.5.4", "ray": "ray==2.60.0"}  # as the extras of pyproject.toml have them
RESTARTS = 20  # how often a run may be started again after its node died or its time was up


class Resources(NamedTuple):
    """What each trial gets of a cluster."""

    cpus: int
    gpus: int
    minutes: int  # time limit, after which it is queued again and continues; Slurm only


class Engine(Protocol):
    """Runs `ctscan worker` for trials, a given number at a time."""

    pause: float  # seconds between two looks at it
    goes_on: bool  # whether its workers outlive the program that started them

    def start(self, trials: Sequence[Path]) -> None:
        """Have a worker run for each of these files, now or when there is room."""

    def active(self) -> set[Path]:
        """The files of trials whose workers wait or run."""


def open_engine(name: str, folder: Path, jobs: int, resources: Resources) -> Engine:
    """The engine called `name`, with its own files in `folder`, where the trials lie. Raises `UserError`."""
    if name == "slurm":
        return Slurm(folder, jobs, resources)
    return ray(jobs, resources) if name == "ray" else local(jobs)


def command(trial: Path) -> list[str]:
    """The command that runs the worker of `trial` and adds what it says to the log beside the file."""
    script = 'exec "$0" -m ctscan worker "$1" >>"$2" 2>&1'
    return ["sh", "-c", script, sys.executable, str(trial), str(log(trial))]


def log(trial: Path) -> Path:
    """What the workers of `trial` have said, one after the other."""
    return trial.with_suffix(".log")


def local(jobs: int) -> Engine:
    """Workers as processes of this machine."""

    def launch(trial: Path) -> Callable[[], bool]:
        process = subprocess.Popen(command(trial))
        return lambda: process.poll() is not None

    return _Window(jobs, launch, pause=0.5)


def ray(jobs: int, resources: Resources) -> Engine:
    """Workers as tasks of the Ray cluster that RAY_ADDRESS names, or of one that starts on this machine.

    Ray runs a task again whose node has died. Raises `UserError` where no cluster answers.
    """
    ray = _extra("ray")
    try:
        ray.init(log_to_driver=False)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"Ray does not start or does not answer: {reason(str(error))}") from None
    enough = (node["Resources"].get("CPU", 0) >= resources.cpus for node in ray.nodes() if node["Alive"])
    if not any(enough) or ray.cluster_resources().get("GPU", 0) < resources.gpus:
        print(f"Ray has no node with {resources.cpus} CPUs and {resources.gpus} GPUs; the runs wait until it has one")
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=RESTARTS)(subprocess.call)

    def launch(trial: Path) -> Callable[[], bool]:
        running = task.remote(command(trial))
        return lambda: bool(ray.wait([running], timeout=0)[0])

    return _Window(jobs, launch, pause=1)


class _Window:
    """Has a number of workers run, each known by a function that says whether it has ended."""

    goes_on = False

    def __init__(self, jobs: int, launch: Callable[[Path], Callable[[], bool]], pause: float) -> None:
        self.jobs, self.launch, self.pause = jobs, launch, pause
        self.waiting: deque[Path] = deque()
        self.running: dict[Path, Callable[[], bool]] = {}

    def start(self, trials: Sequence[Path]) -> None:
        self.waiting.extend(trials)

    def active(self) -> set[Path]:
        self.running = {trial: ended for trial, ended in self.running.items() if not ended()}
        while self.waiting and len(self.running) < self.jobs:
            trial = self.waiting.popleft()
            self.running[trial] = self.launch(trial)
        return {*self.waiting, *self.running}


class Slurm:
    """Workers as the jobs of an array, which Slurm starts again after a preemption or the death of a node.

    Submitit has a job that comes to its time limit queued again. What else a site asks for (partition, account) is
    said by sbatch's own variables, such as SBATCH_PARTITION.
    """

    goes_on = True
    pause = 5.0

    def __init__(self, folder: Path, jobs: int, resources: Resources) -> None:
        submitit = _extra("submitit")
        self.folder = folder
        try:
            self.executor = submitit.AutoExecutor(folder / "slurm", cluster="slurm", slurm_max_num_timeout=RESTARTS)
        except RuntimeError as error:
            raise UserError(f"{error}; run it on a machine that submits jobs to Slurm") from None
        self.executor.update_parameters(
            name="ctscan",
            timeout_min=resources.minutes,
            cpus_per_task=resources.cpus,
            slurm_gpus_per_node=resources.gpus or None,
            slurm_array_parallelism=jobs,
        )

    def start(self, trials: Sequence[Path]) -> None:
        try:
            submitted = self.executor.map_array(_Requeued(), trials)
        except Exception as error:  # of a class that submitit does not export, with what sbatch says
            raise UserError(f"sbatch refuses: {reason(str(error))}") from None
        for trial, job in zip(trials, submitted, strict=True):
            _job(trial).write_text(job.job_id, encoding="utf-8")

    def active(self) -> set[Path]:
        # Not submitit's `done`: it asks sacct, which many small clusters don't have.
        ask = ("squeue", "--me", "--noheader", "--array", "--format=%i")
        listed = set(retry(lambda: read_program(*ask, patience=ANSWER)).split())
        known = (trial for trial in self.folder.glob("*.json") if _job(trial).is_file())
        return {trial for trial in known if _job(trial).read_text(encoding="utf-8") in listed}


class _Requeued:
    """What a job of Slurm's does: it runs the worker. Submitit calls `checkpoint` when the time is up."""

    def __call__(self, trial: Path) -> int:
        return subprocess.call(command(trial))

    def checkpoint(self, trial: Path) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, trial)


def _job(trial: Path) -> Path:
    """The file with the id of the last job for `trial`."""
    return trial.with_suffix(".job")


def _extra(name: str) -> ModuleType:
    """A package that only its engine needs. Raises `UserError` where it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed; install it with `pip install '{PINS[name]}'`") from None
