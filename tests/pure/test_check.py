"""cls_check: every row of the table judged on facts that are all well, and on each thing that may be wrong. No cluster is needed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from pha4pgsql import checkup, checkup_node, cli_check, cli_status, config, text, wal
from pha4pgsql.checkup import Facts, Level, Line
from pha4pgsql.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "tests" / "samples"
NODES = ("node1", "node2", "node3")

NODE: dict[str, Any] = {
    "names": {"node1": "192.168.0.231", "node2": "192.168.0.232", "node3": "192.168.0.233"},
    "ports": {"node1": "", "node2": "", "node3": ""},
    "programs": "abc",
    "config": "def",
    "config_path": "/opt/pha4pgsql/config.ini",
    "config_mode": 0o600,
    "passfile": ("/var/lib/pgsql/tmp/pgpass", "postgres", 0o600),
    "pgdba": "postgres",
    "state": "",
    "tmpdir": "/var/lib/pgsql/tmp",
    "volatile": False,
    "disk": {"/pgsql/data": (900, 1000)},
    "autostart": [],
    "qdevice": False,
    "offset": 0.01,
}
SERVER: dict[str, Any] = {
    "wal_level": "replica", "hot_standby": "on", "fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "max_wal_senders": "10",
    "max_replication_slots": "10", "restart_after_crash": "off", "wal_sender_timeout": "5000", "wal_receiver_status_interval": "2",
    "wal_retrieve_retry_interval": "100", "max_slot_wal_keep_size": "1024", "server_version_num": "150008", "wal_log_hints": "on",
    "restore_command": wal.without_histories("cp /archive/%f %p"),
    "data_checksums": "off", "max_connections": "100", "max_worker_processes": "8", "max_prepared_transactions": "0",
    "max_locks_per_transaction": "64", "slots": [("pgsql_1_node1_node2", True, "reserved", 100)],
}  # fmt: skip


def facts() -> Facts:
    """A cluster in which all is well."""
    tree = ElementTree.parse(SAMPLES / "cib-healthy.xml").getroot()  # noqa: S314
    cluster, (named,) = text.cluster(tree), text.replicated_sets(tree)
    cluster = cluster._replace(properties={**cluster.properties, "stonith-enabled": "true"})
    fence = text.Collection("fence", "resource", False, (), (text.Placed("fence", "stonith:fence_x", "Started", ("node1",), ()),))
    view = text.view(ElementTree.parse(SAMPLES / "crm_mon-healthy.xml").getroot())  # noqa: S314
    view = view._replace(resources=(fence, *view.resources))
    nodes = {name: copy.deepcopy(NODE) for name in NODES}
    servers = {name: copy.deepcopy(SERVER) for name in NODES}
    return Facts("node1", True, cluster, named, view, nodes, servers, dict(named.parameters), "2026-11-25 12:00:00Z")


def node(**changes: object) -> Callable[[Facts], Facts]:
    """node2 says something else."""
    return lambda good: good._replace(nodes={**good.nodes, "node2": {**NODE, **changes}})


def server(name: str = "node2", **changes: object) -> Callable[[Facts], Facts]:
    return lambda good: good._replace(servers={**good.servers, name: {**SERVER, **changes}})


def prop(name: str, value: str) -> Callable[[Facts], Facts]:
    return lambda good: good._replace(cluster=good.cluster._replace(properties={**good.cluster.properties, name: value}))


def member(**changes: object) -> Callable[[Facts], Facts]:
    def change(good: Facts) -> Facts:
        members = {**good.cluster.members, "node3": good.cluster.members["node3"]._replace(**changes)}  # type: ignore[arg-type]
        return good._replace(cluster=good.cluster._replace(members=members))

    return change


def ban(*words: str) -> Callable[[Facts], Facts]:
    return lambda good: good._replace(cluster=good.cluster._replace(bans=(text.Ban(*words),)))


def flags(name: str, *found: str) -> Callable[[Facts], Facts]:
    return lambda good: good._replace(
        view=good.view._replace(resources=tuple(one._replace(flags=found) if one.id == name else one for one in good.view.resources))
    )


def without(name: str) -> Callable[[Facts], Facts]:
    return lambda good: good._replace(view=good.view._replace(resources=tuple(one for one in good.view.resources if one.id != name)))


def even(good: Facts) -> Facts:
    members = {name: one for name, one in good.cluster.members.items() if name != "node3"}
    return good._replace(cluster=good.cluster._replace(members=members), named=good.named._replace(parameters={"node_list": "node1 node2"}),
                         nodes=dict.fromkeys(members, NODE), wanted={})  # fmt: skip


def test_all_is_well() -> None:
    """One OK line for each row, in the order of the table."""
    lines = checkup.check(facts())
    assert [line for line in lines if line.level is not Level.OK] == []
    assert [line.name for line in lines] == [row.name for row in checkup.ROWS]
    assert checkup.worst(lines) is Level.OK


W, C, U = Level.WARNING, Level.CRITICAL, Level.UNKNOWN


@pytest.mark.parametrize(
    ("change", "name", "level", "words"),
    [
        (lambda good: good._replace(trouble=("DOWN", C, 2)), "service", C, ("DOWN, 2 things", "cls_status")),
        (lambda good: good._replace(quorate=False), "quorum", C, ("without quorum",)),
        (member(online=False), "members", W, ("node3 is offline", "pcs cluster start node3")),
        (member(standby=True), "members", W, ("node3 is in standby", "cls_unstandby_node node3")),
        (member(maintenance=True), "members", W, ("cls_unmaintenance_node node3",)),
        (prop("stonith-enabled", "false"), "fencing", W, ("fencing is off", "pcs stonith create")),
        (without("fence"), "fencing", C, ("no device",)),
        (even, "quorum device", W, ("2 nodes and no quorum device", "pcs quorum device add")),
        (prop("no-quorum-policy", "ignore"), "no-quorum-policy", W, ("ignore",)),
        (prop("maintenance-mode", "true"), "managed", W, ("maintenance mode", "cls_unmaintenance")),
        (flags("vip-master", "unmanaged"), "managed", W, ("vip-master is unmanaged", "pcs resource manage vip-master")),
        (flags("vip-slave", "disabled"), "managed", W, ("vip-slave is disabled", "pcs resource enable vip-slave")),
        (lambda good: good._replace(named=good.named._replace(target="Stopped")), "managed", W, ("msPostgresql is disabled", "cls_start")),
        (ban("b", "msPostgresql", "node2", "", ""), "bans", W, ("banned from node2 (for good)", "pcs resource clear msPostgresql node2")),
        (ban("b", "vip-master", "node2", "", "2026-11-25 11:00:00Z"), "bans", W, ("ended", "still there")),
        (ban("b", "pgsql", "node2", "Promoted", "2026-11-25 13:00:00Z"), "bans", W, ("as promoted (until",)),
        (member(failures={"pgsql": 1000000}), "failures", W, ("pgsql has failed on node3, fail count the limit", "cls_cleanup pgsql")),
        (lambda good: good._replace(wanted={"repuser": "other"}), "parameters", W, ("repuser is replication, config.ini has other", "cls_setup")),
        (lambda good: good._replace(wanted="no such file"), "parameters", U, ("no such file",)),
        (
            lambda good: good._replace(nodes={**good.nodes, "node2": "not reached by ssh: refused"}),
            "ssh",
            W,
            ("node2: not reached", "ssh root@node2"),
        ),
        (lambda good: good._replace(nodes={**good.nodes, "node2": "not reached by ssh: refused"}), "clock", U, ("node2: not reached",)),
        (node(offset=-7.5), "clock", W, ("clock of node2", "-7.5 s")),
        (node(names={**NODE["names"], "node3": ""}), "names", C, ("node3 does not resolve on node2",)),
        (node(names={**NODE["names"], "node2": "127.0.1.1"}), "names", C, ("loopback",)),
        (node(names={**NODE["names"], "node3": "10.0.0.3"}), "names", C, ("node3 is not the same everywhere", "10.0.0.3 on node2")),
        (node(ports={**NODE["ports"], "node1": "no route to host"}), "ports", C, ("from node2", "node1 (no route to host)", "firewall")),
        (node(programs="other"), "programs", W, ("installed version of node2", "install.sh")),
        (node(config="other"), "config.ini", W, ("config.ini of node2 differs", "install.sh")),
        (node(config_mode=0o644), "config.ini", W, ("read by others", "chmod 600")),
        (node(passfile=("/p", "", None)), "passfile", C, ("/p is not there on node2",)),
        (node(passfile=("/p", "root", 0o600)), "passfile", C, ("belongs to root", "chown postgres /p")),
        (node(passfile=("/p", "postgres", 0o640)), "passfile", C, ("mode 0640",)),
        (node(state="the data directory is not whole: clone unfinished"), "state file", C, ("not whole", ": cls_rebuild_slave")),
        (
            node(state="/x/pgsql.state is damaged: no line 'eras'"),
            "state file",
            C,
            ("damaged", "cls_stop; cls_reset_master --yes; cls_rebuild_slave"),
        ),
        (node(volatile=True), "state file", C, ("in memory",)),
        (node(disk={"/pgsql/data": (100, 1000)}), "disk", W, ("10 % free",)),
        (node(disk={"/pgsql/data": (10, 1000)}), "disk", C, ("1 % free",)),
        (node(autostart=["postgresql.service"]), "autostart", W, ("systemctl disable postgresql.service",)),
        (server(server_version_num="160001"), "versions", C, ("15.8 on node1, 16.1 on node2",)),
        (server(server_version_num="150009"), "versions", W, ("15.9 on node2",)),
        (lambda good: good._replace(servers={**good.servers, "node2": "no answer"}), "settings", U, ("node2: no answer",)),
        (server(fsync="off"), "settings", C, ("fsync is off on node2", "fsync = on")),
        (server(synchronous_commit="local"), "settings", C, ("synchronous_commit is local",)),
        (server(max_wal_senders="4"), "settings", W, ("max_wal_senders is 4",)),
        (server(restart_after_crash="on"), "settings", W, ("restart_after_crash",)),
        (server(wal_sender_timeout="0"), "settings", W, ("wal_sender_timeout is 0",)),
        (server(wal_retrieve_retry_interval="5000"), "settings", W, ("knocks again",)),
        (server(restore_command="cp /archive/%f %p"), "settings", W, ("pgsql_restore_command",)),
        (server(max_slot_wal_keep_size="-1"), "settings", W, ("max_slot_wal_keep_size",)),
        (server(mistakes=[("/srv/p.conf", 7, "syntax error")]), "settings", C, ("/srv/p.conf of node2 has an error in line 7: syntax error",)),
        (server(wal_log_hints="off"), "hints", W, ("pg_rewind",)),
        (server(max_connections="50"), "not below", C, ("max_connections 50 (the primary has 100)",)),
        (server("node1", slots=[("old", False, "extended", 5 << 30)]), "slots", W, ("holds back 5120 MB",)),
        (server("node1", slots=[("old", False, "lost", None)]), "slots", W, ("old on node1 is lost",)),
        (lambda good: good._replace(servers={**good.servers, "node1": "no answer"}), "slots", U, ("no answer",)),
    ],
)
def test_what_is_wrong_is_found(change: Callable[[Facts], Facts], name: str, level: Level, words: tuple[str, ...]) -> None:
    """The right line has the right level, says what was seen, and what to type."""
    lines = [line for line in checkup.check(change(facts())) if line.name == name]
    said = " / ".join(f"{line.seen} -> {line.hint}" for line in lines)
    assert max(lines, key=lambda line: checkup.ORDER.index(line.level)).level is level, said
    assert [word for word in words if word not in said] == [], said


def test_a_good_value_is_not_complained_about() -> None:
    """Every row of the settings table has one; a setting that a version does not have is no fault."""
    assert all(one.good(SERVER[one.name], 3) for one in checkup.SETTINGS)
    lacking = {key: value for key, value in SERVER.items() if key != "max_slot_wal_keep_size"}
    good = facts()
    assert checkup.worst(checkup.check(good._replace(servers={**good.servers, "node2": lacking}))) is Level.OK


def test_without_ssh_the_rest_stands() -> None:
    """What needs it is unknown, once for each check, with the reason; the lines of the cluster and of PostgreSQL are there."""
    good = facts()
    lines = checkup.check(good._replace(nodes={"node1": NODE, "node2": "not reached by ssh: x", "node3": "not reached by ssh: x"}))
    unknown = [line for line in lines if line.level is Level.UNKNOWN]
    assert {line.name for line in unknown} == {row.name for row in checkup.ROWS if row.asked == checkup.NODES} - {"ssh"}
    assert all(line.seen == "node2 node3: not reached by ssh: x" for line in unknown)
    assert checkup.worst(lines) is Level.WARNING


@pytest.mark.parametrize(("levels", "worst"), [((), Level.OK), ((U, W), W), ((U, Level.OK), U), ((W, C, U), C)])
def test_the_worst_decides(levels: tuple[Level, ...], worst: Level) -> None:
    """What is known to be wrong counts more than what is not known."""
    assert checkup.worst([Line("x", level, "") for level in levels]) is worst


def test_one_line_for_monitoring() -> None:
    """The worst first, counts and lag as performance data, one `|` and no line break."""
    good = facts()
    lines = checkup.check(server(fsync="off")(prop("stonith-enabled", "false")(good)))
    report = cli_status.report(
        cli_status.Sight(good.cluster, (good.named,), good.view, True, "node1"), good.named,
        cli_status.Told({}, (cli_status.Follower("node2", 168, 0.25),)),
    )  # fmt: skip
    said = cli_check.nagios(lines, report)
    assert said.startswith("PHA4PGSQL CRITICAL - settings: fsync is off")
    assert said.index("fsync") < said.index("fencing")
    assert said.count("|") == 1
    assert "\n" not in said
    assert f"ok={len(checkup.ROWS) - 2} warning=1 critical=1 unknown=0 'lag_node2'=168B 'delay_node2'=0.250s" in said


def test_json_and_text_have_every_line() -> None:
    """With hints, and a summary."""
    lines = checkup.check(prop("stonith-enabled", "false")(facts()))
    told = json.loads(json.dumps(cli_check.as_json(lines)))
    assert told["level"] == "WARNING"
    assert len(told["checks"]) == len(lines)
    drawn = [line.text for line in cli_check.shown(lines)]
    assert any("HINT: pcs stonith create" in line for line in drawn)
    assert drawn[-1] == f"WARNING: 1 WARNING, {len(lines) - 1} OK"


def test_the_page_shows_the_table() -> None:
    """docs/cls_check.md is drawn from the rows: paste checkup.table() there after a change."""
    assert checkup.table() in (ROOT / "docs" / "cls_check.md").read_text()


def test_the_settings_table_agrees_with_the_readme() -> None:
    """What a user is told to set on real machines is what is checked."""
    told = (ROOT / "README.md").read_text()
    assert [
        one.name for one in checkup.SETTINGS if one.name not in told and one.name not in {"fsync", "full_page_writes", "synchronous_commit"}
    ] == []


def test_facts_of_a_node(tmp_path: Path) -> None:
    """On any machine: nothing raises, nothing is changed, what is not there is empty."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    (folder / "pgsql.state").write_text("damaged")
    settings = Settings(tmpdir=str(folder), datadir=str(tmp_path))
    assert "damaged" in checkup_node.state_trouble(settings)
    assert checkup_node.state_trouble(settings._replace(tmpdir=str(tmp_path))) == ""
    parameters = {"tmpdir": str(folder), "pgdata": str(tmp_path), "node_list": "localhost no.such.name.invalid"}
    request = {"parameters": parameters, "resource": "shop", "members": ["localhost"], "folder": str(tmp_path)}
    found = checkup_node.facts(request, print)
    assert found["state"] == "", "a damaged state file of another set"
    assert "damaged" in checkup_node.facts({**request, "resource": "pgsql"}, print)["state"]
    assert set(found) == set(NODE) - {"offset"} | {"clock"}
    assert (found["programs"], found["config"], found["names"]["localhost"] != "") == ("", "", True)
    assert str(tmp_path) in found["disk"]
    assert checkup_node.facts({**request, "members": [], "folder": str(ROOT)}, print)["programs"] != ""


def test_a_file_system_in_memory_is_recognised() -> None:
    """By the longest mount point: the state file there would not outlive a reboot."""
    assert checkup_node.filesystem("/proc/self") == "proc"
    assert checkup_node.filesystem("/") not in {"", "proc"}


def test_wanted_parameters_come_from_config_ini(tmp_path: Path) -> None:
    """Or the reason why not, as one line."""
    sample = tmp_path / "config.ini"
    sample.write_text((ROOT / "config.ini.sample").read_text())
    found = cli_check._wanted(str(sample))
    assert isinstance(found, dict)
    assert found["node_list"] == "node1 node2 node3"
    assert config.load(str(sample)).agent_parameters == found
    missing = cli_check._wanted(str(tmp_path / "none.ini"))
    assert isinstance(missing, str)
    assert "\n" not in missing
