"""Pool the folds of a cross-validation: every image is judged once, by models that have not seen it.

    ctscan sweep split.folds=5 split.fold=0,1,2,3,4 --until evaluate
    ctscan folds
    ctscan folds --on slurm --folds 5 --jobs 5

With `--on`, both commands in one: each fold is run by a worker (docs/cluster.md), and then they are pooled.

Takes the experiments of DVC's that are named, or all of this commit whose split.folds is above 1. They have to be all
folds of one split, and to differ in nothing else: neither in params nor in code nor in data. Writes
metrics/folds/STRATEGY.json, the pooled predictions beside it as CSV, and pictures in plots/folds_STRATEGY; none of them
is an output of a stage. Intervals are over the groups of all folds. They hold the models of the folds fixed, so the
figures of each fold stand beside them.
"""

import argparse
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.core.files import publish, write_json
from ctscan.core.params import LOCK_FILE, Params, parse_lock, read_params, validate
from ctscan.experiments.driver import add_engine_arguments, elsewhere, experiments_at_home, run_elsewhere
from ctscan.experiments.programs import calling_dvc, reason
from ctscan.experiments.studies import changes
from ctscan.experiments.sweep import combinations, require_tracked

if TYPE_CHECKING:  # help should not wait for them
    from ctscan.evaluation.metrics import Scores

    import pandas as pd

RESULTS, PLOTS = Path("metrics/folds"), Path("plots")
PREDICTED = "predictions.csv"
PARTS = ("accuracy", "roc_auc")  # what the printed table has of each fold
NOTE = "Pooled predictions of all folds: each image is judged by the models that were not trained on it."


class Fold(NamedTuple):
    """What an experiment says of one fold."""

    experiment: str  # its name or revision
    params: dict[str, Any]  # params.yaml, nested
    inputs: dict[str, str]  # hash of each file or folder of code and data that its stages read, by path
    model: str  # md5 of the fine-tuned model's file
    predictions: str  # CSV


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which experiments to pool, or how many folds to run before."""
    parser.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="names or revisions, one for each fold (default: all of this commit whose split.folds is above 1)",
    )
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="how many to run, with --on (default 5)")
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where the experiments are not the folds of one split."""
    if not elsewhere(arguments):
        names = arguments.experiments or fold_experiments()
    elif arguments.experiments:
        raise UserError("--on runs folds of this commit and pools them; name no experiments beside it")
    elif not (names := run_folds(arguments)):
        return 0
    folds = check_folds([read_fold(name) for name in names])
    params = validate(folds[0].params)
    pooled = pool(folds)
    result = assess_folds(pooled, params) | {
        "experiments": [fold.experiment for fold in folds],
        "params": {**folds[0].params, "split": {**folds[0].params["split"], "fold": None}},
        "inputs": folds[0].inputs,
        "finetuned_md5": [fold.model for fold in folds],
    }
    strategy = params.split.strategy
    with publish(PLOTS / f"folds_{strategy}") as folder:
        draw_folds(folder, pooled, params)
    with publish(RESULTS / f"{strategy}.csv") as path:
        from ctscan.evaluation.predictions import write_predictions

        write_predictions(path, pooled)
    with publish(RESULTS / f"{strategy}.json") as path:
        write_json(path, result)
    print(table(result))
    print(f"\n{RESULTS / strategy}.json, {RESULTS / strategy}.csv and {PLOTS}/folds_{strategy} hold the rest")
    return 0


def run_folds(arguments: argparse.Namespace) -> list[str]:
    """Have a worker run each fold, as the sweep does, and return their experiments.

    There are none where they were only submitted.

    Raises:
        UserError: a fold has no result.
    """
    params = read_params()
    numbers = ",".join(map(str, range(arguments.folds)))
    experiments = combinations([f"split.folds={arguments.folds}", f"split.fold={numbers}"], params, "evaluate")
    require_tracked({params.dataset})
    base = run_elsewhere(experiments, "evaluate", arguments)
    if base is None:
        return []
    if missing := sorted(experiments.keys() - experiments_at_home(base)):
        raise UserError(f"no result of {', '.join(missing)}; their logs say why")
    return list(experiments)


