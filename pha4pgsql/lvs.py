"""Who should serve reads, and the edits of the kernel's table that get there.

Layer 2: pure. `decide` looks at a configuration, its own memory, one observation and the clock; it answers with the next memory, the real
servers wished for, the edits, and what to log. The house rules it keeps:

- A question that got no answer changes nothing: the last good list is kept, bounded by the direct evidence of each server.
- While no primary is visible, and a little longer, a list can only grow: standbys reconnect one after the other.
- A server that became the primary, is dead, or has lost the virtual address (its dependent resource was stopped) leaves at once; a healthy
  one that leaves is drained, and stays while no other serves.
- Additions and weights come first, deletions last. What is as it is wished is not touched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.lvs_words import (
    NOT_YET,
    AddServer,
    AddService,
    Configuration,
    Decision,
    DeleteServer,
    Entry,
    Evidence,
    Health,
    Memory,
    Method,
    Observation,
    Peer,
    Post,
    RealServer,
    Replica,
    Service,
    SetServer,
    SetService,
    Unknown,
    View,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pha4pgsql.lvs_words import Edit

SETTLE = 10.0
"""Seconds after a new primary is seen in which standbys that were in the pool may still be on their way to it."""
RECOVERY = 0.75
"""A server is taken back when its lag is below this part of the limit."""
DRAIN_LEAST = 1.0
"""Seconds at weight 0 before an idle server is removed: a connection that is just being made is not counted as active yet."""
HASHED = 0x2
"""A flag that the kernel sets itself (IP_VS_SVC_F_HASHED)."""
STOPPED = ("STOP", "UNKNOWN")
"""What the node attribute of a stopped instance says."""
CLASSES = {
    "[:alpha:]": "a-zA-Z", "[:digit:]": "0-9", "[:alnum:]": "a-zA-Z0-9", "[:upper:]": "A-Z", "[:lower:]": "a-z", "[:space:]": r"\s",
    "[:blank:]": r" \t", "[:punct:]": r"!-/:-@\[-`{-~", "[:xdigit:]": "0-9A-Fa-f", "[:word:]": r"\w",
}  # fmt: skip


class Seat(NamedTuple):
    """A server that the list names, with its own weight."""

    host: str
    address: str
    weight: int


class Listing(NamedTuple):
    """Which hosts should serve, by whatever source; `good` is what to remember of it. notes: subject -> what is wrong."""

    hosts: tuple[str, ...]
    good: tuple[str, ...] | None
    notes: Mapping[str, str]


def matches(pattern: str, value: str) -> bool:
    """Whether an extended regular expression matches the whole value (as grep -Ex does).

    >>> matches("HS:sync|HS:async", "HS:async"), matches("1", "10"), matches("[[:digit:]]+", "10")
    (True, False, True)
    """
    import re  # 5 ms that a monitor does not need

    for name, inner in CLASSES.items():
        pattern = pattern.replace(name, inner)
    return re.fullmatch(pattern, value) is not None


def fault(pattern: str) -> str:
    """What is wrong with a regular expression, empty if nothing is."""
    import re

    try:
        matches(pattern, "")
    except re.error as error:
        return str(error)
    return ""


def decide(configuration: Configuration, memory: Memory, seen: Observation, now: float) -> Decision:
    """One look at the pool."""
    primary = _primary(seen)
    settled = now + SETTLE if not primary or primary != memory.primary else memory.settled
    listing = _listing(configuration, memory, seen, unsettled=now < settled)
    seats, lost = _seats(configuration, listing, seen)
    pool = _Pool(configuration, memory._replace(primary=primary or memory.primary, settled=settled, hosts=listing.good), seen, now)
    pool.fill(seats, undecided=any(host not in seen.addresses for host in listing.hosts))
    notes = {**listing.notes, **lost, **pool.notes}
    wish = pool.wish()
    edits = changes(seen.service, seen.table, configuration.service, wish)
    names = {address: host for host, address in seen.addresses.items() if address and host != address}
    names.update({seat.address: seat.host for seat in seats if seat.host != seat.address})
    told = tuple((subject, text) for subject, text in sorted(notes.items()))
    before = {entry.server.address: f"weight {entry.server.weight}" for entry in seen.table}
    lines = (*_told(memory, notes), *(_line(edit, names, before, pool.reasons) for edit in edits))
    return Decision(pool.memory._replace(notes=told), wish, {one.address: names.get(one.address, one.address) for one in wish}, edits, lines)


def _primary(seen: Observation) -> str:
    """The primary that can be seen: promoted, online, and not known to be dead."""
    if isinstance(seen.view, Unknown):
        return ""
    for peer in seen.view.peers:
        evidence = seen.evidence.get(seen.addresses.get(peer.name, ""), Evidence(Health.ALIVE))
        if peer.post is Post.PRIMARY and peer.online and evidence.health is not Health.DEAD:
            return peer.name
    return ""


def hosts_of_interest(configuration: Configuration, memory: Memory, seen: Observation) -> tuple[str, ...]:
    """All hosts whose address matters: that may be in the list, or are the primary."""
    peers = () if isinstance(seen.view, Unknown) else tuple(peer.name for peer in seen.view.peers if peer.online)
    listed = () if isinstance(seen.listed, Unknown) else seen.listed
    named = (host for host, _ in (*configuration.weights, *configuration.readers))
    return tuple(dict.fromkeys((*peers, *named, *listed, *(memory.hosts or ()), *(entry.server.address for entry in seen.table))))


# ---------------------------------------------------------------- the list


def _listing(configuration: Configuration, memory: Memory, seen: Observation, *, unsettled: bool) -> Listing:
    """The hosts of the source that is configured; of memory, or by role, where it gives no answer. Never those that are excused."""
    listing = _unexcused(configuration, memory, seen, unsettled=unsettled)
    excused = _excused(seen)
    return listing._replace(hosts=tuple(host for host in listing.hosts if host not in excused))


def _unexcused(configuration: Configuration, memory: Memory, seen: Observation, *, unsettled: bool) -> Listing:
    asked, notes = _ask(configuration, memory, seen)
    replicated = not isinstance(seen.view, Unknown) and seen.view.replicated
    promoted = _promoted(seen)
    if isinstance(asked, Unknown):
        if asked.reason:
            notes["list"] = f"{asked.reason}; the last good list is kept" if memory.hosts is not None else asked.reason
        return Listing(memory.hosts if memory.hosts is not None else _without_list(configuration, seen), memory.hosts, notes)
    if replicated and unsettled:
        asked = (*asked, *(host for host in memory.hosts or () if host not in asked and host not in promoted))
    return Listing(asked, tuple(host for host in asked if seen.addresses.get(host) != ""), notes)


def _ask(configuration: Configuration, memory: Memory, seen: Observation) -> tuple[tuple[str, ...] | Unknown, dict[str, str]]:
    """What the configured source says at this moment."""
    if configuration.script:
        return _scripted(seen)
    candidates = _candidates(configuration, seen)
    if isinstance(candidates, Unknown):
        return candidates, {}
    chosen, notes = _checked(candidates, memory, seen) if configuration.check else (_by_attribute(configuration, candidates, seen), {})
    if isinstance(chosen, Unknown):
        return chosen, notes
    readers, more = _readers(configuration, memory, seen)
    return (*chosen, *(host for host in readers if host not in chosen)), {**notes, **more}


def _scripted(seen: Observation) -> tuple[tuple[str, ...] | Unknown, dict[str, str]]:
    """The list script's answer, unless none of its words is a host."""
    if isinstance(seen.listed, Unknown):
        return _because("the list script gave no list", seen.listed), {}
    hosts = tuple(dict.fromkeys(seen.listed))
    if hosts and not any(seen.addresses.get(host) for host in hosts):
        if any(host not in seen.addresses for host in hosts):
            return NOT_YET, {}
        return Unknown(f"the list script printed no host that can be resolved: {' '.join(hosts)[:200]}"), {}
    return hosts, {}


