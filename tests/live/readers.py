"""What the tests of read load balancing do and look at: the director, its table, clients of the reader address, lvsdr's parameters."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from drill import PATIENCE

from pha4pgsql.words import Failure

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from drill import Drill

READER = Path(__file__).parent / "reader.py"
WITNESS = Path(__file__).parent / "pool_witness.py"
LOG = "/run/pha4pgsql/lvsdr.log"
LINE = re.compile(r"^\s*->\s+(\S+):5432\s+\S+\s+(\d+)\s+(\d+)\s+(\d+)\s*$", re.MULTILINE)
_numbers = itertools.count(1)


class Read(NamedTuple):
    """An answer, or what was said instead (then `server` is empty). `session` is -1 for a connection of its own."""

    session: int
    began: float
    at: float
    server: str
    recovery: bool
    trouble: str = ""


class Reading:
    """A client that reads all the time (reader.py): with new connections, and in sessions that it holds."""

    def __init__(self, drill: Drill, held: int) -> None:
        self.drill = drill
        path = f"/var/tmp/r{os.getpid()}-{next(_numbers)}.reads"
        self._file = Path(f"{drill.lab.disk('client')}{path}")
        self._process = drill.lab.popen("client", ["/usr/bin/python3", "-I", str(READER), drill.lab.reader_vip, path, str(held)])

    @property
    def all(self) -> list[Read]:
        """Everything in order of time."""
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return [_read(line.split(maxsplit=4)) for line in text[: text.rfind("\n") + 1].splitlines()]

    @property
    def good(self) -> list[Read]:
        """The answers to new connections."""
        return [read for read in self.all if read.session < 0 and read.server and not read.trouble]

    @property
    def bad(self) -> list[Read]:
        """New connections without an answer."""
        return [read for read in self.all if read.session < 0 and read.trouble]

    @property
    def lost(self) -> list[Read]:
        """Held sessions that broke, with the server that they had."""
        return [read for read in self.all if read.session >= 0 and read.trouble]

    @property
    def on_primary(self) -> list[Read]:
        """Answers that came from a primary."""
        return [read for read in self.all if read.server and not read.trouble and not read.recovery]

    def sessions(self, *, after: float = 0.0) -> dict[int, str]:
        """The held sessions that got an answer after that moment, and their servers."""
        return {read.session: read.server for read in self.all if read.session >= 0 and not read.trouble and read.at > after}

    def wait(self, count: int = 30, *, timeout: float = PATIENCE) -> None:
        """Until so many more new connections got an answer."""
        since = time.monotonic()
        self.drill.until(lambda: sum(read.began > since for read in self.good) >= count, f"{count} more reads are answered", timeout)

    def go_on(self, sessions: Collection[int], *, timeout: float = PATIENCE) -> None:
        """Until all these held sessions have got another answer."""
        since = time.monotonic()
        self.drill.until(lambda: set(sessions) <= self.sessions(after=since).keys(), f"the sessions {sorted(sessions)} get another answer", timeout)

    def gap(self, since: float) -> float:
        """The longest time without an answer to a new connection, in seconds."""
        times = [since, *(read.at for read in self.good if read.at > since), time.monotonic()]
        return max(after - before for before, after in zip(times, times[1:]))

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __str__(self) -> str:
        shown = [read for read in self.all if read.trouble or not read.recovery]
        servers = Counter(read.server for read in self.good)
        return "\n".join([f"reads: {dict(servers)}, {len(self.bad)} without an answer, {len(self.lost)} sessions lost", *map(str, shown[-40:])])


def _read(words: list[str]) -> Read:
    kind, one, two, *rest = words
    if kind == "read":
        return Read(-1, float(one), float(two), rest[0], rest[1] == "t")
    if kind == "bad":
        return Read(-1, float(one), float(two), "", recovery=False, trouble=" ".join(rest) or "?")
    server, *text = rest[0].split() if kind == "held" else " ".join(rest).split()
    if kind == "held":
        return Read(int(one), float(two), float(two), server, rest[1] == "t")
    return Read(int(one), float(two), float(two), server, recovery=False, trouble=" ".join(text) or "?")


class Balance:
    """The read load balancing of a lab."""

    def __init__(self, drill: Drill) -> None:
        self.drill = drill
        self.lab = drill.lab

    @contextlib.contextmanager
    def reading(self, held: int = 6) -> Iterator[Reading]:
        """Read for the length of a `with`, which begins when all sessions are held and the first reads answered."""
        reading = Reading(self.drill, held)
        try:
            self.drill.until(lambda: len(reading.sessions()) == held, f"{held} sessions are held")
            reading.wait(10)
            yield reading
        except BaseException:
            print(reading)
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                reading.end()

    # -- looking --

    @property
    def director(self) -> str:
        """The node where Pacemaker has started lvsdr, or empty."""
        return (self.drill.status()["lvs"] or {"director": None})["director"] or ""

    def pool(self) -> dict[str, int]:
        """Name -> weight, as cls_status shows it on the first node that is up."""
        return {row["name"]: row["weight"] for row in (self.drill.status()["lvs"] or {"real_servers": []})["real_servers"]}

    def table(self, node: str = "") -> dict[str, int]:
        """Address -> weight, as ipvsadm shows the kernel's table of a node, by default the director."""
        done = self.lab.run(node or self.director, ["ipvsadm", "-Ln"])
        return {address: int(weight) for address, weight, _, _ in LINE.findall(done.out)}

    def until_pool(self, timeout: float = PATIENCE, **weights: int) -> None:
        """Wait until the pool is exactly this."""
        self.drill.until(lambda: self.pool() == weights, f"the pool is {weights}", timeout)

    def landings(self, count: int) -> dict[str, int]:
        """Where so many connections land, one after the other."""
        query = f"host={self.lab.reader_vip} user=postgres dbname=postgres connect_timeout=20"
        loop = f'for i in $(seq {count}); do psql "{query}" -XAtc "show cluster_name" || echo failed; done'
        return dict(Counter(self.drill.must("client", "sh", "-c", loop, timeout=240).out.split()))

    def log(self, node: str = "") -> str:
        """What the resident process of the director has written."""
        return self.lab.run(node or self.director, ["cat", LOG]).out

    def until_said(self, words: str, *, since: int, node: str = "") -> str:
        """Wait for a line of the director's log, later than its first `since` characters."""
        node = node or self.director
        return self.drill.until(
            lambda: next((line for line in self.log(node)[since:].splitlines() if words in line), ""), f"the director's log says {words!r}", 60
        )

    @contextlib.contextmanager
    def witness(self, server: str, seconds: float) -> Iterator[dict[str, list[tuple[float, str]]]]:
        """On the director, watch a server's port and weight for so long; filled in at the end of the `with`."""
        found: dict[str, list[tuple[float, str]]] = {"port": [], "weight": []}
        argv = ["/usr/bin/python3", "-IS", str(WITNESS), self.lab.address(server), self.lab.port, str(seconds)]
        process = self.lab.popen(self.director, argv)
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]  # it looks
        yield found
        out, err = process.communicate(timeout=seconds + 30)
        for line in [*lines, *out.splitlines()]:
            at, word, value = line.split()
            found[word].append((float(at), value))
        assert not err, err

    # -- changing --

    def pcs(self, line: str) -> None:
        """A line as an operator types it into the shell of node1."""
        self.drill.must("node1", "sh", "-c", line, timeout=60)

    @contextlib.contextmanager
    def parameters(self, *lines: str) -> Iterator[None]:
        """Change lvsdr with pcs, and put its parameters back in the end."""
        before = self.drill.must("node1", "cibadmin", "--query", "--xpath", "//primitive[@id='lvsdr']/instance_attributes").out
        try:
            for line in lines:
                self.pcs(line)
            yield
        finally:
            with contextlib.suppress(Failure):
                self.lab.run("node1", ["cibadmin", "--replace", "--xml-text", before])
                self.lab.run("node1", ["crm_resource", "--wait", "--timeout=60"], timeout=70)

    def add_reader(self, *options: str) -> None:
        self.drill.must("node1", "cls_reader", "add", "node4", "--yes", *options, timeout=120)

    def whole(self) -> None:
        """Every node on, the first one primary, every server in the pool."""
        self.lab.heal("node4", *self.lab.members)
        self.lab.boot("node4", *self.lab.members)
        if not self.lab.run("node4", ["pgrep", "-x", "postgres"]).ok:
            self.add_reader()
        self.drill.restore()
        self.drill.must("node1", "crm_resource", "--clear", "--resource", "lvsdr")
        if self.drill.primary() != self.lab.members[0]:
            self.drill.must("node1", "cls_online_switch", self.lab.members[0], "--timeout", "150", timeout=300)
        primary = self.drill.primary()
        names = {*self.lab.members, "node4"} - {primary}
        self.until_pool(90, **dict.fromkeys(names, 1))

    def scene(self) -> str:
        """The director's side of a failure."""
        parts: list[Any] = [json.dumps(self.drill.status().get("lvs"))]
        for node in self.drill.up:
            with contextlib.suppress(Failure):
                parts.append(f"--- {node}\n{self.lab.run(node, ['sh', '-c', f'ipvsadm -Ln; tail -n 40 {LOG}']).out}")
        return "\n".join(map(str, parts))
