"""A phase's epochs as dvclive records them."""

from pathlib import Path

from ctscan.records import write_json
from ctscan.stage import publish
from ctscan.training import Record, best_epoch

from dvclive import Live


def publish_history(phase: str, history: list[Record], learning_rate: float) -> None:
    """Write `metrics/<phase>.json` (the best epoch) and `plots/<phase>/{train,val}/<metric>.tsv` (all epochs)."""
    best = best_epoch(history)
    with publish(Path("plots") / phase) as folder:
        live_folder = folder.with_name(f"{phase}-live")
        with Live(str(live_folder), dvcyaml=None, save_dvc_exp=False, monitor_system=False) as live:
            live.step = 1
            for record in history:
                for name, value in record.items():
                    subset, metric = ("val", name[4:]) if name.startswith("val_") else ("train", name)
                    live.log_metric(f"{subset}/{metric}", value)
                live.log_metric("train/lr", learning_rate)
                live.next_step()
        (live_folder / "plots" / "metrics").rename(folder)
    with publish(Path("metrics") / f"{phase}.json") as path:
        summary = {name: history[best][name] for name in ("val_accuracy", "val_auc", "val_loss", "loss")}
        write_json(path, {"best_epoch": best + 1, "epochs": len(history), **summary})
    print(
        f"{phase}: best epoch {best + 1} of {len(history)}: validation loss {summary['val_loss']:.4f}, "
        f"accuracy {summary['val_accuracy']:.3f}, AUC {summary['val_auc']:.3f}"
    )
