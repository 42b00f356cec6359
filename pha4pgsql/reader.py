"""Read servers outside of the cluster: what must be so before one is added, what is left to do, and how one stands. Pure.

A read server is no member: it has no vote, no commit waits for it, and the primary keeps no WAL for it. So it can lag, be switched off or
diverge without harm to anybody but its readers, who are led elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pha4pgsql.checks import Check, must
from pha4pgsql.words import slot_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pha4pgsql.lvs_words import Replica

OLDEST_POSTGRESQL = 13
ROOM = 1.1
"""Free space for a copy, as a multiple of the primary's size."""


class Pooled(NamedTuple):
    """A server in the director's published pool."""

    name: str
    address: str
    weight: int
    active: int
    inactive: int


# ---------------------------------------------------------------- the director's parameter `readers`: host[,weight] ...


def listed(value: str) -> dict[str, str]:
    """Name -> weight, empty where there is none of its own, in order.

    >>> listed("node4,2 192.168.0.235")
    {'node4': '2', '192.168.0.235': ''}
    """
    return {name: weight for name, _, weight in (word.partition(",") for word in value.split())}


def with_reader(value: str, name: str, weight: str = "") -> str:
    """The parameter with this server in it; without a new weight it keeps the one it has.

    >>> with_reader("a,1 node4,2", "node4"), with_reader("a,1", "node4", "3")
    ('a,1 node4,2', 'a,1 node4,3')
    """
    found = listed(value)
    found[name] = weight or found.get(name, "")
    return " ".join(f"{one},{own}" if own else one for one, own in found.items())


def without_reader(value: str, name: str) -> str:
    """The parameter without this server.

    >>> without_reader("a,1 node4,2 b", "node4")
    'a,1 b'
    """
    return " ".join(word for word in value.split() if word.partition(",")[0] != name)


def slot(prefix: str, name: str) -> str:
    """The slot that keeps the WAL while a copy is made.

    It has the form of the agents' own slots, of round 0 in which there is no term: so the agent drops it where it was left behind, when the
    node that was primary starts as a standby. No member ever uses it.

    >>> slot("pgsql", "192.168.0.234")
    'pgsql_0_reader_192_168_0_234'
    """
    return f"{slot_beginning(prefix)}{slot_word(name)}"[:63]


def slot_beginning(prefix: str) -> str:
    """How the slots of all copies begin."""
    return f"{prefix}_0_reader_"


def pooled(value: Mapping[str, Any], name: str, address: str) -> Pooled | None:
    """The server's row in what the director has published."""
    rows = [Pooled(*row) for row in value.get("servers", ())]
    return next((row for row in rows if row.name == name or (address and row.address == address)), None)


# ---------------------------------------------------------------- before one is added


class Ground(NamedTuple):
    """What is known before `add` begins: `node` and `cluster` as the two looks returned them, `resolved` the server's address on each node."""

    name: str
    address: str
    members: tuple[str, ...]
    node: Mapping[str, Any]
    cluster: Mapping[str, Any]
    resolved: Mapping[str, str | None]
    same_network: bool
    again: bool = False


def checks(ground: Ground) -> list[Check]:
    """Every precondition, in the order in which a person would look."""
    return [*_naming(ground), *_cluster(ground), *_machine(ground), *(_connection(ground) if "refused" in ground.node else ())]


def _naming(ground: Ground) -> list[Check]:
    name, wrong = ground.name, {node: found for node, found in ground.resolved.items() if found not in {ground.address, None}}
    unknown = [node for node, found in ground.resolved.items() if found is None]
    resolves = must(
        f"{name} is {ground.address} on every node of the cluster",
        None if unknown and not wrong else not wrong,
        ", ".join(
            [*(f"on {node} {found or 'it does not resolve'}" for node, found in wrong.items()), *(f"{node} could not be asked" for node in unknown)]
        ),
        f"put {ground.address} {name} into /etc/hosts there, or add the server by its address",
    )
    members = {member.lower() for member in ground.members}
    return [
        must(f"{name} is no member of the cluster", name.lower() not in members, "node_list has it", "members serve readers without this command"),
        resolves,
        must(
            f"{ground.address} is in the network of the reader address",
            ground.same_network,
            "packets are handed on without a router",
            "a read server must stand in the same network as the director",
        ),
    ]


def _cluster(ground: Ground) -> list[Check]:
    seen = ground.cluster
    return [
        must("the cluster has a primary", bool(seen.get("primary")), "none is promoted", "cls_status shows why"),
        must(
            "the cluster balances readers",
            bool(seen.get("director")),
            "there is no lvsdr resource",
            "pcs_template=muti_with_lvs.pcs.j2 in config.ini, then install.sh and cls_setup",
        ),
        *(
            [
                must(
                    "the director can ask the primary who streams",
                    bool(seen["asks"]),
                    "its parameter conninfo is not set",
                    "install.sh, then cls_setup",
                )
            ]
            if seen.get("director")
            else []
        ),
    ]


def _machine(ground: Ground) -> list[Check]:
    node, name = ground.node, ground.name
    found = [
        must(f"{name} has the programs", not node["missing"], f"missing: {' '.join(node['missing'])}", "install PostgreSQL there, or give --bindir"),
        must(f"{name} has the database's user", node["user"], "no such user", "install PostgreSQL there"),
        must(
            f"{ground.address} is an address of {name}",
            node["own_address"],
            "its interfaces have others",
            "does the name resolve to the right machine?",
        ),
        must(
            f"{name} has no vote of a member",
            not node["member"],
            "pgsql_tmpdir holds the state file of a former member",
            "it may still have promised something: take it out of node_list, and the file away, before it becomes a read server",
        ),
        must(f"{name} has a postgresql.conf", bool(node["config"]), "pgsql_config names none there", "copy it, and pg_hba.conf, from a member"),
    ]
    return [*found, _data(ground)] if "data" in node else found


