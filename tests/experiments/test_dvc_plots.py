"""The page of plots in a real browser, and the report, both of the committed run."""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ctscan.core.files import read_record
from ctscan.experiments.dvc_plots import OTHERS, Chart, in_sections, read_plots

import pytest
import vl_convert
import yaml
from browser import CHROMIUM, open_browser, visit
from commands import ctscan_process
from PIL import Image
from playwright.sync_api import Browser
from repository import REPO

pytestmark = pytest.mark.slow
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")

HEADINGS = [
    "Test images, 95 % intervals",
    "ROC",
    "Precision and recall",
    "Calibration",
    "Use in decisions",
    "Confusion",
    "Learning curves",
    "Controls",
    "Images",
]
COMPARED = [HEADINGS[0], "Params that differ", *HEADINGS[1:]]
CHARTS = 10
BLUE, ORANGE = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def run(clone: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)


def show(clone: Path, command: str, *revisions: str) -> subprocess.CompletedProcess[str]:
    return ctscan_process(command, *revisions, at=clone)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with this one's run; its branch `other` has another lr and a model that calls all COVID."""
    folder = tmp_path_factory.mktemp("plots") / "a clone"
    names = [
        "src",
        ".dvc/config",
        ".dvc/plots",
        "dvc.yaml",
        "dvc.lock",
        "params.yaml",
        ".gitignore",
        "metrics",
        "plots",
    ]
    files = run(REPO, "git", "ls-files", "--", *names).stdout.splitlines()
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPO / name, folder / name)
    # A picture of the dataset, which git doesn't hold; with the recorded one's hash gone, DVC takes it for the out.
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    outs = lock["stages"]["evaluate"]["outs"]
    lock["stages"]["evaluate"]["outs"] = [out for out in outs if out["path"] != "plots/images"]
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock))
    (folder / "plots" / "images").mkdir()
    Image.linear_gradient("L").save(folder / "plots" / "images" / "classes.png")

    def commit(message: str) -> None:
        run(folder, "git", "add", "-A")
        done = run(folder, "git", "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", message)
        assert done.returncode == 0, done.stderr

    run(folder, "git", "init", "-q", "-b", "main")
    commit("run")
    run(folder, "git", "switch", "-qc", "other")
    params = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(params.replace("\nlr: 0.0001 ", "\nlr: 0.0003 "))
    predictions = folder / "plots" / "confusion_initial.json"
    rows = [{**row, "predicted": "COVID"} for row in json.loads(predictions.read_text())]
    predictions.write_text(json.dumps(rows))
    commit("other run")
    run(folder, "git", "switch", "-q", "main")
    return folder


@pytest.fixture(scope="module")
def page(clone: Path) -> Path:
    done = show(clone, "plots")
    assert done.returncode == 0, done.stderr
    name = done.stdout.split(":")[0]
    assert done.stdout == f"{name}: open it in a browser; it needs no network\n"
    return (clone / name).rename(clone / "alone.html")


@pytest.fixture(scope="module")
def comparison(clone: Path) -> Path:
    done = show(clone, "plots", "other")
    assert done.returncode == 0, done.stderr
    return (clone / "dvc_plots" / "index.html").rename(clone / "compared.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as chromium:
        yield chromium


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


@in_browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize(("name", "headings"), [("page", HEADINGS), ("comparison", COMPARED)])
def test_the_page_shows_all_with_no_network(
    browser: Browser, request: pytest.FixtureRequest, name: str, headings: list[str], width: int
) -> None:
    seen = visit(browser, request.getfixturevalue(name), width)
    assert seen.requests == []
    assert seen.errors == []
    assert seen.headings == headings
    assert len(seen.marks) == CHARTS
    assert min(seen.marks) >= 2, "one may be a diagonal"
    assert seen.broken == []
    assert seen.width == width, "the page itself does not scroll sideways"
    boxes = seen.boxes
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if overlap(a, b)]
    assert all(right - left > 300 for left, _, right, _ in boxes)
    picture = Image.open(io.BytesIO(seen.screenshot)).convert("RGB")
    colours = {colour: count for count, colour in picture.getcolors(1 << 24) or []}
    assert min(colours[BLUE], colours[ORANGE]) > 500


@in_browser
@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("<title>", "<script src='https://cdn.example.org/vega.js'></script><title>", "requests"),
        ("<title>", "<link rel=stylesheet href='https://fonts.example.org/font.css'><title>", "requests"),
        ("<nav>", "<script>absent.call()</script><nav>", "errors"),
        ("<nav>", "<script>console.error('no')</script><nav>", "errors"),
        ('"mark": {"type": "line"', '"mark": {"type": "lime"', "errors"),
        ('"data": {"values": [', '"data": {"values": [], "was": [', "marks"),
        ("<script>vegaEmbed(", "<script>Promise.resolve(", "marks"),
        ("src='data:image/png;base64,", "src='data:image/png;base64,A", "broken"),
    ],
)
def test_a_fault_in_the_page_is_seen(
    browser: Browser, page: Path, tmp_path: Path, before: str, after: str, fault: str
) -> None:
    html = page.read_text(encoding="utf-8")
    assert before in html
    faulty = tmp_path / "faulty.html"
    faulty.write_text(html.replace(before, after, 1), encoding="utf-8")
    seen = visit(browser, faulty, 1280)
    assert min(seen.marks) < 2 if fault == "marks" else getattr(seen, fault)


