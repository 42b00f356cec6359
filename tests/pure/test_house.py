"""House rules that no linter knows: size, waiting, state, names, pages, and a language old enough for every platform."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "pha4pgsql").glob("*.py"))
PROGRAMS = sorted(path for folder in ("bin", "tools") for path in (ROOT / folder).iterdir() if path.is_file() and path.suffix != ".sql")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

OLDEST_PYTHON = (3, 9)
MEDIAN, LONGEST = 10, 60
"""Lines of a function."""

LONGEST_PAUSE = 0.1
"""Seconds between two looks at what is waited for."""

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "core", "base"}
"""They tell nothing of what a module knows."""


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]


def lines(function: ast.FunctionDef) -> int:
    return (function.end_lineno or function.lineno) - function.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_old_python_reads_it(path: Path) -> None:
    """No syntax that is younger than the oldest Python of a supported platform: no `match`, no `except*`."""
    ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST_PYTHON)


def test_functions_are_small() -> None:
    """A function answers one question."""
    sizes = {f"{path.stem}.{function.name}": lines(function) for path in MODULES for function in functions(path)}
    assert statistics.median(sizes.values()) < MEDIAN
    assert not {name: size for name, size in sizes.items() if size > LONGEST}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_nobody_sleeps_long(path: Path) -> None:
    """What is waited for is looked at again and again; no pause that a person would notice."""
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}]
    pauses = [call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)]
    assert not [pause for pause in pauses if isinstance(pause, (int, float)) and pause > LONGEST_PAUSE]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_hold_no_state(path: Path) -> None:
    """What a module binds beside functions and classes is a constant or the name of a type, and nobody changes it."""
    bound = [node for node in tree(path).body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    targets = [target for node in bound for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    assert not [name for name in names if name != "__all__" and not name.lstrip("_")[0].isupper() and not _is_function(path, name)]
    assert not [node for node in ast.walk(tree(path)) if isinstance(node, ast.Global)]


def _is_function(path: Path, name: str) -> bool:
    """Whether a name is bound to what another function makes or returns: a parser among parsers."""
    assigned = [node for node in tree(path).body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name]
    return any(isinstance(node.value, (ast.Call, ast.Lambda)) for node in assigned)


def test_names_say_what_is_known() -> None:
    """No room where everything ends up."""
    assert not EMPTY_NAMES & {word for path in MODULES for word in path.stem.split("_")}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_every_program_has_its_page(path: Path) -> None:
    """One page per program, with its exit codes. fence_lab is a part of the practice cluster's."""
    page = (ROOT / "docs" / f"{'cls_lab' if path.name == 'fence_lab' else path.name}.md").read_text(encoding="utf-8")
    assert path.name in page
    assert re.search(r"(?i)exit code", page)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """What a page points to in this tree is there."""
    text = re.sub(r"(?s)```.*?```", "", path.read_text(encoding="utf-8"))
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target and not target.startswith("#")]
    assert not [target for target in targets if not (path.parent / target).exists()]
