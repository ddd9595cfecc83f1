"""Write down what the last digits of a run may depend on: processor, GPUs, threads, library versions.

`ctscan environment` writes metrics/environment.json. The file is no output of a stage, because it may change.
"""

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ctscan.core.files import write_json

FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")
LIBRARIES = ("tensorflow-cpu", "tensorflow", "keras", "numpy", "scipy", "scikit-learn", "pillow", "matplotlib")

ENVIRONMENT = Path("metrics/environment.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Takes none."""


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    write_json(ENVIRONMENT, environment())
    return 0


def environment() -> dict[str, Any]:
    """Processor, its vector extensions, number of GPUs, threads, oneDNN switch, versions; no host, path or time."""
    import tensorflow as tf  # takes seconds, which help should not wait for

    processor, flags = _processor()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": processor,
        "vector_extensions": [flag for flag in FLAGS if flag in flags],
        "cpus": os.cpu_count(),
        "gpus": len(tf.config.list_physical_devices("GPU")),  # all of them train together
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "intra_op_threads": os.environ.get("TF_NUM_INTRAOP_THREADS", "default"),
        "inter_op_threads": os.environ.get("TF_NUM_INTEROP_THREADS", "default"),
        "python": platform.python_version(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _processor() -> tuple[str, set[str]]:
    """Model name and flags as Linux tells them; elsewhere what Python knows, and no flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor(), set()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name", platform.processor()), set(fields.get("flags", "").split())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except ModuleNotFoundError:
        return None
