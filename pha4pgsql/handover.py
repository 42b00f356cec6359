"""Between two directors: a node that has given the virtual address up says nothing from it until another one has announced that it has it.

Layer 3. Until then packets of clients still arrive here, and where the address is on lo, too, the kernel's own TCP resets the sessions that it
does not know: all those of other real servers, which the next director would have carried on. Nothing is lost by silence: senders repeat.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from ipaddress import ip_address

from pha4pgsql import address, resident

LIMIT = 15.0
"""Seconds after which nobody else is expected any more: then a reset is the right answer."""

ARP, IPV6 = 0x0806, 0x86DD
"""ETH_P_ARP, ETH_P_IPV6."""
OUTGOING = 4
"""PACKET_OUTGOING: what this node sends itself (packet(7))."""
ICMPV6, ADVERTISEMENT = 58, 136
"""Neighbour advertisement (RFC 4861, 4.4); an unsolicited one tells where the address is now."""


def begin(vip: str, room: str = resident.RUN) -> None:
    """Say nothing from the address, if it is on lo, until it is announced by another node or the time is over. OSError: the kernel refuses."""
    if not any(place.address == vip and place.interface == "lo" for place in address.places(ipv6=":" in vip)):
        return
    with open(_note(vip, room), "w", encoding="ascii"):
        address.mute(vip)
    resident.launch(_prefix(vip, room), lambda: _last(vip, room))


def end(vip: str, room: str = resident.RUN, *, deadline: float) -> None:
    """Speak again: this node is a director itself, or has no use for the address."""
    if os.path.exists(_note(vip, room)):
        resident.end(_prefix(vip, room), deadline)
        _speak(vip, room)


def clear(vip: str, room: str = resident.RUN) -> None:
    """Speak again if the process that should have seen to it has been killed: the time is over, and the note is still there."""
    with suppress(FileNotFoundError):
        if time.time() - os.stat(_note(vip, room)).st_mtime > LIMIT:
            _speak(vip, room)


def _prefix(vip: str, room: str) -> str:
    return f"{room}/handover-{vip}"


def _note(vip: str, room: str) -> str:
    """There from before the kernel is told to be silent until after it may speak."""
    return f"{_prefix(vip, room)}.silent"


def _speak(vip: str, room: str) -> None:
    address.unmute(vip)
    with suppress(FileNotFoundError):
        os.unlink(_note(vip, room))


def _last(vip: str, room: str) -> None:
    try:
        until_announced(vip, time.monotonic() + LIMIT)
    finally:
        _speak(vip, room)


def until_announced(vip: str, deadline: float) -> bool:
    """Wait for another node to announce the address to everybody on a link of this node; False at the monotonic time `deadline`."""
    kind = IPV6 if ":" in vip else ARP
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, socket.htons(kind)) as line:
        while (left := deadline - time.monotonic()) > 0:
            if select.select([line], [], [], left)[0]:
                body, sender = line.recvfrom(256)
                if sender[2] != OUTGOING and announces(kind, body, ip_address(vip).packed):
                    return True
    return False


def announces(kind: int, body: bytes, vip: bytes) -> bool:
    """Whether a packet tells that its sender has the address: any ARP packet from it (RFC 5227, 2.4), or a neighbour advertisement of it.

    >>> announces(ARP, bytes(14) + bytes([10, 0, 0, 9]) + bytes(10), bytes([10, 0, 0, 9]))
    True
    """
    if kind == ARP:
        return body[14:18] == vip
    return body[6:7] == bytes([ICMPV6]) and body[40:41] == bytes([ADVERTISEMENT]) and body[48:64] == vip
