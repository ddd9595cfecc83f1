"""Try every combination of some values, two runs at a time, and rank them on validation.

    ctscan sweep lr=1e-4,3e-4,1e-3
    ctscan sweep finetune_lr=1e-5,1e-4 unfreeze_depth=50,150 --until finetune
    ctscan sweep lr=1e-4,3e-4,1e-3 seed=7,8,9 --on slurm --jobs 9

Each becomes an experiment of DVC's, named after what was varied (and `finetune`, where it goes that far). The runs end
before `evaluate`, so no test image is read until one of them is chosen. Those that exist already, for the commit you
are on, are not run again: a sweep that was interrupted goes on. `--until evaluate` is for the folds of a
cross-validation, which are pooled (`ctscan folds`) and not chosen from. Where `seed` or `split.fold` takes several
values, the other values are ranked by their mean over these, with its spread. `--on` has the runs done on many
machines (docs/cluster.md).
"""

import argparse
from collections.abc import Collection, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from ctscan.core.errors import UserError
from ctscan.core.files import parse_record
from ctscan.core.params import PARAMS_FILE, Params, read_params, validate
from ctscan.experiments.driver import add_engine_arguments, elsewhere, run_elsewhere
from ctscan.experiments.programs import calling_dvc, read_program, run_program

import dvc.api
import yaml
from dvc.repo import Repo

if TYPE_CHECKING:  # help should not wait for it
    import pandas as pd

