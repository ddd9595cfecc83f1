"""Write what each epoch of a phase of training gave, as metrics and curves that DVC shows."""

from pathlib import Path
from statistics import median

from ctscan.core.files import publish, write_json
from ctscan.training.loop import Record, best_epoch

from dvclive import Live


def publish_history(phase: str, history: list[Record]) -> None:
    """Write `metrics/<phase>.json` (the best epoch) and `plots/<phase>/{train,val,best}/<metric>.tsv` (all epochs).

    The seconds per epoch go to `metrics/timing/<phase>`, which is not an output of the stage: they differ in each run.
    """
    best = best_epoch(history)
    with publish(Path("plots") / phase) as folder:
        live_folder = folder.with_name(f"{phase}-live")
        with Live(str(live_folder), dvcyaml=None, save_dvc_exp=False, monitor_system=False) as live:
            for epoch, record in enumerate(history):
                live.step = epoch + 1
                for name, value in record.items():
                    subset, metric = ("val", name[4:]) if name.startswith("val_") else ("train", name)
                    live.log_metric(f"{subset}/{metric}", value)
                    if epoch == best and subset == "val" and metric != "time":
                        live.log_metric(f"best/{metric}", value)
        curves = live_folder / "plots" / "metrics"
        for subset in ("train", "val"):
            with publish(Path("metrics/timing") / phase / f"{subset}.tsv") as path:
                (curves / subset / "time.tsv").rename(path)
        curves.rename(folder)
    with publish(Path("metrics") / f"{phase}.json") as path:
        summary = {name: history[best][name] for name in ("val_accuracy", "val_auc", "val_loss", "loss")}
        write_json(path, {"best_epoch": best + 1, "epochs": len(history), **summary})
    seconds = median(record["time"] + record["val_time"] for record in history)
    print(
        f"{phase}: best epoch {best + 1} of {len(history)}: validation loss {summary['val_loss']:.4f}, "
        f"accuracy {summary['val_accuracy']:.3f}, AUC {summary['val_auc']:.3f}; {seconds:.1f} s an epoch"
    )
