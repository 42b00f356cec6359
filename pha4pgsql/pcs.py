"""config.ini and a template become config.pcs; the lines of config.pcs become a CIB, by running pcs on an empty one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
import tempfile
from typing import TYPE_CHECKING

from pha4pgsql import cib, pcs_lines, system
from pha4pgsql.words import ConfigurationError, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lxml.etree import _Element as Element

    from pha4pgsql.config import Config

# ---------------------------------------------------------------- config.ini + template -> config.pcs


def render(config: Config, templates: str, pcs: tuple[int, ...]) -> str:
    """Return the text of config.pcs, for this version of pcs. Its first line carries a checksum: a file edited by hand is told from ours."""
    import jinja2  # 40 ms; only here

    path = os.path.join(templates, config.pcs_template)
    if not os.path.isfile(path):
        there = " ".join(sorted(name for name in os.listdir(templates) if name.endswith(".j2"))) if os.path.isdir(templates) else "nothing"
        raise ConfigurationError(f"pcs_template: no file {path}, expected one of: {there}", "correct pcs_template in config.ini")
    loader = jinja2.FileSystemLoader(templates)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - a shell script, no HTML
    environment.filters["setting"] = lambda pair: f"{pair[0]}={shlex.quote(pair[1])}"
    environment.filters["rule"] = shlex.quote if pcs >= (0, 12) else lambda rule: " ".join(map(shlex.quote, rule.split()))
    template = environment.get_template(config.pcs_template)
    draft = template.render(config=config, prefix=cib.prefix(config.pgsql_resource), marker=_MARKER)
    return draft.replace(_MARKER, f"{_MARKER} sha256 {_digest(draft)}", 1)


TEMPLATES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "templates")
"""The templates of this program, which may be an unpacked tree that is not installed."""

_MARKER = "made by pha4pgsql from config.ini;"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_untouched(text: str) -> bool:
    """Tell whether a config.pcs is as it was made."""
    seal = re.search(rf"{re.escape(_MARKER)} sha256 ([0-9a-f]+)", text)
    return seal is not None and _digest(text.replace(seal[0], _MARKER, 1)) == seal[1]


def pcs_version() -> tuple[int, ...]:
    """Return the version of the installed pcs; asking pcs itself costs ten times as much as its package's metadata."""
    from importlib import metadata

    try:
        text = metadata.version("pcs")
    except metadata.PackageNotFoundError:
        done = system.run(["pcs", "--version"])
        if not done.ok:
            raise EnvironmentFailure(f"pcs cannot be run: {done.err.strip()}", "install the package pcs") from None
        text = done.out
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


# ---------------------------------------------------------------- config.pcs -> CIB


def commands(text: str, source: str) -> list[list[str]]:
    """Return the arguments of each `pcs -f "$CIB"` line, without these three words. Anything else that a shell would do is refused."""
    found = []
    for number, line in _logical_lines(text):
        if re.match(r"\s*(#|$|set -e\s*$|CIB=\S*\$\{1)", line):
            continue
        start = re.match(r'\s*pcs\s+-f\s+"?\$\{?CIB\}?"?\s+', line)
        try:
            words = shlex.split(line[start.end() :], comments=True) if start else []
        except ValueError as wrong:
            raise ConfigurationError(f"{source}: line {number}: {wrong}", "correct the quotes") from None
        if not words:
            raise ConfigurationError(
                f'{source}: line {number}: {line.strip()[:60]!r}, expected: pcs -f "$CIB" ...',
                "cls_setup runs no shell; run other commands by hand afterwards",
            )
        found.append(words)
    return found


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Join lines that end with a backslash, as a shell does; a comment does not continue."""
    first, whole = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        first = first if whole else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            whole += line[:-1] + " "
            continue
        yield first, whole + line
        whole = ""
    if whole:
        yield first, whole


def build(lines: Sequence[Sequence[str]], source: str) -> Element:
    """Return the CIB which the pcs commands make of an empty one."""
    with tempfile.TemporaryDirectory(prefix="pha4pgsql.") as folder:
        path = os.path.join(folder, "cib.xml")
        system.write_file(path, _empty([line[2] for line in lines if line[:2] == ["node", "attribute"] and len(line) > 2]))
        _run_lines([["-f", path, *line] for line in lines], source)
        with open(path, encoding="utf-8") as stream:
            return cib.read(stream.read())


def _run_lines(lines: list[list[str]], source: str) -> None:
    """Run pcs: all commands in one process (0.8 s instead of 6 for a whole set), or one by one where its library cannot be used so."""
    program = [sys.executable, "-I", os.path.abspath(pcs_lines.__file__)]
    done = system.run(program, text="".join(json.dumps(line) + "\n" for line in lines), timeout=120)
    if done.code == pcs_lines.UNUSABLE:
        for line in lines:
            _accepted(system.run(["pcs", *line], timeout=60), line, source)
    else:
        number = int(done.out.split()[-1]) if done.out.split() else 0
        _accepted(done, lines[number], source)


def _accepted(done: system.Completed, line: Sequence[str], source: str) -> None:
    if not done.ok:
        errors = [text for text in done.err.splitlines() if not text.startswith(("Warning", "Deprecation"))]
        hint = "run install.sh on this node, it installs the agents" if "is not installed" in done.err else f"correct {source}"
        raise ConfigurationError(f"{source}: pcs refused '{' '.join(line[2:6])} ...': {'; '.join(errors[:3])}", hint)


def _empty(nodes: Sequence[str]) -> str:
    """An empty CIB in which these nodes are known; their numbers mean nothing."""
    done = system.run(["cibadmin", "--empty"])
    if not done.ok:
        raise EnvironmentFailure(f"cibadmin --empty failed: {done.err.strip()}", "install the packages pacemaker and pcs: ./install.sh")
    known = "".join(f'<node id="{number}" uname="{name}"/>' for number, name in enumerate(dict.fromkeys(nodes), 1))
    return done.out.replace("<nodes/>", f"<nodes>{known}</nodes>")
