"""The resident process of a director: looks at the cluster, the servers and the kernel's table, lets `lvs.decide` decide, and acts.

Layer 4. Whatever may take long is asked in threads (scripts, the primary, Pacemaker, names); the loop itself never waits for anything but
the next thing that happens. It holds the director's lock while it touches the table, and ends when the director is no more.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Callable, NamedTuple, Protocol

from pha4pgsql import lvs, pacemaker, script, system, text
from pha4pgsql.evidence import Probes
from pha4pgsql.lvs_settings import is_host
from pha4pgsql.lvs_words import Memory, Observation, Peer, Post, Unknown, View
from pha4pgsql.questions import Bell, Question, Questions
from pha4pgsql.resident import locked
from pha4pgsql.words import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from pha4pgsql.lvs_settings import DirectorSettings
    from pha4pgsql.lvs_words import Configuration, Daemon, Decision, Edit, Entry, Replica, Role, Service

SCRIPT_PAUSE = 1.0
"""Seconds between two runs of a script, and between two questions to the primary."""
NAMES_PAUSE = 10.0
"""Seconds between two look-ups of a name."""
COUNTS_PAUSE = 5.0
"""Seconds between two publications when nothing but counts has changed."""
CLUSTER_TIMEOUT = 3.0
FIRST_LOOK = 1.5
"""Seconds for which a new process changes nothing before everybody has answered."""
FIRST_TRIES = 0.3
"""Seconds for servers to show that they live, once it is known who they are: a start does not wait for those which are silent."""
FIRST_LIMIT = 3.0
"""Seconds after which its first look counts as complete, whoever has not answered."""


class Kernel(Protocol):
    """The kernel's IPVS, as it is used here and by the actions (`ipvs.Ipvs`; in tests a table in memory)."""

    def __enter__(self) -> Kernel: ...  # noqa: PYI034 - Python 3.9 has no Self
    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /) -> None: ...
    def services(self) -> tuple[Service, ...]: ...
    def servers(self, service: Service, /) -> tuple[Entry, ...]: ...
    def apply(self, edits: Sequence[Edit], /) -> None: ...
    def daemons(self) -> tuple[Daemon, ...]: ...
    def start_daemon(self, wish: Daemon, /) -> None: ...
    def stop_daemon(self, role: Role, /) -> None: ...


class Files(NamedTuple):
    """Where a director keeps what it remembers until the next boot."""

    room: str
    resource: str

    @property
    def prefix(self) -> str:
        return f"{self.room}/{self.resource}"

    @property
    def lock(self) -> str:
        """Held by whoever touches the table."""
        return f"{self.prefix}.table.lock"

    @property
    def started(self) -> str:
        """There from before the service is there until after: fingerprint, service, marks."""
        return f"{self.prefix}.started"

    @property
    def memory(self) -> str:
        """The last good list."""
        return f"{self.prefix}.memory"

    @property
    def beat(self) -> str:
        """The monotonic time of the resident's last good look, once it has seen everything it asks."""
        return f"{self.prefix}.beat"


def standing(kernel: Kernel, service: Service) -> Service | None:
    """The service of this key as it is in the table."""
    return next((one for one in kernel.services() if one.key == service.key), None)


