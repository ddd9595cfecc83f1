"""Run stage prepare-split: check the images, split them into train, validation and test, and look for leaks."""

import sys
from pathlib import Path

from ctscan.core.files import publish, write_record
from ctscan.core.params import Params
from ctscan.core.stage import run_stage
from ctscan.split.check import scan
from ctscan.split.folders import show
from ctscan.split.leakage import contradiction, leak_report
from ctscan.split.strategies import assign_subsets

COLUMNS = ["path", "label", "subset", "group", "width", "height", "mode"]


def prepare_split(params: Params) -> None:
    """Check the dataset, split it into train, validation and test, and measure how much of the test set leaks.

    Reads the folder `dataset`. Writes split/manifest.csv with one row per image; split/slices.csv, its paths alone;
    metrics/split.json; and, for people, split/images/{train,test}/<class>/<file>, links into the dataset, where train
    holds the validation images too.
    """
    folder = Path(params.dataset)
    found = scan(folder, params.classes, params.checks.min_size)
    manifest = assign_subsets(found.manifest, found.copies, params.split, params.seed)
    report = leak_report(manifest, found.copies, found.thumbnails, params.seed)
    doubt = contradiction(report)
    if doubt:
        print(f"WARNING: {doubt}", file=sys.stderr)
    report["warnings"] = len(manifest.attrs["warnings"]) + bool(doubt)
    report["dataset"] = params.dataset

    with (
        publish(Path("split/manifest.csv")) as table,
        publish(Path("split/slices.csv")) as slices,
        publish(Path("metrics/split.json")) as metrics,
    ):
        manifest.to_csv(table, columns=COLUMNS, index=False, lineterminator="\n")
        manifest.to_csv(slices, columns=["path"], index=False, lineterminator="\n")
        write_record(metrics, report)
    show(manifest, folder)

    asked = "them" if report["probe"]["exact"] else f"{report['probe']['asked']} of them"
    print(
        f"{params.split.strategy} split: {report['test_positive']} + {report['test_negative']} test images; "
        f"nearest neighbour knows {report['probe_accuracy']:.3f} of {asked}; {report['near_duplicate_pairs_across']} "
        f"copies and {report['groups_across']} groups across subsets"
    )


if __name__ == "__main__":
    run_stage("prepare-split", prepare_split)
