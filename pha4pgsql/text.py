"""Text of other programs -> values: the XML of the CIB and of crm_mon, pg_controldata, timeline history files.

Layer 2, pure: text or a parsed tree goes in, frozen values come out. A tree is an element of `xml.etree.ElementTree` (the agents, which
start often) or of `lxml.etree` (the commands): only what both offer is used. Only XML is read, never text that was made for people.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from pha4pgsql.words import HOLD, Lsn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

EMPTY: Mapping[str, str] = MappingProxyType({})
INFINITY = 1_000_000
"""Pacemaker's INFINITY as a number (Pacemaker Explained, 'Scores')."""


class Tree(Protocol):
    """What is used of an XML element, the same in both parsers."""

    @property
    def text(self) -> str | None: ...
    def get(self, key: str, default: Any = None, /) -> Any: ...
    def find(self, path: str, /) -> Any: ...
    def findall(self, path: str, /) -> Any: ...
    def iter(self, tag: str, /) -> Any: ...


class Member(NamedTuple):
    """A node of the cluster as one CIB shows it.

    online: a member of Corosync's membership whose controller runs and has joined the DC.
    permanent, transient: its attributes with lifetime forever and reboot; an empty value is an attribute that is not there.
    failures: fail count per resource, the sum over its operations, `INFINITY` at most.
    roles: the state of each resource there by its operation history: `promoted`, `started` (also: unpromoted), `stopped`, `failed`,
    and on the way `starting`, `stopping`.
    expected: the DC expects it in the membership; one that left in order, or was fenced, it does not.
    unwatched: the resources whose agent sees them work, and no more.
    """

    name: str
    id: str
    online: bool
    standby: bool
    maintenance: bool
    permanent: Mapping[str, str] = EMPTY
    transient: Mapping[str, str] = EMPTY
    failures: Mapping[str, int] = MappingProxyType({})
    roles: Mapping[str, str] = EMPTY
    expected: bool = True
    unwatched: frozenset[str] = frozenset()

    @property
    def attributes(self) -> dict[str, str]:
        """Both kinds of attributes together, as crm_mon shows them."""
        return {**self.permanent, **self.transient}


class Cluster(NamedTuple):
    """One copy of the CIB at one moment: the copy of the node that was asked, right or outdated.

    quorate: whether that node is in a partition with quorum. dc: name of the designated controller, empty when there is none.
    version: (admin_epoch, epoch, num_updates), the higher replaces the others when partitions merge.
    """

    members: Mapping[str, Member]
    properties: Mapping[str, str]
    quorate: bool
    dc: str
    version: tuple[int, int, int]
    bans: tuple[Ban, ...] = ()

    @property
    def online(self) -> tuple[str, ...]:
        return tuple(name for name, member in self.members.items() if member.online)

    def attribute(self, name: str) -> dict[str, str]:
        """The value of one attribute on every node that has it, transient before permanent."""
        found = {node: member.transient.get(name, member.permanent.get(name, "")) for node, member in self.members.items()}
        return {node: value for node, value in found.items() if value}

    def where(self, resource: str, role: str) -> tuple[str, ...]:
        """The online nodes on which the resource has this role."""
        return tuple(name for name, member in self.members.items() if member.online and member.roles.get(resource) == role)

    def primary(self, resource: str) -> str:
        """The node where the resource is promoted; empty unless there is exactly one."""
        found = self.where(resource, "promoted")
        return found[0] if len(found) == 1 else ""

    def property_is(self, name: str, *, default: bool) -> bool:
        """A property that is a truth value, e.g. stonith-enabled."""
        return truth(self.properties.get(name), default=default)


def truth(text: str | None, *, default: bool) -> bool:
    """Pacemaker's truth values (crm_str_to_boolean).

    >>> truth("on", default=False), truth("0", default=True), truth(None, default=True)
    (True, False, True)
    """
    word = (text or "").lower()
    if word in {"true", "on", "yes", "y", "1"}:
        return True
    if word in {"false", "off", "no", "n", "0"}:
        return False
    return default


