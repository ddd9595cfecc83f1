"""Describe each run of a sweep in one JSON file, so that any machine can do it, and ask git and DVC with patience."""

import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import TypeVar

from ctscan.core.errors import UserError
from ctscan.experiments.programs import attempt, read_program, reason

from pydantic import BaseModel, ConfigDict, ValidationError

DELAYS = (2, 5, 10, 20, 30)  # seconds before each further attempt: a hub or a remote may be away for a minute
ANSWER = 60  # seconds that a hub, or Slurm, may take for a question; a host that has vanished says nothing
TRANSFER = 4 * 3600  # and for sending or taking data
# What a trial says of the DVC remote. Passwords and keys are not among it: each machine has its own.
REMOTE_OPTIONS = ("url", "endpointurl", "region", "profile", "use_ssl", "ssl_verify", "user", "port")
SEEDS = Path("metrics/repeats/seeds")  # where `ctscan repeats --only` writes the record of a seed

_Result = TypeVar("_Result")


class Trial(BaseModel):
    """A run that becomes one experiment of DVC's: all that a worker has to know, and nothing secret."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str  # of the experiment
    settings: list[str]  # `key=value` of params.yaml
    base: str  # the commit to start from, 40 hex digits
    branch: str  # that holds it on the hub
    hub: str  # URL or path of the git repository that workers clone and push to
    remote: str  # name of the DVC remote
    remote_options: dict[str, str]  # of `REMOTE_OPTIONS`
    pull: list[str]  # DVC targets that lie on the remote before any run
    stages: list[str]  # the stages as far as the run goes; their outputs are pushed
    repeats: list[str]  # instead of stages, the arguments of `ctscan repeats` for one seed, whose record is the result
    cache: str | None  # DVC cache directory that machines share, where there is one
    checkpoints: str  # folder of checkpoints that machines share, so that a run continues on another one

    @property
    def ref(self) -> str:
        """The git reference under which DVC keeps the experiment."""
        return f"{experiment_refs(self.base)}{self.name}"


def experiment_refs(base: str) -> str:
    """Where DVC keeps the experiments of the commit `base`, with a slash at the end."""
    return f"refs/exps/{base[:2]}/{base[2:]}/"


def read_trial(path: Path) -> Trial:
    """Raises `UserError` where `path` is not the file of a trial."""
    try:
        return Trial.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name the file of a trial") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise UserError(f"{path} is not a trial: {place}: {fault['msg']}; let `ctscan sweep --on` write it") from None


def experiments_on(hub: str, base: str) -> dict[str, str]:
    """Name and commit of each experiment of `base` that the hub has. Raises `UserError` where it does not answer."""
    prefix = experiment_refs(base)
    pairs = (
        line.split("\t") for line in read_program("git", "ls-remote", hub, f"{prefix}*", patience=ANSWER).splitlines()
    )
    return {ref.removeprefix(prefix): commit for commit, ref in pairs}


def retry(action: Callable[[], _Result]) -> _Result:
    """What `action` returns, after as many failures as there are `DELAYS`. Raises the `UserError` of the last one."""
    for delay in DELAYS:
        try:
            return action()
        except UserError as error:
            print(f"{error}; trying again in {delay} s", flush=True)
            time.sleep(delay)
    return action()


def transfer(*command: str, at: Path | None = None) -> None:
    """Have DVC pull or push. Raises `UserError` with the line that says why it failed; with --quiet DVC has none."""
    done = attempt("dvc", *command, at=at, stdout=DEVNULL, stderr=PIPE, patience=TRANSFER)
    if done.returncode:
        raise UserError(f"`dvc {' '.join(command)}` failed: {reason(done.stderr)}")


def one_line(error: Exception) -> str:
    """What `error` says, or what it is called."""
    return " ".join(str(error).split()) or type(error).__name__