def _candidates(configuration: Configuration, seen: Observation) -> tuple[str, ...] | Unknown:
    """Nodes of the dependent resource, else the hosts of weight_of_realservers, else all nodes."""
    if configuration.weights and not configuration.resource:
        return tuple(host for host, _ in configuration.weights)
    if isinstance(seen.view, Unknown):
        return _because("the cluster could not be asked", seen.view)
    if seen.view.missing:
        return Unknown(f"the cluster has no resource {seen.view.missing}")
    return tuple(peer.name for peer in seen.view.peers if peer.online and peer.candidate)


def _checked(candidates: Sequence[str], memory: Memory, seen: Observation) -> tuple[tuple[str, ...], dict[str, str]]:
    """Those of which the check script printed t; of which it said nothing, those that are in the last good list."""
    chosen, notes = [], {}
    for host in candidates:
        answer = seen.checked.get(host, NOT_YET)
        if isinstance(answer, Unknown) and answer.reason:
            notes[f"check {host}"] = f"the check script said nothing of {host}: {answer.reason}; it stays what it was"
        if answer is True or (isinstance(answer, Unknown) and host in (memory.hosts or ())):
            chosen.append(host)
    return tuple(chosen), notes


def _by_attribute(configuration: Configuration, candidates: Sequence[str], seen: Observation) -> tuple[str, ...] | Unknown:
    """Those whose node attribute matches. Without a primary to be seen, the attributes of standbys tell nothing about their health."""
    if not configuration.attribute:
        return tuple(candidates)
    if isinstance(seen.view, Unknown):
        return _because("the cluster could not be asked", seen.view)
    if seen.view.replicated and not _primary(seen):
        return Unknown("no primary is visible")
    values = {peer.name: peer.value for peer in seen.view.peers if peer.online}
    return tuple(host for host in candidates if (value := values.get(host)) is not None and matches(configuration.pattern, value))