def score(text: str) -> int:
    """A score or a fail count as a number.

    >>> score("-INFINITY"), score("+INFINITY"), score("100")
    (-1000000, 1000000, 100)
    """
    if text.lstrip("+-") == "INFINITY":
        return -INFINITY if text.startswith("-") else INFINITY
    return max(-INFINITY, min(INFINITY, int(text)))


def unescape(text: str) -> str:
    r"""Undo the escaping of an XML attribute value.

    >>> unescape("a&lt;b &amp;amp; &#10;&quot;")
    'a<b &amp; \n"'
    """
    if "&" not in text:
        return text
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&#9;", "\t"), ("&#10;", "\n"), ("&#13;", "\r")):
        text = text.replace(entity, character)
    return text.replace("&amp;", "&")


def escape(text: str) -> str:
    """Make a text the value of an XML attribute.

    >>> escape('<a "&" b>')
    '&lt;a &quot;&amp;&quot; b&gt;'
    """
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("\t", "&#9;"), ("\n", "&#10;"), ("\r", "&#13;")):
        text = text.replace(character, entity)
    return text


def elements(xml: str, tag: str) -> Iterator[dict[str, str]]:
    """The attributes of each element `tag`, found by scanning: for small answers of Pacemaker's tools, without the cost of a parser.

    Right for what libxml2 writes: one space between attributes, values in double quotes, `<`, `>`, `&` and `"` escaped within.

    >>> list(elements('<attribute name="n" value="&lt;1&gt;" host="a"/><attribute name="n" value="" host="b"/>', "attribute"))
    [{'name': 'n', 'value': '<1>', 'host': 'a'}, {'name': 'n', 'value': '', 'host': 'b'}]
    """
    for piece in xml.split(f"<{tag} ")[1:]:
        parts = piece.partition(">")[0].split('"')
        yield {name.strip(" =/"): unescape(value) for name, value in zip(parts[0::2], parts[1::2])}


def cluster(cib: Tree) -> Cluster:
    """Read a whole CIB (`cibadmin --query`)."""
    states = {state.get("id"): state for state in cib.iter("node_state")}
    members = (_member(node, states.get(node.get("id"))) for node in cib.iter("node") if node.get("uname"))
    named = {member.name: member for member in members}
    names = {member.id: member.name for member in named.values()}
    return Cluster(
        members=named,
        properties=_properties(cib),
        quorate=truth(cib.get("have-quorum"), default=False),
        dc=names.get(cib.get("dc-uuid", ""), ""),
        version=tuple(int(cib.get(name, "0")) for name in ("admin_epoch", "epoch", "num_updates")),  # type: ignore[arg-type]
        bans=bans(cib),
    )


def _properties(cib: Tree) -> dict[str, str]:
    """All cluster properties; where a name is in two sets, Pacemaker's own set wins (Pacemaker Explained, 'Cluster Options')."""
    sets = sorted(cib.iter("cluster_property_set"), key=lambda one: bool(one.get("id") == "cib-bootstrap-options"))
    return {pair.get("name"): pair.get("value", "") for one in sets for pair in one.findall("nvpair")}


def _member(node: Tree, state: Tree | None) -> Member:
    permanent = _pairs(node.findall("instance_attributes"))
    transient = _pairs(state.findall("transient_attributes/instance_attributes")) if state is not None else {}
    both = {**permanent, **transient}
    held = {one.get("id"): one.findall("lrm_rsc_op") for one in state.iter("lrm_resource")} if state is not None else {}
    return Member(
        name=node.get("uname"),
        id=node.get("id"),
        online=state is not None and _online(state),
        standby=truth(both.get("standby"), default=False),
        maintenance=truth(both.get("maintenance"), default=False),
        permanent=permanent,
        transient=transient,
        failures=_failures(transient),
        roles={name: history_role(operations) for name, operations in held.items()},
        unwatched=frozenset(name for name, operations in held.items() if is_unwatched(operations)),
        expected=state is None or state.get("expected", "member") == "member",
    )


def _pairs(sets: Iterable[Tree]) -> dict[str, str]:
    return {pair.get("name"): pair.get("value") for one in sets for pair in one.findall("nvpair") if pair.get("value")}


