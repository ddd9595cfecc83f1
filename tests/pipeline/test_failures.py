"""Bad input of every kind gives a message that names file and remedy, exits with 1, and changes no earlier result."""

import shutil
from collections.abc import Callable
from pathlib import Path

import extract_features
import prepare_split
from ctscan.core.stage import EARLIER_RESULTS, run_stage

import h5py
import pytest
from drawing import draw_dataset, texture
from PIL import Image

EARLIER = (
    "dvc.lock",
    "features.npy",
    "metrics/backbone.json",
    "metrics/test.json",
    "metrics/split.json",
    "models/backbone.keras",
    "models/finetuned.keras",
    "plots/roc.json",
)
IMAGE = Path("sample/COVID/Covid (1).png")


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a dataset, a split and the results of an earlier run, whose backbone is a small one."""
    draw_dataset(workspace / "sample", 3)
    set_param("backbone", "MobileNetV2")
    set_param("image_size", "96")
    for name in EARLIER:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"earlier {name}")
    lines = ["path,label,subset,group,width,height,mode"]
    for label, place in enumerate(("non-COVID", "COVID")):
        lines += [f"{place}/{path.name},{label},train,,44,40,L" for path in sorted(Path("sample", place).iterdir())]
    Path("split").mkdir()
    for name in ("manifest", "slices"):
        Path(f"split/{name}.csv").write_text("\n".join(lines) + "\n")
    # These are settings of the whole process, which later tests would inherit.
    monkeypatch.setattr(extract_features, "configure_keras", lambda precision: None)
    return workspace


def set_param(key: str, value: str) -> None:
    path = Path("params.yaml")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(f"{key}: {value}\n" if line.startswith(f"{key}:") else line for line in lines))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the scratch, by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {".scratch", ".dvc"} & set(path.relative_to(folder).parts)
    }


def message_of(project: Path, command: Callable[[], None]) -> str:
    before = contents(project)
    assert before.keys() >= set(EARLIER)
    with pytest.raises(SystemExit) as caught:
        command()
    assert contents(project) == before
    assert isinstance(caught.value.code, str)  # a text: Python prints it on stderr and exits with 1
    return caught.value.code.removesuffix(f"\n{EARLIER_RESULTS}")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def link_outwards() -> None:
    Path("outside.png").write_bytes(IMAGE.read_bytes())
    IMAGE.unlink()
    IMAGE.symlink_to(Path("outside.png").resolve())


def animate() -> None:
    frames = [Image.fromarray(texture(seed)) for seed in (1, 2)]
    frames[0].save(IMAGE.with_name("film.gif"), save_all=True, append_images=frames[1:])


def empty_class() -> None:
    for path in IMAGE.parent.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "named", "remedy"),
    [
        (lambda: truncate(IMAGE), IMAGE, "fetch or export it again, or remove"),
        (lambda: IMAGE.write_bytes(b""), IMAGE, "fetch or export it again, or remove"),
        (lambda: IMAGE.write_text("no image"), IMAGE, "fetch or export it again, or remove"),
        (lambda: Image.fromarray(texture(1, 20, 20)).save(IMAGE), IMAGE, "export it larger, or remove"),
        (lambda: Image.new("L", (40, 40), 7).save(IMAGE), IMAGE, "export it again, or remove"),
        (lambda: Image.new("1", (5000, 5000)).save(IMAGE), IMAGE, "export it smaller"),
        (animate, IMAGE.with_name("film.gif"), "export each slice as a file of its own"),
        (link_outwards, IMAGE, "put the file itself there"),
        (
            lambda: shutil.copy(IMAGE, "sample/non-COVID/copy.png"),
            "sample/non-COVID/copy.png",
            "remove the one that is",
        ),
        (empty_class, IMAGE.parent, "run `dvc pull sample`"),
        (lambda: shutil.rmtree(IMAGE.parent), IMAGE.parent, "create it, or correct `classes`"),
        (lambda: shutil.copytree(IMAGE.parent, "sample/Other"), "sample/Other", "correct `classes`"),
        (lambda: Path("sample/groups.csv").write_text("image\n"), "sample/groups.csv", "write that header"),
        (lambda: Path("sample/groups.csv").write_text("path,group\n"), "sample/groups.csv", "add a line"),
        (lambda: shutil.rmtree("sample"), "sample", "run `dvc pull sample`"),
        (lambda: set_param("dataset", "mine"), "mine", "correct `dataset` in params.yaml"),
        (lambda: set_param("seed", "x"), "params.yaml", "it needs an integer"),
    ],
)
def test_prepare_split(spoil: Callable[[], object], named: object, remedy: str, project: Path) -> None:
    spoil()
    message = message_of(project, lambda: run_stage("prepare-split", prepare_split.prepare_split))
    assert message.startswith("prepare-split: ")
    assert str(named) in message
    assert remedy in message


def weights_file(write: Callable[[Path], object]) -> Callable[[], None]:
    def spoil() -> None:
        Path("weights").mkdir()
        write(Path("weights/mine.h5"))
        set_param("weights", "mine.h5")

    return spoil


def other_network(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"a"]
        file.create_group("a").attrs["weight_names"] = []


def truncated_network(path: Path) -> None:
    other_network(path)
    truncate(path)


@pytest.mark.parametrize(
    ("spoil", "named", "remedy"),
    [
        (lambda: set_param("backbone", "ResNet7"), "params.yaml: backbone = 'ResNet7'", "it needs one of"),
        (lambda: set_param("weights", "imagenet"), "Network is unreachable", "run `ctscan weights` with a network"),
        (
            lambda: set_param("weights", "mine.h5"),
            "weights = 'mine.h5', and there is no file weights/mine.h5",
            "it needs random, imagenet or the name of a file that `ctscan weights FILE` put there",
        ),
        (weights_file(lambda path: path.write_text("text")), "mine.h5: not a Keras", "fetch or export it again"),
        (weights_file(other_network), "mine.h5: truncated, or not the weights", "fetch or export it again"),
        (weights_file(truncated_network), "mine.h5: truncated, or not the weights", "fetch or export it again"),
        (lambda: truncate(IMAGE), IMAGE, "fetch or export it again"),
        (lambda: IMAGE.unlink(), IMAGE, "restore it"),
    ],
)
def test_extract_features(
    spoil: Callable[[], object], named: object, remedy: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(project, monkeypatch)
    spoil()
    message = message_of(project, lambda: run_stage("extract-features", extract_features.extract_features))
    assert message.startswith("extract-features: ")
    assert str(named) in message
    assert remedy in message
    assert "\n" not in message


def offline(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", refuse)
    (project / ".scratch").mkdir(exist_ok=True)
    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(project / ".scratch"))
