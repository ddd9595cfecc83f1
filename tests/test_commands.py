"""The one door to the commands: `ctscan COMMAND`."""

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from ctscan.__main__ import COMMANDS, main

import pytest
from commands import ctscan

MODULES = {name: module for group in COMMANDS.values() for name, (module, _) in group.items()}


def test_help_names_every_command_and_imports_nothing_slow(capsys: pytest.CaptureFixture[str]) -> None:
    program = "import sys, ctscan.__main__ as door\ntry: door.main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    *shown, modules = done.stdout.splitlines()
    assert done.returncode == 0
    assert {line.split()[0] for line in shown if line.startswith("  ") and line.strip()} >= MODULES.keys()
    assert not {"tensorflow", "keras", "numpy", "pandas", "dvc", "sklearn"} & set(modules.split())


@pytest.mark.parametrize("name", MODULES)
def test_each_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    shown = capsys.readouterr().out
    first_sentence = str(import_module(MODULES[name]).__doc__).split("\n")[0]
    assert ended.value.code == 0
    assert shown.startswith(f"usage: ctscan {name}")
    assert first_sentence in shown


@pytest.mark.parametrize("name", ["predict", "explain", "sweep"])
def test_no_help_waits_for_tensorflow(name: str) -> None:
    program = f"import sys, ctscan.__main__ as door\ntry: door.main([{name!r}, '--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "tensorflow" not in done.stdout.splitlines()[-1].split()


def test_what_the_user_can_mend_is_one_line_and_status_1(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results"]) == 1
    assert capsys.readouterr().err == "results: metrics/details.json is missing; run the pipeline with `make repro`\n"


def test_ctrl_c_is_one_line_and_status_130(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(arguments: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctscan.download.data.run", interrupt)
    with pytest.raises(SystemExit) as ended:
        ctscan("data")
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\ndata: interrupted; data/ is whole: as before, or filled\n"
