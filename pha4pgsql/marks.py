"""Firewall marks for a virtual service over several ports: rules of the table mangle, by iptables.

Layer 3. Only our own rules are added and removed; running twice changes nothing.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from pha4pgsql import system
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
TIMEOUT = 5.0
MOST = 16
"""Times that one rule is removed at most."""


def program(*, ipv6: bool) -> str:
    """The path of iptables or ip6tables, the older kind where there is no other; empty if there is none."""
    name = "ip6tables" if ipv6 else "iptables"
    return shutil.which(name, path=PATH) or shutil.which(f"{name}-legacy", path=PATH) or ""


def rule(vip: str, port: int, mark: int) -> list[str]:
    """What is between `-A` and the end.

    >>> " ".join(rule("192.168.0.237", 5432, 7))
    'PREROUTING -d 192.168.0.237 -p tcp --dport 5432 -j MARK --set-mark 7'
    """
    return ["PREROUTING", "-d", vip, "-p", "tcp", "--dport", str(port), "-j", "MARK", "--set-mark", str(mark)]


def put(vip: str, ports: Iterable[int], mark: int) -> None:
    """Make packets to these ports carry the mark."""
    for port in ports:
        if not _run(vip, "-C", rule(vip, port, mark)).ok:
            done = _run(vip, "-A", rule(vip, port, mark))
            if not done.ok:
                said = (done.err.strip() or f"exit code {done.code}").splitlines()[-1]
                hint = "iptables needs the kernel's mangle table and the MARK target: modprobe iptable_mangle xt_mark"
                raise EnvironmentFailure(f"packets to {vip} port {port} cannot be marked: {said}", hint)


def take(vip: str, ports: Iterable[int], mark: int) -> None:
    """Remove the rules, as often as they are there."""
    for port in ports:
        for _ in range(MOST):
            if not _run(vip, "-D", rule(vip, port, mark)).ok:
                break


def _run(vip: str, verb: str, words: Sequence[str]) -> system.Completed:
    """Run iptables; where the kernel does not know the newer kind, its older one."""
    path = program(ipv6=":" in vip)
    if not path:
        raise EnvironmentFailure("iptables is not there, and fwmark needs it", "install the distribution's package iptables")
    done = system.run([path, "-w", "3", "-t", "mangle", verb, *words], timeout=TIMEOUT)
    older = shutil.which(f"{path.rpartition('/')[2]}-legacy", path=PATH)
    if done.ok or older is None or "legacy" in path:
        return done
    return system.run([older, "-w", "3", "-t", "mangle", verb, *words], timeout=TIMEOUT)
