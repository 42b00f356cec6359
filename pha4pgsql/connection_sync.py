"""The kernel's connection synchronisation: the director tells (master), the other real servers remember (backup).

Layer 3. One node is either: with `backup_only`, a node that runs the backup daemon does not balance anything, whatever its table says, so that
connections it was told of never send a packet in circles. The node's director and real server agree by a file and a lock.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from pha4pgsql import system
from pha4pgsql.lvs_words import Daemon, Role
from pha4pgsql.resident import RUN, locked

if TYPE_CHECKING:
    from collections.abc import Iterable

SYSCTL = "/proc/sys/net/ipv4/vs"


class Daemons(Protocol):
    """The part of the kernel's IPVS that is used here."""

    def daemons(self) -> tuple[Daemon, ...]: ...
    def start_daemon(self, wish: Daemon, /) -> None: ...
    def stop_daemon(self, role: Role, /) -> None: ...


def set_kernel(name: str, value: str, place: str = SYSCTL) -> str:
    """Set a kernel parameter unless it has the value already; returns what it was. OSError when there is none of that name."""
    path = f"{place}/{name}"
    with open(path, encoding="ascii") as stream:
        before = " ".join(stream.read().split())
    if before != value:
        with open(path, "w", encoding="ascii") as stream:
            stream.write(value)
    return before


def direct(ipvs: Daemons, wish: Daemon | None, threshold: tuple[int, int], deadline: float, room: str = RUN) -> None:
    """Be the director: no backup daemon, and the master daemon if it is wished for."""
    with locked(f"{room}/sync.lock", deadline):
        running = ipvs.daemons()
        _stop(ipvs, running, Role.BACKUP)
        if any(one.role is Role.MASTER and one != wish for one in running):
            ipvs.stop_daemon(Role.MASTER)
        if wish is not None:
            set_kernel("sync_threshold", f"{threshold[0]} {threshold[1]}")
            if wish not in running:
                ipvs.start_daemon(wish)


def retire(ipvs: Daemons, deadline: float, room: str = RUN) -> None:
    """Be no director any more: no master daemon; the backup daemon again if this node is a real server that wants one."""
    with locked(f"{room}/sync.lock", deadline):
        running = ipvs.daemons()
        _stop(ipvs, running, Role.MASTER)
        wish = None if directs(room) else _wished(room)
        if wish is not None and wish not in running:
            _back_up(ipvs, running, wish)


def remember(ipvs: Daemons, wish: Daemon, resource: str, deadline: float, room: str = RUN) -> None:
    """Be a real server that wants to be told of connections: at once, or when this node is no director any more."""
    with locked(f"{room}/sync.lock", deadline):
        system.write_file(f"{room}/{resource}.backup", f"{wish.interface} {wish.sync_id}\n")
        running = ipvs.daemons()
        if not directs(room) and wish not in running:
            _back_up(ipvs, running, wish)


def forget(ipvs: Daemons, resource: str, deadline: float, room: str = RUN) -> None:
    """Be no such real server any more."""
    with locked(f"{room}/sync.lock", deadline):
        with suppress(FileNotFoundError):
            os.unlink(f"{room}/{resource}.backup")
        if _wished(room) is None:
            _stop(ipvs, ipvs.daemons(), Role.BACKUP)


def directs(room: str = RUN) -> bool:
    """Whether this node is a director, from just before its service is there until just after."""
    return any(name.endswith(".started") for name in os.listdir(room))


def _back_up(ipvs: Daemons, running: Iterable[Daemon], wish: Daemon) -> None:
    with suppress(FileNotFoundError):  # a kernel too old to have it
        set_kernel("backup_only", "1")
    _stop(ipvs, running, Role.BACKUP)
    ipvs.start_daemon(wish)


def _stop(ipvs: Daemons, running: Iterable[Daemon], role: Role) -> None:
    if any(one.role is role for one in running):
        ipvs.stop_daemon(role)


def _wished(room: str) -> Daemon | None:
    """What the real servers of this node want; the kernel runs one backup daemon."""
    for name in sorted(os.listdir(room)):
        if name.endswith(".backup"):
            with open(f"{room}/{name}", encoding="ascii") as stream:
                interface, number = stream.read().split()
            return Daemon(Role.BACKUP, interface, int(number))
    return None