def record(level: str, line: str) -> None:
    """A line for the resident's log, and for the system's: the agent that started it has ended long ago."""
    import syslog

    os.write(2, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {level}: {' '.join(line.split())}\n".encode())
    kinds = {"DEBUG": syslog.LOG_DEBUG, "INFO": syslog.LOG_INFO, "WARNING": syslog.LOG_WARNING}
    syslog.syslog(kinds.get(level, syslog.LOG_ERR) | syslog.LOG_DAEMON, f"lvsdr: {' '.join(line.split())}")


class Resident:
    """The process."""

    def __init__(self, settings: DirectorSettings, files: Files, kernel: Callable[[], Kernel], say: Callable[[str, str], None] = record) -> None:
        configuration = settings.configuration
        self.settings, self.files, self.kernel, self.say = settings, files, kernel, say
        self.configuration: Configuration = configuration
        self.bell, self.scripts = Bell(), script.Runner()
        pause = max(SCRIPT_PAUSE, configuration.check_interval)
        self.cluster: Question[View] = Question(_ClusterEye(configuration), configuration.check_interval, self.bell)
        self.listed: Question[tuple[str, ...]] = Question(self._list, pause, self.bell)
        self.checked: Questions[bool] = Questions(self._check, pause, self.bell)
        self.replicas: Question[tuple[Replica, ...]] = Question(self._replicas, pause, self.bell)
        self.names: Questions[str] = Questions(self._resolve, NAMES_PAUSE, self.bell)
        self.publisher: Question[None] = Question(self._publish, 0.0, self.bell)
        self.probes = Probes(configuration.port, configuration.check_interval, configuration.check_timeout)
        self.memory = read_memory(files)
        self.addresses: dict[str, str] = {}
        self.hosts: tuple[str, ...] = self.memory.hosts or ()
        self.published = _Publication()
        self.pool = _Publication()
        self.begun, self.answered = time.monotonic(), float("inf")
        self.next_look = 0.0
        self.trouble = ""

    def live(self) -> None:
        """Keep the table right until the director is no more."""
        signal.signal(signal.SIGTERM, lambda *_: self._leave())
        _raise_limits()
        while True:
            try:
                with self.kernel() as kernel:
                    self._loop(kernel)
            except Failure as failure:
                self._complain("WARNING", failure.message)
            except Exception as bug:  # noqa: BLE001  who keeps a table right must not end because of one bad look
                self._complain("ERROR", f"internal error: {type(bug).__name__}: {bug}")
            self.probes.wait(self.configuration.check_interval, self.bell.read, time.monotonic())

    def _complain(self, level: str, trouble: str) -> None:
        """Once for the same trouble."""
        if trouble != self.trouble:
            self.trouble = trouble
            self.say(level, trouble)

    def _leave(self) -> None:
        self.scripts.kill()
        os._exit(0)

    def _loop(self, kernel: Kernel) -> None:
        while True:
            now = time.monotonic()
            self._ask(now)
            self.bell.silence()
            changed = self.probes.step(now)
            if changed or now >= self.next_look:
                self._look(kernel, now)
                self.next_look = now + self.configuration.check_interval
            if self.probes.wait(max(0.0, self.next_look - time.monotonic()), self.bell.read, time.monotonic()):
                self.next_look = 0.0

    def _ask(self, now: float) -> None:
        """Put every question that is due."""
        configuration = self.configuration
        self.cluster.poke(now)
        if configuration.script:
            self.listed.poke(now)
        if configuration.wants_replicas:
            self.replicas.poke(now)
        if configuration.check and not configuration.script:
            self.checked.poke(self._candidates(), now)
        named = tuple(host for host in self.hosts if not _numeric(host))
        self.names.poke(named, now)
        late = now - self.published.when >= COUNTS_PAUSE
        if self.pool.key != self.published.key or (late and self.pool.servers != self.published.servers):
            self.publisher.poke(now)

    def _candidates(self) -> tuple[str, ...]:
        """Whom the check script is asked about."""
        if self.configuration.weights and not self.configuration.resource:
            return tuple(host for host, _ in self.configuration.weights)
        view = self.cluster.answer
        return () if isinstance(view, Unknown) else tuple(peer.name for peer in view.peers if peer.online and peer.candidate)

    # ------------------------------------------------------------ questions, each in a thread

    def _list(self) -> tuple[str, ...]:
        """Run the list script."""
        said = self.scripts.run(script.command(self.configuration.script), self.configuration.script_timeout)
        if isinstance(said, Unknown):
            raise Unanswered(said.reason)
        words = said.split()
        odd = [word for word in words if not is_host(word)]
        if odd:
            raise Unanswered(f"it printed {' '.join(words)[:200]!r}, and {odd[0][:60]!r} is no host")
        return tuple(dict.fromkeys(words))

    def _check(self, host: str) -> bool:
        """Run the check script for one host."""
        said = self.scripts.run(script.command(self.configuration.check, host), self.configuration.script_timeout)
        if isinstance(said, Unknown):
            raise Unanswered(said.reason)
        if said.strip() not in ("t", "f"):
            raise Unanswered(f"it printed {said.strip()[:100]!r}, expected t or f")
        return said.strip() == "t"

    def _replicas(self) -> tuple[Replica, ...]:
        """Ask the primary."""
        from pha4pgsql import replicas  # psycopg2: 27 ms that most configurations do not need

        found = replicas.streaming(self.configuration.conninfo, passfile=self.configuration.passfile, timeout=self.configuration.script_timeout)
        return tuple(row for row in found if replicas.is_server(row))

    def _resolve(self, host: str) -> str:
        """The address of a name; the last one when it cannot be resolved just now, empty if it never could."""
        family = socket.AF_INET6 if self.configuration.service.ipv6 else socket.AF_INET
        try:
            found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM)
        except OSError:
            return self.addresses.get(host, "")
        return str(ip_address(str(found[0][4][0]).partition("%")[0]))

    def _publish(self) -> None:
        """Show the pool to whoever asks for the cluster's state."""
        import json

        pool = self.pool
        value = json.dumps({"at": int(time.time()), "servers": pool.servers}, separators=(",", ":"))
        pacemaker.publish(f"{self.settings.resource}-pool", value, private=True)
        self.published = pool._replace(when=time.monotonic())

    # ------------------------------------------------------------ the look

    def _look(self, kernel: Kernel, now: float) -> None:
        """Observe, decide, act; under the lock, so that no action of the agent comes between."""
        with locked(self.files.lock, now + 5):
            if not os.path.exists(self.files.started):
                self._leave()
            service = self.configuration.service
            there = standing(kernel, service)
            seen = self._observe(there, kernel.servers(service) if there is not None else ())
            self._attend(self.memory, seen)
            if not self._complete(now, FIRST_LOOK):
                return
            decision = lvs.decide(self.configuration, self.memory, seen, now)
            for level, line in decision.lines:
                self.say(level, line)
            if decision.edits:
                kernel.apply(decision.edits)
        self.trouble = ""
        self._remember(decision, seen)
        self._attend(self.memory, seen)
        if self._complete(now, FIRST_LIMIT):
            write_beat(self.files, now)

    def _attend(self, memory: Memory, seen: Observation) -> None:
        """Look after every host that matters from now on: its address, its port."""
        self.hosts = lvs.hosts_of_interest(self.configuration, memory, seen)
        self.addresses = {**self.addresses, **self._numbers()}
        self.probes.aim(address for host, address in self.addresses.items() if address and host in self.hosts)

    def _observe(self, service: Service | None, table: tuple[Entry, ...]) -> Observation:
        resolved = {host: "" if isinstance(answer, Unknown) else answer for host, answer in self.names.answers()}
        standing_ones = {entry.server.address: entry.server.address for entry in table}
        self.addresses = {**standing_ones, **self._numbers(), **resolved}
        return Observation(
            self.cluster.answer, self.listed.answer, dict(self.checked.answers()), self.replicas.answer, self.probes.evidence,
            self.addresses, service, table,
        )  # fmt: skip

    def _numbers(self) -> dict[str, str]:
        """The hosts that need no look-up."""
        return {host: _own_form(host, ipv6=self.configuration.service.ipv6) for host in self.hosts if _numeric(host)}

    def _remember(self, decision: Decision, seen: Observation) -> None:
        if decision.memory.hosts != self.memory.hosts or decision.memory.posted != self.memory.posted:
            write_memory(self.files, decision.memory)
        self.memory = decision.memory
        loads = {entry.server.address: entry.load for entry in seen.table}
        counts = ((loads[one.address].active, loads[one.address].inactive) if one.address in loads else (0, 0) for one in decision.wish)
        rows = sorted((decision.names[one.address], one.address, one.weight, *count) for one, count in zip(decision.wish, counts))
        self.pool = _Publication(tuple(rows))

    def _complete(self, now: float, limit: float) -> bool:
        """Whether everything that is asked has answered once, or had `limit` seconds for it."""
        if now - self.begun > limit:
            return True
        named = dict(self.names.answers())
        asked = [self.cluster.answered]
        asked += [self.listed.answered] if self.configuration.script else []
        asked += [self.replicas.answered] if self.configuration.readers else []
        asked += [len(dict(self.checked.answers())) >= len(self._candidates())] if self.configuration.check and not self.configuration.script else []
        if not all(asked) or not all(host in named for host in self.hosts if not _numeric(host)):
            return False
        self.answered = min(self.answered, now)
        evidence = self.probes.evidence
        return now - self.answered > FIRST_TRIES or all(
            address in evidence for host, address in self.addresses.items() if address and host in self.hosts
        )


