"""Other programs' output, saved as samples, is read exactly; both XML parsers give the same."""

from __future__ import annotations

import random
import re
import string
from pathlib import Path
from xml.etree import ElementTree

import pytest
from lxml import etree

from pha4pgsql import text
from pha4pgsql.cli_status import parse
from pha4pgsql.words import Lsn

SAMPLES = Path(__file__).parent.parent / "samples"


def sample(name: str) -> str:
    """A saved output."""
    return (SAMPLES / name).read_text()


def tree(xml: str) -> text.Tree:
    """The parser of the agents."""
    return ElementTree.fromstring(xml)  # noqa: S314


HEALTHY = text.cluster(tree(sample("cib-healthy.xml")))


@pytest.mark.parametrize("name", ["cib-healthy.xml", "cib-failures.xml"])
def test_both_parsers_read_the_same_cib(name: str) -> None:
    """The commands (lxml) and the agents (ElementTree) see one cluster."""
    assert text.cluster(tree(sample(name))) == text.cluster(parse(sample(name)))
    assert text.replicated_sets(tree(sample(name))) == text.replicated_sets(parse(sample(name)))


@pytest.mark.parametrize("name", ["crm_mon-healthy.xml", "crm_mon-failures.xml"])
def test_both_parsers_read_the_same_view(name: str) -> None:
    """The same for crm_mon."""
    assert text.view(tree(sample(name))) == text.view(parse(sample(name)))


def test_cib_members() -> None:
    """Membership, quorum and version come from the attributes of the CIB itself."""
    assert HEALTHY.online == ("node1", "node2", "node3")
    assert HEALTHY.quorate
    assert HEALTHY.dc == "node1"
    assert HEALTHY.version[0] == 0


def test_cib_roles_by_history() -> None:
    """The operation history alone tells where a resource is promoted, started or stopped."""
    assert HEALTHY.where("pgsql", "promoted") == ("node1",)
    assert HEALTHY.where("pgsql", "started") == ("node2", "node3")
    assert HEALTHY.where("vip-master", "started") == ("node1",)
    assert HEALTHY.where("vip-slave", "started") == ("node2",)
    assert HEALTHY.where("no-such-resource", "started") == ()


def test_cib_attributes() -> None:
    """Permanent and transient attributes are told apart, and read together."""
    assert HEALTHY.attribute("pgsql-data-status") == {"node1": "LATEST", "node2": "STREAMING|SYNC", "node3": "STREAMING|ASYNC"}
    assert HEALTHY.attribute("pgsql-master-baseline") == {"node1": "00000000050001B0"}
    assert "pgsql-data-status" in HEALTHY.members["node1"].permanent
    assert "pgsql-status" in HEALTHY.members["node1"].transient
    assert HEALTHY.properties["pgsql_REPL_INFO"] == "node1|1|00000000050001B0"
    assert not HEALTHY.property_is("stonith-enabled", default=True)


def test_fail_counts_are_summed_per_resource() -> None:
    """`fail-count-RESOURCE#OPERATION_INTERVAL`, INFINITY included."""
    failures = text.cluster(tree(sample("cib-failures.xml"))).members["node1"].failures
    assert failures["vip-master"] == text.INFINITY
    assert 0 < failures["pgsql"] < text.INFINITY


@pytest.mark.parametrize(
    ("state", "online"),
    [
        ('in_ccm="true" crmd="online" join="member"', True),
        ('in_ccm="true" crmd="online" join="down"', False),
        ('in_ccm="false" crmd="online" join="member"', False),
        ('in_ccm="true" crmd="offline" join="member"', False),
        ('in_ccm="1764061716" crmd="1764061716" join="member"', True),
        ('in_ccm="1764061716" crmd="0" join="member"', False),
        ('in_ccm="0" crmd="0" join="down"', False),
        ("", False),
    ],
)
def test_online(state: str, *, online: bool) -> None:
    """Words until feature set 3.17, times since: a node is online when it is a member whose controller has joined."""
    xml = f'<cib><configuration><nodes><node id="1" uname="a"/></nodes></configuration><status><node_state id="1" uname="a" {state}/></status></cib>'
    assert text.cluster(tree(xml)).members["a"].online is online


def test_a_node_without_status_is_offline() -> None:
    """A configured node that was never seen."""
    xml = '<cib><configuration><nodes><node id="1" uname="a"/></nodes></configuration></cib>'
    found = text.cluster(tree(xml))
    assert not found.members["a"].online
    assert (found.quorate, found.dc) == (False, "")


