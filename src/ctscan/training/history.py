"""Keep the epochs of a phase of training: curves as dvclive records them, and the best epoch."""

import sys
from pathlib import Path
from statistics import median

from ctscan.core.files import publish, write_json, write_record
from ctscan.training.loop import Record, best_epoch

import pandas as pd
from dvclive import Live

TIMING = Path("metrics/timing")
# The metric that `dvc exp show` has of each phase, ROC AUC on validation at the best epoch. Its name is short and in no
# other file, so that the table of experiments fits a terminal.
HEADLINE = {"initial": "val_init", "finetune": "val_ft"}


def publish_history(phase: str, history: list[Record], blockwise: bool = False) -> None:
    """Write what git keeps of the epochs of `phase`, `initial` or `finetune`.

    `plots/<phase>/{train,val,best}/<metric>.json` hold the curves, `metrics/<phase>.json` the best epoch, and
    `metrics/val_<phase>.json` the one metric to choose by. Seconds an epoch go to
    `metrics/timing/<phase>.json`, which is no output of the stage, because they are never the same twice; the losses
    beside them tell of which run they are.

    Args:
        blockwise: whether training read its images in the order of blocks; metrics/<phase>.json then says so.
    """
    best = best_epoch(history)
    with publish(Path("plots") / phase) as folder:
        live_folder = folder.with_name(f"{phase}-live")
        with Live(str(live_folder), dvcyaml=None, save_dvc_exp=False, monitor_system=False) as live:
            for epoch, record in enumerate(history):
                live.step = epoch + 1
                for name, value in record.items():
                    subset, metric = ("val", name[4:]) if name.startswith("val_") else ("train", name)
                    if metric == "time":
                        continue
                    live.log_metric(f"{subset}/{metric}", value)
                    if epoch == best and subset == "val":
                        live.log_metric(f"best/{metric}", value)
        curves = live_folder / "plots" / "metrics"
        for table in curves.rglob("*.tsv"):  # rows in JSON, for the reason that `files.write_record` gives
            write_json(table.with_suffix(".json"), pd.read_csv(table, sep="\t").to_dict("records"))
            table.unlink()
        curves.rename(folder)
    summary = {name: history[best][name] for name in ("val_accuracy", "val_auc", "val_loss", "loss")}
    with publish(Path("metrics") / f"{phase}.json") as path:
        order = {"order": "blockwise"} if blockwise else {}
        write_record(path, {"best_epoch": best + 1, "epochs": len(history), **order, **summary})
    with publish(Path("metrics") / f"val_{phase}.json") as path:
        write_json(path, {HEADLINE[phase]: summary["val_auc"]})
    seconds = [record["time"] + record["val_time"] for record in history]
    with publish(TIMING / f"{phase}.json") as path:
        losses = [record["val_loss"] for record in history]
        write_json(path, [{"val_loss": loss, "seconds": took} for loss, took in zip(losses, seconds, strict=True)])
    print(
        f"{phase}: best epoch {best + 1} of {len(history)}: validation loss {summary['val_loss']:.4f}, "
        f"accuracy {summary['val_accuracy']:.3f}, AUC {summary['val_auc']:.3f}; {median(seconds):.1f} s an epoch"
    )
    # Keras' AUC is exactly 0.5 where no two scores are further apart than its thresholds.
    if all(record["val_auc"] == 0.5 for record in history):
        print(
            f"{phase}: 1 warning\n  no epoch tells one validation image from another: all have nearly the same score. "
            "The features may be too small to learn from, as those of some backbones with random weights are; choose "
            "other `weights` or another `backbone`",
            file=sys.stderr,
        )
