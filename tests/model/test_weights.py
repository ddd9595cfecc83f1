"""Weights from a server that behaves and from servers that don't; files that fit and files that don't."""

import gc
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.model import weights
from ctscan.model.backbone import build_backbone, fetch_imagenet, weights_hash
from ctscan.model.weights import load_weights

import h5py
import keras
import pytest
from keras.src.applications import mobilenet_v2, mobilenet_v3
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
def server(good: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with the weights of MobileNetV2 in the place of Keras' own."""
    monkeypatch.setenv("no_proxy", "*")
    Handler.released.clear()
    with Server(("127.0.0.1", 0), Handler) as running:
        running.body = good.read_bytes()
        monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", running.url)
        monkeypatch.setattr(mobilenet_v3, "BASE_WEIGHT_PATH", running.url)
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        Handler.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras' cache of models, empty. Keras reads KERAS_HOME when it is imported."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    return tmp_path / "models"


def one_line(caught: pytest.ExceptionInfo[UserError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_published_weights_are_downloaded_once(server: Server, cache: Path, base: keras.Model) -> None:
    assert fetch_imagenet("MobileNetV2", SIZE) == (cache, weights_hash(base))
    assert (cache / NAME).read_bytes() == server.body
    server.behaviour = "absent"
    backbone = build_backbone("MobileNetV2", "imagenet", SIZE, seed=1)
    assert weights_hash(backbone.get_layer("base")) == weights_hash(base)
    assert server.requests == 1


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("silent", "timed out"),
        ("stall", "timed out"),
        ("drop", r"retrieval incomplete: got only \d+ out of \d+ bytes"),
        ("absent", "404 -- Not Found"),
        ("truncated", "truncated file"),
        ("text", "file signature not found"),
        ("refused", "Connection refused"),
    ],
)
# urllib leaves the socket of a download that broke off to the garbage collector, which warns of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_imagenet_never_falls_back(
    behaviour: str, reason: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "PATIENCE", 0.5)
    whole = server.body
    server.body = {"truncated": whole[:-1000], "text": b"<html>Sign in</html>"}.get(behaviour, whole)
    server.behaviour = behaviour
    if behaviour == "refused":
        monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", "http://127.0.0.1:1/")
    with pytest.raises(UserError, match=reason) as caught:
        build_backbone("MobileNetV2", "imagenet", SIZE, seed=1)
    message = one_line(caught)
    assert message.startswith("weights = imagenet: MobileNetV2's weights can't be loaded (")
    assert "run `ctscan weights` with a network" in message
    assert f"to {cache}; if their file there is damaged, delete it first" in message
    gc.collect()  # the warning belongs to this test
    assert socket.getdefaulttimeout() is None


def test_a_file_with_another_hash_than_the_published_one_is_refused(server: Server, cache: Path) -> None:
    with pytest.raises(UserError, match="file hash does not match the provided value") as caught:
        fetch_imagenet("MobileNetV3Small", 224)
    assert f"to {cache}" in one_line(caught)


def test_too_small_an_image_is_not_taken_for_missing_weights(server: Server) -> None:
    with pytest.raises(UserError, match="image_size = 16 does not fit backbone MobileNetV2"):
        build_backbone("MobileNetV2", "imagenet", 16, seed=1)
    assert server.requests == 0


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


def test_a_missing_file_names_the_remedy(model: keras.Model) -> None:
    with pytest.raises(UserError) as caught:
        load_weights(model, "Small", Path("weights/mine.h5"))
    message = one_line(caught)
    assert message.startswith("params.yaml: weights = 'mine.h5', and there is no file weights/mine.h5; ")
    assert message.endswith("`ctscan weights FILE` put there")
