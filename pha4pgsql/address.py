"""Addresses of this node's interfaces over netlink (linux/rtnetlink.h, linux/if_addr.h), and the ARP settings of a real server.

Layer 3. A process costs more than all of this: nothing is forked. Nothing here takes an interface down or touches another address.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import netlink
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

NEW, DELETE, GET = 20, 21, 22
"""RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR."""
NEW_RULE, DELETE_RULE = 32, 33
"""RTM_NEWRULE, RTM_DELRULE."""
BLACKHOLE = 6
"""FR_ACT_BLACKHOLE (linux/fib_rules.h)."""
SOURCE, PRIORITY = 2, 6
"""FRA_SRC, FRA_PRIORITY."""
FIRST = 1
"""The priority of our rule: right after the local table, before all routes."""
CREATE, EXCLUSIVE = 0x400, 0x200
ADDRESS, LOCAL, LABEL, CACHE = 1, 2, 3, 6
"""IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_CACHEINFO."""
NO_DETECTION = 0x02
"""IFA_F_NODAD: no duplicate address detection, which would find the director."""
FOR_EVER = 0xFFFFFFFF
_HEADER = struct.Struct("=BBBBI")
_CACHE = struct.Struct("=IIII")
_RULE = struct.Struct("=BBBBBBBBI")

ARP = (("arp_ignore", "1"), ("arp_announce", "2"))
"""Answer only for addresses of the interface that is asked; never name the virtual address in a request (Documentation/networking/ip-sysctl)."""
ARP_INTERFACES = ("lo", "all")
SYSCTL = "/proc/sys/net/ipv4/conf"


class Place(NamedTuple):
    """An address on an interface."""

    address: str
    prefix: int
    interface: str
    label: str = ""


def places(*, ipv6: bool) -> Iterator[Place]:
    """All addresses of this node."""
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    for body in _ask(GET, netlink.REQUEST | netlink.DUMP, _HEADER.pack(family, 0, 0, 0, 0)):
        kind, prefix, _, _, index = _HEADER.unpack_from(body)
        found = netlink.attributes(body[_HEADER.size :])
        number = found.get(LOCAL) or found.get(ADDRESS)
        if kind == family and number:
            with suppress(OSError):  # the interface has just gone
                label = netlink.word(found[LABEL]) if LABEL in found else ""
                yield Place(str(ip_address(number)), prefix, socket.if_indextoname(index), label)


def add(address: str, label: str = "") -> None:
    """Put an address onto lo, as a network of its own; nothing if it is there."""
    with suppress(FileExistsError):
        _change(NEW, netlink.REQUEST | netlink.ACK | CREATE | EXCLUSIVE, address, label)


def remove(address: str, prefix: int) -> None:
    """Take an address off lo; nothing if it is not there."""
    try:
        _change(DELETE, netlink.REQUEST | netlink.ACK, address, prefix=prefix)
    except OSError as failure:
        if failure.errno != errno.EADDRNOTAVAIL:
            raise


def _change(kind: int, flags: int, address: str, label: str = "", prefix: int | None = None) -> None:
    number = ip_address(address)
    ipv6 = number.version == 6
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    length = number.max_prefixlen if prefix is None else prefix
    header = _HEADER.pack(family, length, NO_DETECTION if ipv6 else 0, 0, socket.if_nametoindex("lo"))
    parts = [netlink.attribute(LOCAL, number.packed), netlink.attribute(ADDRESS, number.packed)]
    if label and not ipv6 and kind == NEW:
        parts.append(netlink.text(LABEL, label))
    if ipv6 and kind == NEW:  # deprecated from the start: never the source address of a connection of this node
        parts.append(netlink.attribute(CACHE, _CACHE.pack(0, FOR_EVER, 0, 0)))
    try:
        list(_ask(kind, flags, header + b"".join(parts)))
    except PermissionError as refusal:
        raise EnvironmentFailure(f"the kernel does not let this process change addresses ({refusal.strerror})", "run it as root") from None


def mute(address: str) -> None:
    """Let the kernel send nothing from an address of this node, nor a reset: a routing rule; nothing if it is muted."""
    with suppress(FileExistsError):
        list(_ask(NEW_RULE, netlink.REQUEST | netlink.ACK | CREATE | EXCLUSIVE, _rule(address)))


def unmute(address: str) -> None:
    """Let it send again; nothing if it may."""
    with suppress(FileNotFoundError):
        list(_ask(DELETE_RULE, netlink.REQUEST | netlink.ACK, _rule(address)))


def _rule(address: str) -> bytes:
    """Whatever comes from this address goes nowhere (ip-rule(8), blackhole)."""
    number = ip_address(address)
    family = socket.AF_INET6 if number.version == 6 else socket.AF_INET
    header = _RULE.pack(family, 0, number.max_prefixlen, 0, 0, 0, 0, BLACKHOLE, 0)
    return header + netlink.attribute(SOURCE, number.packed) + netlink.attribute(PRIORITY, struct.pack("=I", FIRST))


def _ask(kind: int, flags: int, body: bytes) -> Iterator[bytes]:
    """One request of the routing family; the bodies of a dump, or nothing. OSError as the kernel says it."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as line:
        line.settimeout(5)
        line.bind((0, 0))
        line.send(netlink.message(kind, flags, 1, body))
        while True:
            for got in netlink.messages(line.recv(1 << 16)):
                if got.kind in (netlink.ERROR, netlink.DONE):
                    number = netlink.answer(got).number
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                yield got.body