def fold_experiments() -> list[str]:
    """The finished experiments of this commit whose split.folds is above 1. Raises `UserError` where there is none."""
    import dvc.api

    found = []
    with calling_dvc():
        rows = dvc.api.exp_show()
    for row in rows:
        number = row.get("split.folds", row.get("params.yaml:split.folds"))
        if row.get("Experiment") and row.get("State") not in ("Queued", "Running", "Failed") and (number or 1) > 1:
            found.append(str(row["Experiment"]))
    if not found:
        raise UserError(
            "this commit has no experiment of a fold; run "
            "`ctscan sweep split.folds=5 split.fold=0,1,2,3,4 --until evaluate`, or name experiments"
        )
    return found


def read_fold(experiment: str) -> Fold:
    """What DVC keeps of `experiment`. Raises `UserError` where it knows no such one, or one that was not evaluated."""
    import dvc.api
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError

    with calling_dvc():
        try:
            params = dvc.api.params_show("params.yaml", rev=experiment)
            lock = dvc.api.read(str(LOCK_FILE), rev=experiment)
            predictions = dvc.api.read(PREDICTED, rev=experiment)
        except (DvcException, SCMError, FileNotFoundError) as error:
            raise UserError(
                f"{experiment}: no {PREDICTED} of such an experiment ({reason(str(error))}); run it as far as "
                "evaluate, or get it with `dvc exp pull`"
            ) from None
    stages = parse_lock(lock, f"{LOCK_FILE} of {experiment}").values()
    made = {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}
    read = {dep["path"]: dep["md5"] for stage in stages for dep in stage.get("deps", []) if dep["path"] not in made}
    return Fold(experiment, params, read, made["models/finetuned.keras"], predictions)


def check_folds(folds: Sequence[Fold]) -> list[Fold]:
    """`folds` in their order.

    Raises:
        UserError: they differ in params, code or data; one is missing or comes twice; an image is tested twice.
    """
    first = folds[0]
    for other in folds[1:]:
        params = {key: value for key, value in changes(other.params, first.params).items() if key != "split.fold"}
        paths = sorted(path for path in first.inputs | other.inputs if first.inputs.get(path) != other.inputs.get(path))
        if params or paths:
            what = ", ".join(params) or f"{', '.join(paths)} (code or data)"
            raise UserError(
                f"{first.experiment} and {other.experiment} differ in {what}; only split.fold may differ. Name the "
                "experiments to pool: `ctscan folds EXPERIMENT ...`"
            )
    number = int(first.params["split"]["folds"])
    names: dict[int, str] = {}
    for fold in folds:
        at = fold.params["split"]["fold"]
        if at in names:
            raise UserError(f"{names[at]} and {fold.experiment} are both fold {at}; name one of them")
        names[at] = fold.experiment
    if missing := [str(at) for at in range(number) if at not in names]:
        raise UserError(
            f"fold {', '.join(missing)} of {number} is missing; run "
            f"`ctscan sweep split.folds={number} split.fold={','.join(missing)} --until evaluate`"
        )
    return sorted(folds, key=lambda fold: int(fold.params["split"]["fold"]))


def pool(folds: Sequence[Fold]) -> "pd.DataFrame":
    """One table of all folds' predictions, with the column `fold`.

    An image is in one row of test, and in a row of validation for each fold that it served so. Groups of validation
    are named after the fold, because each fold has other models. Raises `UserError` where an image is tested twice.
    """
    from ctscan.evaluation.predictions import FOLD, parse_predictions

    import pandas as pd

    tables = []
    for fold in folds:
        own = parse_predictions(fold.predictions, fold.experiment)
        number = fold.params["split"]["fold"]
        own["group"] = own["group"].where(own["subset"] == "test", own["group"] + f" (fold {number})")
        own.insert(0, FOLD, number)
        tables.append(own)
    pooled = pd.concat(tables, ignore_index=True)
    twice = [path for path, times in Counter(pooled.loc[pooled["subset"] == "test", "path"]).items() if times > 1]
    if twice:
        raise UserError(f"{twice[0]} is in the test set of two folds; run the folds again with the same code and data")
    return pooled


