"""Keep a cross-validation as a recorded study: `ctscan record-folds NAME`, after `ctscan folds`.

Writes studies/NAME: folds.json and its pictures, each report of `ctscan external` on a model of these folds with its
pictures, and the recorded part of README.md with the commands, the code's revision, figures and machine. What else
README.md says is left as it is. The table of predictions stays out, because it names the files of the dataset.
"""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import publish, read_record
from ctscan.core.params import parse_lock, parse_yaml
from ctscan.experiments import folds
from ctscan.experiments.programs import read_program
from ctscan.experiments.studies import (
    BEGIN,
    CODE,
    END,
    changes,
    code_and_machine,
    copy_external,
    external_sections,
    plots_section,
    weights_command,
    weights_line,
    write_page,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's name, which cross-validation it is, and what its command starts from."""
    parser.add_argument("name", help="of the folder under studies/")
    parser.add_argument("--strategy", help="the split whose folds were pooled, where folds of several splits were")
    parser.add_argument("--base", default="HEAD", help="revision that the commands start from (default HEAD)")


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where no such folds were pooled, or where they ran other code than that of the base."""
    source = pooled_result(arguments.strategy)
    result = read_record(source)
    if "combination" not in result:
        raise UserError(f"{source} is of an older version; pool the folds anew with `ctscan folds`")
    require_code(result["inputs"], arguments.base)
    folder = Path("studies") / arguments.name
    snapshot(folder, source)
    external = copy_external(folder, result["finetuned_md5"])
    base = parse_yaml(read_program("git", "show", f"{arguments.base}:params.yaml"))
    about = {**code_and_machine(arguments.base), "settings": settings(result["params"], base)}
    page = folder / "README.md"
    write_page(page, block(folder, about))
    print(f"{folder}: recorded with {external} external sets; say in {page} what it shows")
    return 0


def pooled_result(strategy: str | None) -> Path:
    """The result of `ctscan folds` on the split that is named, or the only one. Raises `UserError` without one."""
    found = [folds.RESULTS / f"{strategy}.json"] if strategy else sorted(folds.RESULTS.glob("*.json"))
    if len(found) > 1:
        raise UserError(f"folds of {' and of '.join(path.stem for path in found)} were pooled; choose with --strategy")
    if not found or not found[0].exists():
        raise UserError(f"{found[0] if found else folds.RESULTS} is missing; pool the folds first with `ctscan folds`")
    return found[0]


def require_code(inputs: Mapping[str, str], base: str) -> None:
    """Raises `UserError` unless the folds ran the code of `base`, as its dvc.lock names it."""
    stages = parse_lock(read_program("git", "show", f"{base}:dvc.lock")).values()
    committed = {dep["path"]: dep["md5"] for stage in stages for dep in stage["deps"]}
    other = sorted(path for path, md5 in inputs.items() if path.startswith(CODE) and committed.get(path) != md5)
    if other:
        raise UserError(
            f"the folds ran other code than that of {base} ({', '.join(other)}); run them again, or name another base"
        )


def snapshot(folder: Path, source: Path) -> None:
    """Copy the pooled result at `source` and its pictures into `folder`."""
    shutil.rmtree(folder / "plots", ignore_errors=True)
    shutil.copytree(folds.PLOTS / f"folds_{source.stem}", folder / "plots")
    with publish(folder / "folds.json") as path:
        shutil.copyfile(source, path)


def settings(params: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """What all folds have other than `base`, as a sweep takes it."""
    varied = {key: value for key, value in changes(params, base).items() if key != "split.fold"}
    return " ".join(f"{key}={value}" for key, value in varied.items())


def commands(folder: Path, result: Mapping[str, Any], settings: str) -> list[str]:
    """What runs the folds, pools them, and scores the other sets, each on the model of one fold."""
    numbers = ",".join(map(str, range(len(result["experiments"]))))
    lines = [f"ctscan sweep {settings} split.fold={numbers} --until evaluate".replace("  ", " "), "ctscan folds"]
    for path in sorted((folder / "external").glob("*.json")):
        fold = result["finetuned_md5"].index(read_record(path)["run"]["model_md5"])
        name = ",".join(["evaluate", *settings.replace("/", "_").split(), f"split.fold={fold}"])
        lines += [f"dvc exp apply {name}", f"ctscan external {path.stem} --name {path.stem}"]
    return lines


def block(folder: Path, about: Mapping[str, str]) -> str:
    """The recorded part of the page of the study in `folder`.

    Args:
        about: what the files don't hold: `revision` (of the code), `settings` and `machine`.
    """
    result = read_record(folder / "folds.json")
    params, inputs = result["params"], result["inputs"]
    lines = [
        BEGIN,
        "```console",
        "make data",
        *weights_command(params),
        *commands(folder, result, about["settings"]),
        "```",
        "",
        folds.table(result),
        "",
        f"- **images:** {result['images']}, md5 `{inputs[params['dataset']]}`",
        weights_line(params["weights"], inputs.get(f"weights/{params['weights']}")),
        f"- **code:** revision `{about['revision']}`",
        f"- **machine:** {about['machine']}",
        *external_sections(folder),
        *plots_section(folder),
        END,
    ]
    return "\n".join(lines)
