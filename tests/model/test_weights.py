"""Weights from a server that behaves and from servers that don't; files that fit and files that don't."""

import hashlib
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.model import weights
from ctscan.model.backbone import build_backbone, weights_hash
from ctscan.model.weights import PublishedFile, fetch, load_weights

import h5py
import keras
import pytest
from commands import ctscan
from keras.src.applications import mobilenet_v2
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

SIZE = 96
NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"


def published_format(model: keras.Model, path: Path) -> Path:
    """The format in which keras.applications publishes its weights."""
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)
    return path


@pytest.fixture(scope="module")
def base() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))


@pytest.fixture(scope="module")
def good(base: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_format(base, tmp_path_factory.mktemp("published") / NAME)


def small(units: int = 3, layers: int = 2, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    steps = [keras.layers.Conv2D(units, 3) for _ in range(layers)]
    return keras.Sequential(
        [keras.Input((16, 16, 3)), *steps, keras.layers.Dropout(0.5), keras.layers.BatchNormalization()]
    )


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return published_format(small(), tmp_path_factory.mktemp("small") / "small.h5").read_bytes()


class Server(ThreadingHTTPServer):
    """Answers every request with `body`, or as `behaviour` says."""

    daemon_threads = True
    body = b""
    behaviour = "whole"
    requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server
    released = threading.Event()

    def do_GET(self) -> None:
        self.server.requests += 1
        body, behaviour = self.server.body, self.server.behaviour
        if behaviour == "silent":
            self.released.wait(20)
            return
        if behaviour == "absent":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behaviour in ("drop", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if behaviour == "stall":
                self.released.wait(20)
            return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(body: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    Handler.released.clear()
    with Server(("127.0.0.1", 0), Handler) as running:
        running.body = body
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        Handler.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras' cache of models, not there yet."""
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_is_downloaded_once(server: Server, cache: Path) -> None:
    file = PublishedFile("a.h5", server.url + "a.h5", hashlib.md5(server.body).hexdigest())
    assert fetch(file) == fetch(file) == cache / "a.h5"
    assert (cache / "a.h5").read_bytes() == server.body
    assert server.requests == 1
    assert [path.name for path in cache.iterdir()] == ["a.h5"]


def test_a_damaged_file_in_the_cache_is_fetched_again(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "a.h5").write_bytes(server.body[:1000])
    fetch(PublishedFile("a.h5", server.url + "a.h5", hashlib.md5(server.body).hexdigest()))
    assert (cache / "a.h5").read_bytes() == server.body


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("silent", r"no answer for 0\.5 s, after 0 bytes"),
        ("stall", r"no answer for 0\.5 s, after \d+ bytes"),
        ("drop", r"retrieval incomplete: got only \d+ out of \d+ bytes"),
        ("absent", r"404 -- Not Found"),
        ("truncated", r"no whole HDF5 file.*truncated"),
        ("text", r"no whole HDF5 file"),
        ("empty", r"math domain error"),  # Keras' own: its progress bar cannot count to 0
        ("wrong", r"file hash does not match"),
        ("refused", r"Connection refused"),
        ("unresolved", r"Name or service not known"),
        ("resolver hangs", r"no answer for 0\.5 s, after 0 bytes"),
    ],
)
@pytest.mark.parametrize("before", [None, b"\x89HDF damaged"])
def test_a_failed_download_is_one_line_and_leaves_the_cache_alone(
    behaviour: str, reason: str, before: bytes | None, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PATIENCE", 0.5)
    md5 = hashlib.md5(server.body).hexdigest() if before or behaviour == "wrong" else None
    bodies = {"truncated": server.body[:-1000], "text": b"<html>Sign in</html>", "empty": b""}
    if behaviour in bodies:
        server.body = bodies[behaviour]
        if md5 and behaviour != "empty":
            reason = "file hash does not match"
    elif behaviour == "wrong":
        server.body += b"x"
    server.behaviour = behaviour
    url = server.url + "a.h5"
    if behaviour == "refused":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.h5"
    elif behaviour == "unresolved":

        def resolve(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
    elif behaviour == "resolver hangs":
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: Handler.released.wait(20) and [])
    if before:
        cache.mkdir(parents=True)
        (cache / "a.h5").write_bytes(before)

    with pytest.raises(UserError, match=reason) as caught:
        fetch(PublishedFile("a.h5", url, md5))
    message = one_line(caught)
    state = "is damaged" if before else "is not"
    assert message.startswith(f"weights = imagenet needs a.h5, which {state} in {cache}, and downloading it failed (")
    assert message.endswith(f"; run `ctscan weights` with a network, or put the file there yourself, from {url}")
    left = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert left == ({"a.h5": before} if before else {})


def test_a_silent_network_is_given_up_within_half_a_minute() -> None:
    assert weights.PATIENCE <= 15  # importing TensorFlow and building the network take as long again


def test_a_cache_that_cannot_be_written_is_one_line(server: Server, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot be written .*; set KERAS_HOME") as caught:
        fetch(PublishedFile("a.h5", server.url, None))
    assert str(cache) in one_line(caught)


def test_make_weights_and_imagenet_use_the_same_file(
    server: Server,
    cache: Path,
    base: keras.Model,
    good: Path,
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", server.url)
    server.body = good.read_bytes()
    params = Path("params.yaml").read_text()
    params = params.replace("backbone: ResNet101V2", "backbone: MobileNetV2").replace(
        "image_size: 224", "image_size: 96"
    )
    Path("params.yaml").write_text(params)
    ctscan("weights")
    out = capsys.readouterr().out
    assert f"{cache / NAME}: {len(server.body)} bytes, Keras publishes no hash of this file" in out
    assert f"sha256 {hashlib.sha256(server.body).hexdigest()}" in out
    assert f"from {server.url}{NAME}" in out
    assert "`dvc exp run -S weights=imagenet`" in out

    server.behaviour = "absent"
    backbone = build_backbone("MobileNetV2", "imagenet", SIZE, seed=1)
    assert weights_hash(backbone.get_layer("base")) == weights_hash(base)
    assert server.requests == 1


def test_imagenet_never_falls_back(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", server.url)
    server.behaviour = "absent"
    with pytest.raises(UserError, match=f"weights = imagenet needs {NAME}"):
        build_backbone("MobileNetV2", "imagenet", SIZE, seed=1)
    server.behaviour = "whole"
    with pytest.raises(UserError, match="not the weights of MobileNetV2") as caught:
        build_backbone("MobileNetV2", "imagenet", SIZE, seed=1)
    message = one_line(caught)
    assert message.startswith(f"{cache / NAME}: ")
    assert message.endswith("; delete it, then run `ctscan weights`")


def test_the_published_name_and_hash_reach_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PublishedFile] = []

    def record(file: PublishedFile) -> Path:
        asked.append(file)
        raise UserError("recorded")

    monkeypatch.setattr(weights, "fetch", record)
    for name in ("EfficientNetB0", "ResNet50V2"):
        with pytest.raises(UserError, match="recorded"):
            build_backbone(name, "imagenet", 64, seed=1)
    assert [(file.name, file.md5) for file in asked] == [
        ("efficientnetb0_notop.h5", "50bc09e76180e00e4465e1a485ddc09d"),
        ("resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5", "fac2f116257151a9d068a22e544a4917"),
    ]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small()


def write(model: keras.Model, path: Path) -> Path:
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
        return path
    return published_format(model, path)


@pytest.mark.parametrize("name", ["a.h5", "a.weights.h5"])
def test_a_file_of_the_network_loads_whole(name: str, tmp_path: Path) -> None:
    other = small(seed=5)
    loaded = small(seed=6)
    load_weights(loaded, "Small", write(other, tmp_path / name))
    assert weights_hash(loaded) == weights_hash(other)


def test_optimizer_state_beside_the_weights_is_harmless(tmp_path: Path) -> None:
    trained = small(seed=5)
    trained.compile("adam", "mse")
    trained.optimizer.build(trained.trainable_variables)
    loaded = small(seed=6)
    load_weights(loaded, "Small", write(trained, tmp_path / "a.weights.h5"))
    assert weights_hash(loaded) == weights_hash(trained)


def with_top() -> keras.Model:
    base = small()
    output = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(base.outputs[0]))
    return keras.Model(base.inputs, output)


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize(
    "kind", ["with top", "more layers", "fewer layers", "other shapes", "halved", "text", "flipped"]
)
def test_a_file_of_another_network_or_a_damaged_one_is_one_line(
    kind: str, suffix: str, model: keras.Model, tmp_path: Path
) -> None:
    path = tmp_path / f"[a]{suffix}"
    others = {
        "with top": with_top,
        "more layers": lambda: small(layers=3),
        "fewer layers": lambda: small(layers=1),
        "other shapes": lambda: small(units=4),
    }
    write(others.get(kind, small)(), path)
    if kind == "halved":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "text":
        path.write_text("not HDF5")
    elif kind == "flipped":
        content = bytearray(path.read_bytes())
        content[96:2000] = bytes(1904)
        path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        load_weights(model, "Small", path)
    message = one_line(caught)
    assert ("not a Keras weights file" if kind == "text" else "not the weights of Small without its top") in message
    assert message.endswith("fetch or export it again")


def test_another_architecture_is_refused(good: Path, base: keras.Model, tmp_path: Path) -> None:
    exported = write(base, tmp_path / "mobilenet.weights.h5")
    narrower = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3), alpha=0.35)
    for path in (good, exported):
        with pytest.raises(UserError, match="not the weights of MobileNetV2"):
            load_weights(narrower, "MobileNetV2", path)


def test_a_missing_file_names_the_folder_and_the_remedy(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load_weights(model, "Small", Path("mine.h5"))
    message = one_line(caught)
    assert message.startswith(f"params.yaml: weights = 'mine.h5' is no file in {tmp_path}; ")
    assert "an absolute one where `dvc exp run --temp`" in message


def test_a_path_in_the_home_folder(
    good: Path, base: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(good, tmp_path / "mine.h5")
    backbone = build_backbone("MobileNetV2", "~/mine.h5", SIZE, seed=2)
    assert weights_hash(backbone.get_layer("base")) == weights_hash(base)
