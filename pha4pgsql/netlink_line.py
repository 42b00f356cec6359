"""A line to the kernel's generic netlink: many requests at once, each with its answer, and dumps."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from pha4pgsql import netlink
from pha4pgsql.netlink import ACK, CHANGED, DONE, DUMP, ERROR, NOTHING, OVERRUN, REQUEST, Answer, Garbled
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pha4pgsql.netlink import Message

_GENERIC, _OPTIONS, _CAP_ACK, _EXT_ACK = 16, 270, 10, 11
"""NETLINK_GENERIC, SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK: Python's socket module does not name them."""
_LARGEST = 1 << 16
"""No datagram is larger: the kernel fills up to 32 KiB in a dump."""
_TRIES = 5
"""Of a dump that was overtaken by changes."""
_PATIENCE = 10.0
"""Seconds. The kernel answers before the request returns."""


class Line:
    """One socket. Its requests are answered one after the other; what answers an earlier one, given up meanwhile, is skipped."""

    def __init__(self, connection: socket.socket | None = None) -> None:
        """Open it, or use one that is open."""
        self._socket = connection or socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _GENERIC)
        self._sequence = 0
        self._socket.settimeout(_PATIENCE)
        for option in (_CAP_ACK, _EXT_ACK):
            with suppress(OSError):  # kernels before 4.3 and 4.12
                self._socket.setsockopt(_OPTIONS, option, 1)

    def close(self) -> None:
        self._socket.close()

    def family(self, name: str) -> int:
        """The number of a family; 0 when the kernel knows none of this name and cannot load one."""
        (got,), said = self.ask(netlink.CONTROL, [netlink.generic(netlink.GET_FAMILY, 1, netlink.text(netlink.FAMILY_NAME, name))])
        if got.number == errno.ENOENT:
            return 0
        found = netlink.generic_attributes(said[0]) if said else {}
        if netlink.FAMILY_ID not in found:
            raise EnvironmentFailure(f"the kernel does not tell the number of its netlink family {name} (errno {got.number})")
        return netlink.number(found[netlink.FAMILY_ID])

    def ask(self, kind: int, bodies: Sequence[bytes]) -> tuple[list[Answer], list[bytes]]:
        """Send requests in one datagram. Returns the answer to each, and what was said beside.

        An empty message follows them: the kernel is silent about a request that it ended with EINTR (net/netlink/af_netlink.c,
        netlink_rcv_skb), as it ends the stop of a thread that has not run yet, done all the same.
        """
        first, last = self._sequence + 1, self._sequence + 1 + len(bodies)
        requests = [netlink.message(kind, REQUEST | ACK, number, body) for number, body in enumerate(bodies, first)]
        self._send([*requests, netlink.message(NOTHING, REQUEST | ACK, last, b"")])
        answers: dict[int, Answer] = {}
        said: list[bytes] = []
        for got in self._receive(first):
            if got.kind == ERROR:
                answers[got.sequence] = netlink.answer(got)
            else:
                said.append(got.body)
            if last in answers:
                break
        return [answers.get(number, Answer(errno.EINTR)) for number in range(first, last)], said

    def dump(self, kind: int, body: bytes) -> tuple[Answer, list[bytes]]:
        """All that a request lists; again from its beginning when the kernel says that something changed meanwhile."""
        got, bodies, changed = self._dump_once(kind, body)
        tries = _TRIES
        while changed and (tries := tries - 1):
            got, bodies, changed = self._dump_once(kind, body)
        return got, bodies

    def _dump_once(self, kind: int, body: bytes) -> tuple[Answer, list[bytes], bool]:
        first = self._sequence + 1
        self._send([netlink.message(kind, REQUEST | DUMP, first, body)])
        bodies: list[bytes] = []
        changed = False
        for got in self._receive(first):
            changed = changed or bool(got.flags & CHANGED)
            if got.kind in (DONE, ERROR):
                return netlink.answer(got), bodies, changed
            bodies.append(got.body)
        raise Garbled("a dump without an end")

    def _send(self, requests: Sequence[bytes]) -> None:
        self._sequence += len(requests)
        try:
            self._socket.send(b"".join(requests))
        except OSError as failure:
            raise EnvironmentFailure(f"the kernel takes no netlink request: {failure.strerror}") from None

    def _receive(self, first: int) -> Iterator[Message]:
        """What comes for the requests from number `first` on."""
        while True:
            try:
                data = self._socket.recv(_LARGEST)
            except socket.timeout:
                raise EnvironmentFailure(f"the kernel does not answer a netlink request within {_PATIENCE:g} s") from None
            except OSError as failure:
                raise EnvironmentFailure(f"the kernel's answer to a netlink request is lost: {failure.strerror}") from None
            if not data:
                raise EnvironmentFailure("the kernel's answer to a netlink request is lost: the line is closed")
            for got in netlink.messages(data):
                if got.sequence >= first and got.kind != OVERRUN:
                    yield got
