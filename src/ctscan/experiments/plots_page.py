"""Write the results and plots of the last run, or of several, as one page that opens with no network.

`ctscan plots` shows the work tree; `ctscan plots HEAD my-experiment` compares revisions.
"""

import argparse
import base64
import json
from html import escape
from pathlib import Path

from ctscan.experiments.compare import Table, headline_table, params_table
from ctscan.experiments.dvc_plots import (
    CONFIG,
    Chart,
    Picture,
    add_revisions,
    in_sections,
    read_plots,
    vega_script,
)

PAGE = Path("dvc_plots/index.html")
TITLE = "COVID vs non-COVID on chest CT slices"

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1rem auto; max-width: 1240px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } h2 { font-size: 1.15rem; border-bottom: 1px solid #ccc; margin-top: 2rem }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem } .notice { border-left: 4px solid #D55E00; padding-left: .7rem }
.table { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; white-space: nowrap } th { border-bottom: 1px solid #888 }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 1.5rem }
figure { margin: 0; min-width: 0 } figcaption { font-size: 13px; color: #555 } .picture { grid-column: 1 / -1 }
.chart, .chart svg { max-width: 100%; height: auto } .picture img { max-width: 100% }
"""
# A chart shrinks with the page as SVG; of Vega-Embed's menu only the export stays, the rest leaves the page.
EMBED = {
    "renderer": "svg",
    "config": CONFIG,
    "actions": {"export": True, "source": False, "compiled": False, "editor": False},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which revisions to show."""
    add_revisions(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises `UserError` where a revision holds no run."""
    plots, revisions = read_plots(arguments.revisions)
    tables = headline_table(revisions), params_table(revisions if len(revisions) > 1 else ["HEAD", *revisions])
    sections = {
        heading: f"<div class='plots'>{''.join(map(_figure, members))}</div>"
        for heading, members in in_sections(plots).items()
    }
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(*tables, sections), encoding="utf-8")
    print(f"{PAGE}: open it in a browser; it needs no network")
    return 0


def page(headline: Table, params: Table, sections: dict[str, str]) -> str:
    """The HTML; `sections` maps headings to what stands below them."""
    parts = {"Test images, 95 % intervals": _table(headline)}
    if len(params) > 1:
        parts["Params that differ"] = _table(params)
    parts |= sections
    return (
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{TITLE}</title>\n<style>{STYLE}</style>\n"
        # A classic script: in a module, Vega would arrive after the charts that ask for it.
        f"<script>{vega_script()}</script>\n</head>\n<body>\n<h1>{TITLE}</h1>\n"
        "<p class='notice'>For research only. Not for diagnosis.</p>\n"
        f"<nav>{''.join(f'<a href=#{_anchor(heading)}>{heading}</a>' for heading in parts)}</nav>\n"
        + "".join(f"<h2 id='{_anchor(heading)}'>{heading}</h2>\n{body}\n" for heading, body in parts.items())
        + "</body>\n</html>\n"
    )


def _anchor(heading: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in heading.lower())


def _table(rows: Table) -> str:
    lines = [
        f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in row)}</tr>"
        for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows, strict=True)
    ]
    return f"<div class='table'><table>{''.join(lines)}</table></div>"


def _figure(plot: Chart | Picture) -> str:
    if isinstance(plot, Picture):
        name, source = escape(f"{plot.name}, {plot.revision}"), base64.b64encode(plot.data).decode()
        image = f"<img alt='{name}' src='data:image/png;base64,{source}'>"
        return f"<figure class='picture'><figcaption>{name}</figcaption>{image}</figure>"
    spec, options = (json.dumps(value).replace("<", "\\u003c") for value in (plot.spec, EMBED))  # no </script> in data
    return (
        f"<figure aria-label='{escape(plot.name)}'><div class='chart'></div>"
        f"<script>vegaEmbed(document.currentScript.previousElementSibling, {spec}, {options})</script></figure>"
    )