def _readers(configuration: Configuration, memory: Memory, seen: Observation) -> tuple[tuple[str, ...], dict[str, str]]:
    """The servers outside of the cluster that stream from the primary; when it cannot be asked, those that did."""
    hosts = [host for host, _ in configuration.readers]
    if isinstance(seen.replicas, Unknown):
        return tuple(host for host in hosts if host in (memory.hosts or ())), _unasked(configuration, seen)
    rows = _Rows(seen)
    return tuple(host for host in hosts if (one := rows.of(host)) is not None and one.state == "streaming"), {}


def _unasked(configuration: Configuration, seen: Observation) -> dict[str, str]:
    """What is wrong with asking the primary."""
    if not configuration.wants_replicas or not isinstance(seen.replicas, Unknown) or not seen.replicas.reason:
        return {}
    return {"replicas": f"the primary could not be asked who streams: {seen.replicas.reason}"}


def _because(what: str, unknown: Unknown) -> Unknown:
    """The same unknown with what it was about; one that is only being found out stays silent."""
    return Unknown(f"{what}: {unknown.reason}") if unknown.reason else unknown


class _Rows:
    """The primary's rows: of a name, or of an address, the first."""

    def __init__(self, seen: Observation) -> None:
        rows: Sequence[Replica] = () if isinstance(seen.replicas, Unknown) else seen.replicas
        self._named = {row.name: row for row in reversed(rows)}
        self._at = {**self._named, **{row.address: row for row in reversed(rows)}}
        self._addresses = seen.addresses

    def of(self, host: str) -> Replica | None:
        """What the primary says of a server."""
        return self._named.get(host) or self._at.get(self._addresses.get(host) or host)


