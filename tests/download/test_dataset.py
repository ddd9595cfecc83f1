"""`ctscan data`, end to end: from archives, and from a server that speaks the endpoint that kagglehub calls."""

import base64
import errno
import hashlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ctscan.download import archives, dataset, release

import pytest
from commands import ctscan
from dvc.repo import Repo
from repository import REPO

IMAGES = {
    f"{folder} ({n}).png": random.Random(folder).randbytes(40_000)
    for folder in ("COVID/Covid", "non-COVID/Non-Covid")
    for n in (1, 2, 3)
}
OLD = {"COVID/old.png": b"old", "non-COVID/old.png": b"old"}


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository whose data.dvc pins the study's release, as in a fresh clone."""
    root = tmp_path_factory.mktemp("template")
    Repo.init(str(root), no_scm=True).close()
    for name in ("params.yaml", "data.dvc"):
        shutil.copy(REPO / name, root)
    return root


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "repo"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="session")
def pin_of_images(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pinned") / "repo"
    shutil.copytree(template, root)
    fill(root / "data", IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        release.pin(Path("data"))
    return root


@pytest.fixture
def pinned(repo: Path, pin_of_images: Path) -> Path:
    """As `repo`, with data.dvc pinning `IMAGES`, their listing in DVC's cache, and no data/."""
    shutil.copy(pin_of_images / "data.dvc", repo)
    shutil.copytree(pin_of_images / ".dvc" / "cache", repo / ".dvc" / "cache", dirs_exist_ok=True)
    return repo


def run(*arguments: str | Path) -> None:
    ctscan("data", *arguments)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line of a run that fails and leaves data/, data.dvc and params.yaml as they were, and no remains."""
    fill(Path("data"), OLD)
    before = {name: Path(name).read_bytes() for name in ("data.dvc", "params.yaml")}
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    message = str(caught.value.code)  # a text: Python prints it on stderr and exits with 1
    assert message.startswith("data: ")
    assert "\n" not in message
    assert "Traceback" not in capsys.readouterr().err
    assert contents(Path("data")) == OLD
    assert {name: Path(name).read_bytes() for name in before} == before
    assert {path.name for path in Path(".scratch/fetch").glob("*")} <= {"release.archive"}
    return message


# From an archive


@pytest.mark.parametrize("below", ["", "dataset/", "a/b/c/"])
def test_class_folders_wherever_they_are(pinned: Path, below: str, capsys: pytest.CaptureFixture[str]) -> None:
    junk = {
        f"__MACOSX/{below}COVID/._Covid (1).png": b"x",
        f"__MACOSX/{below}COVID/Covid (1).png": b"x",
        ".hidden/COVID/a.png": b"x",
        f"{below}COVID/.DS_Store": b"x",
        "README.txt": b"x",
    }
    fill(pinned / "data", OLD)
    run("--archive", pack(pinned / "a.zip", {below + name: content for name, content in IMAGES.items()} | junk))
    assert contents(pinned / "data") == IMAGES
    out = capsys.readouterr().out
    assert "data/ is the pinned release (6 files, 240000 bytes)" in out
    assert "CC BY-NC-SA 4.0" in out
    assert "medRxiv 2020.04.24.20078584" in out


def test_case_of_the_class_folders(pinned: Path) -> None:
    run("--archive", pack(pinned / "a.zip", {name.replace("non-COVID", "Non-covid"): IMAGES[name] for name in IMAGES}))
    assert contents(pinned / "data") == IMAGES


def test_one_class_folder_inside_the_other(repo: Path) -> None:
    run("--archive", pack(repo / "a.zip", {"COVID/a.png": b"a", "COVID/non-COVID/b.png": b"b"}))
    assert contents(repo / "data") == {"COVID/a.png": b"a", "non-COVID/b.png": b"b"}


def test_folder_and_data_itself_as_source(pinned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(pinned / "own", IMAGES)
    run("--archive", pinned / "own")
    run("--archive", "data")
    assert contents(pinned / "own") == contents(pinned / "data") == IMAGES
    assert capsys.readouterr().out.count("is the pinned release") == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"COVID/a.png": b"a"}, "no folder 'non-COVID' with images"),
        ({"COVID/a.png": b"a", "non-COVID/a.txt": b"a"}, "no folder 'non-COVID' with images"),
        ({"COVID/a.png": b"a", "non-COVID/.a.png": b"a"}, "no folder 'non-COVID' with images"),
        ({"COVID/a.png": b"a", "__MACOSX/non-COVID/a.png": b"a"}, "no folder 'non-COVID' with images"),
        ({"inner.zip": b"PK"}, "no folder 'COVID' with images"),
        (
            {f"{part}/{name}/a.png": b"a" for part in ("train", "test") for name in ("COVID", "Non-COVID")},
            "several folders 'COVID': 'test/COVID', 'train/COVID'",
        ),
        ({"../a.png": b"a", **IMAGES}, "'../a.png' leads out of the folder"),
    ],
)
def test_archive_without_the_two_folders(
    repo: Path, files: dict[str, bytes], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in failure(capsys, "--archive", pack(repo / "a.zip", files))


def test_damaged_and_absent_archive(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = pack(repo / "a.zip", IMAGES)
    archive.write_bytes(archive.read_bytes()[:100_000])
    assert "a.zip: is damaged or cut short" in failure(capsys, "--archive", archive)
    assert "absent.zip: there is no such file" in failure(capsys, "--archive", "absent.zip")


def test_no_archive_is_lost_or_changed(repo: Path) -> None:
    archive = pack(repo / "a.zip", IMAGES)
    before = archive.read_bytes()
    run("--archive", archive)
    assert archive.read_bytes() == before


@pytest.mark.parametrize("when", ["_gather", "_swap", "_remove"])
def test_kill_at_any_moment(pinned: Path, when: str) -> None:
    """SIGKILL before the folders move together, between the two renames of the swap, and while the old data/ goes."""
    fill(pinned / "data", OLD)
    archive = pack(pinned / "a.zip", IMAGES)
    script = f"""
import os, pathlib, signal, sys
sys.path.insert(0, {str(REPO / "src")!r})
from ctscan.download import dataset
from ctscan.core.params import read_params
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if {when!r} == "_swap":
    rename, calls = pathlib.Path.rename, []
    def second(path, target):
        if path == dataset._FRESH:
            die()
        return rename(path, target)
    pathlib.Path.rename = second
elif {when!r} == "_remove":
    remove = dataset._remove
    dataset._remove = lambda path: die() if path == dataset._OLD and path.exists() else remove(path)
else:
    dataset._gather = die
dataset.fetch(read_params().classes, pathlib.Path({str(archive)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    left = contents(pinned / "data") if (pinned / "data").exists() else None
    assert left == {"_gather": OLD, "_swap": None, "_remove": IMAGES}[when]
    assert list(Path(".scratch/fetch").iterdir())

    before = left if left is not None else OLD
    with pytest.raises(SystemExit):
        run("--archive", "absent.zip")
    assert contents(pinned / "data") == before
    assert not list(Path(".scratch/fetch").iterdir())
    run("--archive", archive)
    assert contents(pinned / "data") == IMAGES


def test_interrupt(repo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    fill(repo / "data", OLD)
    monkeypatch.setattr(dataset, "_gather", interrupt)
    with pytest.raises(SystemExit) as caught:
        run("--archive", pack(repo / "a.zip", IMAGES))
    assert caught.value.code == 130
    assert "interrupted; data/ is whole" in capsys.readouterr().err
    assert contents(repo / "data") == OLD
    assert not list(Path(".scratch/fetch").iterdir())


def test_command_exits_with_1_and_one_line(repo: Path) -> None:
    command = [sys.executable, "-m", "ctscan", "data", "--archive", "absent.zip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=repo)
    assert done.returncode == 1
    assert done.stderr == "data: absent.zip: there is no such file or folder; check the path\n"


# The comparison with data.dvc


def test_names_what_differs_from_the_listing(pinned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = dict(IMAGES)
    files["COVID/Covid (2).png"] = b"other"
    del files["COVID/Covid (3).png"]
    files |= {f"COVID/new {n:02}.png": b"new" for n in range(12)}
    run("--archive", pack(pinned / "a.zip", files))
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines == [
        "data/ differs from the pinned release (6 files, 240000 bytes): it holds 17 files, 160041 bytes",
        "  missing: 1 files: COVID/Covid (3).png",
        "  extra: 12 files: " + ", ".join(f"COVID/new {n:02}.png" for n in range(10)) + ", ...",
        "  changed: 1 files: COVID/Covid (2).png",
    ]


def png(colour_type: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(8) + b"\x08" + bytes([colour_type]) + bytes(3)


def release_copy(colour_type: int | None = None) -> dict[str, bytes]:
    """The release's names, each a PNG header of `colour_type` or its own: COVID 1-413 RGB, the rest RGBA."""
    own = {f"COVID/Covid ({n}).png": 2 if n < 414 else 6 for n in range(1, 1253)}
    own |= {f"non-COVID/Non-Covid ({n}).png": 6 for n in range(1, 1231) if n != 151}
    return {name: png(own[name] if colour_type is None else colour_type) for name in own}


def test_reencoded_release_differs_in_all_files(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pin = Path("data.dvc").read_bytes()
    run("--archive", pack(repo / "a.zip", release_copy(colour_type=0)))
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].startswith(
        "data/ differs from the pinned release (2481 files, 242234624 bytes): it holds 2481 files"
    )
    assert lines[1].startswith("  changed: all 2481 files: COVID/Covid (1).png, COVID/Covid (10).png")
    assert lines[1].count(".png") == 10
    assert len(lines) == 2
    assert Path("data.dvc").read_bytes() == pin


def test_without_the_listing_it_says_what_it_cannot_tell(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = release_copy()
    del files["COVID/Covid (7).png"]
    files["COVID/Covid (414).png"] = png(2)
    files["non-COVID/Non-Covid (151).png"] = png(6)
    files["non-COVID/Non-Covid (150).png"] = b"text"
    run("--archive", pack(repo / "a.zip", files))
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  missing: 1 files: COVID/Covid (7).png",
        "  extra: 1 files: non-COVID/Non-Covid (151).png",
        "  changed: 2 files: COVID/Covid (414).png, non-COVID/Non-Covid (150).png",
        "  of the other 2478 files some or all may have changed: the listing that the pin names isn't in DVC's cache, "
        "so the bytes can't be compared one by one",
    ]


def test_pin_on_demand_alone(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = pack(repo / "a.zip", IMAGES)
    run("--archive", archive, "--pin")
    assert "data.dvc now pins data/" in capsys.readouterr().out
    assert "nfiles: 6" in Path("data.dvc").read_text()
    run("--archive", archive)
    assert "data/ is the pinned release (6 files, 240000 bytes)" in capsys.readouterr().out

    shutil.rmtree(".dvc/cache")
    run("--archive", pack(archive, {**IMAGES, "COVID/new.png": b"x"}))
    assert "in which files can't be told" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", [None, "outs: [", "outs:\n- path: data\n", "outs:\n- path: data\n  md5: abc\n  hash: md5\n"]
)
def test_bad_pin_is_found_before_anything_moves(repo: Path, text: str | None) -> None:
    fill(repo / "data", OLD)
    Path("data.dvc").unlink()
    if text is not None:
        Path("data.dvc").write_text(text)
    with pytest.raises(SystemExit, match=r"^data: data\.dvc: [^\n]*restore it with `git checkout data\.dvc[^\n]*$"):
        run("--archive", pack(repo / "a.zip", IMAGES))
    assert contents(repo / "data") == OLD


# The download


class Kaggle(ThreadingHTTPServer):
    """The endpoint `DownloadDataset`, which redirects to the archive as the real one does, and its faults."""

    daemon_threads = True

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = body
        self.status = 200
        self.drop_after: list[int] = []  # bytes until each answer in turn breaks off; none left: whole
        self.declared: int | None = None  # Content-Length
        self.md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
        self.ranges = True
        self.stall = threading.Event()
        self.closing = threading.Event()
        self.pause = 0.0
        self.requests: list[tuple[str, str | None, str | None]] = []  # path, Range, Authorization
        self.stall.set()

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, *_: object) -> None:
        pass

    def note(self) -> None:
        self.server.requests.append((self.path, self.headers["Range"], self.headers["Authorization"]))

    def do_POST(self) -> None:
        self.note()
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        assert b'"sarscov2-ctscan-dataset"' in asked
        if self.server.status != 200:
            self.send_response(self.server.status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"code": %d, "message": "no\\nway"}' % self.server.status)
            return
        self.server.stall.wait()
        self.send_response(302)
        self.send_header("Location", "/blob/archive.zip")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.note()
        body, asked = self.server.body, self.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        declared = len(body) if self.server.declared is None else self.server.declared
        self.send_header("Content-Length", str(declared - start))
        self.send_header("x-goog-hash", f"crc32c=AAAAAA==,md5={self.server.md5}")
        self.end_headers()
        # kagglehub resumes by a second GET and leaves the first unread, so a resumption takes two of the drops.
        rest = body[start:]
        if self.server.drop_after:
            rest = rest[: self.server.drop_after.pop(0)]
        for block in range(0, len(rest), 10_000):
            if self.server.pause:
                self.server.closing.wait(self.server.pause)
            self.wfile.write(rest[block : block + 10_000])


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    from kagglesdk import kaggle_env

    for name in [name for name in os.environ if name.startswith("KAGGLE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Kaggle(pack(tmp_path / "release.zip", IMAGES).read_bytes())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setitem(
        kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, f"http://127.0.0.1:{server.server_port}"
    )
    monkeypatch.setattr(dataset, "TIMEOUT", (1.5, 1.5))
    # kagglehub asks in steps of this; the archive here is smaller than one.
    monkeypatch.setattr("kagglehub.clients.CHUNK_SIZE", 10_000)
    yield server
    server.stall.set()
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def assert_fetched(repo: Path) -> None:
    assert contents(repo / "data") == IMAGES
    assert not list((repo / ".scratch" / "fetch").iterdir())


def test_download(pinned: Path, kaggle: Kaggle, capsys: pytest.CaptureFixture[str]) -> None:
    fill(pinned / "data", OLD)
    run()
    assert_fetched(pinned)
    captured = capsys.readouterr()
    assert "data/ is the pinned release (6 files, 240000 bytes)" in captured.out
    assert "100%" in captured.err
    assert kaggle.requests == [
        ("/v1/datasets.DatasetApiService/DownloadDataset", None, None),
        ("/blob/archive.zip", None, None),
    ]
    run()
    assert len(kaggle.requests) == 2
    assert "data/ is the pinned release" in capsys.readouterr().out


def test_credentials_are_used_if_present(pinned: Path, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_USERNAME", "someone")
    monkeypatch.setenv("KAGGLE_KEY", "key")
    run()
    assert_fetched(pinned)
    assert kaggle.requests[0][2] == "Basic " + base64.b64encode(b"someone:key").decode()


@pytest.mark.usefixtures("pinned")
def test_unreadable_credentials(kaggle: Kaggle, capsys: pytest.CaptureFixture[str]) -> None:
    Path.home().joinpath(".kaggle").mkdir()
    Path.home().joinpath(".kaggle", "kaggle.json").write_text("{")
    assert "mend or remove ~/.kaggle/kaggle.json" in failure(capsys)
    assert kaggle.requests == []


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "access is refused (HTTP 401)"),
        (403, "access is refused (HTTP 403)"),
        (404, "no such dataset on Kaggle any more (HTTP 404)"),
        (429, "the server answers HTTP 429; try again later"),
        (503, "the server answers HTTP 503; try again later"),
    ],
)
def test_refusals(kaggle: Kaggle, status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.status = status
    text = failure(capsys)
    assert message in text
    assert "plameneduardo/sarscov2-ctscan-dataset" in text
    assert "`ctscan data --archive PATH`" in text


def test_drops_are_resumed(pinned: Path, kaggle: Kaggle) -> None:
    kaggle.drop_after = [100_000, 0, 50_000, 0, 60_000]
    run()
    assert_fetched(pinned)
    ranges = [asked for _, asked, _ in kaggle.requests if asked]
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in ranges]
    assert starts == sorted(set(starts))
    assert 0 < starts[0] <= 100_000


def test_dropped_for_good_then_resumed_by_the_next_run(
    pinned: Path, kaggle: Kaggle, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.drop_after = [100_000] + [0] * 50
    text = failure(capsys)
    assert "dropped the connection" in text
    assert "run `ctscan data` again, which goes on from there" in text
    part = Path(".scratch/fetch/release.archive").stat().st_size
    assert 0 < part <= 100_000
    kaggle.drop_after, kaggle.requests = [], []
    run()
    assert_fetched(pinned)
    assert [asked for _, asked, _ in kaggle.requests if asked] == [f"bytes={part}-"]


def test_server_without_ranges(pinned: Path, kaggle: Kaggle, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.ranges = False
    kaggle.drop_after = [100_000, 100_000]
    assert "dropped the connection" in failure(capsys)
    run()
    assert_fetched(pinned)


def test_truncated_body(pinned: Path, kaggle: Kaggle, capsys: pytest.CaptureFixture[str]) -> None:
    whole, kaggle.body = kaggle.body, kaggle.body[:150_000]
    kaggle.declared = len(whole)
    assert "dropped the connection" in failure(capsys)
    kaggle.body = whole
    run()
    assert_fetched(pinned)


@pytest.mark.parametrize("announced", [True, False])
def test_wrong_length(pinned: Path, kaggle: Kaggle, announced: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A length too small ends the body early and without an error of the network's."""
    kaggle.declared = 150_000
    if not announced:
        kaggle.md5 = ""
    text = failure(capsys)
    assert ("another checksum than the server announced" if announced else "damaged or cut short") in text
    assert "run `ctscan data` again" in text
    assert not Path(".scratch/fetch/release.archive").exists()
    kaggle.declared = None
    run()
    assert_fetched(pinned)


@pytest.mark.usefixtures("kaggle")
def test_part_of_something_else(pinned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(Path(".scratch/fetch"), {"release.archive": b"x" * 100_000})
    assert "another checksum" in failure(capsys)
    run()
    assert_fetched(pinned)


@pytest.mark.usefixtures("pinned")
def test_hostile_release(kaggle: Kaggle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.body = pack(tmp_path / "hostile.zip", {"../../../out.png": b"x", **IMAGES}).read_bytes()
    kaggle.md5 = base64.b64encode(hashlib.md5(kaggle.body).digest()).decode()
    text = failure(capsys)
    assert "plameneduardo/sarscov2-ctscan-dataset" in text
    assert "leads out of the folder" in text
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.usefixtures("pinned")
def test_release_without_the_two_folders(kaggle: Kaggle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.body = pack(tmp_path / "other.zip", {"other/a.png": b"x"}).read_bytes()
    kaggle.md5 = base64.b64encode(hashlib.md5(kaggle.body).digest()).decode()
    text = failure(capsys)
    assert "plameneduardo/sarscov2-ctscan-dataset" in text
    assert "no folder 'COVID' with images" in text
    assert not Path(".scratch/fetch/release.archive").exists()


@pytest.mark.usefixtures("kaggle", "pinned")
def test_bomb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 100_000)
    assert "unpacks to more than 100000 bytes" in failure(capsys)


def test_slow_but_steady(pinned: Path, kaggle: Kaggle) -> None:
    kaggle.pause = 0.08
    started = time.monotonic()
    run()
    assert time.monotonic() - started > dataset.TIMEOUT[1]
    assert_fetched(pinned)


@pytest.mark.usefixtures("pinned")
def test_silent_server(kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(dataset, "TIMEOUT", (0.3, 0.3))
    kaggle.stall.clear()
    started = time.monotonic()
    assert "can't be reached or dropped the connection (ReadTimeout)" in failure(capsys)
    assert time.monotonic() - started < 10


@pytest.mark.usefixtures("kaggle", "pinned")
def test_full_disk(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("kagglehub.clients.download_file", full)
    assert ".scratch/fetch: No space left on device" in failure(capsys)


@pytest.mark.usefixtures("kaggle", "pinned")
def test_no_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:1")
    text = failure(capsys)
    assert "the server can't be reached" in text
    assert "`ctscan data --archive PATH`" in text


def test_limits_fail_within_half_a_minute() -> None:
    assert sum(dataset.TIMEOUT) <= 30
