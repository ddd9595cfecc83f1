"""Have the runs of a sweep done by workers on other machines, and bring their experiments home.

What all runs share, up to the features, is made here once and pushed. Then each run is a trial that an engine starts a
worker for. What counts is the hub: a trial is done when its experiment is there, so whoever starts the sweep again,
after whatever interruption, starts only what is missing.
"""

import argparse
import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import NamedTuple

from ctscan.core.errors import UserError, writing
from ctscan.core.files import SCRATCH
from ctscan.core.params import pipeline, read_params
from ctscan.experiments.engines import ENGINES, Engine, Resources, log, open_engine
from ctscan.experiments.programs import attempt, read_program, run_program
from ctscan.experiments.trials import (
    REMOTE_OPTIONS,
    TRANSFER,
    Trial,
    experiment_refs,
    experiments_on,
    one_line,
    retry,
    transfer,
)

from dvc.repo import Repo
from tqdm import tqdm

SHARED = ("prepare-split", "extract-features")  # the stages that runs with the same split and backbone share
ATTEMPTS = 2  # a trial that fails is tried once more
STILL = 24 * 3600  # seconds without any news of a sweep, after which its driver ends


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the runs are done. Without --on none of these has a meaning."""
    group = parser.add_argument_group("on other machines (docs/cluster.md)")
    group.add_argument("--on", choices=ENGINES, help="what starts a worker for each run; without it, DVC's queue here")
    group.add_argument("--jobs", type=int, default=2, metavar="N", help="runs at a time (default 2)")
    group.add_argument("--hub", metavar="GIT_URL", help="repository that all machines reach (default: origin)")
    group.add_argument("--remote", metavar="NAME", help="DVC remote that all machines reach (default: core.remote)")
    group.add_argument("--cpus", type=int, default=1, metavar="N", help="of each run, on slurm and ray (default 1)")
    group.add_argument("--gpus", type=int, default=0, metavar="N", help="of each run, on slurm and ray (default 0)")
    group.add_argument("--minutes", type=int, default=240, metavar="N", help="time limit of a job, on slurm (240)")
    later = group.add_mutually_exclusive_group()
    later.add_argument("--detach", action="store_true", help="submit the runs and leave, on slurm")
    later.add_argument("--collect", action="store_true", help="start nothing and take what has been done")


def elsewhere(arguments: argparse.Namespace) -> bool:
    """Whether workers are asked for. Raises `UserError` where the options that go with them make no sense."""
    if arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: nothing would ever run; it needs 1 or more")
    if not arguments.on and (arguments.detach or arguments.collect):
        raise UserError(
            f"--{'detach' if arguments.detach else 'collect'} needs --on, which says where the runs are done"
        )
    return arguments.on is not None


class Store(NamedTuple):
    """Where machines meet."""

    hub: str  # URL or absolute path of a git repository
    remote: str  # name of a DVC remote
    options: dict[str, str]  # of the remote
    cache: str | None  # a DVC cache directory, where one is set


def run_elsewhere(
    experiments: Mapping[str, Sequence[str]], stage: str | None, arguments: argparse.Namespace
) -> str | None:
    """Have `experiments` run, and return the commit that they belong to, or None if the runs were only submitted.

    A trial that fails is reported; it has no experiment then.

    Args:
        experiments: settings by name, for runs as far as `stage`; without a stage, arguments of `ctscan repeats`.

    Raises:
        UserError: hub or remote do not answer, or the work tree holds changes that workers would not have.
    """
    require_clean()
    store = find_store(arguments.hub, arguments.remote, here=arguments.on == "local")
    base, needed = share(experiments.values() if stage else [[]], store)
    if not arguments.collect:
        folder = (SCRATCH / "trials" / base[:12]).absolute()
        resources = Resources(arguments.cpus, arguments.gpus, arguments.minutes)
        engine = open_engine(arguments.on, folder, arguments.jobs, resources)
        if arguments.detach and not engine.goes_on:
            raise UserError(f"--detach: workers on {arguments.on} need the program that started them; leave it out")
        trials = [
            write_trial(folder, name, values, stage, base, needed, store)
            for name, values in experiments.items()
            if name not in experiments_at_home(base)
        ]
        dispatch(trials, engine, store.hub, base, arguments.detach)
    if arguments.detach:
        print("submitted; with --collect instead, the same command takes what is done, and with neither it waits")
        return None
    bring_home(experiments, base, store)
    return base


def require_clean() -> None:
    """Raises `UserError` where a file that git tracks is not as committed: workers have what is committed alone."""
    changed = read_program("git", "status", "--porcelain", "--untracked-files=no").splitlines()
    if changed:
        raise UserError(f"{changed[0][3:]} is not as committed, which is all that workers have; commit it")


def find_store(hub: str | None, remote: str | None, here: bool = False) -> Store:
    """Hub and remote as named, or git's `origin` and DVC's default. Raises `UserError` where there is none.

    Workers that all run `here` share the cache of this repository, so that they copy nothing from the remote.
    """
    url = hub or attempt("git", "remote", "get-url", "origin", stdout=PIPE, stderr=DEVNULL).stdout.strip()
    if not url:
        raise UserError("no hub; name a git repository that all machines reach: --hub GIT_URL")
    if Path(url).exists():
        url = str(Path(url).absolute())
    with Repo() as repo:
        name, known = remote or repo.config["core"].get("remote"), repo.config["remote"]
        if name not in known:
            raise UserError(f"no DVC remote{f' {name}' * bool(name)}; name one that all machines reach: --remote NAME")
        options = {key: str(known[name][key]) for key in REMOTE_OPTIONS if key in known[name]}
        cache = repo.cache.local_cache_dir if here else repo.config["cache"].get("dir")
        return Store(url, name, options, cache)


def share(settings: Iterable[Sequence[str]], store: Store) -> tuple[str, list[str]]:
    """Make what all runs need, and push it.

    Where all runs have the same settings for the shared stages, it is their outputs and the dataset. The outputs are of
    HEAD if its dvc.lock is in step, and else of an experiment on top of HEAD, which the runs then start from. Where the
    settings differ, each run makes its own outputs, and what they need is the dataset and a weights file.

    Args:
        settings: those of each run.

    Returns:
        The commit that the runs start from, which the hub has on a branch, and the DVC targets that each run needs,
        which the remote has.
    """
    declared = pipeline()["stages"]
    read = {key for name in SHARED for key in declared[name]["params"]}
    early = [{one for one in own if one.split("=")[0].split(".")[0] in read} for own in settings]
    head = base = read_program("git", "rev-parse", "HEAD").strip()
    dry = attempt("dvc", "repro", "--dry", "--allow-missing", SHARED[-1], stdout=PIPE, stderr=STDOUT)
    in_step = dry.returncode == 0 and "Running stage" not in dry.stdout
    if all(own == early[0] for own in early):
        needed = [*SHARED, *own_inputs(early[0])]
        if early[0] or not in_step:
            base = shared_experiment(head, sorted(early[0]))
        there = needed
    else:
        needed = own_inputs({one for own in early for one in own})
        there = [*needed, *SHARED] if in_step else needed  # a run may have the values of HEAD
    push = ("git", "push", "--quiet", store.hub, f"{base}:refs/heads/{branch(base)}")
    retry(lambda: read_program(*push, patience=TRANSFER))
    if there:
        retry(lambda: push_outputs(there, base, store.remote))
    return base, needed


def own_inputs(settings: Iterable[str]) -> list[str]:
    """The datasets and weights files that DVC tracks, as params.yaml and `settings` name them."""
    params = read_params()
    values = [f"dataset={params.dataset}", f"weights={params.weights}", *settings]
    folders = {"dataset": "", "weights": "weights/"}
    pairs = (value.split("=", 1) for value in values)
    files = {f"{folders[key]}{value}.dvc" for key, value in pairs if key in folders}
    return sorted(file for file in files if Path(file).is_file())


def shared_experiment(head: str, settings: list[str]) -> str:
    """The commit of the experiment that runs the shared stages on `head` with `settings`; it is run once."""
    name = f"shared-{hashlib.sha256(' '.join(settings).encode()).hexdigest()[:8]}"
    if name not in experiments_at_home(head):
        changes = [part for setting in settings for part in ("--set-param", setting)]
        run_program("dvc", "exp", "run", "--temp", "--name", name, *changes, SHARED[-1])
    return experiments_at_home(head)[name]


def branch(base: str) -> str:
    """The branch of the hub that holds `base`: one for each commit, so that nobody's sweeps meet."""
    return f"ctscan/{base[:12]}"


