"""Read the plots of one run or of several from DVC, and put them in the order in which a reader wants them."""

import argparse
import json
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ctscan.core.errors import UserError
from ctscan.experiments.compare import is_evaluated
from ctscan.experiments.programs import calling_dvc, read_program

import vl_convert

VEGA_LITE = "5.20"
# Legends below: beside the chart they would make it too wide for a phone.
CONFIG = {
    "font": "sans-serif",
    "legend": {"orient": "bottom", "symbolOpacity": 1},
    "axis": {"labelFontSize": 11, "titleFontSize": 12},
    "title": {"fontSize": 14},
}

CURVES = "Learning curves"
DATASET = "plots/images/"  # pictures that show images of the dataset

# Heading of a section: how the names of its plots in dvc.yaml begin.
SECTIONS = {
    "ROC": ("ROC",),
    "Precision and recall": ("Precision",),
    "Calibration": ("plots/reliability", "plots/scores"),
    "Use in decisions": ("plots/net_benefit", "plots/risk_coverage"),
    "Confusion": ("Confusion",),
    CURVES: ("Loss", "Accuracy", "AUC"),
    "Controls": ("plots/controls",),
    "Images": (DATASET,),
}
OTHERS = "Other plots"


class Chart(NamedTuple):
    """A Vega-Lite chart; `spec` holds its data, of all revisions compared."""

    name: str
    spec: dict[str, Any]


class Picture(NamedTuple):
    """A PNG of one revision, whole in `data`."""

    name: str
    revision: str
    data: bytes


def add_revisions(parser: argparse.ArgumentParser) -> None:
    """The argument that names the revisions whose plots are wanted."""
    parser.add_argument(
        "revisions", nargs="*", metavar="REVISION", help="a commit, branch or experiment (default: the work tree)"
    )


def read_plots(revisions: Sequence[str]) -> tuple[list[Chart | Picture], list[str]]:
    """Plots of the revisions, or, given none, of the work tree, in the order of dvc.yaml; and DVC's names of them.

    Given one revision, DVC compares the work tree with it. The work tree's name is `workspace`. Of a revision that was
    not evaluated the test plots are left out.

    Raises:
        UserError: DVC knows no such revision, or there is nothing to plot.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["dvc", "plots", "diff" if revisions else "show", *revisions]
        with calling_dvc():
            answer = json.loads(read_program(*command, "--json", "--out", folder))
        plots: list[Chart | Picture] = []
        names: dict[str, None] = {}
        for name, parts in answer.get("data", {}).items():
            for part in parts:
                names |= dict.fromkeys(part["revisions"])
                if part["type"] == "image":
                    plots.append(Picture(name, part["revisions"][0], Path(part["url"]).read_bytes()))
                else:
                    plots.append(Chart(name, part["content"]))
    if not plots:
        raise UserError("there is nothing to plot; run the pipeline with `make repro`")
    # DVC names the work tree first; a reader wants what was asked for, then what it is compared with.
    given = list(revisions)
    ordered = sorted(names, key=lambda name: given.index(name) if name in given else len(given))
    return _without_test_plots(plots, [name for name in ordered if not is_evaluated(name)]), ordered


def _without_test_plots(plots: Sequence[Chart | Picture], revisions: Collection[str]) -> list[Chart | Picture]:
    """Leave out what evaluate drew of `revisions`, which were not evaluated, so that it drew another run's models."""
    kept: list[Chart | Picture] = []
    for plot in plots:
        if plot.name.startswith(SECTIONS[CURVES]):
            kept.append(plot)
        elif isinstance(plot, Picture):
            if plot.revision not in revisions:
                kept.append(plot)
        else:
            rows = [row for row in plot.spec["data"]["values"] if row["rev"] not in revisions]
            if rows:
                kept.append(plot._replace(spec={**plot.spec, "data": {"values": rows}}))
    return kept


def in_sections(plots: Sequence[Chart | Picture]) -> dict[str, list[Chart | Picture]]:
    """The plots by heading; those that no section names come last, so that a new one is never lost."""
    sections: dict[str, list[Chart | Picture]] = {heading: [] for heading in (*SECTIONS, OTHERS)}
    for plot in plots:
        heading = next((heading for heading, begins in SECTIONS.items() if plot.name.startswith(begins)), OTHERS)
        sections[heading].append(plot)
    return {heading: members for heading, members in sections.items() if members}


def draw(chart: Chart) -> bytes:
    """The chart as a PNG, drawn without a browser or a network."""
    png: bytes = vl_convert.vegalite_to_png(chart.spec, vl_version=VEGA_LITE, config=CONFIG, scale=2)
    return png


def vega_script() -> str:
    """Vega, Vega-Lite and Vega-Embed as one classic script, which puts them on `window`."""
    script: str = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]  # the default snippet
    return script
