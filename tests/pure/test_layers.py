"""Who may import whom: the modules of the library in their order, read from their source."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "pha4pgsql"

LAYERS: dict[int, tuple[str, ...]] = {
    # vocabulary
    1: ("words", "parameters", "lvs_words", "checks"),
    # pure: no clock, file, process or log
    2: ("wal", "text", "settings", "cib", "netlink", "ipvs_codec", "lvs_settings", "lvs", "reader", "crmsh", "history",
        "vote", "sight", "standby_names", "shown", "duties", "pgsql", "copying"),
    # one adapter for each part of the world
    3: (
        "system", "paths", "arguments", "packages", "remote", "errand", "postgres", "replicas", "outage", "lock_row", "pacemaker", "resident", "site",
        "netlink_line", "ipvs", "lab_kernel", "questions", "script", "evidence", "address", "handover", "connection_sync", "marks",
        "copies", "reader_node", "repair", "rejoin", "chronicle", "checkup_node", "member_node",
    ),
    # programs, each on top of what stands before it
    4: (
        "early", "validation", "lvs_validation", "ocf", "agent", "watch", "pool", "balancer", "realsvr",
        "psql_line", "config", "config_pages", "manual", "cli_status", "cli", "trouble", "procedure", "cli_start", "cli_standby", "cli_switch",
        "cli_reset", "cli_repair",
        "cli_tools", "cli_distlock", "reader_cluster", "cli_reader", "checkup", "status_crm", "status_screen", "cli_screen",
        "cli_history", "cli_check", "pcs_lines", "pcs", "renderings", "setup", "cli_member",
        "lab_words", "lab_probe", "lab_postgres", "lab_node", "lab_line", "lab_uml", "lab_machine", "lab_guest",
        "lab_switch", "lab", "lab_fence", "lab_health", "lab_up", "lab_command",
        "demo_writer", "demo", "install",
    ),
}  # fmt: skip
"""A module imports only what stands before it; inside layers 1 and 2 not even that."""

DECISIONS = ("vote", "sight", "standby_names", "shown", "duties", "pgsql", "copying")
"""What the pgsql agent decides is one thing in several modules of layer 2: each imports those before it, and nobody else in the layer does."""

EXCEPTIONS = {("ipvs_codec", "netlink"): "what IPVS says is made of netlink attributes"}
"""Imports inside layers 1 and 2 all the same, with the reason."""

PURE = {
    "__future__",
    "binascii",
    "collections",
    "copy",
    "enum",
    "functools",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "re",
    "struct",
    "types",
    "typing",
}
"""What layers 1 and 2 may use of Python's library: nothing that reaches the world."""

PURE_PACKAGES = {"cib": {"lxml"}, "crmsh": {"lxml"}, "ipvs_codec": {"socket"}}
"""Pure work on XML by a package: only where no agent passes. Addresses as bytes are the socket module's, of which no socket is used."""

HEAVY = {"argparse", "dataclasses", "inspect", "jinja2", "json", "logging", "lxml", "pathlib", "psycopg2", "traceback", "xml"}
"""Milliseconds at every start of an agent; imported inside the function that needs it."""

ENDS = {
    "pgsql": {"ocf", "site", "postgres", "pacemaker"},
    "pgwatch": {"ocf", "site", "postgres", "pacemaker", "resident"},
    "lvsdr": {"ocf", "balancer", "resident"},
    "lvsdr-realsvr": {"ocf", "realsvr", "address", "netlink"},
}
"""What each agent comes to, at least, by what is imported at once."""

ORDER = [name for names in LAYERS.values() for name in names]
LAYER = {name: number for number, names in LAYERS.items() for name in names}


class Import(NamedTuple):
    """One import statement: what it names (`words` for pha4pgsql.words), its line, and whether it runs when the module is loaded."""

    package: str
    module: str
    line: int
    at_load: bool


