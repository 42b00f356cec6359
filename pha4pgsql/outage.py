"""How long writes are out while the primary changes, as one session at the writer address sees it.

It asks again and again whether the server behind the address is a primary, and by which timeline. It sees a server that ends, an address on its
way, a server that refuses. It does not see commits that wait: a primary gets the address when its first record is confirmed.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from pha4pgsql import replicas
from pha4pgsql.words import Failure

PAUSE = 0.01
"""Seconds between two questions; so exact is the answer, at best."""
AGAIN = 0.02
"""Seconds before a new attempt to connect: whoever measures must not be in the way."""
BETWEEN = 0.1
"""Seconds between two looks of who waits for the rest of the change."""
ATTEMPT = 0.15
"""Seconds for a connection or an answer: what was sent while the address was nowhere is lost, and asked anew."""

QUESTION = """
select case when not pg_is_in_recovery() then ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end
"""


class Seen(NamedTuple):
    """The monotonic time of the last good answer by the old timeline and of the first by a new one (0: none yet), with both."""

    old: int = 0
    last: float = 0.0
    new: int = 0
    first: float = 0.0

    @property
    def seconds(self) -> float | None:
        """The length of the outage, None while there is no end of it."""
        return self.first - self.last if self.first else None


def after(seen: Seen, timeline: int | None, now: float) -> Seen:
    """What is known after one more answer; a standby's is none.

    >>> seen = after(after(Seen(), 3, 1.0), 3, 2.0)
    >>> seen = after(after(seen, None, 2.5), 4, 3.0)
    >>> seen
    Seen(old=3, last=2.0, new=4, first=3.0)
    >>> seen.seconds, Seen().seconds
    (1.0, None)
    """
    if timeline is None or seen.first:
        return seen
    if seen.old in (0, timeline):
        return seen._replace(old=timeline, last=now)
    return seen._replace(new=timeline, first=now)


class Meter:
    """Asks in a thread of its own, from `start` until a new timeline answers or `stop`."""

    def __init__(self, conninfo: str, passfile: str) -> None:
        self.seen = Seen()
        self.trouble = ""
        self._where = (conninfo, passfile)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def start(self, patience: float = 2.0) -> bool:
        """Begin, and wait for the first good answer; whether there was one."""
        self._thread.start()
        deadline = time.monotonic() + patience
        while not self.seen.old and time.monotonic() < deadline:
            time.sleep(PAUSE)
        return bool(self.seen.old)

    def rest(self, most: float) -> None:
        """Wait until a new timeline answers, `most` seconds at most; a moment when it has already."""
        if self._ended.is_set():
            time.sleep(BETWEEN)
        else:
            self._ended.wait(most)

    def stop(self, patience: float = 0.0) -> Seen:
        """End, after `patience` seconds at the latest, by when a new timeline should have answered."""
        self._ended.wait(patience)
        self._ended.set()
        return self.seen

    def _ask(self) -> None:
        conninfo, passfile = self._where
        line: replicas.Line | None = None
        while not self._ended.wait(PAUSE if line else AGAIN):
            try:
                line = line or replicas.Line(conninfo, passfile=passfile, timeout=ATTEMPT)
                self.seen = after(self.seen, line.ask(QUESTION, timeout=ATTEMPT)[0][0], time.monotonic())
            except Failure as failure:
                self.trouble = failure.message
                _close(line)
                line = None
            if self.seen.first:
                self._ended.set()
        _close(line)


def _close(line: replicas.Line | None) -> None:
    if line is not None:
        line.close()