def _online(state: Tree) -> bool:
    """Since feature set 3.18 `in_ccm` and `crmd` hold the time of the change, 0 for absent; before, words."""
    return (
        state.get("in_ccm", "false") not in {"false", "0"}
        and state.get("crmd", "offline") not in {"offline", "0"}
        and bool(state.get("join") == "member")
    )


def _failures(transient: Mapping[str, str]) -> dict[str, int]:
    """Sum the attributes `fail-count-RESOURCE#OPERATION_INTERVAL`."""
    counts: dict[str, int] = {}
    for name, value in transient.items():
        if name.startswith("fail-count-"):
            resource = name[len("fail-count-") :].partition("#")[0]
            counts[resource] = min(INFINITY, counts.get(resource, 0) + score(value))
    return counts


def failed_operations(cib: Tree, resource: str) -> Iterator[tuple[str, str, str, float]]:
    """Node, operation, the agent's reason and time (seconds since 1970) of each failed operation of a resource that its history holds."""
    for state in cib.iter("node_state"):
        for one in (one for held in state.iter("lrm_resource") if held.get("id") == resource for one in held.findall("lrm_rsc_op")):
            if one.get("rc-code", "0") not in {"0", "8", PENDING_CODE} and (one.get("rc-code") != "7" or one.get("interval") != "0"):
                yield state.get("uname", ""), one.get("operation"), unescape(one.get("exit-reason", "")), float(one.get("last-rc-change", "0"))


def started_at(cib: Tree, node: str, resources: Iterable[str]) -> float:
    """When the last of these resources was up on a node (seconds since 1970), by the end of its start; 0 while one is not.

    Pacemaker tells the beginning of a start in whole seconds, and how long it took.
    """
    wanted = dict.fromkeys(resources, 0.0)
    for state in (one for one in cib.iter("node_state") if one.get("uname") == node):
        for held in (one for one in state.iter("lrm_resource") if one.get("id") in wanted):
            starts = [one for one in held.findall("lrm_rsc_op") if one.get("operation") == "start" and one.get("rc-code") == "0"]
            if starts and history_role(held.findall("lrm_rsc_op")) == "started":
                took = float(starts[-1].get("exec-time", "0").removesuffix("ms") or 0) / 1000
                wanted[held.get("id")] = float(starts[-1].get("last-rc-change", "0")) + took
    return max(wanted.values(), default=0.0) if all(wanted.values()) else 0.0


PROMOTED_CODES = ("8", "9", "191")
"""OCF_RUNNING_PROMOTED, OCF_FAILED_PROMOTED, OCF_DEGRADED_PROMOTED."""
DEGRADED_CODES = ("190", "191")
"""OCF_DEGRADED, OCF_DEGRADED_PROMOTED: it works, and something is wrong with it."""


def history_role(operations: Iterable[Tree]) -> str:
    """The role of a resource by its recorded operations, replayed in the order of their calls (as Pacemaker's sort_op_by_callid does).

    An operation in flight is recorded in the place of the last one and has no call number yet: it tells what the resource was before.
    """
    role = "stopped"
    for one in sorted(operations, key=_when):
        operation, code = one.get("operation"), one.get("rc-code", PENDING_CODE)
        role = _before(role, operation) if code == PENDING_CODE else _after(role, operation, code)
    return role


def is_unwatched(operations: Iterable[Tree]) -> bool:
    """Whether the last word of the agent was that the resource works, and that it cannot look after it."""
    ended = [one for one in sorted(operations, key=_when) if one.get("rc-code", PENDING_CODE) != PENDING_CODE]
    return bool(ended) and ended[-1].get("rc-code") in DEGRADED_CODES


PENDING_CODE = "193"
"""PCMK_OCF_UNKNOWN: the operation has not ended."""


def _when(operation: Tree) -> tuple[bool, int, int]:
    return (operation.get("rc-code", PENDING_CODE) == PENDING_CODE, int(operation.get("call-id", "0")), int(operation.get("last-rc-change", "0")))


def _before(role: str, operation: str) -> str:
    """The role while an operation is in flight.

    >>> _before("stopped", "promote"), _before("started", "demote"), _before("promoted", "monitor")
    ('started', 'promoted', 'promoted')
    """
    return {"start": "starting", "promote": "started", "demote": "promoted", "stop": "stopping"}.get(operation, role)


