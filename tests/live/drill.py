"""A healthy practice cluster for failover tests: look at it, break it, wait for conditions, count acknowledged rows, make it whole again."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar

from pha4pgsql import lab_health
from pha4pgsql.lab_postgres import LOG
from pha4pgsql.words import ClusterRefusal, EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pha4pgsql.lab import Lab
    from pha4pgsql.system import Completed

T = TypeVar("T")

WRITER = Path(__file__).parent / "writer.py"
STATE = "/var/lib/pgsql/tmp/pgsql.state"
PATIENCE = 60.0
"""Seconds for which a condition is waited for: the machine may be busy with other things; nothing here measures speed."""
LONG = 2.0
"""A condition that took longer is told in the test's output."""
_numbers = itertools.count(1)


class Ack(NamedTuple):
    """One acknowledged row: its number, the timeline on which it was committed, when it was acknowledged (monotonic)."""

    row: int
    timeline: int
    at: float


class Writing:
    """A client that writes every 10 ms (writer.py), on the lab's client or on a node itself."""

    def __init__(self, drill: Drill, node: str, address: str) -> None:
        self.name = f"w{os.getpid()}-{next(_numbers)}"
        self._drill = drill
        self._address = address
        path = f"/var/tmp/{self.name}.acks"
        self._file = Path(f"{drill.lab.disk(node)}{path}")
        python = ["/usr/bin/python3", "-I", str(WRITER), address, self.name, path]
        self._process = drill.lab.popen(node, python)

    @property
    def acks(self) -> list[Ack]:
        """What was acknowledged so far, in order of time."""
        words = [line.split() for line in self._lines() if line.startswith("ack ")]
        return [Ack(int(row), int(timeline), float(at)) for _, row, timeline, at in words]

    def _lines(self) -> list[str]:
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return text[: text.rfind("\n") + 1].splitlines()

    def wait(self, count: int = 50, *, after: float | None = None, timeout: float = PATIENCE) -> None:
        """Until so many more rows are acknowledged, all later than `after` (now)."""
        since = time.monotonic() if after is None else after
        self._drill.until(lambda: sum(ack.at > since for ack in self.acks) >= count, f"{count} more rows of {self.name} are acknowledged", timeout)

    def outage(self, since: float) -> float:
        """The longest time between two acknowledgements from the last one before `since` on, in seconds."""
        times = [ack.at for ack in self.acks]
        begin = max((number for number, at in enumerate(times) if at <= since), default=0)
        return max((after - before for before, after in zip(times[begin:], times[begin + 1 :])), default=0.0)

    def end(self) -> None:
        """Stop writing."""
        self._process.kill()
        self._process.communicate()

    def __str__(self) -> str:
        acks = self.acks
        lines = [f"{self.name} to {self._address}: {len(acks)} rows acknowledged" + (f", the last at {acks[-1].at:.2f}" if acks else "")]
        gaps = [f"  {one.at:.2f} .. {two.at:.2f}: {two.at - one.at:.2f} s" for one, two in zip(acks, acks[1:]) if two.at - one.at > 0.3]
        return "\n".join([*lines, *gaps, *[f"  {line}" for line in self._lines() if line.startswith("bad ")][-30:]])


