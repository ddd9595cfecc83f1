"""A worker: from a fresh clone to results on the hub and the remote, or one line and nothing on the hub."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ctscan.core.errors import UserError
from ctscan.experiments import trials, worker
from ctscan.experiments.trials import Trial

import psutil
import pytest
from commands import ctscan
from repository import REPO
from toy_repository import STAGES, Toy, make_toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """With its base on the hub, and its features and its dataset on the remote."""
    toy = make_toy(tmp_path_factory.mktemp("toy"))
    toy.run("git", "push", "--quiet", "origin", "HEAD:refs/heads/base")
    toy.run("dvc", "push", "--quiet", "prepare-split", "extract-features", "sample.dvc")
    return toy


@pytest.fixture(autouse=True)
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files of a machine on which nothing is tried again."""
    before = signal.getsignal(signal.SIGTERM)
    folder = tmp_path / "node"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(trials, "DELAYS", ())
    for name in ("DVC_SITE_CACHE_DIR", "GIT_TERMINAL_PROMPT", "PYTHONPATH"):
        monkeypatch.setenv(name, "")  # so that what the worker sets is gone afterwards
    yield folder
    signal.signal(signal.SIGTERM, before)


def write_trial(folder: Path, toy: Toy, lr: str, **changes: Any) -> Path:
    trial = Trial(
        name=f"lr={lr}",
        settings=[f"lr={lr}"],
        base=toy.run("git", "rev-parse", "HEAD").strip(),
        branch="base",
        hub=str(toy.hub),
        remote="store",
        remote_options={"url": str(toy.remote)},
        pull=["extract-features", "sample.dvc"],
        stages=list(STAGES),
        repeats=[],
        cache=None,
        checkpoints=str(folder / "checkpoints"),
    )
    path = folder / "trial.json"
    path.write_text(trial.model_copy(update=changes).model_dump_json())
    return path


def left_on(node: Path) -> list[str]:
    return [path.suffix for path in node.glob("ctscan-*/*")]


