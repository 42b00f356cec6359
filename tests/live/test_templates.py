"""config.pcs before its judges: pcs itself, crm_verify, and the scheduler (crm_simulate). In a bare lab of one node, on CIB files."""

from __future__ import annotations

import os
import shlex
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import system
from pha4pgsql.lab_up import bring_up
from pha4pgsql.lab_words import Plan
from pha4pgsql.paths import find_programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pha4pgsql.lab import Lab
    from pha4pgsql.system import Completed

ROOT = Path(__file__).parents[2]
INSTALLED = "/opt/pha4pgsql"
CONFIG = {
    "writer_vip": "192.168.0.236",
    "reader_vip": "192.168.0.237",
    "node1": "node1",
    "node2": "node2",
    "node3": "node3",
    "pgsql_bindir": find_programs("", "/usr/bin/pg_ctl", ""),
    "pgsql_pgdata": "/pgsql/data",
    "pgsql_reppassword": "hush",
}

pytestmark = [
    pytest.mark.timeout(300),  # pcs is slow on a busy machine
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.skipif(not shutil.which("pcs", path="/usr/sbin:/usr/bin"), reason="pcs is not installed"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One node where nothing is installed yet."""
    nodes = bring_up(Plan(name=f"t-templates-{os.getpid()}", size=1), say=print, bare=True)
    try:
        yield nodes
    finally:
        nodes.down()


def run(lab: Lab, *argv: str, text: str | None = None, code: int = 0) -> Completed:
    """Run a command on the node, which must end with this code."""
    done = lab.run("node1", list(argv), text=text, timeout=60)
    assert done.code == code, f"{shlex.join(argv)}: {done.code}\n{done.out}\n{done.err}"
    return done


def made(lab: Lab, **changes: str) -> str:
    """Install with these settings, set an empty CIB file up, and return its content."""
    empty(lab, "/srv/cib.xml", fencing=changes.get("stonith_enabled") == "true")
    return changed(lab, **changes)


def changed(lab: Lab, **changes: str) -> str:
    """Install with these settings, set the CIB file up, and return its content."""
    text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in {**CONFIG, **changes}.items())
    run(lab, "tee", "/srv/config.ini", text=text)
    run(lab, f"{ROOT}/install.sh", "--local", "--config", "/srv/config.ini")
    cls_setup(lab)
    return run(lab, "cat", "/srv/cib.xml").out


def empty(lab: Lab, path: str, *, fencing: bool = False) -> None:
    """An empty CIB, or one with nothing but a fencing device."""
    xml = run(lab, "cibadmin", "--empty").out
    if fencing:
        xml = xml.replace("<resources/>", '<resources><primitive id="fence" class="stonith" type="fence_any"/></resources>')
    run(lab, "tee", path, text=xml)


def cls_setup(lab: Lab, *arguments: str, code: int = 0) -> Completed:
    return run(lab, "env", "CIB_file=/srv/cib.xml", f"{INSTALLED}/bin/cls_setup", *arguments, code=code)


EVERYTHING = {
    "node4": "node4",
    "othernodes": "node5",
    "reader_vip_on_primary": "true",
    "stonith_enabled": "true",
    "cluster_properties": "load-threshold=200% dc-deadtime=5s",
    "pgsql_rep_mode": "quorum",
    "RESOURCE_LIST": "pgset writer reader",
    "pgsql_resource": "pg",
    "pgsql_restore_command": "cp '/archive/$x/%f' \"%p\"",
}


LVS = {"pcs_template": "muti_with_lvs.pcs.j2"}
BALANCED = {
    **EVERYTHING,
    **LVS,
    "reader_vip": "2001:db8::237",
    "lvsdr_resource": "director",
    "lvsdr_realsvr_resource": "server",
    "lvs_readers": "192.168.0.234,2",
    "lvs_max_lag_seconds": "30",
    "lvs_sync_daemon": "true",
    "lvs_sync_interface": "eth0",
    "lvs_fwmark": "1",
}


@pytest.mark.parametrize("changes", [{}, EVERYTHING, LVS, BALANCED], ids=["least", "everything", "balanced", "everything balanced"])
def test_verify_has_nothing_to_say(lab: Lab, changes: dict[str, str]) -> None:
    """Not even a warning: deprecated words would stop the upgrade to Pacemaker 3."""
    made(lab, **changes)
    done = run(lab, "crm_verify", "--verbose", "--xml-file", "/srv/cib.xml")
    assert done.out + done.err == ""


@pytest.mark.parametrize("changes", [EVERYTHING, BALANCED], ids=["everything", "everything balanced"])
def test_the_script_by_hand_gives_the_same(lab: Lab, changes: dict[str, str]) -> None:
    """cls_setup runs the lines in one process; a person may run them with a shell."""
    there = made(lab, **changes)
    empty(lab, "/srv/hand.xml", fencing=True)
    run(lab, "sh", f"{INSTALLED}/config.pcs", "/srv/hand.xml")
    sections = ("resources", "constraints", "rsc_defaults")
    by_hand, by_setup = (
        [ET.canonicalize(ET.tostring(tree.find(f"configuration/{name}")), strip_text=True) for name in sections]  # type: ignore[arg-type]
        for tree in (ET.fromstring(run(lab, "cat", "/srv/hand.xml").out), ET.fromstring(there))  # noqa: S314
    )
    assert by_hand == by_setup


def test_the_second_setup_changes_nothing(lab: Lab) -> None:
    """Idempotent, and the dry run agrees."""
    before = made(lab)
    assert cls_setup(lab).out == "nothing to change\n"
    assert cls_setup(lab, "--dry-run").out == "nothing to change\n"
    assert run(lab, "cat", "/srv/cib.xml").out == before
    assert "hush" not in before


def test_master_is_named_once(lab: Lab) -> None:
    """The operator's word for the first election."""
    made(lab)
    assert "pgsql_REPL_INFO" in cls_setup(lab, "node2").out
    now = run(lab, "cat", "/srv/cib.xml").out
    assert '<cluster_property_set id="pgsql_replication">' in now
    assert 'name="pgsql_REPL_INFO" value="node2"' in now
    assert "node1 node2 node3" in cls_setup(lab, "nobody", code=1).err


def test_a_tuned_file_is_applied_and_kept(lab: Lab) -> None:
    """The walkthrough: review config.pcs, tune it, then set up. install.sh does not take the work away."""
    made(lab)
    run(lab, "sed", "-i", "s/monitor interval=4s/monitor interval=7s/", f"{INSTALLED}/config.pcs")
    assert "7s" in cls_setup(lab).out
    assert "is kept" in run(lab, f"{ROOT}/install.sh", "--local", "--config", "/srv/config.ini").out
    assert "interval=7s" in run(lab, "cat", f"{INSTALLED}/config.pcs").out
    assert "edited by hand" in cls_setup(lab).err
    run(lab, "rm", f"{INSTALLED}/config.pcs")
    run(lab, f"{ROOT}/install.sh", "--local", "--config", "/srv/config.ini")
    run(lab, "test", "!", "-e", f"{INSTALLED}/config.pcs.new")


def test_readers_of_the_running_cluster_stay(lab: Lab) -> None:
    """cls_reader adds them to the cluster and not to config.ini; other changes made there are taken back, and told."""
    made(lab, **LVS)
    update = ("pcs", "-f", "/srv/cib.xml", "resource", "update", "lvsdr")
    run(lab, *update, "readers=192.168.0.234,1")
    assert cls_setup(lab).out == "nothing to change\n"
    run(lab, *update, "default_weight=0")
    assert "default_weight" in cls_setup(lab).out
    now = run(lab, "cat", "/srv/cib.xml").out
    assert 'value="192.168.0.234,1"' in now
    assert "default_weight" not in now


def test_balancing_comes_and_goes(lab: Lab) -> None:
    """Another template on the same cluster: what the one has and the other has not is taken out."""
    plain, balanced, again = made(lab), changed(lab, **LVS), changed(lab)
    assert ["lvsdr" in xml for xml in (plain, balanced, again)] == [False, True, False]
    before, after = (ET.fromstring(xml).findall("configuration/constraints/*") for xml in (plain, again))  # noqa: S314
    assert sorted(str(one.get("id")) for one in before) == sorted(str(one.get("id")) for one in after)


def test_a_stale_or_wrong_file_changes_nothing(lab: Lab) -> None:
    """A config.pcs that is missing, of an older config.ini, or refused by pcs: a clear message, and the CIB as it was."""
    before = made(lab)
    run(lab, "sed", "-i", "s/^reader_vip=.*/reader_vip=192.168.0.238/", f"{INSTALLED}/config.ini")
    assert "install.sh" in cls_setup(lab, code=1).err
    run(lab, "sh", "-c", f"echo 'pcs -f \"$CIB\" resource create x ocf:nobody:nothing' >> {INSTALLED}/config.pcs")
    assert "ocf:nobody:nothing" in cls_setup(lab, code=1).err
    run(lab, "rm", f"{INSTALLED}/config.pcs")
    assert "install.sh" in cls_setup(lab, code=1).err
    assert run(lab, "cat", "/srv/cib.xml").out == before


# ---------------------------------------------------------------- what the scheduler makes of it

ON, OFF = "online", "offline"
HEALTHY = {"node1": (ON, "1000", "PRI"), "node2": (ON, "-INFINITY", "HS:async"), "node3": (ON, "100", "HS:sync")}


def world(cib: str, nodes: Mapping[str, tuple[str, str, str]]) -> str:
    """A CIB with these nodes: state, promotion score, status; histories as they are in it."""
    tree = ET.fromstring(cib)  # noqa: S314
    tree.set("have-quorum", "1")
    configuration, status = tree.find("configuration"), tree.find("status")
    assert configuration is not None
    assert status is not None
    for pairs in configuration.iter("meta_attributes"):
        for pair in [pair for pair in pairs if pair.get("name") == "target-role"]:
            pairs.remove(pair)
    known = configuration.find("nodes")
    assert known is not None
    for number, (name, (state, score, mark)) in enumerate(nodes.items(), 1):
        if known.find(f"node[@uname='{name}']") is None:
            ET.SubElement(known, "node", id=str(number), uname=name)
        _set_state(status, str(number), name, on=state == ON, attributes={"master-pgsql": score, "pgsql-status": mark})
    return ET.tostring(tree, encoding="unicode")


def _set_state(status: ET.Element, number: str, name: str, *, on: bool, attributes: Mapping[str, str]) -> None:
    state = status.find(f"node_state[@uname='{name}']")
    state = ET.SubElement(status, "node_state", id=number, uname=name) if state is None else state
    state.attrib.update(in_ccm=str(on).lower(), crmd=ON if on else OFF, join="member" if on else "down", expected="member" if on else "down")
    for part in state.findall("transient_attributes") + ([] if on else state.findall("lrm")):
        state.remove(part)
    if on:
        pairs = ET.SubElement(ET.SubElement(state, "transient_attributes", id=number), "instance_attributes", id=f"status-{number}")
        for key, value in attributes.items():
            ET.SubElement(pairs, "nvpair", id=f"status-{number}-{key}", name=key, value=value)


@pytest.fixture(scope="module")
def muti(lab: Lab) -> str:
    """The CIB of a first setup."""
    return made(lab)


def simulate(folder: Path, cib: str, nodes: Mapping[str, tuple[str, str, str]], *options: str) -> tuple[str, dict[str, list[str]]]:
    """Let the scheduler act until done; the CIB after it, and where each resource is: `pgsql promoted`, `pgsql`, `vip-master`, `vip-slave`."""
    cib, there, _ = act(folder, cib, nodes, *options)
    return cib, there


def act(folder: Path, cib: str, nodes: Mapping[str, tuple[str, str, str]], *options: str) -> tuple[str, dict[str, list[str]], list[str]]:
    """The same, and the actions in their order: `vip-slave stop node2`; monitors and notifications are left out."""
    before, after = folder / "before.xml", folder / "after.xml"
    before.write_text(world(cib, nodes))
    done = system.run(["crm_simulate", "--simulate", f"--xml-file={before}", f"--save-output={after}", "--output-as=xml", *options])
    assert done.ok, done.err
    answer = ET.fromstring(done.out)  # noqa: S314
    found: dict[str, list[str]] = {}
    revised = answer.find("revised_cluster_status/resources")
    assert revised is not None
    for resource in revised.iter("resource"):
        word = " promoted" if resource.get("role") == "Promoted" else " failed" if resource.get("failed") == "true" else ""
        found.setdefault(f"{resource.get('id')}{word}", []).extend(str(node.get("name")) for node in resource.findall("node"))
    acted = [" ".join(str(one.get(name)) for name in ("resource", "op", "node")) for one in answer.iterfind("transition/rsc_action")]
    real = [one for one in acted if one.split()[1] in {"start", "stop", "promote", "demote"}]
    return after.read_text(), {name: sorted(places) for name, places in found.items() if places}, real


def test_fencing_follows_the_devices(lab: Lab) -> None:
    """auto: off with a warning until there is a device. Demanded without one, nothing would ever start: refused."""
    made(lab)
    assert "fencing is off" in cls_setup(lab).err
    empty(lab, "/srv/cib.xml", fencing=True)
    done = cls_setup(lab)
    assert "stonith-enabled true" in done.out
    assert done.err == ""
    made(lab, stonith_enabled="true")
    empty(lab, "/srv/cib.xml")
    assert "pcs stonith create" in cls_setup(lab, code=1).err


def test_the_set_waits_for_cls_start(muti: str) -> None:
    """cls_setup starts nothing but the watcher."""
    tree = ET.fromstring(muti)  # noqa: S314
    assert [pair.get("value") for pair in tree.iter("nvpair") if pair.get("name") == "target-role"] == ["Stopped"]


def test_a_healthy_cluster(muti: str, tmp_path: Path) -> None:
    """The picture of the walkthrough: writer address at the primary, reader address at the synchronous standby."""
    _, there = simulate(tmp_path, muti, HEALTHY)
    assert there == {
        "vip-master": ["node1"],
        "vip-slave": ["node3"],
        "pgsql promoted": ["node1"],
        "pgsql": ["node2", "node3"],
        "pgwatch": ["node1", "node2", "node3"],
    }


def test_the_reader_follows_the_synchronous_standby(muti: str, tmp_path: Path) -> None:
    """The original's rule named the wrong attribute and never held."""
    cib, _ = simulate(tmp_path, muti, HEALTHY)
    _, there = simulate(tmp_path, cib, {**HEALTHY, "node2": (ON, "100", "HS:sync"), "node3": (ON, "-INFINITY", "HS:async")})
    assert there["vip-slave"] == ["node2"]
    assert there["pgsql promoted"] == ["node1"]


def test_failover(muti: str, tmp_path: Path) -> None:
    """The primary's node is lost: its synchronous standby is promoted, both addresses move apart."""
    cib, _ = simulate(tmp_path, muti, HEALTHY)
    _, there = simulate(tmp_path, cib, {**HEALTHY, "node1": (OFF, "", "")})
    assert (there["pgsql promoted"], there["vip-master"], there["vip-slave"], there["pgwatch"]) == (
        ["node3"],
        ["node3"],
        ["node2"],
        ["node2", "node3"],
    )


@pytest.mark.parametrize(("option", "reader"), [("false", None), ("true", ["node1"])])
def test_only_the_primary_is_left(lab: Lab, muti: str, tmp_path: Path, option: str, reader: list[str] | None) -> None:
    """The reader address stops, or, if so configured, moves to the primary; back to a standby as soon as one is there."""
    cib, _ = simulate(tmp_path, made(lab, reader_vip_on_primary=option) if option == "true" else muti, HEALTHY)
    alone = {"node1": (ON, "1000", "PRI"), "node2": (OFF, "", ""), "node3": (OFF, "", "")}
    cib, there = simulate(tmp_path, cib, alone)
    assert (there["pgsql promoted"], there["vip-master"], there.get("vip-slave")) == (["node1"], ["node1"], reader)
    _, there = simulate(tmp_path, cib, {**alone, "node2": (ON, "-INFINITY", "HS:alone")})
    assert (there["pgsql promoted"], there["vip-slave"]) == (["node1"], ["node2"])


def test_nobody_is_promoted_without_a_score(muti: str, tmp_path: Path) -> None:
    """The decision is the agents': standbys run, no address does."""
    nodes = dict.fromkeys(HEALTHY, (ON, "-INFINITY", "HS:alone"))
    _, there = simulate(tmp_path, muti, nodes)
    assert (there["pgsql"], there.get("vip-master"), there.get("pgsql promoted")) == (["node1", "node2", "node3"], None, None)


def test_a_preference_for_the_reader_never_moves_the_primary(muti: str, tmp_path: Path) -> None:
    """The scheduler adds what a colocated resource prefers to the promotion scores, unless the colocation has no influence."""
    cib, _ = simulate(tmp_path, muti, HEALTHY)
    prefers = (
        '<rsc_location id="mine" rsc="vip-slave" node="node1" score="INFINITY"/><rsc_location id="too" rsc="vip-slave" node="node3" score="5000"/>'
    )
    _, there = simulate(tmp_path, cib.replace("</constraints>", f"{prefers}</constraints>"), HEALTHY)
    assert (there["pgsql promoted"], there["vip-master"], there["vip-slave"]) == (["node1"], ["node1"], ["node3"])


# ---------------------------------------------------------------- the same with a director


@pytest.fixture(scope="module")
def balanced(lab: Lab) -> str:
    """The CIB of a first setup with read load balancing."""
    return made(lab, **LVS)


def reading(there: Mapping[str, list[str]]) -> tuple[list[str] | None, ...]:
    """Where the director, the reader address and the real servers are."""
    return there.get("lvsdr"), there.get("vip-slave"), there.get("lvsdr-realsvr")


def test_a_director_is_not_the_next_primary(balanced: str, tmp_path: Path) -> None:
    """Then a failover does not concern readers at all. Real servers are ready before the table is filled, and that before the address comes."""
    _, there, acted = act(tmp_path, balanced, HEALTHY)
    assert reading(there) == (["node2"], ["node2"], ["node2", "node3"])
    assert (there["pgsql promoted"], there["vip-master"]) == (["node1"], ["node1"])
    ready = max(acted.index(one) for one in acted if one.startswith("lvsdr-realsvr"))
    assert ready < acted.index("lvsdr start node2") < acted.index("vip-slave start node2")


def test_readers_stay_where_they_are_in_a_failover(balanced: str, tmp_path: Path) -> None:
    """The primary is lost; director and address do not move, neither then nor when the old primary comes back as the better place."""
    cib, _ = simulate(tmp_path, balanced, HEALTHY)
    cib, there, acted = act(tmp_path, cib, {**HEALTHY, "node1": (OFF, "", "")})
    assert reading(there) == (["node2"], ["node2"], ["node2"])
    assert not [one for one in acted if one.startswith(("lvsdr ", "vip-slave "))]
    after = {"node1": (ON, "-INFINITY", "HS:async"), "node2": (ON, "100", "HS:sync"), "node3": (ON, "1000", "PRI")}
    _, there, acted = act(tmp_path, cib, after)
    assert reading(there) == (["node2"], ["node2"], ["node1", "node2"])
    assert not [one for one in acted if one.startswith(("lvsdr ", "vip-slave "))]


def test_a_director_that_becomes_primary_leaves_first(balanced: str, tmp_path: Path) -> None:
    """Address, then table; at the other standby the reverse. The promotion waits for none of it, and readers do not wait for the promotion."""
    cib, _ = simulate(tmp_path, balanced, HEALTHY)
    lost = {"node1": (OFF, "", ""), "node2": (ON, "100", "HS:sync"), "node3": (ON, "-INFINITY", "HS:async")}
    _, there, acted = act(tmp_path, cib, lost)
    assert (there["pgsql promoted"], there["vip-master"]) == (["node2"], ["node2"])
    assert reading(there) == (["node3"], ["node3"], ["node3"])
    order = [acted.index(one) for one in ("vip-slave stop node2", "lvsdr stop node2", "lvsdr start node3", "vip-slave start node3")]
    assert order == sorted(order)
    assert order[-1] < acted.index("pgsql promote node2")
    cib, _ = simulate(tmp_path, cib, lost, "--op-fail=vip-slave_stop_0@node2=1")
    _, there = simulate(tmp_path, cib, lost)
    assert (there["pgsql promoted"], there["vip-master"]) == (["node2"], ["node2"])


def test_the_director_is_lost(balanced: str, tmp_path: Path) -> None:
    """The other standby takes over; the primary is not touched."""
    cib, _ = simulate(tmp_path, balanced, HEALTHY)
    _, there, acted = act(tmp_path, cib, {**HEALTHY, "node2": (OFF, "", "")})
    assert reading(there) == (["node3"], ["node3"], ["node3"])
    assert acted == ["lvsdr start node3", "vip-slave start node3"]


@pytest.mark.parametrize(("option", "readers"), [("false", (None, None, None)), ("true", (["node1"], ["node1"], ["node1"]))])
def test_the_last_one_is_the_primary(lab: Lab, balanced: str, tmp_path: Path, option: str, readers: tuple[list[str] | None, ...]) -> None:
    """No reader address, or all at the primary, which then is a real server too; back to a standby as soon as one is there."""
    cib = made(lab, **LVS, reader_vip_on_primary=option) if option == "true" else balanced
    cib, _ = simulate(tmp_path, cib, HEALTHY)
    alone = {"node1": (ON, "1000", "PRI"), "node2": (OFF, "", ""), "node3": (OFF, "", "")}
    cib, there = simulate(tmp_path, cib, alone)
    assert (there["pgsql promoted"], there["vip-master"], reading(there)) == (["node1"], ["node1"], readers)
    _, there = simulate(tmp_path, cib, {**alone, "node2": (ON, "-INFINITY", "HS:alone")})
    assert reading(there)[:2] == (["node2"], ["node2"])


@pytest.mark.parametrize("failure", ["lvsdr_start_0@node2=5", "lvsdr_monitor_0@node2=5"])
def test_a_node_without_ipvs_gets_no_reader_address(balanced: str, tmp_path: Path, failure: str) -> None:
    """Whether its probe tells or its start fails: the other standby is the director."""
    cib, _ = simulate(tmp_path, balanced, HEALTHY, f"--op-fail={failure}")
    _, there = simulate(tmp_path, cib, HEALTHY)
    assert reading(there) == (["node3"], ["node3"], ["node2", "node3"])
    assert (there["pgsql promoted"], there["vip-master"]) == (["node1"], ["node1"])


def test_without_ipvs_anywhere_there_is_a_primary(balanced: str, tmp_path: Path) -> None:
    """Writers have nothing to do with it."""
    failures = [f"--op-fail=lvsdr_start_0@{node}=5" for node in HEALTHY]
    cib, _ = simulate(tmp_path, balanced, HEALTHY, *failures)
    cib, _ = simulate(tmp_path, cib, HEALTHY, *failures)
    _, there = simulate(tmp_path, cib, HEALTHY, *failures)
    assert (there["pgsql promoted"], there["vip-master"]) == (["node1"], ["node1"])
    assert reading(there) == (None, None, ["node2", "node3"])


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        ("lvsdr_monitor_5000@node2=7", ["vip-slave stop node2", "lvsdr stop node2", "lvsdr start node2", "vip-slave start node2"]),
        ("vip-slave_monitor_10000@node2=7", ["vip-slave stop node2", "vip-slave start node2"]),
        ("lvsdr-realsvr_monitor_10000@node3=7", ["lvsdr-realsvr stop node3", "lvsdr-realsvr start node3"]),
    ],
)
def test_a_failure_is_mended_in_place(balanced: str, tmp_path: Path, failure: str, expected: list[str]) -> None:
    """Nothing but what failed, and what stands on it: other real servers keep their readers."""
    cib, _ = simulate(tmp_path, balanced, HEALTHY)
    _, there, acted = act(tmp_path, cib, HEALTHY, f"--op-inject={failure}")
    assert acted == expected
    assert reading(there) == (["node2"], ["node2"], ["node2", "node3"])