def push_outputs(targets: list[str], base: str, remote: str) -> None:
    """Push the outputs that `targets` have in the commit `base`. Raises `UserError` where DVC can't."""
    try:
        with Repo() as repo:
            repo.push(targets=targets, remote=remote, revs=[base], workspace=False)
    except Exception as error:  # each kind of remote has its own
        raise UserError(f"the remote {remote} does not take {', '.join(targets)}: {one_line(error)}") from None


def experiments_at_home(base: str) -> dict[str, str]:
    """Name and commit of each experiment of `base` in this repository."""
    prefix = experiment_refs(base)
    listed = read_program("git", "for-each-ref", "--format=%(objectname) %(refname)", prefix).splitlines()
    return {ref.removeprefix(prefix): commit for commit, ref in (line.split(" ", 1) for line in listed)}


def write_trial(
    folder: Path, name: str, values: Sequence[str], stage: str | None, base: str, needed: list[str], store: Store
) -> Path:
    """Write the file of the trial and return its path; `values` are as `run_elsewhere` takes them."""
    stages = list(pipeline()["stages"])
    trial = Trial(
        name=name,
        settings=list(values) if stage else [],
        base=base,
        branch=branch(base),
        hub=store.hub,
        remote=store.remote,
        remote_options=store.options,
        pull=needed,
        stages=stages[: stages.index(stage) + 1] if stage else [],
        repeats=[] if stage else list(values),
        cache=store.cache,
        checkpoints=str((SCRATCH / "checkpoints").absolute()),
    )
    path = folder / f"{name}.json"
    fresh = path.with_suffix(".fresh")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fresh.write_text(trial.model_dump_json(indent=2) + "\n", encoding="utf-8")
        fresh.replace(path)
    return path