def _without_list(configuration: Configuration, seen: Observation) -> tuple[str, ...]:
    """A director that never had a list takes the standbys by their role, and what is in the table already."""
    standing = tuple(entry.server.address for entry in seen.table)
    if isinstance(seen.view, Unknown) or not seen.view.replicated:
        return standing
    standbys = [peer for peer in seen.view.peers if peer.online and peer.candidate and peer.post is Post.STANDBY]
    status = configuration.attribute.endswith("-status")
    return (*(peer.name for peer in standbys if not (status and (peer.value is None or peer.value in STOPPED))), *standing)


def _promoted(seen: Observation) -> frozenset[str]:
    """Names and addresses of the node that is the primary."""
    peers: Sequence[Peer] = () if isinstance(seen.view, Unknown) else seen.view.peers
    names = [peer.name for peer in peers if peer.post is Post.PRIMARY and peer.online]
    return _with_addresses(seen, names)


def _excused(seen: Observation) -> frozenset[str]:
    """Names and addresses of the nodes that are tagged noloadbalance."""
    return _with_addresses(seen, [] if isinstance(seen.view, Unknown) else [peer.name for peer in seen.view.peers if peer.excused])


def _with_addresses(seen: Observation, names: Sequence[str]) -> frozenset[str]:
    """Names, and the addresses that they have: a list may hold either."""
    return frozenset([*names, *(seen.addresses[name] for name in names if seen.addresses.get(name))])


def _deaf(configuration: Configuration, seen: Observation) -> frozenset[str]:
    """Addresses of nodes that run without the dependent resource, hence without the virtual address: what is sent there is lost."""
    if isinstance(seen.view, Unknown) or seen.view.missing or not configuration.resource:
        return frozenset()
    names = [peer.name for peer in seen.view.peers if peer.online and not peer.candidate]
    return frozenset(seen.addresses[name] for name in names if seen.addresses.get(name))


def _seats(configuration: Configuration, listing: Listing, seen: Observation) -> tuple[tuple[Seat, ...], dict[str, str]]:
    """The hosts of the list with address and weight, each address once; those without an address are named."""
    seats: dict[str, Seat] = {}
    notes, weights = {}, Weights(configuration, seen.addresses)
    for host in listing.hosts:
        address = seen.addresses.get(host)
        if address:
            seats.setdefault(address, Seat(host, address, weights.of(host, address)))
        elif address is not None:
            notes[f"address {host}"] = f"{host} cannot be resolved to an {'IPv6' if configuration.service.ipv6 else 'IPv4'} address, it is left out"
    return tuple(seats.values()), notes


class Weights:
    """The servers' configured weights, whether the configuration names one by the same name, by another one, or by its address."""

    def __init__(self, configuration: Configuration, addresses: Mapping[str, str]) -> None:
        entries = (*configuration.readers, *configuration.weights)
        self._named = dict(entries)
        self._at = {addresses.get(host) or host: weight for host, weight in entries}
        self._default = configuration.default_weight

    def of(self, host: str, address: str) -> int:
        """The weight of a server.

        >>> Weights(Configuration(Service(), 1, weights=(("node1", 3),)), {"node1": "10.0.0.1"}).of("10.0.0.1", "10.0.0.1")
        3
        """
        return self._named.get(host, self._at.get(address, self._default))


# ---------------------------------------------------------------- the pool