def _after(role: str, operation: str, code: str) -> str:
    """One step of the replay.

    >>> _after("started", "promote", "0"), _after("promoted", "monitor", "8"), _after("promoted", "demote", "0"), _after("started", "monitor", "7")
    ('promoted', 'promoted', 'started', 'stopped')
    >>> _after("promoted", "monitor", "191"), _after("started", "monitor", "190"), _after("started", "monitor", "1")
    ('promoted', 'started', 'failed')
    """
    if operation == "monitor":
        return {"0": "started", "190": "started", "7": "stopped"}.get(code, "promoted" if code in PROMOTED_CODES else "failed")
    if code != "0" and operation in {"start", "promote", "demote", "stop"}:
        return "failed"
    return {"start": "started", "promote": "promoted", "demote": "started", "stop": "stopped"}.get(operation, role)


class Named(NamedTuple):
    """How the replicated set is called and configured in this CIB: read from the configuration itself, so that no name is hard-wired.

    promotable: the clone; primitive: what is in it (the prefix of the attributes); writers, readers: the virtual address resources that
    go with the promoted and with an unpromoted instance, name -> address; parameters: the agent's; target: the clone's `target-role`.
    director: the lvsdr resource on the reading side, empty when readers are not balanced, with its parameters in `balancing`;
    real_servers: the lvsdr-realsvr resource, without clone suffix. held: a command of ours has it in maintenance, or has left it there.
    """

    promotable: str
    primitive: str
    writers: Mapping[str, str]
    readers: Mapping[str, str]
    parameters: Mapping[str, str]
    target: str
    director: str = ""
    balancing: Mapping[str, str] = EMPTY
    real_servers: str = ""
    held: bool = False

    @property
    def addresses(self) -> dict[str, str]:
        return {**self.writers, **self.readers}

    @property
    def companions(self) -> tuple[str, ...]:
        """All that runs because the set does: addresses, director, real servers."""
        return (*self.addresses, *(name for name in (self.director, self.real_servers) if name))

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self.parameters.get("node_list", "").split())

    @property
    def read_nodes(self) -> tuple[str, ...]:
        """The nodes that only read."""
        return tuple(self.parameters.get("read_node_list", "").split())

    @property
    def disabled(self) -> bool:
        return self.target.lower() == "stopped"


def replicated_sets(cib: Tree) -> list[Named]:
    """Every promotable set of our agent in the configuration, in its order. None: nothing has been set up."""
    clones = [*cib.iter("clone"), *cib.iter("master")]
    found = [(clone, primitive) for clone in clones for primitive in clone.iter("primitive") if _is_ours(primitive)]
    return [_named(cib, clone, primitive) for clone, primitive in found]


def _is_ours(primitive: Tree) -> bool:
    return bool(primitive.get("provider") == "pha4pgsql" and primitive.get("type") == "pgsql")


def _named(cib: Tree, clone: Tree, primitive: Tree) -> Named:
    """A disabled clone may carry `target-role` itself or on its primitive."""
    targets = [_pairs(one.findall("meta_attributes")).get("target-role", "") for one in (clone, primitive)]
    reading = _bound(cib, clone.get("id"), {"unpromoted", "slave", "started"})
    director = next((one for one in reading if one.get("type") == "lvsdr"), None)
    return Named(
        promotable=clone.get("id"),
        primitive=primitive.get("id"),
        writers=_addresses(_bound(cib, clone.get("id"), {"promoted", "master"})),
        readers=_addresses(reading),
        parameters=_pairs(primitive.findall("instance_attributes")),
        target=next((one for one in targets if one.lower() == "stopped"), targets[0]),
        director=_of(director, "id"),
        balancing=_pairs(director.findall("instance_attributes")) if director is not None else EMPTY,
        real_servers=next((one.get("id") for one in reading if one.get("type") == "lvsdr-realsvr"), ""),
        held=any(pair.get("id", "").startswith(HOLD) for pair in clone.findall("meta_attributes/nvpair")),
    )


