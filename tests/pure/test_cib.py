"""The merge into a living CIB: ours is brought to what is wanted, everything else stays, and a second time nothing changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from pha4pgsql import cib
from pha4pgsql.words import ClusterRefusal

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

MADE = """
<cib validate-with="pacemaker-3.9"><configuration>
  <crm_config><cluster_property_set id="cib-bootstrap-options">
    <nvpair id="cib-bootstrap-options-no-quorum-policy" name="no-quorum-policy" value="stop"/>
  </cluster_property_set></crm_config>
  <nodes/>
  <resources>
    <primitive id="vip-master" class="ocf" provider="heartbeat" type="IPaddr2">
      <instance_attributes id="vip-master-instance_attributes"><nvpair id="vip-master-instance_attributes-ip" name="ip" value="192.168.0.236"/>
      </instance_attributes>
      <operations><op id="vip-master-monitor-interval-10s" name="monitor" interval="10s"/></operations>
    </primitive>
    <clone id="msPostgresql">
      <primitive id="pgsql" class="ocf" provider="pha4pgsql" type="pgsql">
        <instance_attributes id="pgsql-instance_attributes"><nvpair id="pgsql-instance_attributes-pgport" name="pgport" value="5432"/>
        </instance_attributes>
      </primitive>
      <meta_attributes id="msPostgresql-meta_attributes">
        <nvpair id="msPostgresql-meta_attributes-notify" name="notify" value="true"/>
        <nvpair id="msPostgresql-meta_attributes-target-role" name="target-role" value="Stopped"/>
      </meta_attributes>
    </clone>
  </resources>
  <constraints>
    <rsc_order id="pha4pgsql-pgsql-a" first="msPostgresql" then="vip-master"/>
    <rsc_order id="pha4pgsql-pgsql-b" first="msPostgresql" then="vip-master" kind="Optional"/>
  </constraints>
  <rsc_defaults><meta_attributes id="rsc_defaults-meta_attributes">
    <nvpair id="rsc_defaults-meta_attributes-resource-stickiness" name="resource-stickiness" value="1"/>
  </meta_attributes></rsc_defaults>
</configuration><status/></cib>
"""
LIVE = """
<cib validate-with="pacemaker-3.9" epoch="7"><configuration>
  <crm_config>
    <cluster_property_set id="cib-bootstrap-options">
      <nvpair id="p1" name="cluster-name" value="pgcluster"/>
      <nvpair id="p2" name="no-quorum-policy" value="ignore"/>
    </cluster_property_set>
    <cluster_property_set id="pgsql_replication"><nvpair id="p3" name="pgsql_REPL_INFO" value="node2|1|00000000050001B0"/></cluster_property_set>
  </crm_config>
  <nodes><node id="1" uname="node1">
    <instance_attributes id="nodes-1"><nvpair id="n1" name="pgsql-data-status" value="LATEST"/></instance_attributes></node>
  </nodes>
  <resources>
    <primitive id="fence" class="stonith" type="fence_lab"/>
    <primitive id="web" class="ocf" provider="heartbeat" type="nginx"/>
  </resources>
  <constraints>
    <rsc_location id="web-with-nobody" rsc="web" node="node1" score="10"/>
    <rsc_location id="cli-ban-msPostgresql-on-node1" rsc="msPostgresql" node="node1" score="-INFINITY"/>
  </constraints>
  <rsc_defaults><meta_attributes id="mine"><nvpair id="d1" name="resource-stickiness" value="100"/></meta_attributes></rsc_defaults>
</configuration><status><node_state id="1" uname="node1"/></status></cib>
"""


def read(text: str, *changes: tuple[str, str]) -> Element:
    """A CIB with replacements each of which must hit."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return cib.read(text)


def wanted(*changes: tuple[str, str], primary: str = "", follows: bool = True) -> cib.Wanted:
    return cib.Wanted(read(MADE, *changes), "pgsql", primary, follows)


def attributes(tree: Element, xpath: str) -> list[str]:
    return [str(found) for found in cast("list[object]", tree.xpath(xpath))]


def test_everything_of_others_stays() -> None:
    """The original erased the whole CIB, fencing included."""
    live = read(LIVE)
    new = cib.merge(live, wanted())
    for path in ("//primitive[@id='fence']", "//primitive[@id='web']", "//rsc_location", "//nodes", "//nvpair[@name='cluster-name']", "//status",
                 "//nvpair[@name='pgsql_REPL_INFO']"):  # fmt: skip
        kept, there = ([cib.canonical(item) for item in cast("list[Element]", tree.xpath(path))] for tree in (new, live))
        assert kept == there != []
    assert cib.canonical(live) == cib.canonical(read(LIVE)), "the live CIB itself is not touched"