def operations(*steps: str) -> list[text.Tree]:
    """`start:0` ..., all within one second, with rising call numbers; code 193 is an operation in flight, which has none."""
    calls = [(number, *step.split(":")) for number, step in enumerate(steps, 10)]
    return [
        tree(f'<lrm_rsc_op operation="{name}" rc-code="{code}" call-id="{-1 if code == "193" else number}" last-rc-change="1764061716"/>')
        for number, name, code in calls
    ]


@pytest.mark.parametrize(
    ("steps", "role"),
    [
        ((), "stopped"),
        (("monitor:7",), "stopped"),
        (("monitor:8",), "promoted"),
        (("start:0",), "started"),
        (("start:0", "monitor:0"), "started"),
        (("start:0", "promote:0"), "promoted"),
        (("start:0", "promote:0", "monitor:8"), "promoted"),
        (("start:0", "promote:0", "demote:0"), "started"),
        (("start:0", "promote:0", "demote:0", "stop:0"), "stopped"),
        (("start:0", "promote:1"), "failed"),
        (("start:1",), "failed"),
        (("start:0", "monitor:7"), "stopped"),
        (("start:0", "promote:0", "monitor:9"), "promoted"),
        (("start:0", "notify:0"), "started"),
        (("start:193",), "starting"),
        (("monitor:0", "promote:193"), "started"),
        (("monitor:8", "demote:193"), "promoted"),
        (("monitor:8", "stop:193"), "stopping"),
        (("monitor:0", "stop:193"), "stopping"),
        (("start:0", "monitor:193"), "started"),
    ],
)
def test_history_role(steps: tuple[str, ...], role: str) -> None:
    """The history is replayed in order; an operation in flight tells what was before it."""
    found = operations(*steps)
    assert text.history_role(found) == role
    assert text.history_role(reversed(found)) == role


def test_replicated_set_is_found_by_its_agent() -> None:
    """No resource name is hard-wired: the set is the promotable clone of our agent, its addresses are those bound to it."""
    (named,) = text.replicated_sets(tree(sample("cib-healthy.xml")))
    assert (named.promotable, named.primitive) == ("msPostgresql", "pgsql")
    assert named.writers == {"vip-master": "192.168.0.236"}
    assert named.readers == {"vip-slave": "192.168.0.237"}
    assert named.nodes == ("node1", "node2", "node3")
    assert not named.disabled
    assert (named.director, named.real_servers) == ("", "")


DIRECTOR = (
    '<primitive id="lvsdr" class="ocf" provider="pha4pgsql" type="lvsdr"><instance_attributes id="i">'
    '<nvpair id="v" name="vip" value="192.168.0.237"/></instance_attributes></primitive>'
    '<clone id="servers"><primitive id="server" class="ocf" provider="pha4pgsql" type="lvsdr-realsvr"/></clone></resources>'
)
PLACED = '<rsc_colocation id="c2" rsc="vip-slave" with-rsc="msPostgresql" with-rsc-role="Unpromoted" score="INFINITY"/>'
SERVERS = '<rsc_colocation id="c4" rsc="servers" with-rsc="msPostgresql" with-rsc-role="Unpromoted" score="INFINITY"/>'


@pytest.mark.parametrize(
    "placed",
    [
        PLACED.replace("vip-slave", "lvsdr") + '<rsc_colocation id="c3" rsc="vip-slave" with-rsc="lvsdr" score="INFINITY"/>',
        PLACED + '<rsc_colocation id="c3" rsc="lvsdr" with-rsc="vip-slave" score="INFINITY"/>',
        PLACED.replace("vip-slave", "lvsdr").replace("Unpromoted", "Started")
        + '<rsc_colocation id="c5" rsc="lvsdr" with-rsc="msPostgresql" with-rsc-role="Promoted" score="-10000"/>'
        + '<rsc_colocation id="c3" rsc="vip-slave" with-rsc="lvsdr" score="INFINITY"/>',
    ],
    ids=["address with director", "director with address", "on the primary if need be"],
)
def test_a_director_belongs_to_the_reading_side(placed: str) -> None:
    """Whichever of address and director is bound to the standbys, and the other to it; what only keeps away from the primary binds nothing to it."""
    xml = sample("cib-healthy.xml")
    assert PLACED in xml
    (named,) = text.replicated_sets(tree(xml.replace(PLACED, placed + SERVERS).replace("</resources>", DIRECTOR)))
    assert (named.director, named.real_servers, dict(named.balancing)) == ("lvsdr", "server", {"vip": "192.168.0.237"})
    assert (list(named.writers), list(named.readers)) == (["vip-master"], ["vip-slave"])
    assert named.companions == ("vip-master", "vip-slave", "lvsdr", "server")