class _Pool:
    """The real servers that one decision wishes for, and why."""

    def __init__(self, configuration: Configuration, memory: Memory, seen: Observation, now: float) -> None:
        self.configuration, self.memory, self.seen, self.now = configuration, memory, seen, now
        self.weights: dict[str, int] = {}
        self.reasons: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.standing = {entry.server.address: entry for entry in seen.table}
        self.rows, self.returning = _Rows(seen), frozenset[str]()
        self.promoted = _promoted(seen)
        self.deaf = _deaf(configuration, seen)

    def fill(self, seats: Sequence[Seat], *, undecided: bool) -> None:
        """Decide about every server that the list names or the table holds. undecided: some of the list have no address yet."""
        self.memory = self.memory._replace(posted=self.memory.posted & self.standing.keys())
        self._judge_lag(seats)
        self._note_returns({*(seat.address for seat in seats), *self.standing})
        for seat in seats:
            self._seat(seat)
        self._drain(undecided=undecided)
        if not self._serving():
            self._rescue(seats)
        if not self._serving() and self.configuration.fallback:
            self._post_primary()

    def wish(self) -> tuple[RealServer, ...]:
        """As the kernel takes them. A mark balances several ports, so its servers have none of their own."""
        port = 0 if self.configuration.service.fwmark else self.configuration.port
        return tuple(RealServer(address, port, weight) for address, weight in self.weights.items())

    def _serving(self) -> bool:
        return any(self.weights.values())

    def _health(self, address: str) -> Health | None:
        """None: not tried yet, or it could not be tried."""
        evidence = self.seen.evidence.get(address)
        return evidence.health if evidence else None

    def _seat(self, seat: Seat) -> None:
        """A server of the list: in, in without new connections, or out."""
        health, address = self._health(seat.address), seat.address
        if address in self.promoted:
            self.reasons[address] = "it is the primary"
        elif health is Health.DEAD:
            self.reasons[address] = f"dead: {self.seen.evidence[address].seen}"
        elif address in self.deaf:
            self.reasons[address] = f"{self.configuration.resource} does not run there"
        elif health is None and address not in self.standing:
            self.reasons[address] = "not tried yet"
        elif self._too_fresh(address):
            self.reasons[address] = "it answers again, and has to go on doing so"
        elif health is Health.SILENT:
            self.reasons[address] = f"no new connections: {self.seen.evidence[address].seen}"
            if address in self.standing:
                self.weights[address] = 0
        elif address in self.memory.slow:
            self.weights[address] = min(seat.weight, self.configuration.lag_weight)
            self.reasons[address] = f"it lags: {self._lag(seat)}"
        else:
            self.weights[address], self.reasons[address] = seat.weight, "healthy"

    def _too_fresh(self, address: str) -> bool:
        """A dead server that answers once may be on its way down again."""
        return address in self.returning

    def _note_returns(self, addresses: set[str]) -> None:
        """Remember who is dead, and since when those who were answer again."""
        before = dict(self.memory.back)
        after: dict[str, float | None] = {}
        for address in sorted(addresses | set(before)):
            health = self._health(address)
            if health is Health.DEAD:
                after[address] = None
            elif address in before and health is Health.ALIVE:
                since = before[address]
                since = self.now if since is None else since
                if self.now - since < self.configuration.check_interval:
                    after[address] = since
            elif address in before and health is Health.SILENT:
                after[address] = before[address]
        self.memory, self.returning = self.memory._replace(back=tuple(after.items())), frozenset(after)

    def _judge_lag(self, seats: Sequence[Seat]) -> None:
        """Beyond a limit a server is slow; it is so until it is below three quarters of each. Who cannot be judged stays what he was."""
        bytes_limit, seconds_limit = self.configuration.max_lag_bytes, self.configuration.max_lag_seconds
        if not bytes_limit and not seconds_limit:
            self.memory = self.memory._replace(slow=frozenset())
            return
        self.notes.update(_unasked(self.configuration, self.seen))
        slow = set()
        for seat in seats:
            row, before = self.rows.of(seat.host), seat.address in self.memory.slow
            part = RECOVERY if before else 1.0
            beyond = before if row is None else _beyond(row, bytes_limit * part, seconds_limit * part)
            slow |= {seat.address} if beyond else set()
        left = self.memory.slow & self.standing.keys() - {seat.address for seat in seats}
        self.memory = self.memory._replace(slow=frozenset(slow | left))

    def _lag(self, seat: Seat) -> str:
        row = self.rows.of(seat.host)
        if row is None:
            return "the primary does not say how far"
        return f"{row.lag_bytes} bytes and {row.lag_seconds:.1f} s behind"

    def _drain(self, *, undecided: bool) -> None:
        """What stands in the table without being wished for: dead ones and the primary go, healthy ones keep what they have for a while."""
        before, after, others = dict(self.memory.leaving), {}, self._serving()
        for address, entry in self.standing.items():
            if address in self.weights or self._gone(address):
                continue
            if undecided and address not in before:
                self.weights[address] = entry.server.weight
                continue
            since = before.get(address, self.now) if others else self.now
            self.reasons.setdefault(address, f"drained: {self._absence(address)}")
            if not self._drained(entry, since, others=others):
                after[address], self.weights[address] = since, 0
            elif entry.load.active:
                self.reasons[address] = f"{self.configuration.drain_time:g} s have passed, {entry.load.active} connections are closed"
            else:
                self.reasons[address] = f"idle: {self._absence(address)}"
        self.memory = self.memory._replace(leaving=tuple(after.items()))

    def _absence(self, address: str) -> str:
        """Why the list does not name a server."""
        configuration, view = self.configuration, self.seen.view
        names = [host for host, known in self.seen.addresses.items() if known == address]
        if address in _excused(self.seen):
            return "it is tagged noloadbalance"
        if configuration.script:
            return "the list script does not print it"
        if any(self.seen.checked.get(name) is False for name in names) and configuration.check:
            return "the check script does not call it usable"
        if any(name in names for name, _ in configuration.readers):
            return "it does not stream from the primary"
        peer = next((one for one in view.peers if one.name in names), None) if isinstance(view, View) else None
        if peer is None:
            return "it is not in the list any more"
        if not peer.online or not peer.candidate:
            return f"{configuration.resource or 'the cluster'} does not run there"
        return f"{configuration.attribute} is {peer.value or 'not set'}" if configuration.attribute else "it is not in the list any more"

    def _gone(self, address: str) -> bool:
        """Whether a server leaves at once. A primary that served because nobody else could has done nothing wrong."""
        if address in self.promoted and address not in self.memory.posted:
            self.reasons[address] = "it is the primary"
            return True
        if self._health(address) is Health.DEAD:
            self.reasons[address] = f"dead: {self.seen.evidence[address].seen}"
            return True
        if address in self.deaf and address not in self.promoted:
            self.reasons[address] = f"{self.configuration.resource} does not run there"
            return True
        return False

    def _drained(self, entry: Entry, since: float, *, others: bool) -> bool:
        """Whether a drained server may go: there are others, and its time is over, or it has no weight and is idle."""
        passed, limit = self.now - since, self.configuration.drain_time
        idle = not entry.server.weight and not entry.load.active and not entry.load.persistent
        return others and (passed >= limit or (idle and passed >= min(DRAIN_LEAST, limit)))

    def _rescue(self, seats: Sequence[Seat]) -> None:
        """Nobody is left with a weight: those who have just come back serve, then silent ones, those being drained, those not tried yet."""
        own = {seat.address: seat.weight for seat in seats}
        for group, why in (
            ([seat.address for seat in seats if self._health(seat.address) is Health.ALIVE], "it answers again, and no other is left"),
            ([seat.address for seat in seats if self._health(seat.address) is Health.SILENT], "silent, and no other is left"),
            ([address for address, _ in self.memory.leaving if address not in self.memory.posted], "not in the list, and no other is left"),
            ([seat.address for seat in seats if self._health(seat.address) is None], "not tried yet, and no other is left"),
        ):
            for address in group:
                if address not in self.promoted | self.deaf | self.memory.slow:
                    weight = own.get(address)
                    self.weights[address] = self._own_weight(address) if weight is None else weight
                    self.reasons[address] = why
            if self._serving():
                return

    def _own_weight(self, address: str) -> int:
        """The configured weight of a server that the list does not name."""
        host = next((host for host, known in self.seen.addresses.items() if known == address), address)
        return Weights(self.configuration, self.seen.addresses).of(host, address)

    def _post_primary(self) -> None:
        """The primary serves, if it has the virtual address."""
        peers: Sequence[Peer] = self.seen.view.peers if isinstance(self.seen.view, View) else ()
        for peer in peers:
            address = self.seen.addresses.get(peer.name, "")
            if peer.post is Post.PRIMARY and peer.online and peer.candidate and address and self._health(address) is Health.ALIVE:
                self.weights[address] = max(1, self._own_weight(address))
                self.reasons[address] = "the primary, because no standby is left"
        posted = frozenset(address for address in self.weights if address in self.promoted)
        self.memory = self.memory._replace(posted=posted, leaving=tuple(pair for pair in self.memory.leaving if pair[0] not in posted))