# ---------------------------------------------------------------- ARP


def quiet(state: str, user: str, *, arp: bool = True) -> list[str]:
    """Make the kernel keep quiet about addresses of lo on behalf of `user`; what was set before is remembered in the file `state`.

    Returns what had to be changed, as `interface/name: old -> new`. Without `arp` only the user is remembered.
    """
    users, before = _read(state)
    wanted = ARP if arp else ()
    if not users:
        before = {f"{interface}/{name}": _value(f"{interface}/{name}") for interface in ARP_INTERFACES for name, _ in wanted}
    if user not in users:
        _write(state, [*users, user], before)
    changed = []
    for interface in ARP_INTERFACES:
        for name, value in wanted:
            old = _value(f"{interface}/{name}")
            if old != value:
                _set(f"{interface}/{name}", value)
                changed.append(f"{interface}/{name}: {old} -> {value}")
    return changed


def speak(state: str, user: str) -> None:
    """`user` does not need it any more; if nobody does, what was set before comes back, unless somebody has set something else since."""
    users, before = _read(state)
    users = [one for one in users if one != user]
    if users:
        _write(state, users, before)
        return
    ours = dict(ARP)
    for path, value in before.items():
        if _value(path) == ours[path.rpartition("/")[2]]:
            _set(path, value)
    with suppress(FileNotFoundError):
        os.unlink(state)


def uses(state: str, user: str) -> bool:
    """Whether `user` has asked for quiet and not given it up."""
    return user in _read(state)[0]


def _read(state: str) -> tuple[list[str], dict[str, str]]:
    """The users, and what was set before the first of them came."""
    try:
        with open(state, encoding="utf-8") as stream:
            lines = [line.split() for line in stream]
    except FileNotFoundError:
        return [], {}
    users = [words[1] for words in lines if words[:1] == ["user"] and len(words) == 2]
    return users, {words[1]: words[2] for words in lines if words[:1] == ["before"] and len(words) == 3}


def _write(state: str, users: list[str], before: dict[str, str]) -> None:
    from pha4pgsql import system  # slow to import; a monitor only reads

    lines = [*(f"user {user}" for user in users), *(f"before {path} {value}" for path, value in before.items())]
    system.write_file(state, "".join(f"{line}\n" for line in lines))


def _value(path: str) -> str:
    with open(f"{SYSCTL}/{path}", encoding="ascii") as stream:
        return stream.read().strip()


def _set(path: str, value: str) -> None:
    with open(f"{SYSCTL}/{path}", "w", encoding="ascii") as stream:
        stream.write(value)