def assess_folds(pooled: "pd.DataFrame", params: Params) -> dict[str, Any]:
    """The report on the pooled table.

    Returns:
        Counts; for each model `test` and `intervals` over all images, `folds` (the headline metrics of each), their
        `mean` and `deviation` over the folds, and the findings of `evidence.assess_models`; `comparison`;
        `combination`, of the fine-tuned model with HOG; `controls`. These two have `folds`, `mean` and `deviation` as
        well: pooled, a score has to mean the same in every fold, and not all of them suffer alike where it does not.
    """
    from ctscan.evaluation import evidence, intervals, metrics
    from ctscan.evaluation.assess import ScoredSubset, controls_table
    from ctscan.evaluation.predictions import MODELS, score_columns

    threshold, seed = params.evaluate.threshold, params.seed
    of_test = pooled["subset"] == "test"
    test = pooled[of_test]
    labels, groups = test["label"].to_numpy(), test["group"].to_numpy()
    resamples = intervals.resample(labels, groups, params.evaluate.bootstrap, seed, "test of all folds")
    models = evidence.assess_models(pooled, threshold, resamples, seed)
    over_folds = {name: _over_folds(test, test[name].to_numpy(), threshold, name) for name in score_columns(test)}
    for model, report in models.items():
        scores = test[model].to_numpy()
        models[model] = {
            "test": metrics.headline(labels, scores, threshold, f"test of all folds, {model}"),
            "intervals": intervals.headline_intervals(labels, scores, threshold, resamples, "test of all folds"),
            **over_folds[model],
            **report,
        }
    scored = ScoredSubset(labels, groups, {model: test[model].to_numpy() for model in MODELS})
    baselines = {name: test[name].to_numpy() for name in score_columns(test) if name not in MODELS}
    together = evidence.combined_scores(evidence.calibrated(pooled)[of_test])
    return {
        "folds": params.split.folds,
        "strategy": params.split.strategy,
        "images": len(test),
        "positive": int(labels.sum()),
        "groups": resamples.units,
        "models": models,
        "comparison": evidence.compare_models(pooled, threshold, resamples, seed),
        "combination": {
            **evidence.assess_combination(pooled, threshold, resamples),
            **_over_folds(test, together, threshold, "combination"),
        },
        "controls": [
            {**row, **over_folds[row["name"]]} for row in controls_table(scored, baselines, threshold, resamples)
        ],
    }


def _over_folds(test: "pd.DataFrame", scores: "Scores", threshold: float, name: str) -> dict[str, Any]:
    """The headline metrics of `scores` (n,) in each fold of the rows of `test`, their mean and their deviation."""
    from ctscan.evaluation import metrics
    from ctscan.evaluation.predictions import FOLD

    each = [
        metrics.headline(own["label"], own["score"], threshold, f"test of fold {fold}, {name}")
        for fold, own in test.assign(score=scores).groupby(FOLD)
    ]
    columns = {metric: [row[metric] for row in each] for metric in metrics.HEADLINE}
    return {
        "folds": each,
        "mean": {metric: statistics.mean(values) for metric, values in columns.items()},
        "deviation": {metric: statistics.stdev(values) for metric, values in columns.items()},
    }


