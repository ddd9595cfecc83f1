"""The same sweep by DVC's queue and by every engine gives the same bytes, whatever is killed or preempted meanwhile."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml
from quick_clone import commit, make_quick_clone
from repository import REPO
from slurm import AVAILABLE, running_slurm
from toy_repository import make_toy

pytestmark = [pytest.mark.slow, pytest.mark.comparison]

EPOCHS = 30  # of fine-tuning, so that there is time to interrupt it
PATIENCE = 300  # seconds that any command may take; the slowest takes 100 on two cores that do nothing else
GRID = f"lr=1e-3,1e-2 finetune_lr=1e-4,1e-3 finetune.epochs={EPOCHS} finetune.patience={EPOCHS} --until finetune"
Outputs = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose features are committed, with a dataset that DVC tracks."""
    clone = make_quick_clone(tmp_path_factory.mktemp("base") / "clone")
    succeeds(clone, "git rm -rq --cached few && dvc add --quiet few")
    succeeds(clone, "dvc repro --quiet extract-features")
    commit(clone)
    return clone


@pytest.fixture(scope="module")
def queued(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    """What DVC's queue makes of the sweep on one machine."""
    clone = copy(base, tmp_path_factory.mktemp("queue"))
    succeeds(clone, f"ctscan sweep {GRID} --workers 2")
    return outputs(clone)


@pytest.fixture
def home(base: Path, tmp_path: Path) -> Path:
    """A copy of the clone with a hub and a remote."""
    succeeds(tmp_path, "git init -q --bare hub && mkdir remote")
    return connect(copy(base, tmp_path), tmp_path)


def connect(clone: Path, folder: Path) -> Path:
    """The clone with the hub and the remote that lie in `folder`."""
    succeeds(clone, f"git remote add origin '{folder}/hub' && dvc remote add --local -d store '{folder}/remote'")
    return clone


def copy(base: Path, folder: Path) -> Path:
    """`base` below `folder`, with programs that import the copy's code."""
    clone = Path(shutil.copytree(base, folder / "clone", symlinks=True))
    python = clone / ".venv" / "bin" / "python"
    python.write_text(python.read_text().replace(str(base), str(clone)))
    return clone


@contextmanager
def started(clone: Path, command: str, variables: Mapping[str, str] = os.environ) -> Iterator[subprocess.Popen[str]]:
    """The command in bash, as with the clone's .venv activated. What is left of it in the end is killed."""
    environment = {**variables, "PATH": f"{clone}/.venv/bin{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    with (clone.with_suffix(".said")).open("w") as said:
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=clone,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def finish(clone: Path, process: subprocess.Popen[str]) -> str:
    """What it prints. It fails the test if it fails, or has not ended in time."""
    command = process.args[-1]  # type: ignore[index]
    try:
        printed, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.fail(f"still running after {PATIENCE} s: {command!r}\n{said(clone)}")
    assert process.returncode == 0, f"{command!r}\n{printed}{said(clone)}"
    return printed


def succeeds(clone: Path, command: str, variables: Mapping[str, str] = os.environ) -> str:
    with started(clone, command, variables) as process:
        return finish(clone, process)


def said(clone: Path) -> str:
    """The last words of the last command, and of each worker."""
    logs = [clone.with_suffix(".said"), *clone.glob(".scratch/trials/*/*.log")]
    return "\n".join(f"{path.name}: {path.read_text()[-1000:]}" for path in logs)


def outputs(clone: Path) -> Outputs:
    """The md5 of each output of each experiment, as its dvc.lock has it."""
    refs = succeeds(clone, "git for-each-ref --format='%(refname)' refs/exps").split()
    found = {}
    for ref in refs:
        name = ref.rsplit("/", 1)[1]
        if name.startswith("finetune,"):
            stages = yaml.safe_load(succeeds(clone, f"git show '{ref}:dvc.lock'"))["stages"]
            found[name] = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    assert len(found) == 4
    return found


def logs(clone: Path) -> str:
    return "".join(path.read_text() for path in clone.glob(".scratch/trials/*/*.log"))


def wait_for_finetuning(clone: Path, driver: subprocess.Popen[str]) -> int:
    """The process of a stage that has a checkpoint of its first epoch of fine-tuning."""
    until = time.monotonic() + PATIENCE
    while not (found := list(clone.glob(".scratch/checkpoints/finetune/*/last.npz"))):
        assert driver.poll() is None, said(clone)
        assert time.monotonic() < until, f"no checkpoint of fine-tuning after {PATIENCE} s\n{said(clone)}"
        time.sleep(0.05)
    return int(found[0].parent.with_suffix(".lock").read_text())


def test_local_workers_though_the_driver_and_a_worker_are_killed(home: Path, queued: Outputs) -> None:
    sweep = f"ctscan sweep {GRID} --on local --jobs 2"
    with started(home, f"exec {sweep}") as driver:
        stage = psutil.Process(wait_for_finetuning(home, driver))
        of_driver = stage.parents()
        for process in (driver, *of_driver[of_driver.index(psutil.Process(driver.pid)) - 1 :: -1], stage):
            process.kill()
        succeeds(home, sweep)
    assert outputs(home) == queued
    assert re.search(r"continuing after epoch \d+", logs(home))
    # Nothing is run twice: the other worker went on without the driver.
    assert logs(home).count("finetune: best epoch") == len(queued)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of the users of a Slurm on this machine."""
    if not AVAILABLE:
        pytest.skip("no Slurm: apt-get install slurm-wlm munge, as root")
    pytest.importorskip("submitit")
    with ExitStack() as stack:
        try:
            variables = stack.enter_context(running_slurm(tmp_path / "slurm"))
        except RuntimeError as error:
            pytest.skip(f"Slurm does not start here: {error}")
        yield {**os.environ, **variables}


def test_slurm_though_the_driver_leaves_and_jobs_are_preempted(
    home: Path, base: Path, queued: Outputs, slurm: dict[str, str]
) -> None:
    sweep = f"ctscan sweep {GRID} --on slurm --jobs 2"
    succeeds(home, f"{sweep} --detach", slurm)
    with started(home, f"exec {sweep}", slurm) as driver:
        wait_for_finetuning(home, driver)
        for job in succeeds(home, "squeue --noheader --states=running --format=%A", slurm).split():
            succeeds(home, f"scontrol requeue {job}", slurm)
        finish(home, driver)
    assert outputs(home) == queued
    assert len(list(home.glob(".scratch/trials/*/slurm/*_submitted.pkl"))) == len(queued)
    other = connect(copy(base, home.parent / "other"), home.parent)
    assert "best on validation" in succeeds(other, f"{sweep} --collect", slurm)
    assert outputs(other) == queued
    assert re.search(r"continuing after epoch \d+", logs(home))


def test_ray(home: Path, queued: Outputs) -> None:
    if not find_spec("ray"):
        pytest.skip("no Ray: pip install 'ctscan[ray]'")
    succeeds(home, f"ctscan sweep {GRID} --on ray --jobs 2")
    assert outputs(home) == queued


def test_repeats_are_those_of_one_machine(home: Path) -> None:
    repeats = "ctscan repeats --seeds 2"
    written = home / "metrics" / "repeats" / "random.json"
    succeeds(home, repeats)
    at_home = written.read_bytes()
    written.unlink()
    succeeds(home, f"{repeats} --on local --jobs 2")
    assert written.read_bytes() == at_home


def test_no_experiment_is_lost_though_eight_workers_of_two_sweeps_push_at_once(tmp_path: Path) -> None:
    toy = make_toy(tmp_path / "toy")
    other = toy._replace(home=Path(shutil.copytree(toy.home, toy.home.with_name("other"))))
    other.run("git", "commit", "--quiet", "--allow-empty", "--message", "another's")
    rates = [f"0.0{number}" for number in range(1, 5)]
    ctscan = f"PYTHONPATH='{REPO}/src' exec '{sys.executable}' -m ctscan"
    sweep = f"{ctscan} sweep lr={','.join(rates)} --on local --jobs 4"
    with started(toy.home, sweep) as one, started(other.home, sweep) as another:
        finish(toy.home, one)
        finish(other.home, another)
    names = [f"lr={rate}" for rate in rates]
    on_hub = toy.run("git", "ls-remote", str(toy.hub), "refs/exps/*").replace("\t", " ").splitlines()
    at_home = [
        line
        for place in (toy, other)
        for line in place.run("git", "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
        if line.rsplit("/", 1)[1] in names
    ]
    assert sorted(at_home) == sorted(on_hub)
    assert len(on_hub) == len(set(on_hub)) == 8
