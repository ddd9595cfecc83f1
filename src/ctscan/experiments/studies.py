"""Keep the run in the work tree as a recorded study: `ctscan record-study NAME`, after `dvc repro` or `dvc exp apply`.

Writes studies/NAME: params.yaml, dvc.lock, metrics, plots, each report of `ctscan external` on the run's model, and the
recorded part of README.md with the commands, the code's revision, figures, time and machine. What else README.md says
is left as it is.
"""

import argparse
import shutil
import statistics
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ctscan.core.errors import UserError
from ctscan.core.files import read_json, read_record
from ctscan.core.params import parse_lock, parse_yaml
from ctscan.download.weights import RESERVED
from ctscan.experiments.environment import environment
from ctscan.experiments.programs import read_program, status

import numpy as np

KEPT = ("params.yaml", "dvc.lock", "metrics", "plots")
# Pictures of the dataset stay out of git; repeats, folds and timing are no part of this one run.
LEFT_OUT = shutil.ignore_patterns("images", "repeats*", "folds*", "external*", "timing")
CODE = ("src/", "dvc.yaml")  # what of the repository makes a run, beside params.yaml
MODEL = "models/finetuned.keras"
EXTERNAL, PLOTS = Path("metrics/external"), Path("plots")  # where `ctscan external` writes
BEGIN, END = "<!-- recorded -->", "<!-- end of what is recorded -->"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The study's name and what its command starts from."""
    parser.add_argument("name", help="of the folder under studies/")
    parser.add_argument("--base", default="HEAD", help="revision that the command starts from (default HEAD)")


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the work tree holds no whole run of committed code."""
    folder = Path("studies") / arguments.name
    require_run()
    require_code(arguments.base)
    snapshot(Path(), folder)
    copy_external(folder, [_model_hash(folder / "dvc.lock")])
    params = parse_yaml((folder / "params.yaml").read_text(encoding="utf-8"))
    base = parse_yaml(read_program("git", "show", f"{arguments.base}:params.yaml"))
    settings = " ".join(f"-S {key}={value}" for key, value in changes(params, base).items())
    about = {
        **code_and_machine(arguments.base),
        "command": f"dvc exp run -n {arguments.name} {settings}",
        "time": seconds(Path()),
    }
    recorded = block(folder, about)
    page = folder / "README.md"
    write_page(page, recorded)
    print(f"{folder}: recorded; say in {page} what it shows")
    return 0


def code_and_machine(base: str) -> dict[str, str]:
    """What a page says of where a run was made: the `revision` of the code of `base`, and this `machine`."""
    revision = read_program("git", "log", "-1", "--format=%h", base, "--", *CODE, "params.yaml").strip()
    found = environment()
    machine = f"{found['cpus']} cores, {found['processor']}, {', '.join(found['vector_extensions'])}"
    return {"revision": revision, "machine": machine}


def write_page(page: Path, recorded: str) -> None:
    """Put `recorded` in its place on the page of a study, which is made where there is none yet."""
    text = page.read_text(encoding="utf-8") if page.exists() else f"# {page.parent.name}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    page.write_text(before + recorded + rest.partition(END)[2], encoding="utf-8")


def require_run() -> None:
    """Raises `UserError` unless the work tree holds a whole run of its own code and params."""
    if status("dvc.yaml"):
        raise UserError("the last run is not of these params and this code; run `dvc repro` first")


def require_code(base: str) -> None:
    """Raises `UserError` unless the code that made the run is that of `base`, which the study's page will name."""
    # This first: in a repository of another user it says why it fails, where `git diff` prints its usage.
    changed = read_program("git", "ls-files", "--others", "--exclude-standard", "--", "src")
    changed += read_program("git", "diff", "--name-only", base, "--", *CODE)
    if changed:
        raise UserError(
            f"the code is not that of {base} ({', '.join(sorted(changed.split()))}); commit it, or name another base"
        )


def snapshot(source: Path, folder: Path) -> None:
    """Copy what git keeps of the run in `source` to `folder`. Raises `UserError` where there is no whole run."""
    for name in KEPT:
        if not (source / name).exists():
            raise UserError(f"{source / name} is missing; run the pipeline with `dvc repro` first")
    for name in KEPT:
        if (source / name).is_dir():
            shutil.rmtree(folder / name, ignore_errors=True)
            shutil.copytree(source / name, folder / name, ignore=LEFT_OUT)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, folder / name)


def copy_external(folder: Path, models: Collection[str]) -> int:
    """Copy the reports of `ctscan external` on one of `models` (md5 of their files), with pictures, into `folder`.

    Returns their number.
    """
    shutil.rmtree(folder / "external", ignore_errors=True)
    reports = [path for path in sorted(EXTERNAL.glob("*.json")) if read_record(path)["run"]["model_md5"] in models]
    for report in reports:
        shutil.copytree(PLOTS / f"external_{report.stem}", folder / "external" / report.stem)
        for path in (report, report.with_suffix(".md")):
            shutil.copyfile(path, folder / "external" / path.name)
    return len(reports)


def external_commands(folder: Path) -> list[str]:
    """What scored the other sets that the study in `folder` reports on."""
    return [f"ctscan external {path.stem} --name {path.stem}" for path in sorted((folder / "external").glob("*.md"))]


