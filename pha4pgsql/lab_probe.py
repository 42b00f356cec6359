"""Run on the practice cluster's client: ask several PostgreSQL servers at once what they are, and print the answers as JSON.

Usage: python3 lab_probe.py PORT ADDRESS...
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

DEADLINE = 2
QUESTION = """
SELECT pg_is_in_recovery(),
       CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming')
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END,
       (SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming')
"""


def ask(address: str, port: str) -> dict[str, Any]:
    """`recovery`, `timeline` (the one that is written, or received; null while nothing is), `receivers`; or `error`."""
    import psycopg2

    options = f"-c statement_timeout={DEADLINE}s"
    try:
        connection = psycopg2.connect(host=address, port=port, user="postgres", dbname="postgres", connect_timeout=DEADLINE, options=options,
                                      tcp_user_timeout=DEADLINE * 1000)  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute(QUESTION)
            ((recovery, timeline, receivers),) = cursor.fetchall()
    except psycopg2.Error as failure:
        return {"error": str(failure).strip().partition("\n")[0].rpartition("failed: ")[2]}
    connection.close()
    return {"recovery": recovery, "timeline": timeline, "receivers": receivers}


def main(argv: Sequence[str]) -> int:
    port, *addresses = argv
    with ThreadPoolExecutor(len(addresses)) as pool:
        answers = dict(zip(addresses, pool.map(lambda address: ask(address, port), addresses)))
    print(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.path.append("/usr/lib/python3/dist-packages")
    sys.exit(main(sys.argv[1:]))
