"""The machine that a measurement was made on, without its name."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


def describe() -> dict[str, Any]:
    """CPU, memory (GiB), versions, and the load average of the last minute, which tells whether the machine was quiet.

    CPU model, flags and memory need Linux; elsewhere they are what Python knows.
    """
    cpu = _proc("cpuinfo")
    flags = set(cpu.get("flags", "").split())
    return {
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_flags": [flag for flag in CPU_FLAGS if flag in flags],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "tensorflow": _installed("tensorflow", "tensorflow-cpu"),
        "keras": _installed("keras"),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _proc(name: str) -> dict[str, str]:
    """The first block of `key: value` lines of /proc/<name>; empty where there is no such file."""
    path = Path("/proc") / name
    if not path.is_file():
        return {}
    block = path.read_text(encoding="utf-8").split("\n\n")[0]
    pairs = (line.partition(":") for line in block.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _installed(*packages: str) -> str:
    for package in packages:
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "absent"