def test_names_and_data_are_escaped(clone: Path, page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    bodies = re.findall(r"<script>vegaEmbed\((.*?)\)</script>", html)
    assert len(bodies) == CHARTS
    assert not any("<" in body for body in bodies)


def test_the_page_holds_the_results(clone: Path, page: Path, comparison: Path) -> None:
    details = read_record(clone / "metrics" / "details.json")
    for model in ("initial", "finetuned"):
        test, interval = details[model]["test"], details[model]["intervals"]["roc_auc"]
        bounds = [f"{interval[end]:.3f}" for end in ("low", "high")]
        spread = "-".join(bounds) if interval["low"] < interval["high"] else "no spread"
        cell = f"<td>{test['roc_auc']:.3f} ({spread})</td>"
        assert f"<td>workspace</td><td>{model}</td>" in page.read_text()
        assert cell in page.read_text()
        for revision in ("workspace", "other"):
            assert f"<td>{revision}</td><td>{model}</td>" in comparison.read_text()
    assert "<tr><td>lr</td><td>0.0003</td><td>0.0001</td></tr>" in comparison.read_text()


def test_the_report_is_the_same_as_markdown_and_pictures(clone: Path) -> None:
    done = show(clone, "report", "other")
    assert done.returncode == 0, done.stderr
    report = clone / done.stdout.split(":")[0]
    text = report.read_text(encoding="utf-8")
    assert re.findall("^## (.+)", text, re.MULTILINE) == COMPARED
    assert "| param | other | workspace |\n| --- | --- | --- |\n| lr | 0.0003 | 0.0001 |\n\n" in text
    links = re.findall(r"!\[.+\]\((.+)\)", text)
    assert len(links) == CHARTS + 5 * 2 + 1, "charts hold both revisions, other pictures are of one"
    assert sorted(links) == sorted(file.name for file in report.parent.glob("*.png"))
    for link in links:
        with Image.open(report.parent / link) as picture:
            assert len(set(picture.convert("L").getdata())) > 20, f"{link} is blank"


def test_the_report_publishes_no_images_of_another_dataset(clone: Path) -> None:
    params = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(params.replace("\ndataset: sample ", "\ndataset: scans "))
    done = show(clone, "report")
    (clone / "params.yaml").write_text(params)
    assert done.returncode == 0, done.stderr
    assert "plots/images/classes.png, workspace is left out" in (clone / "report" / "report.md").read_text()
    assert not list((clone / "report").glob("*images-classes*"))


def test_confusion_counts_images_and_shares_of_the_actual_class(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone)
    plots, revisions = read_plots(["main", "other"])
    assert revisions == ["main", "other"]
    rows = json.loads((clone / "plots" / "confusion_initial.json").read_text())
    cells = [(actual, predicted) for actual in ("COVID", "non-COVID") for predicted in ("COVID", "non-COVID")]
    counts = [sum((row["actual"], row["predicted"]) == cell for row in rows) for cell in cells]
    actual = [counts[0] + counts[1]] * 2 + [counts[2] + counts[3]] * 2
    all_covid = [actual[0], 0, actual[2], 0]
    expected = {
        "Confusion, initial model": [str(count) for count in [*counts, *all_covid]],
        "Confusion as a share of the actual class, initial model": [
            f"{100 * count / of:.1f}%" for count, of in zip([*counts, *all_covid], actual * 2, strict=True)
        ],
    }
    for chart in plots:
        if isinstance(chart, Chart) and chart.name in expected:
            svg = vl_convert.vegalite_to_svg(chart.spec, vl_version="5.20")
            texts = re.findall(r'font-size="18px"[^>]*>([^<]+)<', svg)
            assert sorted(texts) == sorted(expected.pop(chart.name))
    assert not expected


def test_every_plot_of_the_pipeline_has_its_section() -> None:
    names = [
        name
        for plot in yaml.safe_load((REPO / "dvc.yaml").read_text())["plots"]
        for name in ([plot] if isinstance(plot, str) else plot)
    ]
    sections = in_sections([Chart(f"{name}/a.png" if name == "plots/images" else name, {}) for name in names])
    assert OTHERS not in sections
    assert [chart.name.removesuffix("/a.png") for members in sections.values() for chart in members] == names
    assert list(in_sections([Chart("anything else", {}), Chart("ROC", {})])) == ["ROC", OTHERS]


def test_an_unknown_revision_is_a_line(clone: Path) -> None:
    done = show(clone, "plots", "nowhere")
    assert done.returncode == 1
    assert re.fullmatch(r"plots: `dvc plots diff nowhere .*` failed: ERROR: .*'nowhere'.*\n", done.stderr)
