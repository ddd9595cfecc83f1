"""Who may import whom in the library, and that dvc.yaml declares what each stage runs, no less and no more."""

import ast
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import REPO

SOURCES = REPO / "src"
STAGES: dict[str, dict[str, Any]] = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]

# A package imports from the rows below its own and from none beside it.
LAYERS = (
    ("core",),
    ("images", "model", "phantoms"),
    ("split", "training", "evaluation", "download"),
    ("inference", "experiments"),
)
AROUND_THE_PIPELINE = {"download", "inference", "experiments"}


def imported_modules(path: Path) -> set[str]:
    """What the file at `path` imports, at its top or inside a function, as dotted names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_files(script: Path, root: Path) -> set[Path]:
    """Files below `root` that `script` imports, however deep, and itself, relative to the folder of `root`."""
    found: set[Path] = set()
    pending = [script]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        for name in imported_modules(path):
            target = root.joinpath(*name.split("."))
            packages = [parent / "__init__.py" for parent in (target, *target.parents) if root in parent.parents]
            pending += [file for file in (target.with_suffix(".py"), *packages) if file.is_file()]
    return {file.relative_to(root.parent) for file in found}


def package(file: Path) -> str:
    """`split` for ctscan/split/check.py, `phantoms` for ctscan/phantoms.py."""
    return file.relative_to(SOURCES / "ctscan").parts[0].removesuffix(".py")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_that_it_imports_and_on_no_package_that_it_does_not(stage: str) -> None:
    imported = imported_files(REPO / STAGES[stage]["cmd"].split()[1], SOURCES)
    declared = {Path(name) for name in STAGES[stage]["deps"] if name.startswith("src/")}
    undeclared = {file for file in imported if not declared & {file, *file.parents}}
    needless = {path for path in declared if not any(path in (file, *file.parents) for file in imported)}
    assert (undeclared, needless) == (set(), set())


def test_git_keeps_no_result_that_no_stage_writes() -> None:
    """A file of an output that was renamed would stay behind, with figures of another run."""
    tracked = subprocess.run(
        ["git", "ls-files", "metrics", "plots"], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout.split()
    written = [
        Path(next(iter(out)))
        for stage in STAGES.values()
        for kind in ("metrics", "plots")
        for out in stage.get(kind, [])
    ]
    written.append(Path("metrics/environment.json"))  # by `ctscan environment`
    left_behind = [name for name in tracked if not any(out in (Path(name), *Path(name).parents) for out in written)]
    assert left_behind == []


def test_imports_only_go_down() -> None:
    row = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    upward = []
    for file in sorted(SOURCES.glob("ctscan/*/*.py")):
        for name in imported_modules(file):
            parts = name.split(".")
            if parts[0] == "ctscan" and len(parts) > 1 and parts[1] in row:
                own, other = package(file), parts[1]
                if own != other and row[other] >= row[own]:
                    upward.append(f"{file.relative_to(SOURCES)} imports {name}")
    assert upward == []
    assert {package(file) for file in SOURCES.glob("ctscan/*/*.py")} <= row.keys(), "give the new package a row"


def test_no_stage_imports_what_stands_around_the_pipeline() -> None:
    for script in SOURCES.glob("*.py"):
        packages = {package(REPO / file) for file in imported_files(script, SOURCES) if file.parts[1] == "ctscan"}
        assert not packages & AROUND_THE_PIPELINE, script.name


def test_the_five_stages_are_all_that_stands_beside_the_library() -> None:
    assert {f"src/{path.name}" for path in SOURCES.glob("*.py")} == {
        stage["cmd"].removeprefix("python ") for stage in STAGES.values()
    }


def test_imports_are_followed_however_deep(tmp_path: Path) -> None:
    package = tmp_path / "src" / "ctscan"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from ctscan import b")
    (package / "b.py").write_text("def f():\n    import ctscan.c")
    (package / "c.py").write_text("import os")
    (package / "d.py").write_text("")
    script = tmp_path / "src" / "stage.py"
    script.write_text("from ctscan.a import x")
    expected = {Path("src/stage.py"), *(Path(f"src/ctscan/{name}.py") for name in ("__init__", "a", "b", "c"))}
    assert imported_files(script, tmp_path / "src") == expected
