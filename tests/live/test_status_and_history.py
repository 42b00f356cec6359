"""cls_status and cls_history on a real cluster: what a person sees when all is well, when a standby is gone, when nobody serves, and afterwards."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from drill import alone

from pha4pgsql.lab_words import Plan
from pha4pgsql.words import Lsn

if TYPE_CHECKING:
    from drill import Drill, Writing

ROOT = Path(__file__).parents[2]
PLAN = Plan("live-status")
HEALTHY, DEGRADED, DOWN, UNASKED = 0, 1, 2, 101
WIDTH, HEIGHT = 80, 24
MAGNITUDE = 3.0
"""An outage by the history is the writer's own within so many seconds: the writer also waits for the address."""


def screen(drill: Drill, node: str) -> tuple[int, str]:
    """Exit code and text of cls_status on a node."""
    done = drill.lab.run(node, ["cls_status"], timeout=30)
    return done.code, done.out


def until_code(drill: Drill, node: str, code: int, *words: str) -> str:
    """Wait until the screen has this exit code and all of these words in it; returns it."""

    def shown() -> str:
        found, text = screen(drill, node)
        return text if found == code and all(word in text for word in words) else ""

    return drill.until(shown, f"cls_status on {node} ends with {code} and says {' / '.join(words) or 'anything'}")


def test_healthy(drill: Drill) -> None:
    """Code 0; every member with role, timeline, position and lag; it fits a small terminal; JSON says the same."""
    primary = drill.primary()
    [sync] = drill.standbys("HS:sync")
    text = until_code(drill, sync, HEALTHY, "HEALTHY", "nothing is wrong")
    print(text)
    lines = text.splitlines()
    assert len(lines) < HEIGHT
    assert max(map(len, lines)) <= WIDTH
    timeline = drill.timeline(primary)
    assert re.search(rf"^{primary} +primary +{timeline} +0/[0-9A-F]+ +- +- +- +takes writes$", text, re.MULTILINE)
    assert re.search(rf"^{sync} +standby +{timeline} +0/[0-9A-F]+ +\d+ +\d+\.\d +sync +streams$", text, re.MULTILINE)
    found = drill.status(sync)
    assert (found["state"], found["problems"], found["asked"]["refusal"]) == ("healthy", [], None)
    assert all(row["lag_seconds"] is not None and row["lsn"] for row in found["nodes"])
    assert "\x1b" not in text


def test_a_terminal_gets_colours_and_is_redrawn_in_place(drill: Drill) -> None:
    """`--watch` draws over the last screen, Ctrl-C ends it with the state's code, and the last screen stays."""
    node = drill.up[0]
    watch = "stty cols 80 rows 24; timeout --foreground -s INT 2.5 cls_status --watch 0.5; echo code $?"
    done = drill.lab.run(node, ["env", "TERM=xterm", "script", "-qefc", watch, "/dev/null"], timeout=30)
    frames = done.out.split("\x1b[H")[1:]
    assert len(frames) > 1, done
    assert all("HEALTHY" in frame and "nothing is wrong" in frame for frame in frames)
    assert done.out.count("\x1b[2J") == 1
    plain = drill.lab.run(node, ["env", "TERM=xterm", "NO_COLOR=1", "script", "-qefc", "cls_status", "/dev/null"], timeout=30).out
    assert "\x1b" not in plain
    assert "HEALTHY" in plain


def test_a_standby_that_is_kept_down_and_one_that_is_frozen(drill: Drill) -> None:
    """Code 1, the node, and what to type; writes go on."""
    primary = drill.primary()
    [standby] = drill.standbys("HS:async")
    with drill.writing() as writing:
        drill.ban(standby)
        print(until_code(drill, primary, DEGRADED, f"banned from {standby}", f"pcs resource clear msPostgresql {standby}"))
        drill.admit(standby)
        drill.healthy()
        drill.lab.freeze_postgres(standby)
        print(until_code(drill, primary, DEGRADED, f"{standby} does not stream", "cls_check"))
        writing.wait(20)


def test_alone(drill: Drill) -> None:
    """Writes are taken, on one node only: degraded, and said so."""
    with drill.writing():
        primary, _ = alone(drill)
        print(until_code(drill, primary, DEGRADED, "goes on alone", "takes writes, alone"))