def _data(ground: Ground) -> Check:
    node, primary = ground.node, ground.node.get("primary", {})
    kind = node["data"]
    same = bool(primary) and node["system_identifier"] == primary["system_identifier"]
    what = f"the data directory of {ground.name} is empty, or its own"
    if kind in {"empty", "partial"} or (kind == "standby" and same) or (ground.again and same):
        return must(what, is_so=True)
    if same:
        return must(what, is_so=False, seen="a copy of this database that is no standby", hint="cls_reader add --again replaces it")
    return must(what, is_so=False, seen="another database, or files of unknown kind", hint="look what it is, and empty the directory yourself")


def _connection(ground: Ground) -> list[Check]:
    node, name = ground.node, ground.name
    let_in = must(
        f"the primary lets {name} in for replication",
        not node["refused"],
        node["refused"],
        "pg_hba.conf of the members, and the passfile, decide that",
    )
    if node["refused"]:
        return [let_in]
    primary, room = node["primary"], int(node["primary"]["size"] * ROOM)
    return [
        let_in,
        must("the writer address leads to the primary", primary["is_primary"], "a standby answers there", "cls_status"),
        must(
            f"{name} has PostgreSQL {primary['major']} as the primary has",
            node["major"] == primary["major"],
            f"it has {node['major']}",
            "install the same major version, or give --bindir",
        ),
        must(
            f"{name} has room for a copy ({megabytes(room)})",
            not copies(ground) or node["free"] >= room or node["data"] != "empty",
            f"{megabytes(node['free'])} are free",
            "make room for the data directory",
        ),
        must(
            f"the directories of the tablespaces are empty on {name}",
            not copies(ground) or node["data"] != "empty" or not primary["busy"],
            f"not empty: {' '.join(primary['busy'])}",
            "pg_basebackup writes tablespaces to the same paths",
        ),
    ]


def copies(ground: Ground) -> bool:
    """Whether a copy has to be made: there is none, or one that did not end, or it is asked for."""
    return ground.again or ground.node.get("data") != "standby"


def remarks(ground: Ground) -> list[str]:
    """What an operator should know although it stops nothing."""
    kept = ground.node.get("primary", {}).get("wal_kept")
    if kept == 0:
        return [f"wal_keep_size is 0 and no slot is held for read servers: after a pause {ground.name} may have to be copied anew (add --again)"]
    return []


def megabytes(size: int) -> str:
    """A size for people.

    >>> megabytes(52_000_000)
    '50 MB'
    """
    return f"{size / 1048576:.0f} MB"


# ---------------------------------------------------------------- how one stands


class Told(NamedTuple):
    """What a read server says itself when it does not stream: its timeline and how far it has WAL. `standby`: it is in recovery."""

    standby: bool
    timeline: int
    lsn: int


class Standing(NamedTuple):
    """One line of `cls_reader list`; None where it is not known."""

    name: str
    address: str
    state: str
    hint: str = ""
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    weight: int | None = None
    active: int | None = None
    inactive: int | None = None
    slot: str | None = None


def diverged(eras: Sequence[tuple[int, int]], timeline: int, lsn: int) -> bool:
    """Whether a server has WAL that the primary never had: beyond the point at which the primary's history left that timeline.

    `eras` are (timeline, where it begins) of the primary's WAL, oldest first. A timeline that is not among them tells nothing.

    >>> diverged([(1, 0), (2, 500)], 1, 501), diverged([(1, 0), (2, 500)], 1, 500), diverged([(1, 0), (2, 500)], 2, 900)
    (True, False, False)
    """
    later = [start for number, start in eras if number > timeline]
    return any(number == timeline for number, _ in eras) and bool(later) and lsn > min(later)


def receives(replica: Replica | None) -> bool:
    """Whether WAL flows to it. One that has diverged comes again and again, and is refused each time: such a walsender tells nothing."""
    return replica is not None and replica.state in {"streaming", "catchup"} and replica.lag_bytes >= 0


def state(replica: Replica | None, told: Told | None, eras: Sequence[tuple[int, int]], oldest: int | None, name: str) -> tuple[str, str]:
    """What a read server does, in a word, and what to do about it. `oldest` is where the primary's WAL begins, None if unknown."""
    again = f"cls_reader add --again {name}"
    if replica is not None and (receives(replica) or told is None):
        return replica.state, ""
    if told is None:
        return "down", f"cls_reader add {name} starts it"
    if not told.standby:
        return "no standby", f"somebody has promoted it: {again}"
    if diverged(eras, told.timeline, told.lsn):
        return "diverged", f"it had received what the new primary never had: {again}"
    if oldest is not None and told.lsn < oldest:
        return "left behind", f"the primary has no WAL for it any more: {again}"
    if replica is not None:
        return replica.state, ""
    return "disconnected", f"does it reach the writer address? its own log tells; cls_reader add {name} corrects its settings"


def replica_of(found: Iterable[Replica], name: str, address: str) -> Replica | None:
    """The row of one server in pg_stat_replication: by its name, else a standby at its address. A base backup from there is none.

    There may be several: the walsender of a connection that nobody has at the other end any more can stay for hours.
    """
    rows = sorted(found, key=lambda row: not receives(row))
    named = [row for row in rows if row.name == name]
    return next(iter(named or [row for row in rows if address and row.address == address and row.lag_bytes >= 0]), None)
