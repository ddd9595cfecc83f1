"""What surrounds a recipe: exit codes, outs published whole, checkpoints that belong to their inputs."""

from pathlib import Path

from ctscan.errors import UserError
from ctscan.stage import checkpoint, publish, run_stage

import pytest


def test_a_user_error_is_one_line_and_exit_1(workspace: Path) -> None:
    def recipe(params: object) -> None:
        raise UserError("x.png: truncated; fetch it again")

    with pytest.raises(SystemExit) as caught:
        run_stage("finetune", recipe)
    assert caught.value.code == "finetune: x.png: truncated; fetch it again"


def test_ctrl_c_is_exit_130_in_words(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def recipe(params: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        run_stage("finetune", recipe)
    assert caught.value.code == 130
    assert "interrupted; earlier results are as they were" in capsys.readouterr().err


def test_publish_replaces_a_file_only_on_success(workspace: Path) -> None:
    out = Path("metrics/a.json")
    with publish(out) as path:
        path.write_text("old")
    with pytest.raises(RuntimeError), publish(out) as path:
        path.write_text("half")
        raise RuntimeError
    assert out.read_text() == "old"
    with publish(out) as path:
        path.write_text("new")
    assert out.read_text() == "new"


def test_publish_replaces_a_folder_as_a_whole(workspace: Path) -> None:
    out = Path("plots/images")
    for name in ("a", "b"):
        with publish(out) as folder:
            folder.mkdir()
            (folder / name).write_text(name)
    assert [file.name for file in out.iterdir()] == ["b"]
    with pytest.raises(RuntimeError), publish(out) as folder:
        folder.mkdir()
        raise RuntimeError
    assert [file.name for file in out.iterdir()] == ["b"]


def _inputs(workspace: Path) -> None:
    for name in ("models/backbone.keras", "models/initial.keras", "split/images/train/a.png", "split/manifest.csv"):
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def _checkpoint_after_failure() -> Path:
    with pytest.raises(RuntimeError), checkpoint("finetune") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        raise RuntimeError
    return folder


def test_a_checkpoint_outlives_a_failure_and_ends_with_success(workspace: Path) -> None:
    _inputs(workspace)
    folder = _checkpoint_after_failure()
    assert folder.is_dir()
    with checkpoint("finetune") as again:
        assert again == folder
    assert not folder.exists()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("params.yaml", "finetune_lr: 0.00001", "finetune_lr: 0.00002"),
        ("models/initial.keras", "initial", "retrained"),
        ("split/images/train/a.png", "a.png", "b.png"),
    ],
)
def test_other_inputs_have_another_checkpoint(workspace: Path, file: str, old: str, new: str) -> None:
    _inputs(workspace)
    before = _checkpoint_after_failure()
    path = workspace / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert _checkpoint_after_failure() != before


def test_a_param_of_another_stage_keeps_the_checkpoint(workspace: Path) -> None:
    _inputs(workspace)
    before = _checkpoint_after_failure()
    path = workspace / "params.yaml"
    path.write_text(path.read_text().replace("bootstrap: 2000", "bootstrap: 500"))
    assert _checkpoint_after_failure() == before
