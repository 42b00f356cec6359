"""A client that never gives up: commit a row every 10 ms, reconnect at once, and write down every acknowledged row when it is acknowledged.

    /usr/bin/python3 writer.py ADDRESS NAME FILE

Lines of FILE, each written whole: `ack ID TIMELINE MONOTONIC` and, once for each new kind of trouble, `bad MONOTONIC TEXT`. Ends when it is killed.
While nothing is acknowledged it opens a new connection every 50 ms, so an outage is seen that exactly. Rows whose acknowledgement did
not come are never written again: every row has a number of its own, and its fate stays open.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE = 0.01
NEW_LANE = 0.05
"""Seconds between two connection attempts while nothing is acknowledged."""
CONNECTING = 0.6
"""Seconds after which an attempt to connect is given up (libpq's own connect_timeout knows whole seconds only)."""
ANSWER = 1.0
"""Seconds without an acknowledgement after which another connection may send: a commit that waits keeps its backend."""
TABLE = "CREATE TABLE IF NOT EXISTS acks (writer text, id bigint, at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (writer, id))"
INSERT = "INSERT INTO acks (writer, id) VALUES (%s, %s) RETURNING ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int"


class Lane:
    """One connection: `row` is the number that it has sent and that is not acknowledged, 0 for none."""

    def __init__(self, address: str, now: float) -> None:
        import psycopg2

        self.born = now
        self.ready = False
        self.row = 0
        self.connection: Any = psycopg2.connect(host=address, user="postgres", dbname="postgres", application_name="writer", async_=True)
        self.cursor: Any = None

    def send(self, name: str, row: int) -> None:
        self.cursor = self.connection.cursor()
        self.cursor.execute(INSERT, (name, row))
        self.row = row

    def progress(self) -> bool:
        """Whether it is ready for the next statement."""
        from psycopg2 import extensions

        self.ready = self.connection.poll() == extensions.POLL_OK
        return self.ready

    def close(self) -> None:
        from psycopg2 import Error

        with contextlib.suppress(Error, OSError):
            self.connection.close()


class Writer:
    """All lanes of one client."""

    def __init__(self, address: str, name: str, path: str) -> None:
        self.address = address
        self.name = name
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self.lanes: list[Lane] = []
        self.row = 0
        self.acked = time.monotonic()
        self.tried = 0.0
        self.sent = 0.0
        self.trouble = ""

    def write(self, line: str) -> None:
        os.write(self.file, f"{line}\n".encode())

    def bad(self, text: str) -> None:
        """A kind of trouble is told once until the next acknowledgement."""
        text = text.partition("\n")[0]
        if text != self.trouble:
            self.trouble = text
            self.write(f"bad {time.monotonic():.3f} {text}")

    def drop(self, lane: Lane) -> None:
        lane.close()
        self.lanes.remove(lane)

    def acknowledged(self, lane: Lane, now: float) -> None:
        """The row is safe, says the server: note it, and go on with this lane alone."""
        self.write(f"ack {lane.row} {lane.cursor.fetchone()[0]} {now:.3f}")
        lane.row, self.acked, self.trouble = 0, now, ""
        for other in [other for other in self.lanes if other is not lane]:
            self.drop(other)

    def tick(self) -> None:
        """Move every lane, then open or use one."""
        from psycopg2 import Error

        for lane in list(self.lanes):
            if lane not in self.lanes:
                continue
            try:
                if lane.progress() and lane.row:
                    self.acknowledged(lane, time.monotonic())
            except (Error, OSError) as failed:
                self.bad(str(failed))
                if lane.row:
                    self.sent = 0.0  # it will never answer: somebody else may send
                self.drop(lane)
        now = time.monotonic()
        for lane in [lane for lane in self.lanes if not lane.ready and not lane.row and now - lane.born > CONNECTING]:
            self.drop(lane)
        self._send(now)
        self._open(now)

    def _send(self, now: float) -> None:
        from psycopg2 import Error

        idle = [lane for lane in self.lanes if lane.ready and not lane.row]
        busy = any(lane.row for lane in self.lanes)
        soon = now - self.sent < (ANSWER + (now - self.acked) / 5 if busy else PAUSE)
        if not idle or soon:
            return
        self.row += 1
        self.sent = now
        try:
            idle[0].send(self.name, self.row)
        except (Error, OSError) as failed:
            self.bad(str(failed))
            self.sent = 0.0
            self.drop(idle[0])

    def _open(self, now: float) -> None:
        from psycopg2 import Error

        waiting = self.lanes and now - self.acked < 2 * NEW_LANE
        if waiting or now - self.tried < NEW_LANE or any(lane.ready and not lane.row for lane in self.lanes):
            return
        self.tried = now
        try:
            self.lanes.append(Lane(self.address, now))
        except (Error, OSError) as failed:
            self.bad(str(failed))

    def wait(self) -> None:
        """Until a lane that waits for something can go on, at most 10 ms; at least 10 ms while all is well."""
        waiting = [lane.connection for lane in self.lanes if not lane.ready or lane.row]
        if waiting:
            with contextlib.suppress(Exception):
                select.select(waiting, [], [], PAUSE)
        else:
            time.sleep(PAUSE)


def create(address: str) -> None:
    """Make the table, however long it takes."""
    import psycopg2

    while True:
        try:
            with contextlib.closing(psycopg2.connect(host=address, user="postgres", dbname="postgres", connect_timeout=2)) as connection:
                connection.autocommit = True
                connection.cursor().execute(TABLE)
                return
        except psycopg2.Error:
            time.sleep(PAUSE)


def main(arguments: Sequence[str]) -> int:
    address, name, path = arguments
    create(address)
    writer = Writer(address, name, path)
    while True:
        writer.tick()
        writer.wait()


if __name__ == "__main__":
    sys.path.append("/usr/lib/python3/dist-packages")
    sys.exit(main(sys.argv[1:]))