STAGES = {  # the last stage of a run: its metric to rank by, and the file with the details of its best epoch
    "train-initial": ("val_init", "metrics/initial.json"),
    "finetune": ("val_ft", "metrics/finetune.json"),
    "evaluate": ("val_ft", "metrics/finetune.json"),
}
REPEATED = ("seed", "split.fold")  # runs that differ in nothing else repeat one setting
INTERRUPTED = (  # said after Ctrl-C
    "`dvc queue status` says what still runs, `dvc queue kill` ends it; a sweep with --on goes on when started again"
)
UNFINISHED = ("Queued", "Running", "Failed")  # what DVC calls the state of a run that has no result
COLUMNS = ("val_auc", "val_accuracy", "val_loss", "best_epoch", "epochs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The values to try, how far the runs go, and how many run at a time."""
    parser.add_argument("grid", nargs="+", metavar="KEY=VALUE,VALUE...", help="a key of params.yaml and its values")
    parser.add_argument("--until", choices=STAGES, default="train-initial", help="last stage (default train-initial)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="runs at a time in the queue (default 2)")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the sweep can't start, or where a run of it failed."""
    params = read_params()
    experiments = combinations(arguments.grid, params, arguments.until)
    require_committed()
    require_tracked({validate(_with(params.model_dump(), settings)).dataset for settings in experiments.values()})
    if elsewhere(arguments):
        base = run_elsewhere(experiments, arguments.until, arguments)
        if base is None:
            return 0
    else:
        base = None
        require_own_queue(experiments)
        queue(experiments, arguments.until)
        run_program("dvc", "exp", "run", "--run-all", "--jobs", str(arguments.workers))
    with calling_dvc():
        ranked = ranking(dvc.api.exp_show(revs=base), list(experiments), arguments.until)
    shared, varied = shared_settings(experiments)
    if shared:
        print(f"all with {' '.join(shared)}\n")
    shown = ranked.assign(experiment=[" ".join(varied[name]) for name in ranked["experiment"]])
    print(shown.to_string(index=False, float_format="{:.4f}".format))
    missing = set(experiments) - set(ranked["experiment"])
    if missing:
        why = "their logs say why" if arguments.on else "`dvc queue logs NAME` says why"
        raise UserError(f"no result of {', '.join(sorted(missing))}; {why}")
    means = mean_ranking(ranked, varied)
    if len(means) < len(ranked):
        print(f"\n{means.to_string(index=False, float_format='{:.4f}'.format)}")
    if arguments.until != "evaluate" and means["settings"][0]:
        best = " ".join([*(f"-S {setting}" for setting in shared), means["settings"][0]])
        print(f"\nbest on validation: dvc exp run {best}{doubt(means)}")
    return 0


def require_committed() -> None:
    """Raises `UserError` where params.yaml is not that of HEAD: experiments are known by HEAD and what was varied."""
    # Not `git diff`: in a repository of another user it compares files outside of any, and its status means nothing.
    if read_program("git", "status", "--porcelain", "--", str(PARAMS_FILE)):
        raise UserError(f"{PARAMS_FILE} is not as committed; commit it, or vary its values here")


def require_tracked(datasets: Collection[str]) -> None:
    """Raises `UserError` where Git lacks one of `datasets`, or files of it: the queue runs on what Git has.

    Git has the .dvc file of a dataset that DVC tracks, and ignores the dataset itself.
    """
    ask = ("git", "--literal-pathspecs", "ls-files")
    for dataset in sorted(datasets):
        if not read_program(*ask, "--", dataset, f"{dataset}.dvc"):
            raise UserError(
                f"dataset {dataset}: Git does not have it, so a run from the queue would not find it; run "
                f"`dvc add {dataset}` and `git add {dataset}.dvc`"
            )
        lacking = read_program(*ask, "--others", "--exclude-standard", "--", dataset).splitlines()
        if lacking:
            raise UserError(
                f"dataset {dataset}: Git does not have {len(lacking)} files of it ({lacking[0]}), so runs from the "
                f"queue would be without them; run `git add {dataset}`, or remove them"
            )


def require_own_queue(experiments: Collection[str]) -> None:
    """Raises `UserError` where others than `experiments` wait in DVC's queue, which runs as a whole."""
    others = sorted(set(waiting()) - set(experiments))
    if others:
        raise UserError(
            f"{', '.join(others)} in DVC's queue would run too; `dvc queue start` runs what waits, `dvc queue remove "
            f"{others[0]}` forgets it"
        )


def waiting() -> list[str]:
    """The experiments that wait in DVC's queue, from whatever commit: names, or revisions of those without."""
    with calling_dvc(), Repo() as repo:
        tasks = repo.experiments.celery_queue.status()
    return [task["name"] or task["rev"][:7] for task in tasks if task["status"] == "Queued"]


def combinations(grid: list[str], params: Params, stage: str) -> dict[str, list[str]]:
    """The name of each experiment that ends with `stage`, and its settings `key=value`.

    Raises:
        UserError: an argument without values, a key that params.yaml doesn't hold, a value out of its range.
    """
    axes = []
    for argument in grid:
        key, _, values = argument.partition("=")
        if not key or not all(values.split(",")):
            raise UserError(f"'{argument}': write a key of params.yaml, =, and values between commas, as lr=1e-4,1e-3")
        axes.append([f"{key}={value}" for value in dict.fromkeys(values.split(","))])
    prefix = "" if stage == "train-initial" else f"{stage},"
    experiments = {prefix + ",".join(settings).replace("/", "_"): list(settings) for settings in product(*axes)}
    for settings in experiments.values():
        validate(_with(params.model_dump(), settings))
    return experiments


def shared_settings(experiments: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, list[str]]]:
    """The settings that all of several `experiments` have, and of each one, by name, the others."""
    first, *others = experiments.values()
    shared = [setting for setting in first if others and all(setting in other for other in others)]
    return shared, {name: [one for one in own if one not in shared] for name, own in experiments.items()}


def _with(values: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    for setting in settings:
        key, _, value = setting.partition("=")
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place.get(section, {})
        if not isinstance(place, dict) or name not in place:
            raise UserError(f"'{setting}': params.yaml holds no key '{key}'; check the spelling")
        place[name] = yaml.safe_load(value)
    return values


def queue(experiments: dict[str, list[str]], stage: str) -> None:
    """Queue those of `experiments` that the commit at HEAD doesn't have yet. Raises `UserError` where DVC refuses."""
    with calling_dvc():
        known = [row.get("Experiment") for row in dvc.api.exp_show() if row.get("State") != "Failed"]
    for name, settings in experiments.items():
        if name in known:
            print(f"{name}: there already")
            continue
        changes = [part for setting in settings for part in ("--set-param", setting)]
        read_program("dvc", "exp", "run", "--queue", "--name", name, *changes, stage)
        print(f"{name}: queued")


def ranking(rows: list[dict[str, Any]], names: list[str], stage: str) -> "pd.DataFrame":
    """The finished experiments among `names`, the highest validation AUC first; `rows` as `dvc.api.exp_show` gives."""
    import pandas as pd

    metric, details = STAGES[stage]
    found = {row["Experiment"]: row for row in rows if row.get("Experiment") and row.get("State") not in UNFINISHED}
    finished = [found[name] for name in names if name in found]  # in this order where they are equally good
    table = pd.DataFrame(
        [
            {
                "experiment": row["Experiment"],
                **parse_record(dvc.api.read(details, rev=row["Experiment"]), details),
                "val_auc": row[metric],
            }
            for row in finished
        ],
        columns=["experiment", *COLUMNS],
    )
    # Not the loss: it holds the head's L2 penalty, which differs between values of head.units and head.l2.
    ranked = table.sort_values(["val_auc", "val_accuracy"], ascending=False, ignore_index=True)
    return ranked.astype({"best_epoch": int, "epochs": int})


def mean_ranking(ranked: "pd.DataFrame", experiments: Mapping[str, Sequence[str]]) -> "pd.DataFrame":
    """Each setting once, the highest mean of validation AUC over its seeds and folds first.

    Args:
        ranked: what `ranking` gives, for all `experiments`, which are settings by name.

    Returns:
        `settings` as `dvc exp run` takes them, the number of `runs`, the mean `val_auc`, and `sd` (of a sample, n - 1;
        NaN for one run).
    """
    settings = {
        name: " ".join(f"-S {one}" for one in own if one.split("=")[0] not in REPEATED)
        for name, own in experiments.items()
    }
    by_setting = ranked.assign(settings=ranked["experiment"].map(settings)).groupby("settings", sort=False)["val_auc"]
    means = by_setting.agg(runs="count", val_auc="mean", sd="std").reset_index()
    return means.sort_values("val_auc", ascending=False, kind="stable", ignore_index=True)


def doubt(means: "pd.DataFrame") -> str:
    """The settings of `mean_ranking` that are as good as the first, or within one deviation of its runs, as a line."""
    lowest = means["val_auc"][0] - means["sd"].fillna(0.0)[0]  # one run has no deviation, but others can equal it
    near = means[means["val_auc"] >= lowest]["settings"][1:]
    return f"\nnot clearly, as good or within its spread are: {'; '.join(near)}" if len(near) else ""
