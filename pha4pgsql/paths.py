"""Where distributions keep things: PostgreSQL's programs, and the Python packages that `-IS` hides.

Layer 3: looks at files, runs nothing.
"""

from __future__ import annotations

import os
import sys

DEFAULT_PGCTL = "/usr/bin/pg_ctl"

PROGRAM_DIRECTORIES = (("/usr/lib/postgresql", "", "/bin"), ("/usr", "pgsql-", "/bin"))
"""Parent, what stands before the major version, what stands after it: Debian, and PostgreSQL's own RPM packages."""


def package_directories() -> list[str]:
    """The directories of the distribution's Python packages on this machine (Debian; Red Hat, where compiled ones are in lib64)."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    known = ("/usr/lib/python3/dist-packages", f"/usr/lib64/{version}/site-packages", f"/usr/lib/{version}/site-packages")
    return [path for path in known if os.path.isdir(path)]


def use_packages() -> None:
    """Make the distribution's Python packages importable, after everything else. Under `python3 -IS` they are not."""
    sys.path += [path for path in package_directories() if path not in sys.path]


def has_package(name: str) -> bool:
    """Whether the distribution has installed a Python package, without importing it."""
    return any(os.path.isdir(f"{path}/{name}") for path in package_directories())


def data_version(datadir: str) -> int | None:
    """The major version of a data directory (9 for 9.6), None if it is not one."""
    try:
        with open(f"{datadir}/PG_VERSION", encoding="ascii") as stream:
            return int(stream.read().strip().partition(".")[0])
    except (OSError, ValueError):
        return None


def find_programs(bindir: str, pgctl: str, datadir: str, places: tuple[tuple[str, str, str], ...] = PROGRAM_DIRECTORIES) -> str:
    """The directory of the PostgreSQL programs, empty if there is none.

    It is `bindir` if that is set. Where pg_ctl is left at its default, the directory of the data directory's version comes first: a machine may
    have several, and /usr/bin/pg_ctl none or a link to another one. Then pg_ctl's own, and the one of what it is a link to. Where there is no
    data directory yet, and no such pg_ctl, the newest.
    """
    if bindir:
        return bindir
    version = data_version(datadir)
    found = {version: path for place in places for version, path in _installed(*place)} if pgctl == DEFAULT_PGCTL else {}
    if version in found:
        return found[version]
    for path in (pgctl, os.path.realpath(pgctl)):
        if os.path.isfile(path) and os.path.isfile(f"{os.path.dirname(path)}/postgres"):
            return os.path.dirname(path)
    return found[max(found)] if found and version is None else ""


def _installed(parent: str, before: str, after: str) -> list[tuple[int, str]]:
    """The versions in one place, with their directories."""
    try:
        names = [name for name in os.listdir(parent) if name.startswith(before) and name[len(before) :].isdigit()]
    except OSError:
        return []
    places = [(int(name[len(before) :]), f"{parent}/{name}{after}") for name in names]
    return [(version, path) for version, path in places if os.path.isfile(f"{path}/postgres")]
