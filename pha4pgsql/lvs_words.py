"""The vocabulary of read load balancing: virtual services, real servers, and the edits of a table, as frozen values.

Layer 1: data only. Addresses are numeric text throughout, in the form that `ipaddress` prints.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Union

if TYPE_CHECKING:
    from collections.abc import Mapping


class Method(Enum):
    """How packets reach a real server. The value is the kernel's number (linux/ip_vs.h, IP_VS_CONN_F_FWD_MASK)."""

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    ROUTE = 3


class Service(NamedTuple):
    """A virtual service: TCP at an address and port, or everything with a firewall mark (then address and port are empty)."""

    address: str = ""
    port: int = 0
    fwmark: int = 0
    ipv6: bool = False
    scheduler: str = "rr"
    flags: int = 0
    """IP_VS_SVC_F_*: PERSISTENT 1, always together with `persistence`, ONEPACKET 4, SCHED1..3 8 16 32. HASHED 2 is the kernel's own: never here."""
    persistence: int = 0
    """Seconds for which a client stays at its real server; 0: every connection is balanced."""
    prefix: int = 0
    """Persistence counts clients of one network as one: its prefix length. 0 is read where it is the longest, a single address."""

    @property
    def key(self) -> tuple[str, int, int, bool]:
        """What tells services apart in the kernel."""
        return self.address, self.port, self.fwmark, self.ipv6

    def __str__(self) -> str:
        if self.fwmark:
            return f"fwmark {self.fwmark}{' (IPv6)' if self.ipv6 else ''}"
        return f"[{self.address}]:{self.port}" if self.ipv6 else f"{self.address}:{self.port}"


class RealServer(NamedTuple):
    """A real server of a virtual service, as it is wished for. Weight 0: held connections live on, new ones go elsewhere."""

    address: str
    port: int
    weight: int = 1
    method: Method = Method.ROUTE
    upper: int = 0
    lower: int = 0
    """Connection thresholds: above `upper` no new connections until there are fewer than `lower`; 0: none."""

    @property
    def key(self) -> tuple[str, int]:
        """What tells the real servers of a service apart."""
        return self.address, self.port

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Load(NamedTuple):
    """What the kernel counts for a real server."""

    active: int = 0
    inactive: int = 0
    persistent: int = 0


class Entry(NamedTuple):
    """A real server as it stands in the table."""

    server: RealServer
    load: Load = Load()


class Role(Enum):
    """What a connection synchronisation daemon does. The value is the kernel's number (IP_VS_STATE_*)."""

    MASTER = 1
    BACKUP = 2


class Daemon(NamedTuple):
    """A connection synchronisation daemon; both roles may run at once, on one interface."""

    role: Role
    interface: str
    sync_id: int = 0


class Timeouts(NamedTuple):
    """Seconds after which the kernel forgets a connection that says nothing; 0 in a wish: as it is."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


# ---------------------------------------------------------------- edits of the table


class AddService(NamedTuple):
    """One that is not there yet."""

    service: Service


class SetService(NamedTuple):
    """Replace its settings; connections and real servers stay."""

    service: Service


class DeleteService(NamedTuple):
    """With all its real servers."""

    service: Service


class AddServer(NamedTuple):
    """One that is not there yet."""

    service: Service
    server: RealServer


class SetServer(NamedTuple):
    """Replace weight, method and thresholds; connections stay."""

    service: Service
    server: RealServer


class DeleteServer(NamedTuple):
    """Its connections end with the next packet if net.ipv4.vs.expire_nodest_conn is 1, and hang if it is 0."""

    service: Service
    server: RealServer


Edit = Union[AddService, SetService, DeleteService, AddServer, SetServer, DeleteServer]


class Replica(NamedTuple):
    """A row of pg_stat_replication on the primary, read with the primary's own position at that moment."""

    name: str
    """application_name"""
    address: str
    """client_addr, empty for a unix socket."""
    state: str
    """streaming, catchup, startup, backup"""
    sync: str
    """sync, quorum, potential, async"""
    lag_bytes: int
    """The primary's write position less what this one has replayed."""
    lag_seconds: float
    """replay_lag; 0 when it has replayed everything."""


# ---------------------------------------------------------------- what a director looks at, and what follows from it


