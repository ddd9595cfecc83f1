"""A checkout on any machine: what git and DVC do to the files between two of them."""

import os
import subprocess
import sys
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.core.params import parse_yaml, read_params
from ctscan.inference.bundle import read_evaluation

import pytest
import yaml
from drawing import draw_dataset
from dvc.utils.hydra import apply_overrides
from repository import REPO


def test_files_have_one_line_ending_whatever_git_is_told() -> None:
    """DVC hashes deps as they lie in the working tree; `core.autocrlf` would make every one of them modified."""
    listed = subprocess.run(["git", "ls-files", "--eol"], cwd=REPO, capture_output=True, text=True, check=True).stdout
    lines = [line.split("\t") for line in listed.splitlines()]
    assert len(lines) > 100
    for attributes, name in lines:
        index, _, *attribute = attributes.split()
        assert index in ("i/lf", "i/-text", "i/none"), name
        assert " ".join(attribute) in ("attr/text=auto eol=lf", "attr/-text"), name


@pytest.mark.parametrize(
    ("positive", "negative"),
    [("yes", "no"), ("on", "off"), ("1", "0"), ("true", "false"), ("01", "1e3"), ("null", "~"), ("COVID", "non-COVID")],
)
def test_class_names_stay_texts_when_dvc_writes_params(positive: str, negative: str, workspace: Path) -> None:
    """`-S` writes the whole of params.yaml again, without quotes where YAML 1.2 needs none."""
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["classes"] = {"positive": positive, "negative": negative}
    Path("params.yaml").write_text(yaml.safe_dump(content))
    apply_overrides("params.yaml", ["seed=8"])
    params = read_params()
    assert (params.seed, params.classes.positive, params.classes.negative) == (8, positive, negative)


def test_class_names_without_quotes_are_as_they_stand() -> None:
    read = parse_yaml(
        "classes: {positive: 0, negative: no}\nflip: true\nenabled: False\nother: yes\nlr: 1e-05\nseed: 7\n"
    )
    assert read["classes"] == {"positive": "0", "negative": "no"}
    assert (read["flip"], read["enabled"], read["other"], read["seed"]) == (True, False, "yes", 7)


def test_a_merge_conflict_in_the_lock_is_named(workspace: Path) -> None:
    Path("dvc.lock").write_text("schema: '2.0'\n<<<<<<< HEAD\nstages: {}\n=======\nstages: {a: 1}\n>>>>>>> other\n")
    with pytest.raises(
        UserError, match=r"^dvc\.lock holds a merge conflict; take one side .*git checkout --ours dvc\.lock"
    ):
        read_evaluation()


@pytest.mark.parametrize("name", ["肺 (1).png", "Größe (1).png"])
def test_a_screen_that_lacks_a_letter_shows_its_escape(name: str, tmp_path: Path) -> None:
    folder = draw_dataset(tmp_path / "sample", 12)
    (folder / "COVID/Covid (1).png").rename(folder / "COVID" / name)
    (folder / "COVID" / f"copy of {name}").write_bytes((folder / "COVID" / name).read_bytes())
    for file in ("params.yaml", "dvc.yaml"):
        (tmp_path / file).write_bytes((REPO / file).read_bytes())
    ran = subprocess.run(
        [sys.executable, REPO / "src/prepare_split.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPO / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "copy of " + name.encode("ascii", "backslashreplace").decode() in ran.stderr