def test_an_experiment_arrives_with_the_bytes_of_a_run_at_home_and_the_machine_is_left_clean(
    toy: Toy, node: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_trial(tmp_path, toy, "0.01")
    ctscan("worker", path)
    assert left_on(node) == [".lock"]
    toy.run("dvc", "exp", "run", "--quiet", "--temp", "--name", "lr=0.01", "-S", "lr=0.01")
    at_home = toy.outputs(trials.read_trial(path).ref)
    toy.run("git", "fetch", "--quiet", "origin", trials.read_trial(path).ref)
    assert toy.outputs("FETCH_HEAD") == at_home != toy.outputs("HEAD")
    md5 = at_home["initial.txt"]
    assert (toy.remote / "files" / "md5" / md5[:2] / md5[2:]).is_file()

    capfd.readouterr()
    ctscan("worker", path)
    assert capfd.readouterr().out == "lr=0.01: there already\n"


def test_a_killed_worker_is_continued_by_the_next_one(
    toy: Toy, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_trial(tmp_path, toy, "0.02")
    monkeypatch.setenv("HOLDS", "0.02")
    environment = {**os.environ, "PYTHONPATH": str(REPO / "src"), "TMPDIR": str(node)}
    command = [sys.executable, "-m", "ctscan", "worker", str(path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert "holding\n" in iter(process.stdout.readline, "")  # type: ignore[union-attr]
        process.kill()
    assert "lr=0.02" not in toy.on_hub()
    assert working_in(node)

    ctscan("worker", path)
    assert "continuing after epoch 1" in capfd.readouterr().out
    assert "lr=0.02" in toy.on_hub()
    assert not working_in(node)
    assert left_on(node) == [".lock"]


def working_in(folder: Path) -> list[int]:
    """The processes whose current folder lies in `folder`."""
    places = ((process.pid, process.info["cwd"]) for process in psutil.process_iter(["cwd"]))
    return [pid for pid, cwd in places if cwd and Path(cwd).is_relative_to(folder)]


def test_what_could_not_be_sent_is_sent_later_and_not_run_again(
    toy: Toy, node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_trial(tmp_path, toy, "0.03")
    trial = trials.read_trial(path)
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="the remote is away"):
        patch.setattr(worker, "_send_outputs", _refuse)
        ctscan("worker", path)
    assert trial.name not in toy.on_hub()
    (clone,) = node.glob("ctscan-*/*/clone")

    # Meanwhile the hub gets it from another machine: with the same results, then with others.
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        ctscan("worker", path)
    worker.send(trial, clone)
    assert "another worker, with the same results" in capfd.readouterr().out
    toy.run("git", "push", "--quiet", "--force", "origin", f"HEAD:{trial.ref}")
    with pytest.raises(UserError, match=r"has another lr=0\.03, with other results; it was left as it is"):
        worker.send(trial, clone)
    toy.run("git", "push", "--quiet", "origin", f":{trial.ref}")

    monkeypatch.setattr(worker, "run_stages", lambda *_: pytest.fail("it runs again"))
    ctscan("worker", path)
    assert trial.name in toy.on_hub()
    assert left_on(node) == [".lock"]


def test_with_a_shared_cache_a_stage_that_ran_on_one_machine_is_restored_on_another(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").mkdir()
    path = write_trial(tmp_path, toy, "0.06", cache=str(tmp_path / "cache"))
    ctscan("worker", path)
    toy.run("git", "push", "--quiet", "origin", f":{trials.read_trial(path).ref}")
    assert "is cached" not in capfd.readouterr().out

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ctscan("worker", path)
    assert "Stage 'train-initial' is cached - skipping run" in capfd.readouterr().out
    assert "lr=0.06" in toy.on_hub()


def _refuse(*_: object) -> None:
    raise UserError("the remote is away")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "0" * 40}, r"`git checkout .*` failed: .*0{40}"),
        ({"branch": "none"}, r"`git clone .*` failed: .*none"),
        ({"hub": "/nowhere"}, r"`git ls-remote /nowhere .*` failed: .*/nowhere"),
        ({"remote_options": {"url": "/dev/null"}}, r"the remote store \(.*\) can't be written to: "),
        ({"pull": ["nothing.dvc"]}, r"`dvc pull nothing\.dvc` failed: .*nothing\.dvc"),
        ({"settings": ["lr=0.04", "head.depth=3"]}, r"lr=0\.04 failed on .*: .*head\.depth"),
    ],
    ids=str,
)
def test_what_is_wrong_is_one_line_and_nothing_is_on_the_hub(
    toy: Toy, node: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=f"^worker: {message}") as ended:
        ctscan("worker", write_trial(tmp_path, toy, "0.04", **changes))
    assert len(str(ended.value).splitlines()) == 1
    assert "lr=0.04" not in toy.on_hub()
    assert set(left_on(node)) <= {".lock"}


def test_a_stage_that_fails_says_why(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "0.05")
    with pytest.raises(SystemExit, match=r"^worker: lr=0\.05 failed on .*: train-initial: lr is not to my taste$"):
        ctscan("worker", write_trial(tmp_path, toy, "0.05"))
    assert "lr=0.05" not in toy.on_hub()


@pytest.mark.parametrize(("text", "message"), [("{}", "is not a trial: name: Field required"), (None, "No such file")])
def test_what_is_no_trial_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text:
        (tmp_path / "trial.json").write_text(text)
    with pytest.raises(SystemExit, match=rf"^worker: .*trial\.json.*{message}"):
        ctscan("worker", tmp_path / "trial.json")


def test_a_clone_that_was_cut_off_is_made_anew(toy: Toy, node: Path, tmp_path: Path) -> None:
    trial = trials.read_trial(write_trial(tmp_path, toy, "0.07"))
    rest = tmp_path / "clone" / ".git"
    rest.mkdir(parents=True)
    worker._clone(trial, rest.parent)
    assert (rest / "HEAD").is_file()


def test_a_full_disk_of_the_machine_is_named(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FULL", 2**60)
    with pytest.raises(SystemExit, match=r"^worker: the disk of .* is full \(`git clone .* failed: .*none"):
        ctscan("worker", write_trial(tmp_path, toy, "0.08", branch="none"))


def test_why_dvc_failed_is_said(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"^`dvc push --remote nowhere` failed: .*nowhere"):
        trials.transfer("push", "--remote", "nowhere", at=toy.home)


def test_a_hub_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = tmp_path / "ssh"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setenv("GIT_SSH", str(silent))
    monkeypatch.setattr(trials, "ANSWER", 0.2)
    with pytest.raises(UserError, match=r"^`git ls-remote nobody@nowhere:hub .*` had not ended after 0\.2 s and was"):
        trials.experiments_on("nobody@nowhere:hub", "0" * 40)


def test_another_worker_that_does_not_end_is_named(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = trials.read_trial(write_trial(tmp_path, toy, "0.09"))
    monkeypatch.setattr(worker, "OTHER", -1)
    with (
        worker.own_folder(trial),
        pytest.raises(UserError, match=r"^another worker has run lr=0\.09 here for .* end it"),
        worker.own_folder(trial),
    ):
        pass


def test_a_hub_that_is_away_is_asked_again_and_then_named(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    away = toy.hub.rename(toy.hub.with_name("away"))

    def wait(seconds: int) -> None:
        waited.append(seconds)
        if waited == [2, 5]:
            away.rename(toy.hub)

    monkeypatch.setattr(trials, "DELAYS", (2, 5))
    monkeypatch.setattr(trials, "time", SimpleNamespace(sleep=wait))  # subprocess sleeps too
    trials.retry(lambda: trials.experiments_on(str(toy.hub), "0" * 40))
    assert waited == [2, 5]
    toy.hub.rename(away)
    with pytest.raises(UserError, match=r"^`git ls-remote .*` failed: fatal: [^\n]*$"):
        trials.retry(lambda: trials.experiments_on(str(toy.hub), "0" * 40))
    assert waited == [2, 5, 2, 5]
    away.rename(toy.hub)
