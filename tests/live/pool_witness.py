"""Run on a director: when does a server's port stop answering, and when has the kernel's table no more weight for it? By one clock.

    /usr/bin/python3 -IS pool_witness.py SERVER PORT SECONDS

Prints a line at each change, `MONOTONIC port open|shut|silent` or `MONOTONIC weight NUMBER|absent`, and ends after SECONDS.
"""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE = 0.02
SILENT = 0.5
TABLE = "/proc/net/ip_vs"


def port(address: str, number: int) -> str:
    """Whether a connection can be made."""
    try:
        socket.create_connection((address, number), timeout=SILENT).close()
    except TimeoutError:
        return "silent"
    except OSError as refused:
        return "silent" if "timed out" in str(refused) else "shut"
    return "open"


def weight(address: str, number: int) -> str:
    """The weight of a server in the kernel's table; there may be one virtual service only."""
    own = f"{int.from_bytes(socket.inet_aton(address), 'big'):08X}:{number:04X}"
    with open(TABLE, encoding="ascii") as stream:
        rows = [line.split() for line in stream if own in line]
    return next((row[3] for row in rows if row[0] == "->"), "absent")


def main(arguments: Sequence[str]) -> int:
    address, number, end = arguments[0], int(arguments[1]), time.monotonic() + float(arguments[2])
    known = {"port": "", "weight": ""}
    while time.monotonic() < end:
        for word, look in (("weight", weight), ("port", port)):
            value = look(address, number)
            if value != known[word]:
                known[word] = value
                print(f"{time.monotonic():.3f} {word} {value}", flush=True)
        time.sleep(PAUSE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
