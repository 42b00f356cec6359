"""Every template as pcs lines, as crmsh commands and as XML: the same configuration, in the eyes of crm_verify and of the scheduler.

And what the scheduler makes of three_plus_x and of tags. In a bare lab of one node, on CIB files. crmsh is asked where it is installed;
CRM=/path/of/crm names another one.
"""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_templates import HEALTHY, INSTALLED, OFF, ON, act, changed, cls_setup, empty, made, pytestmark, reading, run, simulate
from test_templates import lab as lab  # noqa: PLC0414 - the fixture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.lab import Lab

__all__ = ["lab", "pytestmark"]

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted(path.name for path in (ROOT / "templates").glob("*.pcs.j2"))
CRM = os.environ.get("CRM", "") or shutil.which("crm", path="/usr/sbin:/usr/bin") or ""
READING = {"pcs_template": "three_plus_x.pcs.j2", "othernodes": "node4 node5"}
OF_ITS_OWN: Mapping[str, Mapping[str, str]] = {"three_plus_x.pcs.j2": READING, "dual.pcs.j2": {"node3": ""}}
"""Keys that a template needs to differ from three nodes."""
FIVE = {**HEALTHY, "node4": (ON, "-INFINITY", "HS:async"), "node5": (ON, "-INFINITY", "HS:async")}


def meaning(cib: str) -> list[object]:
    """What a configuration says, without the ids that each tool gives to settings, operations and expressions, and without order."""
    tree = ET.fromstring(cib)  # noqa: S314
    for pair in [one for group in tree.iter() for one in list(group) if one.get("name") == "stonith-enabled"]:
        next(group for group in tree.iter() if pair in list(group)).remove(pair)
    return [
        _meaning(section) for section in tree.iterfind("configuration/*") if section.tag in {"crm_config", "resources", "constraints", "rsc_defaults"}
    ]


def _meaning(element: ET.Element) -> object:
    nameless = element.tag in {"op", "nvpair", "expression", "instance_attributes", "meta_attributes", "operations", "cluster_property_set"}
    attributes = sorted(
        (key, value) for key, value in element.attrib.items() if not (nameless and key == "id") and (key, value) != ("boolean-op", "and")
    )
    return (element.tag, attributes, sorted((_meaning(child) for child in element), key=repr))


def verify(lab: Lab, path: str) -> str:
    """The CIB in a file of the node, which crm_verify has nothing to say about."""
    done = run(lab, "crm_verify", "--verbose", "--xml-file", path)
    assert done.out + done.err == ""
    return run(lab, "cat", path).out


@pytest.fixture(scope="module", params=TEMPLATES)
def forms(lab: Lab, request: pytest.FixtureRequest) -> Mapping[str, str]:
    """A template as CIB files: by pcs and cls_setup, by cibadmin, by crmsh."""
    found = {"pcs": made(lab, stonith_enabled="false", **{"pcs_template": request.param, **OF_ITS_OWN.get(request.param, {})})}
    run(lab, "tee", "/srv/printed.xml", text=cls_setup(lab, "--print", "cib").out)
    verify(lab, "/srv/printed.xml")
    empty(lab, "/srv/new.xml")
    run(lab, "env", "CIB_file=/srv/new.xml", "cibadmin", "-M", "-c", "-o", "configuration", "-x", "/srv/printed.xml")
    found["cib"] = verify(lab, "/srv/new.xml")
    if CRM:
        run(lab, "tee", "/srv/printed.crm", text=cls_setup(lab, "--print", "crmsh").out)
        empty(lab, "/srv/crm.xml")
        run(lab, "env", "CIB_file=/srv/crm.xml", CRM, "configure", "load", "update", "/srv/printed.crm")
        found["crmsh"] = verify(lab, "/srv/crm.xml")
    return found


def test_all_forms_say_the_same(forms: Mapping[str, str]) -> None:
    """Derived from one source, and read back by their own tools."""
    for form in forms:
        assert meaning(forms[form]) == meaning(forms["pcs"]), form


