"""Keep the run in the work tree as a study: `python src/record_study.py NAME`, after `dvc repro` or `dvc exp apply`.

Writes studies/NAME: params.yaml, dvc.lock, metrics, plots, and the recorded part of README.md with the command, the
code's revision, figures, time and machine. What else README.md says is left as it is.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.experiments.environment import environment
from ctscan.experiments.studies import BEGIN, END, block, changes, seconds, snapshot

import yaml


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the folder under studies/")
    parser.add_argument("--base", default="HEAD", help="revision that the command starts from (default HEAD)")
    options = parser.parse_args()
    folder = Path("studies") / options.name
    try:
        require_run()
        require_code(options.base)
        snapshot(Path(), folder)
        params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        base = yaml.safe_load(_git("show", f"{options.base}:params.yaml"))
        settings = " ".join(f"-S {key}={value}" for key, value in changes(params, base).items())
        machine = environment()
        about = {
            "revision": _git("log", "-1", "--format=%h", options.base, "--", "src", "dvc.yaml", "params.yaml").strip(),
            "command": f"dvc exp run -n {options.name} {settings}",
            "time": seconds(Path("metrics/timing")),
            "machine": f"{machine['cpus']} cores, {machine['processor']}, {', '.join(machine['vector_extensions'])}",
        }
        recorded = block(folder, about)
    except UserError as error:
        sys.exit(f"record_study: {error}")
    page = folder / "README.md"
    text = page.read_text(encoding="utf-8") if page.exists() else f"# {options.name}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    page.write_text(before + recorded + rest.partition(END)[2], encoding="utf-8")
    print(f"{folder}: recorded; say in {page} what it shows")


def require_run() -> None:
    """Raises `UserError` unless the work tree holds a whole run of its own code and params."""
    status = subprocess.run([sys.executable, "-m", "dvc", "status", "--quiet", "dvc.yaml"], check=False)
    if status.returncode:
        raise UserError("the last run is not of these params and this code; run `dvc repro` first")


def require_code(base: str) -> None:
    """Raises `UserError` unless the code that made the run is that of `base`, which the study's page will name."""
    changed = _git("diff", "--name-only", base, "--", "src", "dvc.yaml")
    changed += _git("ls-files", "--others", "--exclude-standard", "--", "src")
    if changed:
        raise UserError(
            f"the code is not that of {base} ({', '.join(changed.split())}); commit it, or name another base"
        )


def _git(*arguments: str) -> str:
    command = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if command.returncode:
        raise UserError(f"`git {' '.join(arguments)}`: {command.stderr.strip()}")
    return command.stdout


if __name__ == "__main__":
    main()