def test_ours_comes() -> None:
    """Resources and constraints at the end, properties and defaults where they stand already."""
    new = cib.merge(read(LIVE), wanted())
    assert attributes(new, "//resources/*/@id") == ["fence", "web", "vip-master", "msPostgresql"]
    assert attributes(new, "//constraints/*/@id")[2:] == ["pha4pgsql-pgsql-a", "pha4pgsql-pgsql-b"]
    assert attributes(new, "//nvpair[@id='p2']/@value") == ["stop"]
    assert attributes(new, "//nvpair[@id='d1']/@value") == ["1"]
    assert cib.properties(new)["stonith-enabled"] == "true"


def test_the_second_time_changes_nothing() -> None:
    """Idempotent, in content and in order."""
    once = cib.merge(read(LIVE), wanted(primary="node1"))
    twice = cib.merge(once, wanted(primary="node1"))
    assert cib.write(once) == cib.write(twice)
    assert cib.changes(once, twice) == []


def test_an_empty_cluster() -> None:
    """The first setup: nothing there, no fencing device, the set comes disabled."""
    empty = "<cib><configuration><crm_config/><nodes/><resources/><constraints/></configuration><status/></cib>"
    new = cib.merge(read(empty), wanted(primary="node1"))
    assert cib.properties(new) == {"no-quorum-policy": "stop", "stonith-enabled": "false", "pgsql_REPL_INFO": "node1"}
    assert attributes(new, "//nvpair[@name='pgsql_REPL_INFO']/../@id") == ["pgsql_replication"]
    assert attributes(new, "//nvpair[@name='target-role']/@value") == ["Stopped"]


@pytest.mark.parametrize(
    ("before", "after"),
    [("", []), ('<nvpair id="x" name="target-role" value="Started"/>', ["Started"]), ('<nvpair id="x" name="is-managed" value="false"/>', [])],
)
def test_a_running_set_stays_as_operators_have_set_it(before: str, after: list[str]) -> None:
    """cls_setup on a running cluster must not stop it."""
    once = cib.merge(read(LIVE), wanted())
    meta = once.find("configuration/resources/clone/meta_attributes")
    assert meta is not None
    meta[:] = list(cib.read(f"<x>{before}</x>"))
    new = cib.merge(once, wanted())
    assert attributes(new, "//nvpair[@name='target-role']/@value") == after
    assert attributes(new, "//nvpair[@name='notify']/@value") == ["true"]
    assert attributes(new, "//nvpair[@name='is-managed']/@value") == (["false"] if "is-managed" in before else [])


def test_fencing_is_left_alone_when_it_is_configured() -> None:
    """Only `auto` follows the devices."""
    live = read(LIVE, ('value="pgcluster"/>', 'value="pgcluster"/><nvpair id="s" name="stonith-enabled" value="false"/>'))
    assert cib.properties(cib.merge(live, wanted(follows=False)))["stonith-enabled"] == "false"
    assert cib.properties(cib.merge(live, wanted()))["stonith-enabled"] == "true"


def test_a_changed_parameter_replaces_in_place() -> None:
    """The order of resources does not change with a parameter."""
    once = cib.merge(read(LIVE), wanted())
    new = cib.merge(once, wanted(('value="5432"', 'value="5433"')))
    assert attributes(new, "//resources/*/@id") == attributes(once, "//resources/*/@id")
    assert cib.changes(once, new) == ["change pgsql pgport 5432 -> 5433"]
    assert cib.parameters(new, "pgsql") == {"pgport": "5433"}


def test_what_an_older_file_of_ours_had_goes() -> None:
    """Constraints by their prefix, resources because constraints of ours mention them; the same resource name of another set stays."""
    once = cib.merge(read(LIVE), wanted())
    made = [("</constraints>", '<rsc_order id="pha4pgsql-pgsql-c" first="msPostgresql" then="lvsdr"/></constraints>'),
            ("</resources>", '<primitive id="lvsdr" class="ocf" provider="pha4pgsql" type="lvsdr"/></resources>')]  # fmt: skip
    with_lvs = cib.merge(once, wanted(*made))
    assert "lvsdr" in attributes(with_lvs, "//resources/*/@id")
    other = '<rsc_order id="pha4pgsql-pgsql2-a" first="web" then="fence"/></constraints>'
    with_other = read(cib.write(with_lvs), ("</constraints>", other))
    new = cib.merge(with_other, wanted())
    assert cib.changes(with_other, new) == ["remove primitive lvsdr class=ocf provider=pha4pgsql type=lvsdr",
                                            "remove rsc_order pha4pgsql-pgsql-c first=msPostgresql then=lvsdr"]  # fmt: skip