def external_sections(folder: Path) -> list[str]:
    """The Markdown on each other set that the study in `folder` reports on."""
    return ["\n" + path.read_text(encoding="utf-8").rstrip() for path in sorted((folder / "external").glob("*.md"))]


def plots_section(folder: Path) -> list[str]:
    """The Markdown that shows all PNG of the study in `folder`: those of its own test, then those of the other sets."""
    paths = [path.relative_to(folder) for path in (*folder.glob("plots/*.png"), *folder.glob("external/*/*.png"))]
    paths.sort(key=lambda path: (path.parts[0] != "plots", path))
    return ["", "## Plots", ""] + [f'<img src="{path}" width="420" alt="{plot_title(path)}">' for path in paths]


def plot_title(path: Path) -> str:
    """What the plot at `path`, below the folder of a study, shows."""
    name = path.stem.replace("_", " ").replace("roc", "ROC curve")
    return f"{name}, {path.parent.name}" if path.parts[0] == "external" else name


def _model_hash(lock: Path) -> str:
    stages = parse_lock(lock.read_text(encoding="utf-8")).values()
    return next(str(out["md5"]) for stage in stages for out in stage["outs"] if out["path"] == MODEL)


def changes(params: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The keys of `params`, sections dotted, whose values are not those of `base`."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        if isinstance(value, dict):
            found |= changes(value, base.get(key, {}), f"{prefix}{key}.")
        elif value != base.get(key):
            found[f"{prefix}{key}"] = value
    return found


def seconds(run: Path) -> str:
    """What the epochs of the run in the folder `run` took, a phase each.

    DVC does not bring the times of a restored run back: metrics/timing may be missing, or be of another run, which has
    other losses.
    """
    phases = []
    for phase in ("initial", "finetune"):
        path = run / "metrics" / "timing" / f"{phase}.json"
        epochs = read_json(path) if path.is_file() else []
        losses = [row["loss"] for row in read_json(run / "plots" / phase / "val" / "loss.json")]
        if len(epochs) != len(losses) or not np.allclose([row["val_loss"] for row in epochs], losses, rtol=1e-9):
            phases.append(f"{phase} not recorded, as DVC restored the stage")
        else:
            middle = statistics.median(row["seconds"] for row in epochs)
            phases.append(f"{phase} {len(epochs)} epochs of {middle:.1f} s")
    return ", ".join(phases)


def block(folder: Path, about: Mapping[str, str]) -> str:
    """The recorded part of the page of the study in `folder`.

    Args:
        about: what the files don't hold: `revision` (of the code), `command`, `time` and `machine`.
    """
    # Here, as scikit-learn takes half a second that help can do without.
    from ctscan.evaluation.tables import results_table

    details, split, lock = (_read(folder / part) for part in ("metrics/details.json", "metrics/split.json", "dvc.lock"))
    params = _read(folder / "params.yaml")
    inputs = {dep["path"]: dep for stage in lock["stages"].values() for dep in stage["deps"]}
    images = inputs[params["dataset"]]
    controls = [row for row in details["controls"] if row["kind"] != "model"]
    lines = [
        BEGIN,
        "```console",
        "make data",
        *weights_command(params),
        about["command"],
        *external_commands(folder),
        "```",
        "",
        "Test images, 95 % intervals:",
        "",
        "```text",
        results_table({model: details[model] for model in ("initial", "finetuned")}),
        "```",
        "",
        "| beside them | accuracy | ROC AUC |",
        "| --- | --- | --- |",
        *(
            f"| {row['name'].replace('_', ' ')} | {row['accuracy']:.3f} "
            f"| {row['roc_auc']:.3f} ({row['low']:.3f}-{row['high']:.3f}) |"
            for row in controls
        ),
        "",
        f"- **split:** {params['split']['strategy']}; {split['test_positive']} + {split['test_negative']} test images; "
        f"nearest neighbour on thumbnails knows {split['probe_accuracy']:.3f} of them",
        f"- **images:** {images['nfiles']} files, {images['hash']} `{images['md5']}`",
        weights_line(params["weights"], inputs.get(f"weights/{params['weights']}", {}).get("md5")),
        f"- **code:** revision `{about['revision']}`",
        f"- **time:** {about['time']}",
        f"- **machine:** {about['machine']}",
        *external_sections(folder),
        *plots_section(folder),
        END,
    ]
    return "\n".join(lines)


def weights_command(params: Mapping[str, Any]) -> list[str]:
    """What puts the weights file of `params` into weights/, if they name one."""
    if params["weights"] in RESERVED:
        return []
    return [f"ctscan weights path/to/{params['weights']} --backbone {params['backbone']}"]


def weights_line(name: str, md5: str | None) -> str:
    """What the backbone started from: a file in weights/ with its hash, or the name of weights that are in no file."""
    return f"- **weights:** {name}, md5 `{md5}`" if md5 and name not in RESERVED else f"- **weights:** {name}"


def _read(path: Path) -> Any:
    return read_record(path) if path.suffix == ".json" else parse_yaml(path.read_text(encoding="utf-8"))