def test_a_director_that_cannot_stop_holds_up_nobody(balanced: str, tmp_path: Path) -> None:
    """Its address has gone; another one takes over."""
    cib, _ = simulate(tmp_path, balanced, HEALTHY)
    cib = cib.replace("</constraints>", '<rsc_location id="away" rsc="lvsdr" node="node2" score="-INFINITY"/></constraints>')
    cib, _ = simulate(tmp_path, cib, HEALTHY, "--op-fail=lvsdr_stop_0@node2=1")
    _, there = simulate(tmp_path, cib, HEALTHY)
    assert reading(there) == (["node3"], ["node3"], ["node2", "node3"])


@pytest.mark.parametrize("node", ["node1", "node3"])
def test_what_the_reading_side_prefers_never_moves_the_primary(balanced: str, tmp_path: Path, node: str) -> None:
    """Neither to a node nor away from it."""
    cib, _ = simulate(tmp_path, balanced, HEALTHY)
    names = ("vip-slave", "lvsdr", "lvsdr-realsvr-clone")
    prefers = "".join(f'<rsc_location id="l{number}" rsc="{name}" node="{node}" score="INFINITY"/>' for number, name in enumerate(names))
    _, there = simulate(tmp_path, cib.replace("</constraints>", f"{prefers}</constraints>"), HEALTHY)
    assert (there["pgsql promoted"], there["vip-master"]) == (["node1"], ["node1"])
    assert reading(there)[2] == ["node2", "node3"]
    assert node == "node1" or reading(there)[:2] == (["node3"], ["node3"])
