"""Write the results and plots of the last run, or of several, as Markdown and PNG, for a pull request.

`ctscan report` reports on the work tree; `ctscan report main HEAD` compares revisions.
Pictures of a dataset other than the embedded sample are left out: a pull request would publish them.
"""

import argparse
import re
from pathlib import Path

from ctscan.core.files import publish
from ctscan.experiments.compare import Table, headline_table, params, params_table
from ctscan.experiments.dvc_plots import DATASET, Chart, Picture, add_revisions, draw, in_sections, read_plots

REPORT = Path("report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which revisions to report on."""
    add_revisions(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where a revision holds no run."""
    plots, revisions = read_plots(arguments.revisions)
    parts = {"Test images, 95 % intervals": _table(headline_table(revisions))}
    changed = params_table(revisions if len(revisions) > 1 else ["HEAD", *revisions])
    if len(changed) > 1:
        parts["Params that differ"] = _table(changed)
    private = {revision for revision in revisions if params(revision)["dataset"] != "sample"}
    with publish(REPORT) as folder:
        folder.mkdir()
        for heading, members in in_sections(plots).items():
            parts[heading] = "\n\n".join(_link(plot, folder, private) for plot in members)
        body = "\n\n".join(f"## {heading}\n\n{part}" for heading, part in parts.items())
        (folder / "report.md").write_text(
            "# COVID vs non-COVID on chest CT slices\n\n> For research only. Not for diagnosis.\n\n" + body + "\n",
            encoding="utf-8",
        )
    print(f"{REPORT / 'report.md'}: the pictures lie beside it")
    return 0


def _table(rows: Table) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def _link(plot: Chart | Picture, folder: Path, private: set[str]) -> str:
    """Markdown that shows `plot`, whose PNG this writes into `folder`."""
    title = plot.name if isinstance(plot, Chart) else f"{plot.name}, {plot.revision}"
    if isinstance(plot, Picture) and plot.revision in private and plot.name.startswith(DATASET):
        return f"*{title} is left out: it shows images of the dataset.*"
    file = folder / (re.sub(r"\W+", "-", title.removesuffix(".png").lower()).strip("-") + ".png")
    file.write_bytes(draw(plot) if isinstance(plot, Chart) else plot.data)
    return f"![{title}]({file.name})"
