"""What TensorFlow's and Keras' imports show, nothing but what one can act on, and what they take along."""

import subprocess
import sys
from pathlib import Path

import pytest
from repository import REPO

CHATTER = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    "I0000 00:00:1.2 3 port.cc:153] oneDNN custom operations are on.\n"
)


def imported(*packages: Path) -> subprocess.CompletedProcess[str]:
    """`import ctscan, tensorflow`, where `packages` come before what is installed."""
    path = [str(REPO / "src"), *map(str, packages)]
    program = f"import sys; sys.path[:0] = {path}; import ctscan, tensorflow, json; print(json.__name__)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def stand_in(folder: Path, ending: str) -> Path:
    """A package called tensorflow that writes to the screen as the real one does, from below Python."""
    (folder / "tensorflow").mkdir()
    lines = f"import os\nos.write(2, {(CHATTER + 'E0000 no such GPU' + chr(10)).encode()!r})\n{ending}\n"
    (folder / "tensorflow" / "__init__.py").write_text(lines)
    return folder


def test_chatter_is_left_out_and_errors_are_passed_on(tmp_path: Path) -> None:
    done = imported(stand_in(tmp_path, ""))
    assert (done.returncode, done.stdout, done.stderr) == (0, "json\n", "E0000 no such GPU\n")


def test_a_failing_import_says_why(tmp_path: Path) -> None:
    done = imported(stand_in(tmp_path, "raise ImportError('a library is missing')"))
    assert done.returncode == 1
    assert done.stderr.startswith("E0000 no such GPU\nTraceback")
    assert done.stderr.endswith("ImportError: a library is missing\n")


def test_what_is_said_by_a_library_that_aborts_is_seen(tmp_path: Path) -> None:
    done = imported(stand_in(tmp_path, "os.abort()"))
    assert done.returncode != 0
    assert done.stderr == "E0000 no such GPU\n"


@pytest.mark.slow
def test_the_real_one_says_nothing() -> None:
    assert imported().stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("first", ["keras", "tensorflow"])
def test_keras_takes_along_no_package_that_only_some_stages_need(first: str) -> None:
    program = f"""if True:
        import sys; sys.path.insert(0, {str(REPO / "src")!r}); import ctscan, {first}
        print(sorted({{"matplotlib", "sklearn"}} & set(sys.modules)))
        import keras, matplotlib.pyplot, sklearn.metrics
        print(keras.Sequential.__name__, matplotlib.pyplot.figure.__name__, sklearn.metrics.roc_auc_score.__name__)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\nSequential figure roc_auc_score\n", "")
