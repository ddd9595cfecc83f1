"""dvc.yaml declares every module of ours that a stage runs, so no edit leaves a stale result."""

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPO

STAGES: dict[str, dict[str, Any]] = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]


def _imports(path: Path) -> set[str]:
    """Modules of ctscan that the file at `path` names, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def _modules(script: Path, root: Path) -> set[str]:
    """Files below `root` that `script` imports, however deep, and itself."""
    found: set[Path] = set()
    pending = [script]
    while pending:
        path = pending.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imports(path):
            target = root.joinpath(*name.split("."))
            packages = [parent / "__init__.py" for parent in (target, *target.parents) if root in parent.parents]
            pending += [file for file in (target.with_suffix(".py"), *packages) if file.is_file()]
    return {file.relative_to(root.parent).as_posix() for file in found}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_modules_that_the_stage_imports(stage: str) -> None:
    script = REPO / STAGES[stage]["cmd"].split()[1]
    declared = {dependency for dependency in STAGES[stage]["deps"] if dependency.endswith(".py")}
    assert declared == _modules(script, REPO / "src")


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
    expected = {"src/stage.py", *(f"src/ctscan/{name}.py" for name in ("__init__", "a", "b", "c"))}
    assert _modules(script, tmp_path / "src") == expected
