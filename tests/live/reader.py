"""Clients of the reader address, which write down every answer: who gave it, whether it is a standby, and when it came.

    /usr/bin/python3 reader.py ADDRESS FILE HELD

One thread makes a new connection for every read, ten of them a second at most; HELD sessions are opened first, one after the other, and asked
twice a second each until they break; they are not opened again. Lines of FILE, each written whole (times are monotonic):

    read BEGUN ANSWERED SERVER RECOVERY      a new connection, and its answer
    bad BEGUN ENDED TEXT                     a new connection that got none
    held NUMBER ANSWERED SERVER RECOVERY     a held session
    lost NUMBER ENDED SERVER TEXT            its end
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg2.extensions import connection

PAUSE, ASK = 0.1, 0.5
PATIENT = 5
"""Seconds for one answer; libpq counts whole ones, and a user-mode kernel needs one or two when it is busy."""
QUESTION = "SELECT current_setting('cluster_name'), pg_is_in_recovery()"


class Reader:
    """All threads write lines into one file."""

    def __init__(self, address: str, path: str) -> None:
        self.address = address
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)

    def write(self, *words: object) -> None:
        texts = (f"{word:.3f}" if isinstance(word, float) else str(word) for word in words)
        os.write(self.file, (" ".join(" ".join(texts).split()) + "\n").encode())

    def connect(self, timeout: int) -> connection:
        """A session that waits for an answer at most so many seconds; 0: as long as the kernel does."""
        import psycopg2

        session: connection = psycopg2.connect(
            host=self.address, user="postgres", dbname="postgres", connect_timeout=timeout or 10, tcp_user_timeout=timeout * 1000
        )
        session.autocommit = True
        return session

    def read(self) -> None:
        """One read with a connection of its own."""
        from psycopg2 import Error

        began = time.monotonic()
        try:
            session = self.connect(PATIENT)
            with session.cursor() as cursor:
                cursor.execute(QUESTION)
                server, recovery = cursor.fetchone() or ("-", True)
            self.write("read", began, time.monotonic(), server, "t" if recovery else "f")
            session.close()
        except (Error, OSError) as failed:
            self.write("bad", began, time.monotonic(), failed)

    def hold(self, number: int, session: connection) -> None:
        """Ask a session until it breaks."""
        from psycopg2 import Error

        server = "-"
        try:
            while True:
                with session.cursor() as cursor:
                    cursor.execute(QUESTION)
                    server, recovery = cursor.fetchone() or ("-", True)
                self.write("held", number, time.monotonic(), server, "t" if recovery else "f")
                time.sleep(ASK)
        except (Error, OSError) as failed:
            self.write("lost", number, time.monotonic(), server, failed)


def main(arguments: Sequence[str]) -> int:
    address, path, held = arguments
    reader = Reader(address, path)
    for number in range(int(held)):
        threading.Thread(target=reader.hold, args=(number, reader.connect(0)), daemon=True).start()
    while True:
        reader.read()
        time.sleep(PAUSE)


if __name__ == "__main__":
    sys.path.append("/usr/lib/python3/dist-packages")
    sys.exit(main(sys.argv[1:]))
