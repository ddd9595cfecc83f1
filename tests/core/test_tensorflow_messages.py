"""What TensorFlow's libraries print while they load is dropped, and their last words before a crash are not."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from ctscan.core.tensorflow_messages import LINES

import pytest
from repository import REPO

TRAINING = """
import ctscan, keras, numpy, os
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("rmsprop", "mse")
model.fit(numpy.zeros((2, 3)), numpy.zeros((2, 1)), verbose=0)
os.write(2, b"the end")
"""


def run(program: str, search: str) -> tuple[int, str]:
    """The exit code and all that `program` prints."""
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = search
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_training_prints_nothing() -> None:
    assert run(TRAINING, str(REPO / "src")) == (0, "the end")


def test_what_a_library_says_before_it_crashes_is_shown(tmp_path: Path) -> None:
    said = "".join(f"W0000 {line} and so on\n" for line in LINES) + "needs AVX instructions"
    (tmp_path / "tensorflow.py").write_text(f"import os; os.write(2, {said.encode()!r}); os.abort()", encoding="utf-8")
    search = os.pathsep.join([str(tmp_path), str(REPO / "src")])
    assert run("import ctscan, tensorflow", search) == (-signal.SIGABRT, "needs AVX instructions")


def test_standard_error_may_be_closed(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("print('loaded')", encoding="utf-8")
    search = os.pathsep.join([str(tmp_path), str(REPO / "src")])
    assert run("import os, sys; os.close(2); sys.stderr = None; import ctscan, tensorflow", search) == (0, "loaded\n")
