"""The one door to the commands: `ctscan COMMAND`."""

import argparse
import errno
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from ctscan.__main__ import COMMANDS, main

import pytest
from commands import ctscan_process
from repository import REPO

MODULES = {name: module for group in COMMANDS.values() for name, (module, _) in group.items()}
SLOW = {"tensorflow", "keras", "sklearn", "pandas", "matplotlib", "pydicom"}

HELP = """
import contextlib, io, sys
from ctscan.__main__ import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(*sys.modules)
"""


def test_help_names_every_command_below_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line]
    for heading, members in COMMANDS.items():
        start = shown.index(f"{heading}:".split(maxsplit=1))
        summaries = [[name, summary] for name, (_, summary) in members.items()]
        assert shown[start + 1 : start + 1 + len(members)] == summaries


@pytest.mark.parametrize("name", MODULES)
def test_each_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    shown = capsys.readouterr().out
    first_sentence = str(import_module(MODULES[name]).__doc__).split("\n")[0]
    assert ended.value.code == 0
    assert shown.startswith(f"usage: ctscan {name}")
    assert first_sentence in shown


@pytest.mark.parametrize("arguments", [[], *([name] for name in MODULES)], ids=" ".join)
def test_no_help_waits_for_a_slow_import(arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPO / "src")}
    command = [sys.executable, "-c", HELP, *arguments, "--help"]
    imported = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert SLOW & set(imported) == set()
    if arguments:
        assert MODULES[arguments[0]] in imported


def test_what_the_user_can_mend_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = ctscan_process("results", at=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "results: workspace: metrics/details.json is missing; run the pipeline with `make repro`\n"


@pytest.mark.parametrize("name", ["predictt", "run", ""])
def test_an_unknown_command_is_refused_with_what_there_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "invalid choice" in said
    assert "predict" in said


@pytest.mark.parametrize(("name", "remark"), [("environment", ""), ("data", "; data/ is whole: as before, or filled")])
def test_ctrl_c_is_one_line_and_status_130(
    name: str, remark: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(arguments: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{MODULES[name]}.run", interrupt)
    assert main([name]) == 130
    assert capsys.readouterr().err == f"\n{name}: interrupted{remark}\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_nothing_to_talk_about(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = ctscan_process("results", at=REPO, variables={"PYTHONUNBUFFERED": unbuffered}, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_disk_that_can_not_be_written_to_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a command writes to, and whether it is careful or not."""

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    assert main(["environment"]) == 1
    expected = "environment: metrics/environment.json: Read-only file system; work on a disk that can be written to"
    assert capsys.readouterr().err.startswith(expected)
