"""A sweep on workers: what all runs share is made once, a run that fails holds up no other, nothing is run twice."""

import re
from collections.abc import Sequence
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.experiments import driver

import pytest
from commands import ctscan
from toy_repository import Toy, make_toy

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(made: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The repository as the current folder, and a folder for the temporary files of its workers."""
    monkeypatch.chdir(made.home)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return made


def logged(toy: Toy, name: str) -> str:
    (log,) = toy.home.glob(f".scratch/trials/*/{name}.log")
    return log.read_text()


def test_a_run_that_fails_is_tried_twice_and_named_and_then_only_it_is_run_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("sweep", "lr=0.01,0.02", "--on", "local")
    monkeypatch.setenv("FAILS", "0.02")
    with pytest.raises(SystemExit, match=r"^sweep: no result of lr=0\.02; "):
        ctscan(*sweep)
    said = capsys.readouterr().out
    line = r"lr=0\.02: failed: worker: lr=0\.02 failed on .*: lr is not to my taste \(.*/lr=0\.02\.log\)"
    assert re.search(f"^{line}; trying again\n(?s:.*)^{line}$", said, re.MULTILINE)
    assert "lr=0.01: done" in said
    assert logged(toy, "lr=0.02").count("worker: ") == 2
    assert list(toy.on_hub()) == ["lr=0.01"]

    monkeypatch.delenv("FAILS")
    before = logged(toy, "lr=0.01")
    ctscan(*sweep)
    assert "best on validation: dvc exp run -S lr=0.0" in capsys.readouterr().out
    assert logged(toy, "lr=0.01") == before
    assert set(driver.experiments_at_home(toy.run("git", "rev-parse", "HEAD").strip())) == set(toy.on_hub())


def test_a_sweep_of_which_there_is_no_news_ends_with_what_it_waits_for(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck:
        pause = 0.0
        goes_on = True

        def start(self, trials: Sequence[Path]) -> None:
            pass

        def active(self) -> set[Path]:
            return {tmp_path / "stuck.json"}

    monkeypatch.setattr(driver, "STILL", -1)
    with pytest.raises(UserError, match=r"^no news of 1 runs for .*, among them stuck \(.*stuck\.log\); .*squeue"):
        driver.dispatch([tmp_path / "stuck.json"], Stuck(), str(toy.hub), "0" * 40, detach=False)


def test_what_all_runs_share_is_made_once_and_pushed(toy: Toy) -> None:
    store = driver.find_store(None, None)
    head = toy.run("git", "rev-parse", "HEAD").strip()
    shared = [*driver.SHARED, "sample.dvc"]
    assert driver.share([["lr=0.1"], ["lr=0.2"]], store) == (head, shared)

    reseeded = [["lr=0.1", "seed=9"], ["lr=0.2", "seed=9"]]
    base, needed = driver.share(reseeded, store)
    assert (toy.run("git", "rev-parse", f"{base}^").strip(), needed) == (head, shared)
    features = toy.outputs(base)["features.txt"]
    assert features != toy.outputs("HEAD")["features.txt"]
    assert (toy.remote / "files" / "md5" / features[:2] / features[2:]).is_file()
    assert base in toy.run("git", "ls-remote", "origin", f"refs/heads/{driver.branch(base)}")
    assert driver.share(reseeded, store) == (base, needed)


def test_runs_with_splits_of_their_own_need_the_dataset_that_dvc_tracks(toy: Toy) -> None:
    for name in ("mine.dvc", "weights/some.h5.dvc"):
        (toy.home / name).parent.mkdir(exist_ok=True)
        (toy.home / name).touch()
    settings = ["dataset=mine", "dataset=in-git", "weights=some.h5", "weights=imagenet", "seed=1"]
    assert driver.own_inputs(settings) == ["mine.dvc", "sample.dvc", "weights/some.h5.dvc"]


def test_changes_that_no_worker_would_have_are_refused(toy: Toy) -> None:
    script = toy.home / "src" / "stage.py"
    text = script.read_text()
    script.write_text(text + "# changed")
    with pytest.raises(SystemExit, match=r"^sweep: src/stage\.py is not as committed"):
        ctscan("sweep", "lr=0.3", "--on", "local")
    script.write_text(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--on", "local", "--jobs", 0), "--jobs 0: nothing would ever run"),
        (("--collect",), "--collect needs --on"),
        (("--on", "local", "--detach"), "--detach: workers on local need the program that started them"),
    ],
)
def test_options_that_make_no_sense_are_refused(toy: Toy, options: tuple[str | int, ...], message: str) -> None:
    with pytest.raises(SystemExit, match=f"^sweep: {message}"):
        ctscan("sweep", "lr=0.4", *options)


def test_a_hub_or_a_remote_that_is_not_named_is_asked_for(toy: Toy) -> None:
    with pytest.raises(UserError, match="--remote NAME"):
        driver.find_store(None, "unknown")
    toy.run("git", "remote", "rename", "origin", "other")
    with pytest.raises(UserError, match="--hub GIT_URL"):
        driver.find_store(None, None)
    toy.run("git", "remote", "rename", "other", "origin")


def test_a_trial_holds_no_secret(toy: Toy) -> None:
    toy.run("dvc", "remote", "add", "--local", "bucket", "s3://bucket/folder")
    for key, value in (("endpointurl", "http://127.0.0.1:9"), ("secret_access_key", "secret")):
        toy.run("dvc", "remote", "modify", "--local", "bucket", key, value)
    options = driver.find_store("hub", "bucket").options
    assert (options["url"], options["endpointurl"]) == ("s3://bucket/folder", "http://127.0.0.1:9")
    assert "secret" not in str(options)


def test_a_bucket_serves_as_remote(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # As on machines that share no cache, so that the bucket is read as well.
    find_store = driver.find_store
    monkeypatch.setattr(driver, "find_store", lambda hub, remote, here: find_store(hub, remote))
    server = pytest.importorskip("moto.server", reason="no moto: pip install 'moto[server]'")
    pytest.importorskip("dvc_s3", reason="no dvc-s3")
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    bucket.start()
    try:
        address = "http://{}:{}".format(*bucket.get_host_and_port())
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="trials")
        toy.run("dvc", "remote", "add", "--local", "--force", "moto", "s3://trials/folder")
        toy.run("dvc", "remote", "modify", "--local", "moto", "endpointurl", address)
        ctscan("sweep", "lr=0.06", "--on", "local", "--remote", "moto")
    finally:
        bucket.stop()
    assert "lr=0.06: done" in capsys.readouterr().out