def dispatch(trials: Sequence[Path], engine: Engine, hub: str, base: str, detach: bool) -> None:
    """Have a worker run each trial until its experiment is on the hub, or has failed twice. `detach` only begins.

    Raises:
        UserError: the hub does not answer, or no worker has ended or said anything for `STILL` seconds.
    """

    def arrived() -> set[Path]:
        names = retry(lambda: experiments_on(hub, base))
        return {trial for trial in trials if trial.stem in names}

    def begin(some: Iterable[Path]) -> None:
        if chosen := [trial for trial in trials if trial in some]:
            engine.start(chosen)
            starts.update(chosen)

    starts = Counter(engine.active())
    pending = set(trials) - arrived()
    begin(pending - set(starts))
    with tqdm(total=len(trials), initial=len(trials) - len(pending), unit="run", desc="arrived") as progress:
        for trial in trials:
            progress.write(f"{trial.stem}: {'waits' if trial in pending else 'there already'}")
        before = {trial: log_size(trial) for trial in trials}  # bytes that earlier workers have said
        waiting, sizes, news = set(pending), before, time.monotonic()
        while pending and not detach:
            time.sleep(engine.pause)
            ended = pending - engine.active()
            last, sizes = sizes, {trial: log_size(trial) for trial in trials}
            for trial in sorted(trial for trial in waiting if sizes[trial] > before[trial]):
                progress.write(f"{trial.stem}: runs")
                waiting.remove(trial)
            if ended or sizes != last:
                news = time.monotonic()
            elif time.monotonic() > news + STILL:
                raise UserError(still(pending))
            if not ended:
                continue
            done = ended & arrived()
            failed = {trial for trial in ended - done if starts[trial] >= ATTEMPTS}
            again = ended - done - failed
            begin(again)
            for trial in sorted(ended):
                state = "done" if trial in done else f"failed: {last_words(trial)} ({log(trial)})"
                progress.write(f"{trial.stem}: {state}{'; trying again' * (trial in again)}")
            progress.update(len(done))
            pending -= done | failed


def still(pending: set[Path]) -> str:
    first = min(pending)
    return (
        f"no news of {len(pending)} runs for {STILL / 3600:g} h, among them {first.stem} ({log(first)}); look "
        "whether the cluster can start them (squeue, ray status); the same command goes on"
    )


def log_size(trial: Path) -> int:
    return log(trial).stat().st_size if log(trial).exists() else 0


def last_words(trial: Path) -> str:
    """The last line of the trial's log."""
    lines = log(trial).read_text(encoding="utf-8", errors="replace").split("\n") if log(trial).exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "its worker said nothing")


def bring_home(experiments: Iterable[str], base: str, store: Store) -> None:
    """Pull those of `experiments` that the hub has, with their outputs. Raises `UserError`."""
    names = retry(lambda: experiments_on(store.hub, base)).keys() & set(experiments)
    refs = [f"{experiment_refs(base)}{name}" for name in sorted(names - experiments_at_home(base).keys())]
    if refs:
        retry(lambda: transfer("exp", "pull", "--remote", store.remote, store.hub, *refs))