def test_the_scheduler_sees_no_difference(forms: Mapping[str, str], tmp_path: Path) -> None:
    """Healthy, then without the primary's node: who is promoted, where the addresses are."""
    seen = []
    for text in forms.values():
        cib, before = simulate(tmp_path, text, FIVE)
        _, after = simulate(tmp_path, cib, {**FIVE, "node1": (OFF, "", "")})
        assert (before["pgsql promoted"], before["vip-master"]) == (["node1"], ["node1"])
        assert (after["pgsql promoted"], after["vip-master"]) == (["node3"], ["node3"])
        seen.append((before, after))
    assert seen == seen[:1] * len(seen)


@pytest.mark.skipif(not CRM, reason="crmsh is not installed")
def test_crmsh_was_asked(forms: Mapping[str, str]) -> None:
    """The comparison above includes it."""
    assert set(forms) == {"pcs", "cib", "crmsh"}


def test_forms_for_other_tools_tell_what_is_not_in_them(lab: Lab) -> None:
    """Fencing follows the devices, nodes have numbers of their own."""
    with pytest.raises(AssertionError, match="node3: the cluster knows no such node yet"):
        made(lab, nofailover="node3", priority="node2,5")
    for form in ("cib", "crmsh"):
        text = cls_setup(lab, "--print", form).out
        assert "stonith-enabled is not set" in text
        assert "crm_attribute -N node3 -n pgsql-nofailover -v true" in text
        assert "hush" not in text
    assert cls_setup(lab, "--print", "pcs").out == run(lab, "cat", f"{INSTALLED}/config.pcs").out
    assert "rule id=pha4pgsql-pgsql-reader-choice-rule" in cls_setup(lab, "--print", "pcs-0.12").out


def test_a_tuned_file_is_printed_as_tuned(lab: Lab) -> None:
    """Whoever edited config.pcs by hand gets that in the other forms too."""
    made(lab)
    run(lab, "sed", "-i", "s/monitor interval=4s/monitor interval=7s/", f"{INSTALLED}/config.pcs")
    assert "op monitor interval=7s" in cls_setup(lab, "--print", "crmsh").out
    run(lab, "rm", f"{INSTALLED}/config.pcs")


# ---------------------------------------------------------------- nodes that only read


@pytest.fixture(scope="module", params=["true", "false"])
def plus_x(lab: Lab, request: pytest.FixtureRequest) -> tuple[bool, str]:
    """three_plus_x with and without read load balancing."""
    return request.param == "true", made(lab, enable_lvs=request.param, **READING)


def test_nodes_that_only_read(plus_x: tuple[bool, str], tmp_path: Path) -> None:
    """PostgreSQL runs on all five, voices are on three; readers come to the other two, where no failover disturbs them."""
    balanced, text = plus_x
    cib, there = simulate(tmp_path, text, FIVE)
    assert (there["pgsql promoted"], there["pgsql"], there["pgwatch"]) == (
        ["node1"],
        ["node2", "node3", "node4", "node5"],
        ["node1", "node2", "node3"],
    )
    if balanced:
        director = there["lvsdr"]
        assert director[0] in {"node4", "node5"}
        assert reading(there) == (director, director, ["node2", "node3", "node4", "node5"])
        _, there, acted = act(tmp_path, cib, {**FIVE, "node1": (OFF, "", "")})
        assert there["pgsql promoted"] == ["node3"]
        assert not [one for one in acted if one.startswith(("lvsdr ", "vip-slave "))]
        other = {"node4": "node5", "node5": "node4"}[director[0]]
        _, there = simulate(tmp_path, cib, {**FIVE, director[0]: (OFF, "", "")})
        assert reading(there) == ([other], [other], sorted(["node2", "node3", other]))
        assert there["pgsql promoted"] == ["node1"]


def test_a_node_is_taken_out(lab: Lab, tmp_path: Path) -> None:
    """PostgreSQL stops there and nowhere else."""
    cib, _ = simulate(tmp_path, made(lab, **READING), FIVE)
    running, less = ET.fromstring(cib), ET.fromstring(made(lab, **{**READING, "othernodes": "node4"}))  # noqa: S314
    for pair in less.iterfind(".//nvpair[@name='read_node_list']"):
        pair.set("value", "node4 node5")  # for a changed parameter Pacemaker would restart all; cls_setup makes that change in maintenance
    assert [running[0].tag, less[0].tag] == ["configuration", "configuration"]
    running[0] = less[0]
    _, there, acted = act(tmp_path, ET.tostring(running, encoding="unicode"), FIVE)
    assert there["pgsql"] == ["node2", "node3", "node4"]
    assert [one for one in acted if one.startswith("pgsql ")] == ["pgsql stop node5"]


