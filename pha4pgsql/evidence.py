"""Direct evidence of servers: their own ports, tried all the time, many at once, without ever waiting for one of them.

A try is a TCP connection and PostgreSQL's SSLRequest (manual, 55.2.10 SSL Session Encryption): the postmaster's child answers with one byte and,
by default, nothing is logged. The connection is kept until the next try succeeds: it ends within milliseconds of the postmaster, which
is noticed at once.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING

from pha4pgsql.lvs_words import Evidence, Health

if TYPE_CHECKING:
    from collections.abc import Iterable

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
AT_ONCE = 256
"""Tries that run at the same time."""
SILENCE = 5
"""A server that takes connections and says nothing is dead after so many times the limit for a try."""
REFUSALS = {errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EPIPE, errno.ECONNABORTED}
"""What the network says of a server that is not there. Any other error is one of this machine and tells nothing."""


class _Target:
    """One server: its try that runs, its connection that is kept, and what is known."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.evidence: Evidence | None = None
        self.trying: socket.socket | None = None
        self.kept: socket.socket | None = None
        self.connected = False
        self.begun = 0.0
        self.due = 0.0
        self.silent_since: float | None = None

    def close(self) -> None:
        for one in (self.trying, self.kept):
            if one is not None:
                one.close()
        self.trying = self.kept = None


class Probes:
    """The tries at a set of servers. Nothing here waits: `step` does what can be done now, `wait` sleeps until there is something to do."""

    def __init__(self, port: int, interval: float, timeout: float) -> None:
        self.port, self.interval, self.timeout = port, interval, timeout
        self._targets: dict[str, _Target] = {}

    @property
    def evidence(self) -> dict[str, Evidence]:
        """What is known, by address; of those not tried to the end yet nothing."""
        return {address: target.evidence for address, target in self._targets.items() if target.evidence is not None}

    def aim(self, addresses: Iterable[str]) -> None:
        """Try these servers from now on, and no others."""
        wanted = set(addresses)
        for address in set(self._targets) - wanted:
            self._targets.pop(address).close()
        for address in sorted(wanted - set(self._targets)):
            self._targets[address] = _Target(address)

    def close(self) -> None:
        self.aim(())

    def wait(self, seconds: float, wake: int, now: float) -> bool:
        """Sleep until a try goes on, one is due, `wake` can be read, or `seconds` have passed; returns whether `wake` can be read."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        for target in self._targets.values():
            if target.trying is not None:
                poll.register(target.trying, select.POLLIN if target.connected else select.POLLOUT)
            if target.kept is not None:
                poll.register(target.kept, select.POLLIN)
        full = sum(target.trying is not None for target in self._targets.values()) >= AT_ONCE
        awaited = [target for target in self._targets.values() if target.trying is not None or not full]
        until = min([now + seconds, *(self._next(target) for target in awaited)])
        return any(handle == wake for handle, _ in poll.poll(max(0, int((until - now) * 1000) + 1)))

    def _next(self, target: _Target) -> float:
        return target.begun + self.timeout if target.trying is not None else target.due

    def step(self, now: float) -> bool:
        """Go on with everything that can go on; returns whether the evidence changed."""
        before = {address: target.evidence and target.evidence.health for address, target in self._targets.items()}
        running = sum(target.trying is not None for target in self._targets.values())
        for target in self._targets.values():
            self._hear_kept(target, now)
            if target.trying is None and now >= target.due and running < AT_ONCE:
                self._begin(target, now)
                running += target.trying is not None
            elif target.trying is not None:
                self._go_on(target, now)
        return before != {address: target.evidence and target.evidence.health for address, target in self._targets.items()}

    def _hear_kept(self, target: _Target, now: float) -> None:
        """A kept connection that ends means: look at once. Only once: the next is kept when a try has succeeded."""
        if target.kept is not None and _readable(target.kept):
            target.kept.close()
            target.kept = None
            target.due = min(target.due, now)

    def _begin(self, target: _Target, now: float) -> None:
        target.begun, target.due, target.connected = now, now + self.interval, False
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        try:
            target.trying = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            number = target.trying.connect_ex((target.address, self.port))
        except OSError as failure:
            number = failure.errno or errno.EIO
        if number not in (0, errno.EINPROGRESS):
            self._failed(target, number, now)

    def _go_on(self, target: _Target, now: float) -> None:
        """One step of a try: connected, answered, refused, or too long silent."""
        trying = target.trying
        assert trying is not None  # noqa: S101  for the type checker: asked by the caller
        if not target.connected and _writable(trying):
            number = trying.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            try:
                if not number:
                    trying.send(SSL_REQUEST)
                    target.connected = True
            except OSError as failure:
                number = failure.errno or errno.EIO
            if number:
                self._failed(target, number, now)
                return
        if target.connected and _readable(trying):
            self._answered(target, now)
        elif now - target.begun >= self.timeout:
            self._silent(target, now)

    def _answered(self, target: _Target, now: float) -> None:
        trying = target.trying
        assert trying is not None  # noqa: S101  for the type checker: asked by the caller
        try:
            said = trying.recv(1)
        except OSError as failure:
            self._failed(target, failure.errno or errno.EIO, now)
            return
        if not said:
            self._failed(target, errno.ECONNRESET, now)
            return
        if target.kept is not None:
            target.kept.close()
        target.kept, target.trying, target.silent_since = trying, None, None
        target.evidence = Evidence(Health.ALIVE)

    def _failed(self, target: _Target, number: int, now: float) -> None:
        """The network's word. An error of this machine leaves what was known."""
        _drop(target)
        target.due = now + self.interval
        if number in REFUSALS:
            target.silent_since = None
            target.evidence = Evidence(Health.DEAD, os.strerror(number).lower())

    def _silent(self, target: _Target, now: float) -> None:
        """No answer in time: no connection is death, a connection without an answer only after a while (a busy machine is slow)."""
        connected = target.connected
        _drop(target)
        target.due = now
        since = target.silent_since = target.begun if target.silent_since is None else target.silent_since
        if connected and now - since < SILENCE * self.timeout:
            target.evidence = Evidence(Health.SILENT, f"takes connections and has said nothing for {now - since:.1f} s")
        else:
            what = "says nothing" if connected else "takes no connection"
            target.evidence = Evidence(Health.DEAD, f"{what} for {now - since:.1f} s")


def _drop(target: _Target) -> None:
    if target.trying is not None:
        target.trying.close()
    target.trying = None


def _readable(one: socket.socket) -> bool:
    return _ready(one, select.POLLIN)


def _writable(one: socket.socket) -> bool:
    return _ready(one, select.POLLOUT)


def _ready(one: socket.socket, event: int) -> bool:
    """Whether something can be done with a socket, an error or its end included."""
    poll = select.poll()
    poll.register(one, event)
    return bool(poll.poll(0))
