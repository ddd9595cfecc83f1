"""The dataset from archives, folders and a server that stands in for Kaggle's, and its comparison with data.dvc."""

import base64
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.params import read_params
from ctscan.download import dataset, release
from ctscan.download.dataset import fetch
from ctscan.download.release import describe

import pytest
from dvc.exceptions import CheckoutError
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
    for name in ("params.yaml", "data.dvc", ".dvcignore"):
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
    """As `repo`, with data.dvc pinning `IMAGES`; neither data/ nor DVC's cache holds them."""
    shutil.copy(pin_of_images / "data.dvc", repo)
    return repo


def get(archive: Path | None = None) -> list[str]:
    """Fill data/; the lines that compare it with data.dvc, which stays as it is."""
    pin = Path("data.dvc").read_bytes()
    fetch(read_params().classes, archive)
    assert Path("data.dvc").read_bytes() == pin
    assert {path.name for path in Path(".scratch/fetch").glob("*")} == set()
    return describe(Path("data"))[1]


def failure(archive: Path | None = None) -> str:
    """The one line of a call that fails and leaves data/ and data.dvc as they were."""
    fill(Path("data"), OLD)
    pin = Path("data.dvc").read_bytes()
    with pytest.raises(UserError) as caught:
        fetch(read_params().classes, archive)
    assert "\n" not in str(caught.value)
    assert contents(Path("data")) == OLD
    assert Path("data.dvc").read_bytes() == pin
    assert {path.name for path in Path(".scratch/fetch").glob("*")} <= {"kagglehub"}
    return str(caught.value)


# From an archive


@pytest.mark.parametrize("below", ["", "a/b/c/"])
def test_class_folders_wherever_they_are(pinned: Path, below: str) -> None:
    junk = {
        f"__MACOSX/{below}COVID/Covid (1).png": b"x",
        ".hidden/COVID/a.png": b"x",
        f"{below}COVID/.DS_Store": b"x",
        "README.txt": b"x",
    }
    files = {below + name.replace("non-COVID", "Non-covid"): content for name, content in IMAGES.items()} | junk
    fill(pinned / "data", OLD)
    archive = pack(pinned / "a.zip", files)
    before = archive.read_bytes()
    assert get(archive) == ["data/ is the pinned release (6 files, 240000 bytes)"]
    assert contents(pinned / "data") == IMAGES
    assert archive.read_bytes() == before


def test_one_class_folder_inside_the_other(repo: Path) -> None:
    get(pack(repo / "a.zip", {"COVID/a.webp": b"a", "COVID/non-COVID/b.png": b"b"}))
    assert contents(repo / "data") == {"COVID/a.webp": b"a", "non-COVID/b.png": b"b"}


def test_folder_and_data_itself_as_source(pinned: Path) -> None:
    fill(pinned / "own", {**IMAGES, "COVID/.hidden": b"x"})
    (pinned / "own" / "COVID" / "Covid (1).png").rename(pinned / "elsewhere.png")
    (pinned / "own" / "COVID" / "Covid (1).png").symlink_to("../../elsewhere.png")
    assert "is the pinned release" in get(Path("own"))[0]
    assert not any(path.is_symlink() for path in (pinned / "data").rglob("*"))
    assert "is the pinned release" in get(Path("data"))[0]
    assert contents(pinned / "own") == {**IMAGES, "COVID/.hidden": b"x"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"COVID/a.png": b"a", "non-COVID/a.txt": b"a", "non-COVID/.a.png": b"a"}, "no folder 'non-COVID' with images"),
        ({"COVID/a.png": b"a", "__MACOSX/non-COVID/a.png": b"a"}, "no folder 'non-COVID' with images"),
        (
            {f"{part}/{name}/a.png": b"a" for part in ("train", "test") for name in ("COVID", "Non-COVID")},
            "several folders 'COVID': 'test/COVID', 'train/COVID'",
        ),
    ],
)
def test_archive_without_the_two_folders(repo: Path, files: dict[str, bytes], message: str) -> None:
    assert f"a.zip: holds {message}" in failure(pack(repo / "a.zip", files))


def test_damaged_and_absent_archive(repo: Path) -> None:
    archive = pack(repo / "a.zip", IMAGES)
    archive.write_bytes(archive.read_bytes()[:100_000])
    assert "a.zip: is no zip or tar that can be unpacked" in failure(archive)
    assert failure(Path("absent.zip")).startswith("absent.zip: No such file or directory; ")