def director(*parameters: str, kind: str = "lvsdr") -> tuple[str, str]:
    """A replacement that adds a director with these parameters, `name=value`."""
    pairs = "".join(f'<nvpair id="d-{name}" name="{name}" value="{value}"/>' for name, value in (one.split("=") for one in parameters))
    xml = f'<primitive id="d" class="ocf" provider="pha4pgsql" type="{kind}"><instance_attributes id="d-i">{pairs}</instance_attributes></primitive>'
    return "</resources>", f"{xml}</resources>"


@pytest.mark.parametrize(
    ("made", "live", "kind", "after"),
    [
        (("port=5432",), ("port=5432", "readers=node4,1"), "lvsdr", {"port": "5432", "readers": "node4,1"}),
        (("port=5432",), ("port=5433", "default_weight=0"), "lvsdr", {"port": "5432"}),
        (("port=5432", "readers=node5"), ("port=5432", "readers=node4"), "lvsdr", {"port": "5432", "readers": "node5"}),
        (("port=5432",), ("port=5432", "readers=node4"), "pgsql", {"port": "5432"}),
    ],
    ids=["kept", "others are not", "config.ini has the last word", "of a director only"],
)
def test_readers_added_to_the_running_cluster_stay(made: tuple[str, ...], live: tuple[str, ...], kind: str, after: dict[str, str]) -> None:
    """cls_reader adds them without config.ini: a later cls_setup must not take them out of the pool."""
    once = cib.merge(read(LIVE), wanted(director(*live, kind=kind)))
    new = cib.merge(once, wanted(director(*made, kind=kind)))
    assert cib.parameters(new, "d") == after
    assert cib.write(cib.merge(new, wanted(director(*made, kind=kind)))) == cib.write(new)
    if after == dict(one.split("=") for one in live):
        assert cib.changes(once, new) == []


def test_changes_of_a_whole_resource_are_one_line() -> None:
    """A first setup is readable."""
    lines = cib.changes(read(LIVE), cib.merge(read(LIVE), wanted(primary="node1")))
    assert lines == [
        "change property no-quorum-policy ignore -> stop",
        "change property pgsql_REPL_INFO node2|1|00000000050001B0 -> node1",
        "change default resource-stickiness 100 -> 1",
        "add property stonith-enabled true",
        "add primitive vip-master class=ocf provider=heartbeat type=IPaddr2",
        "add clone msPostgresql",
        "add rsc_order pha4pgsql-pgsql-a first=msPostgresql then=vip-master",
        "add rsc_order pha4pgsql-pgsql-b first=msPostgresql then=vip-master kind=Optional",
    ]


def test_a_watchdog_is_not_a_device_of_its_own() -> None:
    """Pacemaker's fence_watchdog alone is configured by stonith-watchdog-timeout."""
    assert cib.has_fencing(read(LIVE))
    assert not cib.has_fencing(read(LIVE, ("fence_lab", "fence_watchdog")))


def test_maintenance_of_some_resources() -> None:
    """The copy has it, the original has not; other resources are not touched."""
    once = cib.merge(read(LIVE), wanted())
    new = cib.with_meta(once, ["msPostgresql"], "maintenance", "true")
    assert cib.changes(once, new) == ["add msPostgresql maintenance true"]
    assert (cib.has_meta(new, "msPostgresql", "maintenance"), cib.has_meta(once, "msPostgresql", "maintenance")) == (True, False)
    both = cib.with_meta(new, ["vip-master"], "maintenance", "true")
    assert cib.write(cib.without_meta(both, ["msPostgresql", "vip-master"], "maintenance")) == cib.write(once)
    assert list(cib.primitives(new, "heartbeat")) == [("web", "web"), ("vip-master", "vip-master")]
    assert list(cib.primitives(new, "pha4pgsql", "pgsql")) == [("msPostgresql", "pgsql")]