def test_they_are_never_promoted(plus_x: tuple[bool, str], tmp_path: Path) -> None:
    """Whatever score they have from wherever; with all three gone nobody is promoted, and the balancer's readers are still served."""
    balanced, text = plus_x
    cib, _ = simulate(tmp_path, text, FIVE)
    scored = {node: (state, "100000" if node in {"node4", "node5"} else "-INFINITY", mark) for node, (state, _, mark) in FIVE.items()}
    _, there = simulate(tmp_path, cib, scored)
    assert there.get("pgsql promoted") is None
    gone = {node: scored[node] if node in {"node4", "node5"} else (OFF, "", "") for node in FIVE}
    _, there = simulate(tmp_path, cib, gone)
    assert (there.get("pgsql promoted"), there.get("vip-master"), there["pgsql"]) == (None, None, ["node4", "node5"])
    if balanced:
        assert there["vip-slave"] == there["lvsdr"]
        assert there["lvsdr-realsvr"] == ["node4", "node5"]


# ---------------------------------------------------------------- tags


def tagged(cib: str, name: str, *nodes: str) -> str:
    """The same cluster with a node attribute."""
    tree = ET.fromstring(cib)  # noqa: S314
    known = tree.find("configuration/nodes")
    assert known is not None
    for number, node in enumerate(FIVE, 1):
        there = known.find(f"node[@uname='{node}']")
        there = ET.SubElement(known, "node", id=str(number), uname=node) if there is None else there
        if node in nodes:
            pairs = ET.SubElement(there, "instance_attributes", id=f"nodes-{number}")
            ET.SubElement(pairs, "nvpair", id=f"nodes-{number}-{name}", name=name, value="true")
    return ET.tostring(tree, encoding="unicode")


def test_a_node_tagged_noloadbalance_serves_no_readers(lab: Lab, tmp_path: Path) -> None:
    """The address leaves it; a director drains it, so nothing stops there; the primary is not concerned."""
    plain = made(lab)
    cib, there = simulate(tmp_path, plain, HEALTHY)
    assert there["vip-slave"] == ["node3"]
    _, there = simulate(tmp_path, tagged(cib, "pgsql-noloadbalance", "node3"), HEALTHY)
    assert (there["vip-slave"], there["pgsql promoted"]) == (["node2"], ["node1"])
    cib, _ = simulate(tmp_path, made(lab, pcs_template="muti_with_lvs.pcs.j2"), HEALTHY)
    _, there = simulate(tmp_path, tagged(cib, "pgsql-noloadbalance", "node3"), HEALTHY)
    assert (there["lvsdr-realsvr"], there["pgsql promoted"]) == (["node2", "node3"], ["node1"])


def test_tags_of_config_ini_become_node_attributes(lab: Lab) -> None:
    """By name, whatever numbers the nodes have; a tag that config.ini does not name stays as an operator has set it."""
    empty(lab, "/srv/cib.xml")
    nodes = "".join(f'<node id="{number}" uname="node{4 - number}"/>' for number in (1, 2, 3))
    run(lab, "sed", "-i", f"s#<nodes/>#<nodes>{nodes}</nodes>#", "/srv/cib.xml")
    run(lab, "env", "CIB_file=/srv/cib.xml", "crm_attribute", "--node", "node2", "--name", "pgsql-nosync", "--update", "true")
    text = changed(lab, nofailover="node3", priority="node2,20 node1,10")
    found = {
        (node.get("uname"), pair.get("name")): pair.get("value")
        for node in ET.fromstring(text).iterfind("configuration/nodes/node")  # noqa: S314
        for pair in node.iter("nvpair")
    }
    assert found == {
        ("node3", "pgsql-nofailover"): "true",
        ("node2", "pgsql-priority"): "20",
        ("node1", "pgsql-priority"): "10",
        ("node2", "pgsql-nosync"): "true",
    }
    assert cls_setup(lab).out == "nothing to change\n"
    changed(lab, nofailover="node2")
    assert cls_setup(lab).out == "nothing to change\n"
    now = run(lab, "env", "CIB_file=/srv/cib.xml", "cibadmin", "--query", "--xpath", "//nvpair[@name='pgsql-nofailover']/../..").out
    assert 'uname="node2"' in now