def draw_folds(folder: Path, pooled: "pd.DataFrame", params: Params) -> None:
    """Draw ROC curves, calibration, scores, decision curves and risk against coverage of the pooled table."""
    from ctscan.evaluation import evidence, evidence_figures, figures, intervals
    from ctscan.evaluation.predictions import MODELS

    test = pooled[pooled["subset"] == "test"]
    labels = test["label"].to_numpy()
    resamples = intervals.resample(labels, test["group"], params.evaluate.bootstrap, params.seed, "test of all folds")
    scores = {model: test[model].to_numpy() for model in MODELS}
    curves = {model: intervals.roc_band(labels, values, resamples, model)["points"] for model, values in scores.items()}
    evidence_figures.draw_roc(folder / "roc.png", curves, f"{NOTE} Bands: 95 %, over groups.")
    panels = evidence.calibration_panels(pooled, params.evaluate.bins)
    evidence_figures.draw_calibration(folder / "reliability.png", panels, f"{NOTE} A temperature for each fold.")
    figures.draw_histograms(folder / "scores.png", scores, labels, params.classes)
    evidence_figures.draw_decision_curves(
        folder / "net_benefit.png", evidence.decision_panels(pooled, resamples, params.classes.positive)
    )
    evidence_figures.draw_risk_coverage(
        folder / "risk_coverage.png", evidence.risk_curves(pooled, params.evaluate.threshold, resamples)
    )


def table(result: Mapping[str, Any]) -> str:
    """The result as Markdown: each fold, their mean and deviation, all images together, controls, and a combination."""
    from ctscan.evaluation.tables import evidence_table, interval

    models = result["models"]
    heads = [f"{model} {metric.replace('_', ' ')}" for model in models for metric in PARTS]
    rows = [["test images", *heads], ["---"] * (len(heads) + 1)]
    for at in range(result["folds"]):
        rows.append([f"fold {at}", *(f"{models[m]['folds'][at][metric]:.3f}" for m in models for metric in PARTS)])
    spread = (
        f"{models[m]['mean'][metric]:.3f} ± {models[m]['deviation'][metric]:.3f}" for m in models for metric in PARTS
    )
    rows.append(["mean ± deviation over folds", *spread])
    pooled = (
        f"{models[m]['test'][metric]:.3f} ({interval(models[m]['intervals'][metric])})"
        for m in models
        for metric in PARTS
    )
    rows.append([f"all {result['images']} images, pooled", *pooled])
    controls = [["control", "pooled accuracy", "pooled ROC AUC", "ROC AUC, mean ± deviation over folds"], ["---"] * 4]
    controls += [
        [
            row["name"].replace("_", " "),
            f"{row['accuracy']:.3f}",
            f"{row['roc_auc']:.3f} ({interval(row)})",
            _spread(row),
        ]
        for row in result["controls"]
        if row["kind"] != "model"
    ]
    markdown = ("\n".join(f"| {' | '.join(row)} |" for row in part) for part in (rows, controls))
    about = (
        f"{result['folds']} folds, {result['strategy']} split, {result['images']} images "
        f"({result['positive']} positive) of {result['groups']} groups; 95 % intervals over groups."
    )
    combined = result["combination"]
    auc, gain = combined["test"]["roc_auc"], combined["gain"]
    # Results that were recorded by older versions compare with the scores as they are.
    alone = "alone, calibrated too" if "mean" in combined else "alone, which is not calibrated"
    together = (
        "Fine-tuned model and HOG with a linear SVM, mean of their logits as calibrated on validation: "
        f"accuracy {combined['test']['accuracy']:.3f} ({interval(combined['intervals']['accuracy'])}), "
        f"ROC AUC {auc:.3f} ({interval(combined['intervals']['roc_auc'])}), "
        f"over folds {_spread(combined)}. That is {gain['difference']:+.3f} "
        f"({gain['low']:+.3f} to {gain['high']:+.3f}) over the fine-tuned model {alone}, and above every control in "
        f"{combined['win_probability']:.3f} of the resamples."
    )
    return "\n\n".join([about, *markdown, together, f"```text\n{evidence_table(models)}\n```"])


def _spread(report: Mapping[str, Any]) -> str:
    """ROC AUC over the folds, which results that were recorded by older versions lack for controls and combination."""
    if "mean" not in report:
        return "not recorded"
    return f"{report['mean']['roc_auc']:.3f} ± {report['deviation']['roc_auc']:.3f}"