def _beyond(row: Replica, bytes_limit: float, seconds_limit: float) -> bool:
    return (bool(bytes_limit) and row.lag_bytes > bytes_limit) or (bool(seconds_limit) and row.lag_seconds > seconds_limit)


# ---------------------------------------------------------------- the edits


def changes(standing: Service | None, table: Sequence[Entry], service: Service, wish: Sequence[RealServer]) -> tuple[Edit, ...]:
    """How the table gets from what stands there to what is wished for. Nothing if it is there; deletions come last."""
    if standing is None:
        return (AddService(service), *(AddServer(service, server) for server in wish))
    stand = {entry.server.key: entry.server for entry in table}
    wanted = {server.key for server in wish}
    service_edits: list[Edit] = [] if alike(standing, service) else [SetService(service)]
    added: list[Edit] = [AddServer(service, server) for server in wish if server.key not in stand]
    changed: list[Edit] = [SetServer(service, one) for one in wish if one.key in stand and not _same(stand[one.key], one)]
    raised = [edit for edit in changed if isinstance(edit, SetServer) and edit.server.weight]
    lowered = [edit for edit in changed if edit not in raised]
    gone: list[Edit] = [DeleteServer(service, entry.server) for entry in table if entry.server.key not in wanted]
    return (*service_edits, *added, *raised, *lowered, *gone)