def _bound(cib: Tree, promotable: str, roles: set[str]) -> list[Tree]:
    """The primitives that colocations bind to one role of the set, directly or by way of each other; a negative one keeps away."""
    pairs = [one for one in cib.iter("rsc_colocation") if not one.get("score", "").startswith("-")]
    found = {one.get("rsc") for one in pairs if one.get("with-rsc") == promotable and one.get("with-rsc-role", "").lower() in roles}
    while more := {one.get("rsc") for one in pairs if one.get("with-rsc") in found} - found:
        found |= more
    inside = {primitive.get("id") for clone in cib.iter("clone") if clone.get("id") in found for primitive in clone.iter("primitive")}
    return [one for one in cib.iter("primitive") if one.get("id") in found | inside]


def _addresses(bound: Iterable[Tree]) -> dict[str, str]:
    """The address resources among them."""
    return {one.get("id"): _pairs(one.findall("instance_attributes")).get("ip", "") for one in bound if one.get("type") in {"IPaddr2", "IPaddr"}}


class Ban(NamedTuple):
    """A constraint that keeps a resource off a node: role is empty, or the one role that is kept off. ends: when it does, empty for never."""

    id: str
    resource: str
    node: str
    role: str
    ends: str


def bans(cib: Tree) -> tuple[Ban, ...]:
    """What `crm_resource --ban`, `pcs resource ban` or `move`, or a person's location constraint keep off a node for certain."""
    return tuple(ban for location in cib.iter("rsc_location") for ban in _bans(location))


def _bans(location: Tree) -> Iterator[Ban]:
    """A constraint names a node by itself, or by a rule on `#uname`, which may end at a date."""
    words = (location.get("id", ""), location.get("rsc", ""))
    role = _banned_role(location, "")
    if location.get("node") and location.get("score") == "-INFINITY":
        yield Ban(*words, location.get("node"), role, "")
    for rule in location.findall("rule"):
        nodes = [one.get("value") for one in rule.findall("expression") if one.get("attribute") == "#uname" and one.get("operation") == "eq"]
        if rule.get("score") == "-INFINITY" and nodes:
            ends = next((date.get("end", "") for date in rule.findall("date_expression")), "")
            yield Ban(*words, nodes[0], _banned_role(rule, role), ends)


def _banned_role(element: Tree, default: str) -> str:
    """`Started` is every role: a ban as pcs writes it."""
    role = element.get("role", "")
    return ROLES.get(role, role).replace("Started", "") if role else default


class Host(NamedTuple):
    """A node in crm_mon's view."""

    name: str
    online: bool
    standby: bool
    maintenance: bool
    pending: bool
    unclean: bool


class Placed(NamedTuple):
    """A resource, or one instance of a clone, and where it runs. role: `Started`, `Stopped`, `Promoted`, `Unpromoted` ..."""

    id: str
    agent: str
    role: str
    nodes: tuple[str, ...]
    flags: tuple[str, ...]


class Collection(NamedTuple):
    """A resource of the configuration: a primitive by itself (kind `resource`), a clone, a group or a bundle, with its instances."""

    id: str
    kind: str
    promotable: bool
    flags: tuple[str, ...]
    instances: tuple[Placed, ...]

    def where(self, *roles: str) -> tuple[str, ...]:
        """The nodes on which it runs, in one of these roles if any are named."""
        return tuple(sorted({node for one in self.instances for node in one.nodes if not roles or one.role in roles}))


class History(NamedTuple):
    """The failures of a resource on a node which Pacemaker counts."""

    resource: str
    threshold: str
    fail_count: str
    last_failure: str


class FailedAction(NamedTuple):
    """An action that failed, with the agent's own reason."""

    operation: str
    node: str
    said: str
    code: str
    call: str
    status: str
    reason: str
    when: str
    queued: str
    took: str

    @property
    def told(self) -> str:
        """What failed where, and why: in the agent's own words if it gave any."""
        return f"{self.operation} on {self.node}: {self.reason or self.said}"