class Drill:
    """A lab with the whole product on it, and what tests do to it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.writings: list[Writing] = []

    # -- looking --

    @property
    def up(self) -> list[str]:
        """The members that are switched on, not frozen and connected."""
        return [row.name for row in self.lab.list() if row.name in self.lab.members and (row.state, row.link) == ("running", "up")]

    def status(self, node: str = "") -> dict[str, Any]:
        """`cls_status --json` of a node, by default of the first that has quorum, or else can be asked."""
        known: dict[str, Any] = {}
        for name in [node] if node else self.up:
            done = self.lab.run(name, ["cls_status", "--json"], timeout=20)
            if done.out.startswith("{"):
                found: dict[str, Any] = json.loads(done.out)
                if found["quorate"]:
                    return found
                known = known or found
        return known or {"primary": None, "quorate": False, "repl_info": None, "vips": {}, "nodes": [], "failed_actions": []}

    def standing(self, node: str) -> tuple[str | None, ...]:
        """Data status, status, score of a node."""
        row: dict[str, str | None] = next((row for row in self.status()["nodes"] if row["name"] == node), {})
        return (row.get("data_status"), row.get("status"), row.get("score"))

    def primary(self) -> str:
        """The node that Pacemaker shows as promoted, or empty."""
        return self.status()["primary"] or ""

    def standbys(self, word: str) -> list[str]:
        """The nodes of that status, such as HS:sync."""
        return [row["name"] for row in self.status()["nodes"] if row["status"] == word]

    def sql(self, node: str, statement: str, *, timeout: float = 10.0) -> str:
        """What PostgreSQL on a node answers to a session on the node itself; "" when it does not."""
        argv = ["psql", "-XAtq", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c", statement]
        try:
            done = self.lab.run(node, argv, timeout=timeout)
        except Failure:
            return ""
        return done.out.strip() if done.ok else ""

    def ask(self, address: str, statement: str, *, timeout: float = 10.0) -> str:
        """What the client gets from an address; "" when nothing."""
        argv = ["psql", "-XAtq", f"host={address} user=postgres dbname=postgres connect_timeout=3", "-c", statement]
        done = self.lab.run("client", argv, timeout=timeout)
        return done.out.strip() if done.ok else ""

    def timeline(self, node: str) -> int:
        """The timeline on which a primary writes, or 0."""
        return int(self.sql(node, "select ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int") or 0)

    def names(self, node: str) -> str:
        return self.sql(node, "show synchronous_standby_names")

    def names_given(self, node: str) -> list[str]:
        """Every value that synchronous_standby_names got while the server ran, from its log, oldest first."""
        text = self._file(node, LOG)
        return re.findall(r'parameter "synchronous_standby_names" changed to "(.*)"$', text, re.MULTILINE)

    def voices(self, owner: str) -> list[str]:
        """The nodes whose state file says that this node is alone."""
        return [name for name in self.lab.members if re.search(rf"^said=.*:{owner}$", self.state(name), re.MULTILINE)]

    def state(self, node: str) -> str:
        """The state file of a node, also when it is off."""
        return self._file(node, STATE)

    def _file(self, node: str, path: str) -> str:
        """A file of a node that may not be there; that of a node with a kernel of its own is read by that kernel."""
        if not self.lab.plan.node(node).uml:
            return _text(Path(self.lab.disk(node) + path))
        try:
            return self.lab.run(node, ["cat", path]).out
        except Failure:
            return ""

    def agent_lines(self, node: str, *, count: int = 60) -> list[str]:
        """The last lines that the agents wrote into Pacemaker's log of a node."""
        text = self._file(node, "/var/log/pacemaker/pacemaker.log")
        return [line for line in text.splitlines() if "error output" in line and ("pgsql_" in line or "pgwatch_" in line)][-count:]

    def scene(self) -> str:
        """All that helps to understand a failure."""
        parts = ["\n".join(map(str, self.lab.list()))]
        for name in self.up[:2]:
            with contextlib.suppress(Failure):
                parts.append(f"--- cls_status on {name}\n{self.lab.run(name, ['cls_status', '--crm'], timeout=20).out}")
        for name in self.lab.members:
            parts.append(f"--- state file of {name}\n{self.state(name)}")
            parts.append(f"--- agents on {name}\n" + "\n".join(_short(line) for line in self.agent_lines(name)))
        return "\n".join([*parts, *map(str, self.writings)])

    # -- waiting --

    def until(self, condition: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
        """Wait until a condition is true; its value."""
        began = time.monotonic()
        while True:
            value = condition()
            passed = time.monotonic() - began
            if value:
                if passed > LONG:
                    print(f"[{passed:5.1f} s] until {what}")
                return value
            assert passed < timeout, f"not within {timeout:g} s: {what}"
            time.sleep(0.05)

    def stays(self, condition: Callable[[], object], what: str, seconds: float) -> None:
        """A condition is true as long as that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert condition(), f"no longer true: {what}"
            time.sleep(0.05)

    def new_primary(self, *old: str, timeout: float = PATIENCE) -> str:
        """Wait until Pacemaker shows a primary that is none of these, and it says so itself."""

        def found() -> str:
            name = self.primary()
            return name if name and name not in old and self.sql(name, "select pg_is_in_recovery()") == "f" else ""

        return self.until(found, f"a primary other than {' '.join(old) or 'none'} is promoted", timeout)

    def healthy(self, *, timeout: float = 90.0) -> None:
        """Wait until one node is primary, all others follow, the addresses are right, and the attributes say so."""
        lab_health.wait(self.lab, timeout=timeout)
        self.until(self._told, "every member shows a standing that fits", timeout=30)

    def _told(self) -> bool:
        status = self.status()
        good = [row for row in status["nodes"] if (row["data_status"] or "").startswith(("LATEST", "STREAMING|"))]
        waits = [row for row in good if row["data_status"].endswith(("|SYNC", "|QUORUM"))]
        mode = dict(self.lab.plan.settings).get("pgsql_rep_mode", "sync")
        latest = [row["name"] for row in good if row["data_status"] == "LATEST"]
        told = latest == [status["primary"]] and (status["repl_info"] or "").startswith(f"{status['primary']}|")
        return told and len(good) == len(self.lab.members) and bool(status["vips"]) and (mode == "async" or bool(waits))

    # -- breaking --

    def writing(self, node: str = "client", address: str = "") -> contextlib.AbstractContextManager[Writing]:
        """Write from a node for the length of a `with`, which begins when the first rows are acknowledged."""
        return self._writing(node, address or self.lab.writer_vip)

    @contextlib.contextmanager
    def _writing(self, node: str, address: str) -> Iterator[Writing]:
        writing = Writing(self, node, address)
        self.writings.append(writing)
        try:
            writing.wait(10)
            yield writing
        finally:
            with contextlib.suppress(ProcessLookupError):
                writing.end()

    def ban(self, *nodes: str) -> None:
        """Keep PostgreSQL of these nodes down, whatever happens."""
        for node in nodes:
            self.must(self.up[0], "crm_resource", "--ban", "--resource", "msPostgresql", "--node", node)

    def admit(self, *nodes: str) -> None:
        """End of the ban."""
        for node in nodes:
            self.must(self.up[0], "crm_resource", "--clear", "--resource", "msPostgresql", "--node", node)
        self.must(self.up[0], "crm_resource", "--cleanup", "--resource", "msPostgresql")

    def runs(self, node: str) -> bool:
        """Whether a postmaster lives there."""
        return self.lab.run(node, ["pgrep", "-x", "postgres"]).ok

    def signal(self, node: str, process: str, name: str) -> None:
        """Send a signal to a kind of PostgreSQL process of one node, such as "checkpointer"."""
        done = self.lab.run(node, ["pkill", f"-{name}", "-f", f"^postgres: .*{process}"])
        assert done.ok, f"no process {process!r} on {node}: {done}"

    def must(self, node: str, *argv: str, timeout: float = 60.0, user: str | None = None, text: str | None = None) -> Completed:
        """Run a command on a node that has to succeed."""
        done = self.lab.run(node, argv, timeout=timeout, user=user, text=text)
        assert done.ok, f"{' '.join(argv)} on {node}: {done}"
        return done

    # -- counting --

    def lost(self, *writings: Writing) -> list[tuple[str, int]]:
        """The acknowledged rows which the primary at the writer address does not have."""
        found: list[tuple[str, int]] = []
        for writing in writings:
            statement = f"select coalesce(string_agg(id::text, ' '), '') from acks where writer = '{writing.name}'"  # noqa: S608
            rows = self.until(lambda query=statement: self.ask(self.lab.writer_vip, query), "the writer address answers with rows")  # type: ignore[misc]
            there = set(map(int, rows.split()))
            found += [(writing.name, ack.row) for ack in writing.acks if ack.row not in there]
        return found

    # -- making whole --

    def restore(self, *, timeout: float = 150.0) -> None:
        """Everything on, connected and running; nodes whose data left the primary's history are cloned anew, as by an operator."""
        deadline = time.monotonic() + timeout
        self._power()
        while True:
            try:
                self.healthy(timeout=4.0)
            except (ClusterRefusal, AssertionError, EnvironmentFailure) as missing:
                assert time.monotonic() < deadline, f"the cluster does not come back within {timeout:g} s: {missing}"  # noqa: PT017  a wait, no test
                self._power()
                self._repair()
            else:
                return

    def _power(self) -> None:
        members = self.lab.members
        self.lab.heal(*members)
        states = {row.name: row.state for row in self.lab.list()}
        self.lab.thaw(*(name for name in members if states[name] == "frozen"))
        self.lab.boot(*members)
        for name in members:
            self.lab.run(name, ["pkill", "-CONT", "-x", "postgres"])
        with contextlib.suppress(AssertionError, IndexError):
            constraints = self.lab.run(self.up[0], ["cibadmin", "--query", "--scope", "constraints"]).out
            banned = re.findall(r'id="cli-ban-msPostgresql-on-(\w+)"', constraints)
            if banned:
                self.admit(*banned)

    def diverged(self) -> list[str]:
        """The nodes whose start was refused because they left the primary's history."""
        failed = self.status()["failed_actions"]
        return [name for name in self.lab.members if any(name in str(action) and "forked off" in str(action) for action in failed)]

    def _repair(self) -> None:
        primary = self.primary()
        if not primary or self.sql(primary, "select pg_is_in_recovery()") != "f":
            return
        for name in self.diverged():
            if name != primary:
                self.rebuild(name)

    def rebuild(self, node: str) -> Completed:
        """Clone a node anew from the primary, as an operator does; where something else repairs it already this is refused."""
        return self.lab.run(node, ["cls_rebuild_slave", "--yes", "--discard", "--timeout", "30"], timeout=90)


def change_of_role(drill: Drill, fault: str) -> None:
    """One loss of the primary, and all that has to be true after it."""
    old = drill.primary()
    timeline = drill.timeline(old)
    with drill.writing() as writing:
        writing.wait(100)
        began = time.monotonic()
        drill.lab.act(fault, old)
        new = drill.new_primary(old)
        drill.until(lambda: sum(ack.timeline > timeline for ack in writing.acks) >= 100, "100 rows are acknowledged by the new primary")
        print(f"{fault} of {old}, {new} takes over: outage {writing.outage(began):.2f} s")
    assert drill.lost(writing) == []
    assert drill.timeline(new) == timeline + 1
    drill.until(lambda: (drill.status()["repl_info"] or "").startswith(f"{new}|{timeline}|"), "REPL_INFO names the new primary")
    drill.until(lambda: drill.ask(drill.lab.reader_vip, "select pg_is_in_recovery()") == "t", "the reader address leads to a standby")
    assert drill.status()["vips"]["vip-master"] == new


def diverge(drill: Drill, fault: str = "kill-postgres", *, last: str = "select 1") -> tuple[str, str]:
    """Lose the primary while it has WAL which no standby got, and after a `last` statement; returns the old and the new primary.

    A primary that was killed and is back in time to answer is the furthest of all and may win again; then it is killed once more.
    """
    old = drill.primary()
    before = drill.timeline(old)
    drill.signal(old, "walsender", "STOP")
    stuck = drill.lab.popen(old, ["psql", "-X", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c", "create table lost as select 1"])
    waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query like '%lost%'"
    drill.until(lambda: drill.sql(old, waiting) != "0", "it waits")
    assert drill.sql(old, last) == "1", last
    drill.lab.act(fault, old)
    stuck.kill()
    stuck.communicate()
    drill.until(lambda: drill.timeline(drill.new_primary()) > before, "there is a primary of a new timeline")
    if (new := drill.new_primary()) != old:
        return old, new
    print(f"{old} was back in time, and won again")
    drill.healthy()
    drill.ask(drill.lab.writer_vip, "drop table lost")
    return diverge(drill, fault, last=last)


def alone(drill: Drill) -> tuple[str, list[str]]:
    """Kill PostgreSQL of both standbys for good and wait until the primary goes on alone; the primary and the standbys."""
    primary = drill.primary()
    others = [name for name in drill.lab.members if name != primary]
    drill.lab.kill_postgres(*others)
    drill.ban(*others)
    drill.until(lambda: drill.names(primary) == "" and drill.sql(primary, "select 1") == "1", f"{primary} goes on alone")
    return primary, others


def one_primary(drill: Drill) -> None:
    """Everything healed: whoever refuses is cloned anew, and then there is one primary and everybody follows it."""
    drill.restore()
    primaries = [name for name in drill.lab.members if drill.sql(name, "select pg_is_in_recovery()") == "f"]
    assert primaries == [drill.primary()]


def _text(path: Path) -> str:
    """A file that may not be there."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _short(line: str) -> str:
    """A line of Pacemaker's log without what is the same in all."""
    head, _, tail = line.partition("error output [")
    return f"{' '.join(head.split()[2:4])} {head.rpartition(') ')[2].strip()} {tail.strip(' ]')}"[:400]
