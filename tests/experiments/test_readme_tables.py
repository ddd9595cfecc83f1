"""The pages' figures are those of the committed files."""

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

from ctscan.core.errors import UserError
from ctscan.experiments.readme_tables import PAGES, TABLES, fill

import pytest
from repository import REPO


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The metrics as committed: the work tree may hold those of an experiment."""
    folder = tmp_path_factory.mktemp("committed")
    folders = ("metrics", "studies", "benchmarks")
    archive = subprocess.run(["git", "archive", "HEAD", *folders], cwd=REPO, stdout=-1, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_a_pages_figures_are_those_of_the_committed_files(committed: Path, name: str) -> None:
    page = (REPO / name).read_text(encoding="utf-8")
    assert "<!-- figures: " in page
    assert fill(page, committed) == page, "bring it in step with `ctscan readme-tables`"


def test_another_figure_is_noticed(committed: Path) -> None:
    page = (REPO / "README.md").read_text(encoding="utf-8")
    assert ".929 | .927" in page
    assert fill(page.replace(".929 | .927", ".992 | .927"), committed) == page


def test_every_table_is_on_a_page() -> None:
    text = "".join((REPO / name).read_text(encoding="utf-8") for name in PAGES)
    assert [name for name in TABLES if f"<!-- figures: {name} -->" not in text] == []


def test_a_mark_of_no_known_name_is_refused(committed: Path) -> None:
    with pytest.raises(UserError, match="no figures are called 'speed of light'"):
        fill("<!-- figures: speed of light -->\n<!-- end -->", committed)