class Unanswered(Failure):
    """A question got no answer that can be used."""


class _Publication(NamedTuple):
    """What is published: (name, address, weight, active, inactive) of each server, and when it was."""

    servers: tuple[tuple[str, str, int, int, int], ...] = ()
    when: float = 0.0

    @property
    def key(self) -> tuple[tuple[str, str, int], ...]:
        """Without the counts."""
        return tuple(row[:3] for row in self.servers)


def _raise_limits() -> None:
    """Each server takes two descriptors."""
    import resource

    with suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _numeric(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _own_form(host: str, *, ipv6: bool) -> str:
    """An address as it is printed; empty if it is of the other family."""
    address = ip_address(host)
    return str(address) if (address.version == 6) is ipv6 else ""


# ---------------------------------------------------------------- the cluster's eye


class _ClusterEye:
    """Reads the CIB; one that has not changed is not parsed again."""

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.before = ""
        self.view = View(())

    def __call__(self) -> View:
        cib = pacemaker.cib(CLUSTER_TIMEOUT)
        if cib != self.before:
            from xml.etree import ElementTree

            self.view, self.before = view_of(ElementTree.fromstring(cib), self.configuration), cib  # noqa: S314
        return self.view


def view_of(cib: text.Tree, configuration: Configuration) -> View:
    """What the CIB says that matters for the pool."""
    cluster = text.cluster(cib)
    chosen = _replicated_set(text.replicated_sets(cib), configuration)
    primitive = chosen.primitive if chosen else ""
    promoting = _promoting(cib, primitive) if primitive else set()
    needed = _primitives(cib, configuration.resource) if configuration.resource else set()
    values = cluster.attribute(configuration.attribute) if configuration.attribute else {}
    tags = cluster.attribute(f"{primitive}-noloadbalance")
    peers = []
    for name, member in cluster.members.items():
        role = member.roles.get(primitive, "")
        post = Post.PRIMARY if role == "promoted" or name in promoting else Post.STANDBY if role == "started" else Post.NONE
        running = {resource.partition(":")[0] for resource, role in member.roles.items() if role in ("started", "promoted")}
        candidate = not configuration.resource or bool(needed & running)
        peers.append(Peer(name, member.online, candidate, values.get(name), post, tags.get(name) == "true"))
    return View(tuple(peers), bool(primitive), configuration.resource if configuration.resource and not needed else "")


def _replicated_set(sets: Sequence[text.Named], configuration: Configuration) -> text.Named | None:
    """The set that the attribute belongs to, or the only one."""
    named = [one for one in sets if configuration.attribute == f"{one.primitive}-status"]
    return next(iter(named or (sets if len(sets) == 1 else [])), None)


def _promoting(cib: text.Tree, primitive: str) -> set[str]:
    """The nodes on which a promotion of the resource is in flight."""
    found = set()
    for state in cib.iter("node_state"):
        for resource in state.iter("lrm_resource"):
            if str(resource.get("id")).partition(":")[0] == primitive and any(
                one.get("operation") == "promote" and one.get("rc-code") == text.PENDING_CODE for one in resource.iter("lrm_rsc_op")
            ):
                found.add(str(state.get("uname")))
    return found


def _primitives(cib: text.Tree, resource: str) -> set[str]:
    """The primitives that a resource is made of: itself, or what is in the clone or group."""
    if any(one.get("id") == resource for one in cib.iter("primitive")):
        return {resource}
    found = (one for tag in ("clone", "master", "group") for one in cib.iter(tag) if one.get("id") == resource)
    return {str(primitive.get("id")) for one in found for primitive in one.iter("primitive")}


# ---------------------------------------------------------------- files


def read_memory(files: Files) -> Memory:
    """What an earlier process knew; nothing if there was none."""
    import json

    try:
        with open(files.memory, encoding="utf-8") as stream:
            found = json.load(stream)
        return Memory(hosts=tuple(found["hosts"]), primary=str(found["primary"]), posted=frozenset(found["posted"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Memory()


def write_memory(files: Files, memory: Memory) -> None:
    import json

    if memory.hosts is not None:
        kept = {"hosts": memory.hosts, "primary": memory.primary, "posted": sorted(memory.posted)}
        system.write_file(files.memory, f"{json.dumps(kept)}\n")


def write_beat(files: Files, now: float) -> None:
    """Twice a second: neither durable nor atomic, a number of fixed length."""
    handle = os.open(files.beat, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(handle, f"{now:20.3f}\n".encode(), 0)
    finally:
        os.close(handle)


def read_beat(files: Files) -> float | None:
    """When the resident last looked; None if it never did."""
    try:
        with open(files.beat, encoding="ascii") as stream:
            return float(stream.read())
    except (OSError, ValueError):
        return None