class View(NamedTuple):
    """What crm_mon makes of one node's copy of the CIB."""

    stack: str
    dc: str
    version: str
    quorate: bool
    updated: str
    changed: str
    changed_by: str
    nodes_configured: str
    resources_configured: str
    hosts: tuple[Host, ...]
    resources: tuple[Collection, ...]
    attributes: Mapping[str, Mapping[str, str]]
    histories: Mapping[str, tuple[History, ...]]
    failed: tuple[FailedAction, ...]

    def resource(self, name: str) -> Collection | None:
        return next((one for one in self.resources if one.id == name), None)

    def where(self, name: str, *roles: str) -> tuple[str, ...]:
        """The nodes on which a resource runs; none when there is no such resource."""
        found = self.resource(name)
        return found.where(*roles) if found else ()


ROLES = MappingProxyType({"Master": "Promoted", "Slave": "Unpromoted"})
"""Role names before Pacemaker 2.1 -> today's."""


def view(answer: Tree) -> View:
    """Read the answer of `crm_mon --output-as=xml` (Pacemaker 2.1 to 3.0)."""
    dc, change = answer.find("summary/current_dc"), answer.find("summary/last_change")
    return View(
        stack=_of(answer.find("summary/stack"), "type"),
        dc=_of(dc, "name"),
        version=_of(dc, "version"),
        quorate=truth(_of(dc, "with_quorum"), default=False),
        updated=_of(answer.find("summary/last_update"), "time"),
        changed=_of(change, "time"),
        changed_by=_author(change),
        nodes_configured=_of(answer.find("summary/nodes_configured"), "number"),
        resources_configured=_of(answer.find("summary/resources_configured"), "number"),
        hosts=tuple(_host(one) for one in answer.findall("nodes/node")),
        resources=tuple(_collection(one, kind) for kind, one in _top(answer)),
        attributes={
            one.get("name"): {pair.get("name"): pair.get("value", "") for pair in one.findall("attribute")}
            for one in answer.findall("node_attributes/node")
        },
        histories={one.get("name"): _histories(one) for one in answer.findall("node_history/node")},
        failed=tuple(_failed(one) for one in answer.findall("failures/failure")),
    )


def _of(element: Tree | None, name: str) -> str:
    return "" if element is None else str(element.get(name, ""))


def _author(change: Tree | None) -> str:
    """Who made the last change: `root via crm_attribute on node1`."""
    words = ((_of(change, "user"), ""), (_of(change, "client"), "via "), (_of(change, "origin"), "on "))
    return " ".join(f"{before}{word}" for word, before in words if word)


def _host(node: Tree) -> Host:
    return Host(node.get("name"), *(truth(node.get(name), default=False) for name in ("online", "standby", "maintenance", "pending", "unclean")))


def _top(answer: Tree) -> Iterator[tuple[str, Tree]]:
    resources = answer.find("resources")
    for kind in ("resource", "group", "clone", "bundle"):
        for one in resources.findall(kind) if resources is not None else ():
            yield kind, one


def _collection(element: Tree, kind: str) -> Collection:
    return Collection(
        id=element.get("id"),
        kind=kind,
        promotable=truth(element.get("multi_state"), default=False),
        flags=_flags(element) if kind != "resource" else (),
        instances=tuple(_placed(one) for one in element.iter("resource")),
    )


def _placed(resource: Tree) -> Placed:
    role = resource.get("role", "")
    return Placed(
        id=resource.get("id"),
        agent=resource.get("resource_agent", ""),
        role=ROLES.get(role, role),
        nodes=tuple(node.get("name") for node in resource.findall("node")),
        flags=_flags(resource),
    )


def _flags(resource: Tree) -> tuple[str, ...]:
    """What is out of the ordinary, in crm_mon's words; `orphaned` is `removed` in later versions."""
    words = {"failed": "FAILED", "orphaned": "orphaned", "removed": "orphaned", "blocked": "blocked", "disabled": "disabled"}
    found = [word for name, word in words.items() if truth(resource.get(name), default=False)]
    return (*dict.fromkeys(found), *([] if truth(resource.get("managed"), default=True) else ["unmanaged"]))