def test_what_the_file_system_refuses_is_one_line(repo: Path) -> None:
    (repo / ".scratch").write_text("a file where the folder should be")
    assert failure(pack(repo / "a.zip", IMAGES)).startswith(".scratch/fetch: Not a directory; ")


@pytest.mark.parametrize("when", ["_gather", "_swap", "_remove"])
def test_kill_at_any_moment(pinned: Path, when: str) -> None:
    """SIGKILL before the folders come together, between the two renames of the swap, and while the old data/ goes."""
    fill(pinned / "data", OLD)
    archive = pack(pinned / "a.zip", IMAGES)
    script = f"""
import os, pathlib, signal
from ctscan.download import dataset
from ctscan.core.params import read_params
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if {when!r} == "_swap":
    rename = pathlib.Path.rename
    pathlib.Path.rename = lambda path, target: die() if path == dataset._FRESH else rename(path, target)
elif {when!r} == "_remove":
    remove = dataset._remove
    dataset._remove = lambda path: die() if path == dataset._OLD and path.exists() else remove(path)
else:
    dataset._gather = die
dataset.fetch(read_params().classes, pathlib.Path({str(archive)!r}))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPO / "src")}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == -9
    left = contents(pinned / "data") if (pinned / "data").exists() else None
    assert left == {"_gather": OLD, "_swap": None, "_remove": IMAGES}[when]
    assert list(Path(".scratch/fetch").iterdir())

    with pytest.raises(UserError):
        fetch(read_params().classes, Path("absent.zip"))
    assert contents(pinned / "data") == (left or OLD)
    assert not list(Path(".scratch/fetch").iterdir())
    assert "is the pinned release" in get(archive)[0]


def test_interrupt(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    fill(repo / "data", OLD)
    monkeypatch.setattr(dataset, "_gather", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(read_params().classes, pack(repo / "a.zip", IMAGES))
    assert contents(repo / "data") == OLD
    assert not list(Path(".scratch/fetch").iterdir())


# The comparison with data.dvc


def test_names_what_differs_from_the_listing(pinned: Path, pin_of_images: Path) -> None:
    shutil.copytree(pin_of_images / ".dvc" / "cache", pinned / ".dvc" / "cache", dirs_exist_ok=True)
    files = dict(IMAGES)
    files["COVID/Covid (2).png"] = b"other"
    del files["COVID/Covid (3).png"]
    files |= {f"COVID/new {n:02}.png": b"new" for n in range(12)}
    assert get(pack(pinned / "a.zip", files))[:4] == [
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


def test_reencoded_release_differs_in_all_files(repo: Path) -> None:
    fill(repo / "data", release_copy(colour_type=0))
    is_release, lines = describe(Path("data"))
    assert not is_release
    assert lines[0].startswith(
        "data/ differs from the pinned release (2481 files, 242234624 bytes): it holds 2481 files"
    )
    assert lines[1].startswith("  changed: all 2481 files: COVID/Covid (1).png, COVID/Covid (10).png")
    assert lines[1].count(".png") == 10
    assert len(lines) == 2


def test_without_the_listing_it_says_what_it_cannot_tell(repo: Path) -> None:
    files = release_copy()
    del files["COVID/Covid (7).png"]
    files["COVID/Covid (414).png"] = png(2)
    files["non-COVID/Non-Covid (151).png"] = png(6)
    files["non-COVID/Non-Covid (150).png"] = b"text"
    fill(repo / "data", files)
    assert describe(Path("data"))[1][1:] == [
        "  missing: 1 files: COVID/Covid (7).png",
        "  extra: 1 files: non-COVID/Non-Covid (151).png",
        "  changed: 2 files: COVID/Covid (414).png, non-COVID/Non-Covid (150).png",
        "  of the other 2478 files some or all may have changed: the listing that the pin names isn't in DVC's cache, "
        "so the bytes can't be compared one by one",
    ]


def test_a_folder_can_be_pinned(repo: Path) -> None:
    fill(repo / "data", IMAGES)
    release.pin(Path("data"))
    assert "nfiles: 6" in Path("data.dvc").read_text()
    assert describe(Path("data")) == (True, ["data/ is the pinned release (6 files, 240000 bytes)"])

    shutil.rmtree(".dvc/cache")
    fill(repo / "data", {"COVID/new.png": b"x"})
    assert "in which files can't be told" in describe(Path("data"))[1][1]


@pytest.mark.parametrize(
    "text", [None, "outs: [", "outs:\n- path: data\n", "outs:\n- path: data\n  md5: abc\n  hash: md5\n"]
)
def test_bad_pin_is_one_line(repo: Path, text: str | None) -> None:
    Path("data.dvc").unlink()
    if text is not None:
        Path("data.dvc").write_text(text)
    with pytest.raises(UserError, match=r"^data\.dvc: [^\n]*restore it with `git checkout data\.dvc[^\n]*$"):
        describe(repo / "data")


# The copy in DVC's cache


def test_the_release_survives_dvc_checkout(pinned: Path) -> None:
    get(pack(pinned / "a.zip", IMAGES))
    with Repo() as dvc:
        assert dvc.status() == {}
        dvc.checkout(force=True)
        assert contents(pinned / "data") == IMAGES
        shutil.rmtree("data")
        dvc.checkout()
    assert contents(pinned / "data") == IMAGES


@pytest.mark.parametrize("release_too", [False, True])
def test_other_images_than_the_release_come_back_after_dvc_checkout(pinned: Path, release_too: bool) -> None:
    if release_too:
        get(pack(pinned / "release.zip", IMAGES))
    others = {name: b"other " + content for name, content in IMAGES.items()}
    line = get(pack(pinned / "a.zip", others))[-1]
    with Repo() as dvc, suppress(CheckoutError):
        dvc.checkout(force=True)
    assert contents(pinned / "data") == (IMAGES if release_too else {})

    command = re.search("`(cp [^`]+)`", line)
    assert command
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command[1], shell=True, env=environment, check=True)
    assert contents(pinned / "data") == others


def test_a_cache_that_takes_nothing_is_one_line(pinned: Path) -> None:
    (pinned / ".dvc" / "cache").write_text("a file where the folder should be")
    assert failure(pack(pinned / "a.zip", IMAGES)).startswith(str(pinned / ".dvc" / "cache"))


# The download


class Kaggle(ThreadingHTTPServer):
    """Answers kagglehub as Kaggle does: the release's version, then its archive behind a redirect; faulty on demand."""

    daemon_threads = True
    status = 200
    drop_after: int | None = None  # bytes of the archive until the connection breaks off
    silent_before = ""  # the request that gets no answer, or "body" for an archive that stops half-way
    pause = 0.0  # seconds before each MiB of the archive

    def __init__(self, body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.send(body)
        self.closing = threading.Event()
        self.requests: list[tuple[str, str | None]] = []  # last part of the path, Range

    def send(self, body: bytes) -> None:
        self.body = body
        self.md5 = base64.b64encode(hashlib.md5(body).digest()).decode()

    def handle_error(self, *_: object) -> None:
        """A client that went away is not an error."""


class Handler(BaseHTTPRequestHandler):
    server: Kaggle

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def fall_silent(self) -> None:
        self.server.closing.wait(20)
        raise ConnectionAbortedError

    def note(self) -> str:
        name = self.path.rpartition("/")[2]
        self.server.requests.append((name, self.headers["Range"]))
        if name == self.server.silent_before:
            self.fall_silent()
        return name

    def do_POST(self) -> None:
        name = self.note()
        assert b'"sarscov2-ctscan-dataset"' in self.rfile.read(int(self.headers["Content-Length"]))
        json = {"Content-Type": "application/json"}
        if self.server.status != 200:
            self.answer(self.server.status, json, b'{"code": %d, "message": "no\\nway"}' % self.server.status)
        elif name == "GetDataset":
            self.answer(200, json, b'{"currentVersionNumber": 2}')
        else:
            self.answer(302, {"Location": "http://localhost/archive.zip"})

    def do_GET(self) -> None:
        self.note()
        asked = self.headers["Range"]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        rest = self.server.body[start:]
        headers = {"Accept-Ranges": "bytes", "x-goog-hash": f"crc32c=AAAAAA==,md5={self.server.md5}"}
        if not self.server.md5:
            del headers["x-goog-hash"]
        self.answer(206 if asked else 200, {**headers, "Content-Length": str(len(rest))})
        if self.server.silent_before == "body":
            self.wfile.write(rest[: len(rest) // 2])
            self.fall_silent()
        for block in range(0, len(rest[: self.server.drop_after]), 2**20):
            self.server.closing.wait(self.server.pause)
            self.wfile.write(rest[: self.server.drop_after][block : block + 2**20])


# Large enough for several of the pieces in which kagglehub writes.
ARCHIVE = {**IMAGES, "README": random.Random(1).randbytes(4 * 2**20)}


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kaggle]:
    """The server, as the proxy of an environment that holds no credentials and asks the local Kaggle."""
    for name in [name for name in os.environ if name.upper().startswith("KAGGLE") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    server = Kaggle(pack(tmp_path / "release.zip", ARCHIVE).read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLEHUB_CACHE", "")  # so that it ends with the test
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def assert_fetched(repo: Path) -> None:
    assert get() == ["data/ is the pinned release (6 files, 240000 bytes)"]
    assert contents(repo / "data") == IMAGES


def test_download(pinned: Path, kaggle: Kaggle) -> None:
    fill(pinned / "data", OLD)
    assert_fetched(pinned)
    assert kaggle.requests == [("GetDataset", None), ("DownloadDataset", None), ("archive.zip", None)]


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "access is refused (HTTP 403)"),
        (404, "no such dataset on Kaggle any more (HTTP 404)"),
        (503, "the server answers HTTP 503; try again later"),
    ],
)
def test_refusals(kaggle: Kaggle, status: int, message: str) -> None:
    kaggle.status = status
    text = failure()
    assert text.startswith(f"{dataset.HANDLE}: ")
    assert message in text
    assert "`ctscan data --archive PATH`" in text


@pytest.mark.usefixtures("pinned")
def test_unreadable_credentials(kaggle: Kaggle, tmp_path: Path) -> None:
    (tmp_path / "kaggle.json").write_text("{")
    assert f"Invalid Kaggle credentials file at {tmp_path}/kaggle.json" in failure()
    assert kaggle.requests == []


def test_a_dropped_download_goes_on_with_the_next_call(pinned: Path, kaggle: Kaggle) -> None:
    kaggle.drop_after = 3 * 2**20
    assert "dropped the connection (ChunkedEncodingError); check the network and run `ctscan data` again" in failure()
    kaggle.drop_after, kaggle.requests = None, []
    assert_fetched(pinned)
    start = int(str(kaggle.requests[-1][1]).removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 3 * 2**20


@pytest.mark.parametrize(
    ("md5", "files", "message"),
    [
        ("wrong", None, "DataCorruptionError: The X-Goog-Hash header indicated"),
        ("", None, "ValueError: Unsupported archive type"),
        ("right", {"other/a.png": b"x"}, "no folder 'COVID' with images"),
    ],
)
def test_something_else_than_the_release(
    md5: str, files: dict[str, bytes] | None, message: str, pinned: Path, kaggle: Kaggle, tmp_path: Path
) -> None:
    whole = kaggle.body
    kaggle.send(pack(tmp_path / "other.zip", files).read_bytes() if files else b"<html>Sign in</html>")
    kaggle.md5 = kaggle.md5 if md5 == "right" else md5
    text = failure()
    assert text.startswith(f"{dataset.HANDLE}: ")
    assert message in text
    kaggle.send(whole)
    assert_fetched(pinned)


def test_hostile_release(pinned: Path, kaggle: Kaggle, tmp_path: Path) -> None:
    kaggle.send(pack(tmp_path / "hostile.zip", {"../../../../out.png": b"x", **IMAGES}).read_bytes())
    assert_fetched(pinned)
    assert not list(tmp_path.rglob("out.png"))


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("silent_before", ["GetDataset", "archive.zip", "body"])
def test_silent_server_is_given_up(kaggle: Kaggle, silent_before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "PATIENCE", 0.3)
    kaggle.silent_before = silent_before
    assert "the server can't be reached or dropped the connection (nothing came for 0.3 s)" in failure()


def test_slow_but_steady_is_not_given_up(pinned: Path, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "PATIENCE", 1.2)
    kaggle.pause = 0.6  # before each of five parts
    assert_fetched(pinned)


@pytest.mark.usefixtures("kaggle", "pinned")
def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    text = failure()
    assert "the server can't be reached" in text
    assert "`ctscan data --archive PATH`" in text
