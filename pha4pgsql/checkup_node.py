"""What a node says of itself for cls_check: clock, names, ports, programs, files, disks. It runs there by an errand, and changes nothing.

Layer 3. Everything is bounded; what cannot be found out is left empty, and judged elsewhere (checkup.py).
"""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
import time
from typing import TYPE_CHECKING, Any

from pha4pgsql import vote
from pha4pgsql.settings import Settings, of_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pha4pgsql.errand import Say, Verb

CONNECT = 1.0
"""Seconds for one port."""
COROSYNC = "/etc/corosync/corosync.conf"
WANTS = "/etc/systemd/system/multi-user.target.wants"
IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def facts(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """All of it. `parameters` are the pgsql agent's, `resource` its name, `members` node_list, `folder` where the programs are installed."""
    settings = of_parameters(request["parameters"], request["resource"])
    config = os.path.join(request["folder"], "config.ini")
    return {
        "names": {name: resolved(name) for name in request["members"]},
        "ports": {name: closed(name, settings.pgport) for name in request["members"]},
        "programs": digest_of(request["folder"]),
        "config": digest([config]),
        "config_path": config,
        "config_mode": mode(config) or 0,
        "passfile": (settings.passfile, owner(settings.passfile), mode(settings.passfile)),
        "pgdba": settings.pgdba,
        "state": state_trouble(settings),
        "tmpdir": settings.tmpdir,
        "volatile": filesystem(settings.tmpdir) in IN_MEMORY,
        "disk": {path: space(path) for path in places(settings)},
        "autostart": sorted(name for name in _listed(WANTS) if name.startswith("postgresql")),
        "qdevice": "device {" in " ".join(_text(COROSYNC).split()),
        "clock": time.time(),  # the last of all: read as close to the answer as can be
    }


def resolved(name: str) -> str:
    """The address that a name has here, empty when it has none."""
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return ""


def closed(name: str, port: int) -> str:
    """Why a port does not take a connection, empty when it does."""
    try:
        with socket.create_connection((name, port), timeout=CONNECT):
            return ""
    except OSError as why:
        return (why.strerror or str(why)).lower()


def digest_of(folder: str) -> str:
    """What tells one installed version from another: the contents of library, agents, commands and tools. Empty: nothing is installed."""
    parts = ("pha4pgsql", "agents", "bin", "tools", "templates")
    return digest(os.path.join(folder, part, name) for part in parts for name in _listed(os.path.join(folder, part)) if not name.startswith("__"))


def digest(paths: Iterable[str]) -> str:
    """A checksum over files in the order of their names; empty when none can be read."""
    total, found = hashlib.sha256(), False
    for path in sorted(paths):
        try:
            with open(path, "rb") as stream:
                content = stream.read()
        except OSError:
            continue
        found = True
        total.update(os.path.basename(path).encode() + b"\0" + content)
    return total.hexdigest() if found else ""


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def mode(path: str) -> int | None:
    """The rights of a file, None where there is none."""
    try:
        return os.stat(path).st_mode & 0o7777
    except OSError:
        return None


def owner(path: str) -> str:
    """The name of a file's owner."""
    try:
        number = os.stat(path).st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def state_trouble(settings: Settings) -> str:
    """What is the matter with the state file, empty when nothing is; a node that has promised nothing has none."""
    path = f"{settings.tmpdir}/{settings.resource}.state"
    content = _text(path)
    if not content:
        return "" if not os.path.exists(path) else f"{path} cannot be read"
    try:
        state = vote.parse_state(content)
    except ValueError as damaged:
        return f"{path} is damaged: {damaged}"
    return f"the data directory is not whole: {state.mark}" if state.mark else ""


def places(settings: Settings) -> list[str]:
    """The directories whose file systems must not fill up, those that are there."""
    wanted = (settings.datadir, f"{settings.datadir}/pg_wal", settings.tmpdir)
    return [path for path in wanted if os.path.isdir(path)]


def space(path: str) -> tuple[int, int]:
    """Free and whole bytes of the file system of a path."""
    seen = os.statvfs(path)
    return seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize


def filesystem(path: str) -> str:
    """The kind of file system that a path is on, by the longest mount point before it."""
    real = os.path.realpath(path)
    mounts = [line.split()[1:3] for line in _text("/proc/self/mounts").splitlines()]
    found = [(len(point), kind) for point, kind in mounts if real == point or real.startswith(f"{point.rstrip('/')}/")]
    return max(found)[1] if found else ""


VERBS: dict[str, Verb] = {"facts": facts}
