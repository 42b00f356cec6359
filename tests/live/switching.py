"""A planned switchover in the practice cluster: do it, and look whether all is as it has to be afterwards."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drill import Drill, Writing

    from pha4pgsql.system import Completed

PATIENT = 180.0
"""For a command that waits by itself."""
RECONNECT = (
    "terminat|refused|closed|reset by peer|shutting down|starting up|not yet accepting|not accepting|No route|timed out|temporarily unavailable"
    "|read-only transaction"
)
"""What a client may be told while it looks for the new primary; the last one by the old primary, which is a standby when the address leaves it."""


def run(drill: Drill, node: str, *words: str) -> Completed:
    """Run a command on a node, and show what it said."""
    done = drill.lab.run(node, words, timeout=PATIENT)
    print(f"[{node}]# {' '.join(words)}\n{done.err}{done.out}-> {done.code}")
    return done


def leftovers(drill: Drill) -> str:
    """Constraints, and wishes: all that a switchover might leave in the CIB."""
    found = drill.must(drill.up[0], "cibadmin", "--query").out
    return "\n".join(re.findall(r"<rsc_location .*|<nvpair [^>]*-switch.*|.*cli-(?:ban|prefer).*", found))


def started(drill: Drill, node: str) -> str:
    return drill.sql(node, "select pg_postmaster_start_time()")


def follows(drill: Drill, node: str) -> bool:
    return drill.sql(node, "select status from pg_stat_wal_receiver") == "streaming"


def switch(drill: Drill, writing: Writing, node: str, target: str = "") -> tuple[str, float]:
    """One switchover, and all that has to be true after it; the new primary and the outage that the command measured."""
    old, timeline = drill.primary(), drill.timeline(drill.primary())
    third = {name: started(drill, name) for name in drill.up if name not in (old, target)}
    began = time.monotonic()
    done = run(drill, node, "cls_online_switch", *filter(None, [target]))
    assert done.ok, done
    new = drill.primary()
    assert done.out == f"online switch successed,the new master is {new}\n"
    assert new != old
    assert target in ("", new)
    assert drill.timeline(new) == timeline + 1
    assert all(started(drill, name) == since for name, since in third.items() if name != new), "a standby was restarted"
    assert all(follows(drill, name) for name in drill.up if name != new)
    writing.wait(50)
    [told] = re.findall(r"writes were out for ([0-9.]+) s: (\w+) on timeline (\d+), then (\w+) on timeline (\d+)", done.err)
    assert told[1:] == (old, str(timeline), new, str(timeline + 1))
    print(f"{old} -> {new}: the command measured {told[0]} s, the writer {writing.outage(began):.2f} s")
    return new, writing.outage(began)


def new_plans(drill: Drill) -> list[str]:
    """Why Pacemaker planned anew after a target's score was raised and before its address was started, in all switchovers so far."""
    found: list[str] = []
    for node in drill.lab.members:
        moving = False
        for line in drill._file(node, "/var/log/pacemaker/pacemaker.log").splitlines():
            if "Initiating start operation vip-master_start_0" in line:
                moving = False
            elif re.search(r"Transition \d+ aborted", line):
                found += [line] if moving else []
                moving = moving or "=INFINITY: " in line
    return found


def troubles(writing: Writing) -> list[str]:
    """What the writer complained of, one text each."""
    return [line.split(" ", 2)[2] for line in writing._lines() if line.startswith("bad ")]