def test_disabled_on_clone_or_primitive() -> None:
    """`pcs resource disable` may have been typed for either."""
    meta = '<meta_attributes id="m"><nvpair id="n" name="target-role" value="Stopped"/></meta_attributes>'
    xml = sample("cib-healthy.xml")
    clone = re.sub(r'(<clone id="msPostgresql">)', rf"\1{meta}", xml)
    primitive = re.sub(r'(<primitive id="pgsql"[^>]*>)', rf"\1{meta}", xml)
    assert [text.replicated_sets(tree(one))[0].disabled for one in (clone, primitive)] == [True, True]


def test_view_of_a_healthy_cluster() -> None:
    """Everything that cls_status prints is in crm_mon's answer."""
    view = text.view(tree(sample("crm_mon-healthy.xml")))
    assert (view.stack, view.dc, view.quorate) == ("corosync", "node1", True)
    assert [host.name for host in view.hosts if host.online] == ["node1", "node2", "node3"]
    assert view.where("msPostgresql", "Promoted") == ("node1",)
    assert view.where("msPostgresql", "Unpromoted") == ("node2", "node3")
    assert view.where("pgwatch-clone") == ("node1", "node2", "node3")
    assert view.attributes["node2"] == {"master-pgsql": "100", "pgsql-data-status": "STREAMING|SYNC", "pgsql-status": "HS:sync"}
    assert view.failed == ()


def test_view_of_older_and_newer_vocabulary() -> None:
    """Roles of Pacemaker before 2.1, attributes of 3.0: the same view."""
    now = sample("crm_mon-healthy.xml")
    old = now.replace('role="Promoted"', 'role="Master"').replace('role="Unpromoted"', 'role="Slave"')
    new = now.replace('orphaned="false"', 'orphaned="false" removed="false" maintenance="false" description="x"')
    assert text.view(tree(old)) == text.view(tree(now)) == text.view(tree(new))


def test_view_of_failures() -> None:
    """A failed action keeps the agent's reason; a failed instance its flag."""
    view = text.view(tree(sample("crm_mon-failures.xml")))
    by_name = {one.operation: one for one in view.failed}
    assert by_name["pgsql_asyncmon_0"].reason == "Simulated failure"
    assert by_name["pgsql_asyncmon_0"].node == "node1"
    assert [one.resource for one in view.histories["node1"]]


def test_disconnected_view_is_empty() -> None:
    """crm_mon without a cluster."""
    view = text.view(tree('<pacemaker-result><crm-mon-disconnected pacemakerd-state="not running"/></pacemaker-result>'))
    assert (view.hosts, view.dc, view.quorate) == ((), "", False)


def test_attrd_answer() -> None:
    """attrd_updater's answer is read without a parser, whatever the value holds."""
    found = {one["host"]: one["value"] for one in text.elements(sample("attrd-vote.xml"), "attribute")}
    assert found == {"node1": "a|=;:,<>&\"' x", "node2": "x", "node3": ""}
    assert list(text.elements(sample("attrd-absent.xml"), "attribute")) == []


@pytest.mark.parametrize("seed", range(50))
def test_scanning_agrees_with_a_parser(seed: int) -> None:
    """Property: any printable value survives escaping, libxml2 and the scan."""
    dice = random.Random(seed)
    value = "".join(dice.choice(string.printable[:95] + "<>&\"'/=\t\n") for _ in range(dice.randrange(60)))
    element = etree.Element("attribute", name="n", value=value, host="h")
    assert [one["value"] for one in text.elements(etree.tostring(element).decode(), "attribute")] == [value]
    assert etree.fromstring(f'<a v="{text.escape(value)}"/>').get("v") == value


def test_controldata() -> None:
    """pg_controldata of a fresh PostgreSQL 15."""
    found = text.controldata(sample("pg_controldata-15.txt"))
    assert (found.state, found.timeline, found.wal_segment_size) == ("shut down", 1, 16 * 1024 * 1024)
    assert found.checkpoint == Lsn.parse("0/1500718")
    assert found.system_identifier.isdigit()
    assert not found.checksums


def test_controldata_names_what_is_missing() -> None:
    """Another locale, or no output at all: an error, never a wrong value."""
    with pytest.raises(ValueError, match="Database system identifier"):
        text.controldata("")


def test_history_file() -> None:
    """Each line is the timeline that was left, and where."""
    assert text.history(sample("00000003.history")) == (text.Switch(1, Lsn.parse("0/50001B0")), text.Switch(2, Lsn.parse("0/50008E0")))


@pytest.mark.parametrize("value", ["node1|0|0000000000000000", "node1|1|00000000050001B0", "db-2.example|12|0000001A000000FF"])
def test_repl_info_round_trip(value: str) -> None:
    """What is read is what would be written."""
    assert str(text.repl_info(value)) == value
