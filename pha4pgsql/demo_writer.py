"""Run on the practice cluster's client: write a row every 10 ms through the writer address, reconnect at once, and measure the outage.

Called as `python3 demo_writer.py ADDRESS SECONDS`. It ends three seconds after writes have come back from an outage, or after SECONDS,
and prints one JSON object: `acknowledged` rows, `missing` (acknowledged but not in the table), `outage` (longest time between two
acknowledgements, seconds). "writing" is printed when the first hundred rows are there.
"""

from __future__ import annotations

import contextlib
import json
import select
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE = 0.01
STEADY = 100
"""Rows after which "writing" is printed: the fault comes into a steady flow."""

ATTEMPT = 0.5
"""Seconds for one connection attempt or statement; libpq's own connect_timeout cannot be shorter than two seconds."""

OUTAGE = 0.3
AFTERWARDS = 3.0


class NoAnswerError(Exception):
    """No answer in time."""


def wait(connection: Any, limit: float) -> None:  # noqa: ANN401 - psycopg2 has no types
    """Drive an asynchronous connection until it is ready, at most `limit` seconds (psycopg2 manual, Asynchronous support)."""
    from psycopg2 import extensions

    deadline = time.monotonic() + limit
    while (state := connection.poll()) != extensions.POLL_OK:
        left = deadline - time.monotonic()
        reading, writing = ([connection], []) if state == extensions.POLL_READ else ([], [connection])
        if left <= 0 or not any(select.select(reading, writing, [], left)):
            raise NoAnswerError


def connect(address: str) -> Any:  # noqa: ANN401
    import psycopg2

    connection = psycopg2.connect(host=address, user="postgres", dbname="postgres", async_=True)
    wait(connection, ATTEMPT)
    return connection


def execute(connection: Any, statement: str, parameters: Sequence[object] = (), limit: float = ATTEMPT) -> list[tuple[Any, ...]]:  # noqa: ANN401
    cursor = connection.cursor()
    cursor.execute(statement, parameters)
    wait(connection, limit)
    return list(cursor.fetchall()) if cursor.description else []


def measure(address: str, seconds: float) -> dict[str, object]:
    """Write until an outage is over, or for `seconds`."""
    from psycopg2 import Error

    begin = time.monotonic()
    acknowledged: list[int] = []
    last, outage, back = begin, 0.0, 0.0
    connection, number = None, 0
    while (now := time.monotonic()) < begin + seconds and not (back and now > back + AFTERWARDS):
        number += 1
        try:
            connection = connection or connect(address)
            execute(connection, "INSERT INTO demo VALUES (%s)", [number])
        except (Error, NoAnswerError, OSError):
            with contextlib.suppress(Error, AttributeError):
                connection.close()  # type: ignore[union-attr]
            connection = None
            time.sleep(PAUSE)
            continue
        now = time.monotonic()
        acknowledged.append(number)
        if len(acknowledged) == STEADY:
            print("writing", flush=True)
        elif len(acknowledged) > STEADY and now - last > max(outage, OUTAGE):
            outage, back = now - last, now
        last = now
        time.sleep(PAUSE)
    return {"acknowledged": len(acknowledged), "missing": missing(address, acknowledged), "outage": round(outage, 2)}


def missing(address: str, acknowledged: Sequence[int]) -> int:
    """Count the acknowledged rows that the table does not have."""
    there = {row[0] for row in execute(connect(address), "SELECT id FROM demo", limit=10)}
    return len(set(acknowledged) - there)


def main(arguments: Sequence[str]) -> int:
    address, seconds = arguments
    connection = connect(address)
    for statement in ("DROP TABLE IF EXISTS demo", "CREATE TABLE demo (id bigint PRIMARY KEY)"):
        execute(connection, statement, limit=10)
    connection.close()
    print(json.dumps(measure(address, float(seconds))), flush=True)
    return 0


if __name__ == "__main__":
    sys.path.append("/usr/lib/python3/dist-packages")
    sys.exit(main(sys.argv[1:]))
