"""The study's four folders are links into the dataset, and are made anew when they show another split."""

import os
import shutil
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.files import write_record
from ctscan.split.folders import refresh, refresh_if_asked

import pytest
from drawing import draw_dataset

IMAGES = Path("split/images")
SPLIT = {
    "COVID/Covid (1).png": "train",
    "COVID/Covid (2).png": "test",
    "non-COVID/Non-Covid (1).png": "val",
    "non-COVID/Non-Covid (2).png": "test",
}


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw_dataset(Path("sample"), images=2)
    write_split(SPLIT)


def write_split(subsets: dict[str, str], dataset: str = "sample") -> None:
    Path("split").mkdir(exist_ok=True)
    lines = ["path,subset", *(f"{path},{subset}" for path, subset in subsets.items())]
    Path("split/manifest.csv").write_text("\n".join(lines) + "\n")
    write_record(Path("metrics/split.json"), {"dataset": dataset})


def shown() -> dict[str, str]:
    """The side of each image in split/images."""
    files = [path.relative_to(IMAGES) for path in IMAGES.rglob("*") if path.is_file()]
    return {path.relative_to(path.parts[0]).as_posix(): path.parts[0] for path in files}


def expected(subsets: dict[str, str]) -> dict[str, str]:
    return {path: "test" if subset == "test" else "train" for path, subset in subsets.items()}


@pytest.mark.usefixtures("split")
def test_the_folders_hold_links_and_no_bytes() -> None:
    assert refresh() == 4
    assert shown() == expected(SPLIT)
    for path, side in shown().items():
        assert (IMAGES / side / path).is_symlink()
        assert (IMAGES / side / path).samefile(Path("sample", path))
    assert not refresh()


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda: write_split({**SPLIT, "COVID/Covid (1).png": "test", "COVID/Covid (2).png": "train"}),
        lambda: write_split(dict(list(SPLIT.items())[:3])),
        lambda: (IMAGES / "test/COVID/Covid (2).png").unlink(),
        lambda: shutil.rmtree(IMAGES),
        lambda: shutil.copy("sample/COVID/Covid (1).png", IMAGES / "train/COVID/of another split.png"),
        lambda: write_split(SPLIT, dataset=str(shutil.copytree("sample", "other"))),
    ],
)
def test_folders_of_another_split_are_made_anew_before_they_are_read(spoil: object) -> None:
    refresh()
    assert callable(spoil)
    spoil()
    refresh_if_asked(["sample", "elsewhere/x.png"])
    refresh_if_asked(["split/images/test"])
    lines = Path("split/manifest.csv").read_text().splitlines()[1:]
    assert shown() == expected(dict(line.rsplit(",", 1) for line in lines))
    assert not refresh()


@pytest.mark.usefixtures("split")
def test_without_links_the_folders_hold_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("this file system has no links")

    monkeypatch.setattr(os, "symlink", refuse)
    assert refresh()
    assert shown() == expected(SPLIT)
    copy = IMAGES / "test/COVID/Covid (2).png"
    assert not copy.is_symlink()
    assert copy.read_bytes() == Path("sample/COVID/Covid (2).png").read_bytes()


@pytest.mark.usefixtures("split")
def test_what_the_user_put_there_stays_and_empty_class_folders_go() -> None:
    refresh()
    groups = IMAGES / "test" / "groups.csv"
    groups.write_text("path,group\n")
    Path("sample/COVID").rename("sample/covid")
    write_split({path.replace("COVID/", "covid/"): subset for path, subset in SPLIT.items() if "non" not in path})
    refresh()
    assert groups.exists()
    assert {path.relative_to(IMAGES).as_posix() for path in IMAGES.glob("*/*")} == {
        "train/covid",
        "test/covid",
        "test/groups.csv",
    }


@pytest.mark.usefixtures("split")
def test_a_run_of_an_older_version_is_told_of() -> None:
    write_record(Path("metrics/split.json"), {"test_positive": 1})
    with pytest.raises(UserError, match="does not name the dataset; run `dvc repro`"):
        refresh()