class Configuration(NamedTuple):
    """What the parameters of lvsdr say, read. Times are seconds, lags bytes or seconds, 0 without limit.

    port: where the real servers are tried. weights, readers: host -> weight, in their order. attribute: empty when none is asked.
    script, check: command lines, empty when there are none. mark_ports: the ports that get the service's firewall mark.
    """

    service: Service
    port: int
    default_weight: int = 1
    weights: tuple[tuple[str, int], ...] = ()
    resource: str = ""
    attribute: str = "readable"
    pattern: str = "1"
    script: str = ""
    check: str = ""
    readers: tuple[tuple[str, int], ...] = ()
    conninfo: str = ""
    passfile: str = ""
    max_lag_bytes: int = 0
    max_lag_seconds: float = 0.0
    lag_weight: int = 0
    drain_time: float = 30.0
    fallback: bool = False
    check_interval: float = 0.5
    check_timeout: float = 1.0
    script_timeout: float = 5.0
    daemon: Daemon | None = None
    sync_threshold: tuple[int, int] = (0, 1)
    vip: str = ""
    mark_ports: tuple[int, ...] = ()

    @property
    def wants_replicas(self) -> bool:
        """Whether the primary has to be asked who streams from it."""
        return bool(self.readers or self.max_lag_bytes or self.max_lag_seconds)


class Unknown(NamedTuple):
    """It could not be found out; why."""

    reason: str


NOT_YET = Unknown("")
"""It is being found out for the first time: nothing that anybody has to be told."""


class Health(Enum):
    """What a server's own port shows."""

    ALIVE = "answers"
    SILENT = "takes connections and says nothing"
    DEAD = "dead"


class Evidence(NamedTuple):
    """Direct evidence of one server, with what was seen."""

    health: Health
    seen: str = ""


class Post(Enum):
    """What a node's PostgreSQL is for the cluster."""

    PRIMARY = "primary"
    """Promoted, or being promoted at this moment."""
    STANDBY = "standby"
    NONE = ""


class Peer(NamedTuple):
    """A node of the cluster. value: of the node attribute, None when it has none; candidate: whether it runs the dependent resource.

    excused: tagged noloadbalance, it is to serve no readers.
    """

    name: str
    online: bool = True
    candidate: bool = True
    value: str | None = None
    post: Post = Post.NONE
    excused: bool = False


class View(NamedTuple):
    """The cluster as one copy of the CIB shows it. replicated: it has a replicated set, so primary and standbys can be told apart."""

    peers: tuple[Peer, ...]
    replicated: bool = True
    missing: str = ""
    """The dependent resource, when the configuration of the cluster has no such resource."""


class Observation(NamedTuple):
    """All that one decision about the pool may look at. What could not be found out is `Unknown`.

    listed: the hosts that the list script prints. checked: what the check script says of each host. evidence: by address.
    addresses: by host, empty when it has none; a host that is not there is being looked up still.
    service, table: as they stand in the kernel; no service there is None.
    """

    view: View | Unknown
    listed: tuple[str, ...] | Unknown = NOT_YET
    checked: Mapping[str, bool | Unknown] = MappingProxyType({})
    replicas: tuple[Replica, ...] | Unknown = NOT_YET
    evidence: Mapping[str, Evidence] = MappingProxyType({})
    addresses: Mapping[str, str] = MappingProxyType({})
    service: Service | None = None
    table: tuple[Entry, ...] = ()


class Memory(NamedTuple):
    """What a decision must know of earlier ones. Times are of the monotonic clock.

    hosts: the last good list, None if there never was one. primary: the primary last seen. settled: until when earlier hosts count.
    slow: addresses beyond a limit of lag. leaving: address -> since when it is drained. back: address -> since when a dead one answers
    again, None while it does not. posted: addresses where the primary serves because nobody else could. notes: what was told, by subject.
    reasons: address -> why it has not its full weight.
    """

    hosts: tuple[str, ...] | None = None
    primary: str = ""
    settled: float = 0.0
    slow: frozenset[str] = frozenset()
    leaving: tuple[tuple[str, float], ...] = ()
    back: tuple[tuple[str, float | None], ...] = ()
    posted: frozenset[str] = frozenset()
    notes: tuple[tuple[str, str], ...] = ()


class Decision(NamedTuple):
    """What to remember, the real servers wished for with their hosts' names, how the table gets there, and what to log: (level, text)."""

    memory: Memory
    wish: tuple[RealServer, ...] = ()
    names: Mapping[str, str] = MappingProxyType({})
    edits: tuple[Edit, ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