def imports(source: str) -> list[Import]:
    r"""Return all imports of a source text.

    >>> imports("import os.path, re")
    [Import(package='os', module='os.path', line=1, at_load=True), Import(package='re', module='re', line=1, at_load=True)]
    >>> imports("def f():\n    from pha4pgsql import text")
    [Import(package='pha4pgsql', module='text', line=2, at_load=False)]
    >>> imports("if TYPE_CHECKING:\n    from pha4pgsql.words import Lsn")
    [Import(package='pha4pgsql', module='words', line=2, at_load=False)]
    """
    tree = ast.parse(source)
    late = {id(inner) for outer in ast.walk(tree) if _is_late(outer) for inner in ast.walk(outer)}
    found = []
    for node in (node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))):
        for name in _names(node):
            package, _, rest = name.partition(".")
            found.append(Import(package, rest.partition(".")[0] if package == "pha4pgsql" else name, node.lineno, id(node) not in late))
    return found


def _is_late(node: ast.AST) -> bool:
    """Whether what is inside does not run when the module is loaded."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def _names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, f"line {node.lineno}: imports are absolute"
    module = node.module or ""
    return [f"{module}.{alias.name}" for alias in node.names] if module == "pha4pgsql" else [module]


def of_module(name: str) -> list[Import]:
    return imports((LIBRARY / f"{name}.py").read_text(encoding="utf-8"))


def inside(name: str) -> list[Import]:
    """Return what a module imports of the library; the version is a constant of the package itself."""
    return [found for found in of_module(name) if found.package == "pha4pgsql" and found.module != "VERSION"]


def executables() -> list[Path]:
    return sorted(path for folder in ("agents", "bin", "tools") for path in (ROOT / folder).iterdir() if path.is_file() and path.suffix != ".sql")


def test_every_module_has_its_place() -> None:
    """A new module is put into the table, one that is gone is taken out."""
    assert sorted(ORDER) == sorted(path.stem for path in LIBRARY.glob("*.py") if path.stem != "__init__")


def allowed(name: str, module: str) -> bool:
    """Whether a module of the two lowest layers may import one beside it."""
    return (name, module) in EXCEPTIONS or {name, module} <= set(DECISIONS)


@pytest.mark.parametrize("name", ORDER)
def test_imports_go_down(name: str) -> None:
    """Only what stands before it; in the two lowest layers only lower layers, or a named exception."""
    above = ORDER[ORDER.index(name) :]
    wrong = [
        f"{name}.py:{found.line} imports {found.module}"
        for found in inside(name)
        if found.module in above
        or found.module not in LAYER
        or (LAYER[name] <= 2 and LAYER[found.module] == LAYER[name] and not allowed(name, found.module))
    ]
    assert not wrong


def test_exceptions_are_needed() -> None:
    """An exception that nobody uses any more is taken out."""
    assert set(EXCEPTIONS) <= {(name, found.module) for name in ORDER for found in inside(name)}


@pytest.mark.parametrize("name", [*LAYERS[1], *LAYERS[2]])
def test_lower_layers_are_pure(name: str) -> None:
    """The vocabulary and the decisions cannot reach the world: they have nothing to do it with."""
    allowed = PURE | PURE_PACKAGES.get(name, set()) | {"pha4pgsql"}
    assert not [found for found in of_module(name) if found.package not in allowed]
    source = (LIBRARY / f"{name}.py").read_text(encoding="utf-8")
    called = {node.func.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


@pytest.mark.parametrize("path", [path for path in executables() if path.parent.name == "agents"], ids=lambda path: path.name)
def test_agents_start_light(path: Path) -> None:
    """Nothing heavy is imported before an agent's action needs it, by whatever module it loads."""
    loaded, waiting, heavy = set[str](), [""], []
    while waiting:
        name = waiting.pop()
        all_of_it = imports(path.read_text(encoding="utf-8")) if not name else of_module(name)
        heavy += [f"{name or path.name}:{found.line} imports {found.module}" for found in all_of_it if found.package in HEAVY and found.at_load]
        ours = {found.module for found in all_of_it if found.module in LAYER and (found.at_load or not name)}
        waiting += ours - loaded
        loaded |= ours
    assert ENDS[path.name] <= loaded, "the agent's whole path was followed"
    assert not heavy


@pytest.mark.parametrize("path", executables(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_executables_are_ten_lines(path: Path) -> None:
    """An executable finds the library and calls one function of it; whatever else it does belongs into the library."""
    source = path.read_text(encoding="utf-8")
    assert source.startswith("#!/usr/bin/python3 -IS\n")
    assert path.stat().st_mode & 0o111 == 0o111
    assert len(source.splitlines()) <= 22
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.If, ast.For, ast.While, ast.Try, ast.ClassDef))]
