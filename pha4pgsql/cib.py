"""Edits of a CIB: what config.pcs makes is merged into what is there, and the difference is told in words. Pure: XML in, XML out.

Our resources and constraints are replaced as wholes, properties and defaults by name; fencing devices, other resources and other
constraints are never touched.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NamedTuple, cast

from lxml import etree

from pha4pgsql.words import HOLD, NO_MEMBER, ClusterRefusal, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lxml.etree import _Element as Element

PREFIX = "pha4pgsql-"
"""Every constraint of ours has an id that begins with this and the name of the PostgreSQL resource."""

OPERATORS_OWN = ("target-role", "is-managed", "maintenance")
"""Meta attributes by which operators steer a running set: cls_setup leaves them as they are."""

CHANGED_IN_PLACE = {"lvsdr": ("readers",)}
"""Parameters by type of agent that commands change in the running cluster (cls_reader): cls_setup leaves them where config.pcs does not set them."""


def prefix(resource: str) -> str:
    return f"{PREFIX}{resource}-"


def read(text: str) -> Element:
    return etree.fromstring(text.encode(), etree.XMLParser(remove_blank_text=True, resolve_entities=False))


def write(cib: Element) -> str:
    return etree.tostring(cib, encoding="unicode", pretty_print=True)


class Wanted(NamedTuple):
    """What cls_setup wants: the CIB that config.pcs makes, the primary named by the operator (or empty), fencing if it is to follow the devices."""

    made: Element
    resource: str
    primary: str
    fencing_follows_devices: bool


def merge(live: Element, wanted: Wanted) -> Element:
    """Return the live CIB with our things as wanted. Nothing changes in what is equal already."""
    new = copy.deepcopy(live)
    settings = _section(new, "crm_config")
    for name, value in _pairs(wanted.made, "crm_config").items():
        _set(settings, "cluster_property_set", "cib-bootstrap-options", name, value)
    if wanted.fencing_follows_devices:
        fenced = str(has_fencing(new)).lower()
        _set(settings, "cluster_property_set", "cib-bootstrap-options", "stonith-enabled", fenced)
    if wanted.primary:
        _set(settings, "cluster_property_set", f"{wanted.resource}_replication", f"{wanted.resource}_REPL_INFO", wanted.primary)
    for name, value in _pairs(wanted.made, "rsc_defaults").items():
        _set(_section(new, "rsc_defaults"), "meta_attributes", "rsc_defaults-meta_attributes", name, value)
    _replace(
        _section(new, "resources"), _with_operators_own(_section(wanted.made, "resources"), new), _obsolete(new, wanted.made, prefix(wanted.resource))
    )
    _tag_nodes(new, wanted.made)
    stale = [item.get("id", "") for item in _section(new, "constraints") if item.get("id", "").startswith(prefix(wanted.resource))]
    _replace(_section(new, "constraints"), list(_section(wanted.made, "constraints")), stale)
    return new


def _tag_nodes(new: Element, made: Element) -> None:
    """Give nodes the attributes that they have in `made`; an attribute that stands there at all is taken from all other nodes."""
    wanted = {node.get("uname", ""): _own_pairs(node) for node in _section(made, "nodes")}
    there = {node.get("uname", ""): node for node in _section(new, "nodes")}
    unknown = sorted(node for node, pairs in wanted.items() if pairs and node not in there)
    if unknown:
        raise ClusterRefusal(
            f"{' '.join(unknown)}: the cluster knows no such node yet, so it cannot have attributes; nothing was changed",
            "start the cluster on all nodes (pcs cluster start --all), then run cls_setup again; crm_node -l shows the names",
        )
    managed = {name for pairs in wanted.values() for name in pairs}
    for uname, node in there.items():
        for name in sorted(managed):
            value = wanted.get(uname, {}).get(name)
            if value is not None:
                _set(node, "instance_attributes", f"nodes-{node.get('id')}", name, value)
            else:
                _unset(node, "instance_attributes", name)


def _own_pairs(element: Element) -> dict[str, str]:
    return {pair.get("name", ""): pair.get("value", "") for pair in element.iterfind("instance_attributes/nvpair")}


def _unset(section: Element, tag: str, name: str) -> None:
    for group in section.findall(tag):
        for pair in [pair for pair in group if pair.get("name") == name]:
            group.remove(pair)


def has_fencing(cib: Element) -> bool:
    return bool(cib.xpath("configuration/resources//primitive[@class='stonith'][not(@type='fence_watchdog')]"))


def _section(cib: Element, name: str) -> Element:
    """Return a section of the configuration, made if it is not there."""
    configuration = _only(cib, "configuration")
    found = configuration.find(name)
    if found is None:
        found = etree.SubElement(configuration, name)
    return found


def _only(parent: Element, name: str) -> Element:
    found = parent.find(name)
    if found is None:
        raise EnvironmentFailure(f"the CIB has no {name}", "is the cluster running on this node? pcs cluster start --all")
    return found


def _pairs(cib: Element, section: str) -> dict[str, str]:
    return {pair.get("name", ""): pair.get("value", "") for pair in _section(cib, section).iter("nvpair")}


def _set(section: Element, tag: str, set_id: str, name: str, value: str) -> None:
    """Set one name to a value: where the name stands already, else in the set with this id, made if need be."""
    pair = next((item for item in section.iterfind(f"{tag}/nvpair") if item.get("name") == name), None)
    if pair is None:
        group = next((item for item in section.iterfind(tag) if item.get("id") == set_id), None)
        group = etree.SubElement(section, tag, id=set_id) if group is None else group
        pair = etree.SubElement(group, "nvpair", id=f"{set_id}-{name}", name=name)
    pair.set("value", value)


def _with_operators_own(made: Element, live: Element) -> list[Element]:
    """Return the made resources with what operators have set in the live ones: a running set stays enabled, a stopped one stopped."""
    result = []
    for item in map(copy.deepcopy, made):
        old = next((top for top in _section(live, "resources") if top.get("id") == item.get("id")), None)
        if old is not None:
            _copy_meta(old, item)
            _copy_parameters(old, item)
        result.append(item)
    return result


def _copy_parameters(old: Element, new: Element) -> None:
    """Give the new resource the parameters that commands have set in the old one, where config.pcs says nothing of them."""
    path = "descendant-or-self::primitive[@id=$id]/instance_attributes/nvpair[@name=$name]"
    for primitive in new.iter("primitive"):
        for name in CHANGED_IN_PLACE.get(primitive.get("type", ""), ()):
            kept, given = (cast("list[Element]", tree.xpath(path, id=primitive.get("id", ""), name=name)) for tree in (old, new))
            if kept and not given:
                _set(primitive, "instance_attributes", f"{primitive.get('id')}-instance_attributes", name, kept[0].get("value", ""))


def _copy_meta(old: Element, new: Element) -> None:
    for group in new.findall("meta_attributes"):
        for pair in [pair for pair in group if pair.get("name") in OPERATORS_OWN]:
            group.remove(pair)
    for pair in old.iterfind("meta_attributes/nvpair"):
        if pair.get("name") in OPERATORS_OWN and not pair.get("id", "").startswith(HOLD):
            _set(new, "meta_attributes", f"{new.get('id')}-meta_attributes", pair.get("name", ""), pair.get("value", ""))


def _obsolete(live: Element, made: Element, ours: str) -> list[str]:
    """Return the ids of resources that an earlier config.pcs had: they stand in constraints of ours, and are not made any more."""
    mentioned = _mentioned(live, ours)
    kept = {item.get("id") for item in _section(made, "resources").iter() if item.get("id")}
    return [item.get("id", "") for item in _section(live, "resources") if item.get("id") in mentioned - kept]


OWN_PARAMETERS = {"pgport": "pgsql_pgport", "tmpdir": "pgsql_tmpdir", "datadir": "pgsql_datadir"}
"""Parameters of the pgsql agent in which two sets must differ (pgdata tells them apart), and their keys in config.ini."""


def collisions(live: Element, made: Element, resource: str) -> list[str]:
    """What the made set would share with other sets and addresses of the cluster, in words. A set on the same data is the same one, renamed."""
    mine = parameters(made, resource)
    others = [
        (top, other)
        for top, other in primitives(live, "pha4pgsql", "pgsql")
        if other != resource and parameters(live, other).get("pgdata") != mine.get("pgdata")
    ]
    found = []
    for top, other in others:
        short, long = sorted((resource, other), key=len)
        if long.startswith(f"{short}-"):
            found.append(f"pgsql_resource: {resource} and {other}: one begins with the other, and so would the names of attributes and constraints")
        shared = sorted(_ids(made) & _names_of(live, top, other))
        found += [f"RESOURCE_LIST, pgsql_resource ...: {name} belongs to the set of {other}" for name in shared]
        theirs = parameters(live, other)
        for name, key in OWN_PARAMETERS.items():
            if name in mine and mine[name] == theirs.get(name):
                found.append(f"{key}: {mine[name]} is that of {other}, too")
    return found + _shared_addresses(live, made, _ids(made) | _mentioned(live, prefix(resource)))


def _ids(tree: Element) -> set[str]:
    """The names of resources, sets and what is in them."""
    return {item.get("id", "") for item in _section(tree, "resources").iter("primitive", "clone", "group", "master")}


def _names_of(live: Element, top: str, resource: str) -> set[str]:
    """The names of a set: what its constraints mention, its watcher, and what is in them."""
    names = _mentioned(live, prefix(resource)) | {top}
    names |= {holder for holder, one in primitives(live, "pha4pgsql", "pgwatch") if parameters(live, one).get("resource", "pgsql") == resource}
    held = [item for item in _section(live, "resources") if item.get("id") in names]
    return names | {part.get("id", "") for item in held for part in item.iter("primitive")}


def _shared_addresses(live: Element, made: Element, mine: set[str]) -> list[str]:
    theirs = {parameters(live, name).get("ip"): name for _, name in primitives(live, "heartbeat", "IPaddr2") if name not in mine}
    wanted = [(name, parameters(made, name).get("ip")) for _, name in primitives(made, "heartbeat", "IPaddr2")]
    return [f"writer_vip, reader_vip: {address} of {name} is that of {theirs[address]}, too" for name, address in wanted if address in theirs]


def _replace(section: Element, wanted: list[Element], obsolete: list[str]) -> None:
    """Put the wanted elements into the section: in place of those with the same id, else at the end; take the obsolete ones out."""
    names = {item.get("id") for item in wanted}
    for item in list(section):
        if item.get("id") in obsolete and item.get("id") not in names:
            section.remove(item)
    inner = {part.get("id") for item in wanted for part in item.iter("primitive")} - names
    for item in wanted:
        old = next((other for other in section if other.get("id") == item.get("id")), None)
        if old is None:
            section.append(copy.deepcopy(item))
        elif canonical(old) != canonical(item):
            section.replace(old, copy.deepcopy(item))
    for item in list(section):
        if item.get("id") in inner:  # a primitive that is now inside of a clone
            section.remove(item)


def _mentioned(live: Element, ours: str) -> set[str]:
    """The resources that stand in constraints with this beginning."""
    found = {
        value
        for item in _section(live, "constraints")
        if item.get("id", "").startswith(ours)
        for value in (item.get("rsc"), item.get("with-rsc"), item.get("first"), item.get("then"))
    }
    return {name for name in found if name}


def canonical(element: Element) -> object:
    """Return a value that is equal for elements of equal meaning: attributes in any order, no blanks."""
    return (element.tag, sorted(element.attrib.items()), [canonical(child) for child in element.iterchildren("*")])


# ---------------------------------------------------------------- what changes, in words


class Fact(NamedTuple):
    """One thing that the configuration says: of which resource or constraint (empty: of the cluster), what, and its value."""

    owner: str
    name: str
    value: str


def changes(old: Element, new: Element) -> list[str]:
    """Return one line per thing that differs, for people; of a resource that comes or goes as a whole only its name."""
    before, after = _facts(old), _facts(new)
    lines = []
    for name in [*before, *(name for name in after if name not in before)]:
        was, becomes = before.get(name), after.get(name)
        if was is None and becomes is not None and becomes.owner not in after.keys() - before.keys():
            lines.append(f"add {name} {becomes.value}".rstrip())
        elif becomes is None and was is not None and was.owner not in before.keys() - after.keys():
            lines.append(f"remove {name} {was.value}".rstrip())
        elif was is not None and becomes is not None and was.value != becomes.value:
            lines.append(f"change {name} {was.value} -> {becomes.value}")
    return lines


_SETS = ("meta_attributes", "instance_attributes", "cluster_property_set")
_LABELS = {"crm_config": "property", "rsc_defaults": "default", "op_defaults": "operation default"}


def _facts(cib: Element) -> dict[str, Fact]:
    """Flatten the configuration: one fact per resource, constraint, operation and setting."""
    facts: dict[str, Fact] = {}
    for section in _only(cib, "configuration"):
        if section.tag == "nodes":
            for node in section.iterchildren("*"):
                _collect(node, "", f"node {node.get('uname')}", facts)
        else:
            _collect(section, "", _LABELS.get(str(section.tag), str(section.tag)), facts)
    return facts


def _collect(parent: Element, owner: str, label: str, facts: dict[str, Fact]) -> None:
    for element in parent.iterchildren("*"):  # no comments
        name = f"{element.tag} {element.get('id')}"
        if element.tag == "nvpair":
            name = f"{label} {element.get('name')}"
            facts[name] = Fact(owner, name, element.get("value", ""))
        elif element.tag in _SETS or not element.get("id"):
            _collect(element, owner, label, facts)
        else:
            facts[name] = Fact(owner, name, " ".join(f"{key}={element.get(key)}" for key in map(str, element.attrib) if key != "id"))
            _collect(element, name, str(element.get("id")), facts)


def properties(cib: Element) -> dict[str, str]:
    """Return the cluster properties by name."""
    return _pairs(cib, "crm_config")


def primitives(cib: Element, provider: str, kind: str = "") -> Iterator[tuple[str, str]]:
    """Yield each primitive of a provider (and type), with the resource in the section that holds it: its set, or itself."""
    for top in _section(cib, "resources"):
        for primitive in top.iter("primitive"):
            if primitive.get("provider") == provider and kind in {"", primitive.get("type")}:
                yield top.get("id", ""), primitive.get("id", "")


def parameters(cib: Element, primitive: str) -> dict[str, str]:
    """Return the parameters of one resource; empty where there is none."""
    found = (one for one in _section(cib, "resources").iter("primitive") if one.get("id") == primitive)
    return {pair.get("name", ""): pair.get("value", "") for one in found for pair in one.iterfind("instance_attributes/nvpair")}


def with_parameter(cib: Element, kinds: Sequence[str], name: str, value: str) -> Element:
    """Return a copy in which our resources of these kinds have a parameter."""
    new = copy.deepcopy(cib)
    for primitive in _section(new, "resources").iter("primitive"):
        if primitive.get("provider") == "pha4pgsql" and primitive.get("type") in kinds:
            _set(primitive, "instance_attributes", f"{primitive.get('id')}-instance_attributes", name, value)
    return new


def resources(cib: Element) -> list[str]:
    """Return the names of the resources that stand in the section itself: sets and single ones."""
    return [top.get("id", "") for top in _section(cib, "resources")]


def has_meta(cib: Element, resource: str, name: str) -> bool:
    return bool(cib.xpath("configuration/resources/*[@id=$id]/meta_attributes/nvpair[@name=$name]", id=resource, name=name))


def meta(cib: Element, resource: str, name: str) -> str:
    """Return a meta attribute of a resource, empty where it has none."""
    tops = (top for top in _section(cib, "resources") if top.get("id") == resource)
    pairs = (pair for top in tops for pair in top.iterfind("meta_attributes/nvpair"))
    return next((pair.get("value", "") for pair in pairs if pair.get("name") == name), "")


def with_meta(cib: Element, names: Sequence[str], name: str, value: str) -> Element:
    """Return a copy in which these resources have a meta attribute."""
    new = copy.deepcopy(cib)
    for top in _section(new, "resources"):
        if top.get("id") in names:
            _set(top, "meta_attributes", f"{top.get('id')}-meta_attributes", name, value)
    return new


def with_hold(cib: Element, names: Sequence[str]) -> Element:
    """Return a copy in which these resources are in a maintenance that is known as ours."""
    new = with_meta(cib, names, "maintenance", "true")
    for top, pair in _maintenance(new):
        if top in names:
            pair.set("id", f"{HOLD}{top}")
    return new


def holds(cib: Element) -> list[str]:
    """Return the resources that a command of ours has in maintenance, or has left there."""
    return [top for top, pair in _maintenance(cib) if pair.get("id", "").startswith(HOLD)]


def unheld(cib: Element, names: Sequence[str]) -> list[str]:
    """Return those of these resources that no person has in maintenance."""
    ours = holds(cib)
    return [name for name in names if name in ours or not has_meta(cib, name, "maintenance")]


def _maintenance(cib: Element) -> list[tuple[str, Element]]:
    pairs = [(top.get("id", ""), pair) for top in _section(cib, "resources") for pair in top.iterfind("meta_attributes/nvpair")]
    return [(top, pair) for top, pair in pairs if pair.get("name") == "maintenance"]


def without_meta(cib: Element, names: Sequence[str], name: str) -> Element:
    """Return a copy in which these resources have not got it; a set of attributes that becomes empty goes too."""
    new = copy.deepcopy(cib)
    for top in _section(new, "resources"):
        for group in top.findall("meta_attributes") if top.get("id") in names else ():
            for pair in [pair for pair in group if pair.get("name") == name]:
                group.remove(pair)
            if not len(group):
                top.remove(group)
    return new


def with_value(cib: Element, names: Sequence[str], name: str, value: str) -> Element:
    """Return a copy in which these primitives have a parameter."""
    new = copy.deepcopy(cib)
    for primitive in _section(new, "resources").iter("primitive"):
        if primitive.get("id") in names:
            _set(primitive, "instance_attributes", f"{primitive.get('id')}-instance_attributes", name, value)
    return new


def clones_of(cib: Element, kind: str, resource: str) -> list[tuple[str, str]]:
    """Return the clones and primitives of this kind that belong to one of several sets: a watcher says for whom it speaks."""
    found = primitives(cib, "pha4pgsql", kind)
    return [(top, one) for top, one in found if one == resource or parameters(cib, one).get("resource") == resource]


def with_bans(live: Element, new: Element, resource: str) -> Element:
    """Return the new configuration with PostgreSQL kept off those who are no more in its lists, and off nobody who is.

    Else Pacemaker, which only knows how many instances there may be, could stop another one than theirs.
    """
    before, after = (_listed(tree, resource) for tree in (live, new))
    tops = [top for kind in ("pgsql", "pgwatch") for top, _ in clones_of(new, kind, resource)]
    for node in before - after if after else ():
        new = with_ban(new, tops, node)
    for node in after:
        new = without_ban(new, tops, node)
    return new


def _listed(cib: Element, resource: str) -> set[str]:
    given = parameters(cib, resource)
    return {*given.get("node_list", "").split(), *given.get("read_node_list", "").split()}


def ban_id(resource: str, node: str) -> str:
    """The name of the constraint that keeps a resource off a node which is no member. Not one of those that config.pcs makes."""
    return f"{NO_MEMBER}{resource}-{node}"


def banned(cib: Element, resource: str, node: str) -> bool:
    return any(item.get("id") == ban_id(resource, node) for item in _section(cib, "constraints"))


def with_ban(cib: Element, resources: Sequence[str], node: str) -> Element:
    """Return a copy in which these resources are kept off a node."""
    new = copy.deepcopy(cib)
    for resource in resources:
        if not banned(new, resource, node):
            etree.SubElement(
                _section(new, "constraints"), "rsc_location", id=ban_id(resource, node), rsc=resource, node=node, score="-INFINITY"
            )  # fmt: skip
    return new


def without_ban(cib: Element, resources: Sequence[str], node: str) -> Element:
    """Return a copy in which they may run there."""
    new = copy.deepcopy(cib)
    constraints, mine = _section(new, "constraints"), {ban_id(resource, node) for resource in resources}
    for item in [item for item in constraints if item.get("id") in mine]:
        constraints.remove(item)
    return new