def test_without_quorum(drill: Drill) -> None:
    """Code 2, quorum first; the history can be read all the same; a machine without a cluster is another thing."""
    primary = drill.primary()
    node, other = (name for name in drill.lab.members if name != primary)
    before = changes(drill, node)
    drill.lab.crash(primary, other)
    text = until_code(drill, node, DOWN, f"{node} has no quorum", "quorum NO", "corosync-quorumtool")
    print(text)
    assert text.split("WHAT IS WRONG")[1].split("\n")[1].strip().startswith(f"{node} has no quorum")
    assert changes(drill, node) == before
    assert drill.lab.run("client", [str(ROOT / "bin" / "cls_status")]).code == UNASKED


def changes(drill: Drill, node: str, *words: str) -> list[dict[str, Any]]:
    """What cls_history says on a node."""
    found: list[dict[str, Any]] = json.loads(drill.must(node, "cls_history", "--json", *words).out)
    return found


def recorded(drill: Drill, new: str, timeline: int) -> dict[str, Any]:
    """The record of a change, when it has been written, as another node than the primary reads it."""
    reader = next(name for name in drill.up if name != new)

    def last() -> dict[str, Any]:
        found = changes(drill, reader, "-n", "1")
        return found[0] if found and found[0]["timeline"] == timeline and found[0]["recorded"] else {}

    return drill.until(last, f"timeline {timeline} of {new} is recorded", timeout=40)


def compare(what: str, one: dict[str, Any], writing: Writing, since: float) -> float:
    """Print both measures of the outage; the history's bounds hold the writer's, but for the address and the client."""
    own = writing.outage(since)
    print(f"{what}: {one['cause']}; writes out by the history {one['least']} to {one['most']} s, by the writer {own:.2f} s")
    assert one["least"] is not None
    assert one["least"] <= own + 0.5, "at least so long"
    assert one["most"] is None or own - MAGNITUDE <= one["most"] <= own + MAGNITUDE, "about so long"
    return own


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("kill-postgres", "PostgreSQL on {old} ended by itself"),
        ("crash", "{old} was lost, and fenced"),
        ("ban", "switchover: the set was banned from {old}"),
        ("cls_online_switch", "switchover from {old}, by cls_online_switch"),
    ],
)
def test_history(drill: Drill, fault: str, cause: str) -> None:
    """Each change of primary leaves one record: who, when, which timeline from where, why, and how long writes were out."""
    old, node = drill.primary(), drill.up[0]
    timeline, count = drill.timeline(old), len(changes(drill, node))
    with drill.writing() as writing:
        writing.wait(50)
        began, clock = time.monotonic(), time.time()
        if fault == "ban":
            drill.ban(old)
        elif fault == "cls_online_switch":
            print(drill.must(old, fault, "--yes", timeout=120).out)
        else:
            drill.lab.act(fault, old)
        new = drill.new_primary(old)
        writing.wait(50)
        one = recorded(drill, new, timeline + 1)
        compare(fault, one, writing, began)
    assert one["cause"].startswith(cause.format(old=old))
    assert (one["node"], one["old"], one["parent"]) == (new, old, timeline)
    assert clock <= one["at"] <= time.time()
    assert drill.status()["repl_info"] == f"{new}|{timeline}|{Lsn.parse(one['switch']).hex16}"
    assert len(changes(drill, new)) == count + 1
    print(drill.must(new, "cls_history").out)


def test_history_writes_nothing_while_nothing_changes(drill: Drill) -> None:
    """The CIB stays what it is."""
    node = drill.up[0]
    one = recorded(drill, drill.primary(), drill.timeline(drill.primary()))
    assert one["node"] == drill.primary()

    def version() -> str:
        return str(re.findall(r'(?:num_updates|(?<!_)epoch)="\d+"', drill.must(node, "cibadmin", "--query", "--no-children").out))

    seen = [version()]

    def quiet() -> bool:
        seen.append(version())
        return len(set(seen[-20:])) == 1 and len(seen) > 20

    drill.until(quiet, "the CIB is quiet")
    drill.stays(lambda: version() == seen[-1], "the CIB does not change", 8)