def _histories(node: Tree) -> tuple[History, ...]:
    """Only resources that failed: the others have nothing to tell."""
    return tuple(
        History(one.get("id"), one.get("migration-threshold", ""), one.get("fail-count"), one.get("last-failure", ""))
        for one in node.findall("resource_history")
        if one.get("fail-count")
    )


def _failed(one: Tree) -> FailedAction:
    """`op_key` is absent for what is no operation of a resource."""
    names = ("node", "exitstatus", "exitcode", "call", "status", "exitreason", "last-rc-change", "queued", "exec")
    words = [one.get(name, "") for name in names]
    words[names.index("exitreason")] = unescape(words[names.index("exitreason")])  # Pacemaker 2.1.5 escapes it twice
    return FailedAction(one.get("op_key") or one.get("id", ""), *words)


class ControlData(NamedTuple):
    """What pg_controldata tells of a data directory (PostgreSQL manual, pg_controldata).

    state: e.g. `in production`, `shut down in recovery`. checkpoint, timeline: location and timeline of the latest checkpoint.
    minimum: the minimum recovery ending location, with its timeline; 0 when there is none.
    """

    system_identifier: str
    state: str
    checkpoint: Lsn
    redo: Lsn
    timeline: int
    minimum: Lsn
    minimum_timeline: int
    backup_start: Lsn
    wal_segment_size: int
    checksums: bool
    wal_log_hints: bool


def controldata(answer: str) -> ControlData:
    """Read pg_controldata's output, produced with LC_ALL=C. A missing line is a ValueError that names it, a wrong checksum is one, too.

    >>> controldata("WARNING: Calculated CRC checksum does not match value stored in file.")
    Traceback (most recent call last):
    ValueError: the checksum of the control file does not match
    """
    if "CRC checksum does not match" in answer:
        raise ValueError("the checksum of the control file does not match")
    lines = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in answer.splitlines())}
    try:
        return ControlData(
            system_identifier=lines["Database system identifier"],
            state=lines["Database cluster state"],
            checkpoint=Lsn.parse(lines["Latest checkpoint location"]),
            redo=Lsn.parse(lines["Latest checkpoint's REDO location"]),
            timeline=int(lines["Latest checkpoint's TimeLineID"]),
            minimum=Lsn.parse(lines["Minimum recovery ending location"]),
            minimum_timeline=int(lines["Min recovery ending loc's timeline"]),
            backup_start=Lsn.parse(lines["Backup start location"]),
            wal_segment_size=int(lines["Bytes per WAL segment"]),
            checksums=lines["Data page checksum version"] != "0",
            wal_log_hints=lines["wal_log_hints setting"] == "on",
        )
    except KeyError as missing:
        raise ValueError(f"no line {missing} in the output of pg_controldata") from missing


class Switch(NamedTuple):
    """A line of a timeline history file: the timeline that was left, and the position at which it was left."""

    timeline: int
    end: Lsn


def history(content: str) -> tuple[Switch, ...]:
    r"""Read a timeline history file, oldest first; comments and empty lines are skipped (PostgreSQL manual, 26.3.5 Timelines).

    >>> history("1\t0/50001B0\tno recovery target specified\n\n# a comment\n2\t0/50008E0\tno recovery target specified\n")
    (Switch(timeline=1, end=83886512), Switch(timeline=2, end=83888352))
    """
    lines = [line.split() for line in content.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return tuple(Switch(int(line[0]), Lsn.parse(line[1])) for line in lines)


class ReplInfo(NamedTuple):
    """The property `RESOURCE_REPL_INFO`: the primary, the timeline that it left when it was promoted, and where."""

    node: str
    timeline: int = 0
    switch: Lsn = Lsn(0)

    def __str__(self) -> str:
        return f"{self.node}|{self.timeline}|{self.switch.hex16}"


def repl_info(value: str) -> ReplInfo:
    """Read REPL_INFO; the name alone is legal.

    >>> str(repl_info("node1|1|00000000050001B0")), repl_info("node2").node
    ('node1|1|00000000050001B0', 'node2')
    """
    node, _, rest = value.partition("|")
    timeline, _, position = rest.partition("|")
    return ReplInfo(node, int(timeline or "0"), Lsn(int(position or "0", 16)))
