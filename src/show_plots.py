"""Write the plots of the last run, or of several, as one page that opens with no network.

`python src/show_plots.py` shows the work tree; `python src/show_plots.py HEAD my-experiment` compares revisions.
"""

import html
import json
import subprocess
import sys
from pathlib import Path

from ctscan.reports import results_table

import vl_convert

PAGE = Path("dvc_plots/index.html")
TEMPLATE = Path(".dvc/tmp/page.html")
DETAILS = Path("metrics/details.json")

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1240px; padding: 0 1rem; color: #222 }
h1 { font-size: 1.4rem } .notice { border-left: 4px solid #D55E00; padding-left: .7rem }
pre { overflow-x: auto; background: #f5f5f5; padding: .8rem; font-size: 13px }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start }
.plots > div { max-width: 100%; overflow-x: auto } .plots img { max-width: 100%; height: auto }
"""


def _vega() -> str:
    """Vega and Vega-Embed as one script; the default snippet, which the stubs call required, puts them on `window`."""
    script: str = vl_convert.javascript_bundle(vl_version="5.20")  # type: ignore[call-arg]
    return script


def main() -> None:
    if not DETAILS.is_file():
        sys.exit(f"{DETAILS} is missing; run the pipeline with `make repro`")
    report = json.loads(DETAILS.read_text(encoding="utf-8"))
    table = results_table({model: report[model] for model in ("initial", "finetuned")})
    # A classic script: in a module, Vega would arrive after the charts that ask for it. DVC fills {plot_divs}.
    TEMPLATE.parent.mkdir(parents=True, exist_ok=True)
    TEMPLATE.write_text(
        "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>COVID vs non-COVID on chest CT slices</title>\n<style>{STYLE}</style>\n"
        f"<script>{_vega()}</script>\n</head>\n<body>\n"
        "<h1>COVID vs non-COVID on chest CT slices</h1>\n"
        "<p class='notice'>For research only. Not for diagnosis.</p>\n"
        f"<p>Work tree, test images, 95 % intervals:</p>\n<pre>{html.escape(table)}</pre>\n"
        "<div class='plots'>{plot_divs}</div>\n</body>\n</html>\n",
        encoding="utf-8",
    )
    command = ["dvc", "plots", "diff" if sys.argv[1:] else "show", *sys.argv[1:], "--quiet"]
    subprocess.run([*command, "--html-template", str(TEMPLATE), "--out", str(PAGE.parent)], check=True)
    print(f"{PAGE}: open it in a browser; it needs no network")


if __name__ == "__main__":
    main()