TAGGED = (
    '<node id="2" uname="node2"/><node id="3" uname="node3"><instance_attributes id="x"><nvpair id="y" name="pgsql-nofailover" value="true"/>'
    '<nvpair id="z" name="pgsql-nosync" value="true"/></instance_attributes></node>'
)
NODES = ("<nodes>", f"<nodes>{TAGGED}")


def tags(*pairs: str) -> tuple[str, str]:
    """Nodes with attributes, `node1 pgsql-nofailover=true`, numbered as nobody else numbers them."""
    nodes = "".join(
        f'<node id="9{number}" uname="{node}"><instance_attributes id="i{number}"><nvpair id="a{number}" name="{name}" value="{value}"/>'
        "</instance_attributes></node>"
        for number, (node, _, pair) in enumerate(word.partition(" ") for word in pairs)
        for name, value in (pair.split("="),)
    )
    return "<nodes/>", f"<nodes>{nodes}</nodes>"


def test_tags_go_to_the_nodes_by_name() -> None:
    """What config.ini names is set, and taken from all others; a tag that it does not name at all stays as an operator has set it."""
    live = cib.merge(read(LIVE, NODES), wanted())
    new = cib.merge(live, wanted(tags("node1 pgsql-nofailover=true", "node2 pgsql-priority=5")))
    expected = ["add node node1 pgsql-nofailover true", "add node node2 pgsql-priority 5", "remove node node3 pgsql-nofailover true"]
    assert sorted(cib.changes(live, new)) == expected
    assert attributes(new, "//node[@uname='node1']/instance_attributes/@id") == ["nodes-1"]
    assert attributes(new, "//node[@uname='node3']//nvpair/@name") == ["pgsql-nosync"]
    assert attributes(new, "//node/@id") == attributes(live, "//node/@id")
    assert cib.changes(new, cib.merge(new, wanted())) == []


def test_tags_of_a_node_that_is_not_there() -> None:
    """It would be forgotten in silence."""
    with pytest.raises(ClusterRefusal, match="node9"):
        cib.merge(read(LIVE), wanted(tags("node9 pgsql-nosync=true")))


SECOND = (
    ('"pgsql"', '"shop"'),
    ("pgsql-instance", "shop-instance"),
    ('"msPostgresql"', '"msShop"'),
    ("msPostgresql-meta", "msShop-meta"),
    ('"vip-master"', '"vip-shop"'),
    ("vip-master-", "vip-shop-"),
    ("pha4pgsql-pgsql-", "pha4pgsql-shop-"),
    ('value="5432"/>', 'value="5433"/><nvpair id="shop-d" name="pgdata" value="/shop"/>'),
    ("192.168.0.236", "192.168.0.238"),
)
TYPE = ('type="shop"', 'type="pgsql"')


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((), []),
        ((('"shop"', '"pgsql-2"'),), ["pgsql_resource: pgsql-2 and pgsql: one begins with the other"]),
        ((('"msShop"', '"msPostgresql"'),), ["RESOURCE_LIST, pgsql_resource ...: msPostgresql belongs to the set of pgsql"]),
        ((('"vip-shop"', '"vip-master"'),), ["RESOURCE_LIST, pgsql_resource ...: vip-master belongs to the set of pgsql"]),
        ((("5433", "5432"),), ["pgsql_pgport: 5432 is that of pgsql, too"]),
        ((("192.168.0.238", "192.168.0.236"),), ["writer_vip, reader_vip: 192.168.0.236 of vip-shop is that of vip-master, too"]),
    ],
)
def test_two_sets_share_nothing(changes: tuple[tuple[str, str], ...], expected: list[str]) -> None:
    """A second set that takes a name, port or address of the first would take it from it; alone, each is fine."""
    live = cib.merge(read(LIVE), wanted(("<nodes/>", "<nodes/>")))
    made = read(MADE, *SECOND, TYPE, *changes)
    resource = next(name for _, name in cib.primitives(made, "pha4pgsql", "pgsql"))
    found = cib.collisions(live, made, resource)
    assert [line.startswith(start) for line, start in zip(found, expected)] == [True] * len(expected)
    assert len(found) == len(expected)
    assert cib.collisions(live, read(MADE), "pgsql") == []


def test_each_set_keeps_to_its_own_constraints() -> None:
    """Setting up one of two changes nothing of the other."""
    live = cib.merge(read(LIVE), wanted())
    both = cib.merge(live, cib.Wanted(read(MADE, *SECOND, TYPE), "shop", "", True))
    assert len(attributes(both, "//rsc_order/@id")) == 4
    assert cib.changes(both, cib.merge(both, wanted())) == []