def alike(standing: Service, wished: Service) -> bool:
    """Whether a service is as it is wished: flags of the kernel's own left out, an empty network prefix meaning the longest."""
    longest = 128 if wished.ipv6 else 32
    return standing._replace(flags=standing.flags & ~HASHED, prefix=standing.prefix % longest) == wished._replace(prefix=wished.prefix % longest)


def _same(standing: RealServer, wished: RealServer) -> bool:
    """The kernel may call this node's own server local."""
    local = standing.method is Method.LOCAL and wished.method is Method.ROUTE
    return (standing._replace(method=Method.ROUTE) if local else standing) == wished


# ---------------------------------------------------------------- the log


def _told(memory: Memory, notes: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is wrong for the first time, and what is not any more."""
    before = dict(memory.notes)
    new = [("WARNING", text) for subject, text in notes.items() if subject not in before]
    return [*new, *(("INFO", f"over: {text}") for subject, text in before.items() if subject not in notes)]


def _line(edit: Edit, names: Mapping[str, str], before: Mapping[str, str], reasons: Mapping[str, str]) -> tuple[str, str]:
    """One change, as old -> new with its reason."""
    if not isinstance(edit, (AddServer, SetServer, DeleteServer)):
        verb = {"AddService": "added", "SetService": "changed"}.get(type(edit).__name__, "deleted")
        return "INFO", f"virtual service {edit.service} {verb}: {edit.service.scheduler}"
    address = edit.server.address
    host = names.get(address, address)
    who = f"real server {host} ({address})" if host != address else f"real server {address}"
    old = before.get(address, "absent")
    new = "absent" if isinstance(edit, DeleteServer) else f"weight {edit.server.weight}"
    return "INFO", f"{who}: {old} -> {new}: {reasons.get(address, 'it is not in the list')}"
