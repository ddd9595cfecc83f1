"""TensorFlow prints its start-up message and nothing else once ctscan has been imported."""

import os
import subprocess
import sys

import pytest
from repository import REPO

START_UP = ("All log messages before absl::InitializeLog()", "oneDNN custom operations are on")
TRAINING = """
import ctscan, keras, numpy
model = keras.Sequential([keras.layers.Dense(1)])
model.compile("rmsprop", "mse")
model.fit(numpy.zeros((2, 3)), numpy.zeros((2, 1)), verbose=0)
"""


@pytest.mark.slow
def test_training_prints_nothing_but_the_start_up_message() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    environment["PYTHONPATH"] = str(REPO / "src")
    command = [sys.executable, "-c", TRAINING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert [line for line in done.stderr.splitlines() if not any(message in line for message in START_UP)] == []
    assert len(done.stderr.splitlines()) <= 4
