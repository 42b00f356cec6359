"""cls_status: what one look makes of saved answers, what is wrong with it, the screen, the raw form, JSON. No cluster is needed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pha4pgsql import cli_screen, cli_status, status_crm, status_screen, text, trouble
from pha4pgsql.cli_status import Follower, Primary, Refusal
from pha4pgsql.text import Ban, FailedAction
from pha4pgsql.trouble import State

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "tests" / "samples"
NODES = ("node1", "node2", "node3")
WIDTH, HEIGHT = 80, 24


def cib(name: str) -> text.Tree:
    return ElementTree.parse(SAMPLES / f"cib-{name}.xml").getroot()  # noqa: S314


def sighted(name: str, *, quorate: bool = True) -> cli_status.Sight:
    """What Pacemaker said, saved."""
    tree = cib(name)
    view = text.view(ElementTree.parse(SAMPLES / f"crm_mon-{name}.xml").getroot())  # noqa: S314
    return cli_status.Sight(text.cluster(tree), tuple(text.replicated_sets(tree)), view, quorate, "node1")


def shown(name: str, told: cli_status.Told = cli_status.UNTOLD, *, quorate: bool = True) -> cli_status.Report:
    """A report from saved answers."""
    sight = sighted(name, quorate=quorate)
    return cli_status.report(sight, sight.sets[0], told)


POOL = cli_status.Pool((cli_status.Server("node2", "192.168.0.232", 1, 3, 0), cli_status.Server("node3", "192.168.0.233", 0, 0, 1)), 1700000000)


def balanced(pool: cli_status.Pool = POOL, *, where: str | None = "node2", disabled: bool = False) -> cli_status.Report:
    """The healthy cluster's report with a read pool, two seconds old."""
    age = 2 if pool.at else None
    return shown("healthy")._replace(reading=cli_status.Reading("lvsdr", where, pool, age, expected=not disabled))


def test_status_text_has_the_content_of_the_walkthrough() -> None:
    """Line by line, blanks apart."""
    lines = [" ".join(line.split()) for line in status_crm.as_text(shown("healthy")).splitlines()]
    for line in (
        "Stack: corosync",
        "Online: [ node1 node2 node3 ]",
        "vip-master (ocf::heartbeat:IPaddr2): Started node1",
        "vip-slave (ocf::heartbeat:IPaddr2): Started node2",
        "Promoted: [ node1 ]",
        "Unpromoted: [ node2 node3 ]",
        "* Node node1:",
        "+ master-pgsql : 1000",
        "+ pgsql-data-status : LATEST",
        "+ pgsql-master-baseline : 00000000050001B0",
        "+ pgsql-status : PRI",
        "+ master-pgsql : 100",
        "+ pgsql-data-status : STREAMING|SYNC",
        "+ pgsql-status : HS:sync",
        "+ master-pgsql : -INFINITY",
        "+ pgsql-data-status : STREAMING|ASYNC",
        "+ pgsql-status : HS:async",
        "Migration Summary:",
    ):
        assert line in lines
    assert lines[-2:] == ["", "pgsql_REPL_INFO:node1|1|00000000050001B0"]
    assert any(line.startswith("Current DC: node1 (version") and line.endswith("partition with quorum") for line in lines)


def test_status_says_when_there_is_no_quorum() -> None:
    """The whole report is still there."""
    lines = status_crm.as_text(shown("healthy", quorate=False)).splitlines()
    assert lines[0].startswith("WARNING")
    assert any(line.endswith("partition WITHOUT quorum") for line in lines)
    assert lines[-1].startswith("pgsql_REPL_INFO:")


def test_status_shows_reasons_of_failures() -> None:
    """The agent's exit reason reaches the operator."""
    found = status_crm.as_text(shown("failures"))
    assert "Failed Actions:" in found
    assert "exitreason='Simulated failure'" in found
    assert "fail-count=" in found


def test_status_json() -> None:
    """The fields that programs rely on; null where nothing is known."""
    told = cli_status.Told({"node1": 2, "node2": 2}, (cli_status.Follower("node2", 168), cli_status.Follower("node3", None)))
    found = json.loads(json.dumps(cli_status.as_json(shown("healthy", told))))
    assert found["primary"] == "node1"
    assert found["quorate"] is True
    assert found["repl_info"] == "node1|1|00000000050001B0"
    assert found["vips"] == {"vip-master": "node1", "vip-slave": "node2"}
    assert (
        found["nodes"][0].items()
        >= {
            "name": "node1",
            "online": True,
            "status": "PRI",
            "data_status": "LATEST",
            "score": "1000",
            "xlog_loc": None,
            "baseline": "00000000050001B0",
            "timeline": 2,
            "lag_bytes": 0,
            "role": "promoted",
        }.items()
    )
    assert [(row["timeline"], row["lag_bytes"]) for row in found["nodes"][1:]] == [(2, 168), (None, None)]


def test_status_json_of_the_read_pool() -> None:
    """Null where nothing is balanced; else director, servers, and when the pool was so."""
    assert cli_status.as_json(shown("healthy"))["lvs"] is None
    found = json.loads(json.dumps(cli_status.as_json(balanced())))["lvs"]
    assert (found["director"], found["at"]) == ("node2", 1700000000)
    assert found["real_servers"][0] == {"name": "node2", "address": "192.168.0.232", "weight": 1, "active": 3, "inactive": 0}
    nobody = cli_status.as_json(balanced(cli_status.Pool(), where=None))["lvs"]
    assert nobody == {"director": None, "real_servers": [], "at": None}


def test_status_text_of_the_read_pool() -> None:
    """One line for each real server, and no warning while one of them takes connections."""
    lines = status_crm.as_text(balanced()).splitlines()
    begin = lines.index("Read Pool of lvsdr at node2 (2 s ago):")
    assert lines[begin + 1 : begin + 4] == [
        "* node2  192.168.0.232  weight 1, 3 active, 0 inactive",
        "* node3  192.168.0.233  weight 0, 0 active, 1 inactive",
        "",
    ]
    assert not any(line.startswith(("WARNING", "HINT")) for line in lines)
    assert "Read Pool" not in status_crm.as_text(shown("healthy"))


@pytest.mark.parametrize(
    ("pool", "where", "disabled", "warned"),
    [
        (POOL._replace(servers=()), "node2", False, True),
        (POOL._replace(servers=POOL.servers[1:]), "node2", False, True),
        (cli_status.Pool(), "node2", False, True),
        (cli_status.Pool(), None, False, True),
        (cli_status.Pool(), None, True, False),
    ],
    ids=["empty", "weights are 0", "not told", "no director", "stopped by cls_stop"],
)
def test_readers_without_a_server_are_a_warning(pool: cli_status.Pool, where: str | None, *, disabled: bool, warned: bool) -> None:
    """With a hint, as all complaints have; not while the set is stopped on purpose."""
    lines = status_crm.as_text(balanced(pool, where=where, disabled=disabled)).splitlines()
    assert [line.startswith("WARNING") for line in lines if line.startswith(("WARNING", "HINT"))] == ([True, False] if warned else [])


@pytest.mark.parametrize(
    "value", ["", "x", "[]", "{}", '{"at": 1}', '{"at": 1, "servers": [["a", "b"]]}', '{"at": null, "servers": []}', '{"at": 1, "servers": 1}']
)
def test_a_pool_that_cannot_be_read_tells_nothing(value: str) -> None:
    """A status is shown whatever an attribute holds."""
    assert cli_status.read_pool(value) == cli_status.Pool()


def test_status_of_a_cluster_without_a_set() -> None:
    """Before cls_setup there is something to show, too."""
    sight = cli_status.Sight(text.cluster(cib("healthy")), (), text.view(ElementTree.parse(SAMPLES / "crm_mon-healthy.xml").getroot()), True, "x")  # noqa: S314
    assert cli_status.as_json(cli_status.report(sight, None, cli_status.UNTOLD))["vips"] == {}


# ---------------------------------------------------------------- what is wrong, and the screen

ANSWER = Primary(None, "", False, "0/5000250", 2, '"node2"', 0.0, 0.012, 1)
FOLLOWING = (Follower("node2", 0, 0.0, "0/5000250", "streaming", "sync"), Follower("node3", 168, 0.4, "0/50001A8", "streaming", "async"))
GOOD = cli_status.Told({"node1": 2, "node2": 2, "node3": 2}, FOLLOWING, asked=ANSWER)


def healthy(**changes: object) -> cli_status.Report:
    """A healthy cluster with a read pool, changed."""
    report = shown("healthy", GOOD)
    found: cli_status.Report = report._replace(**{"reading": cli_status.Reading("lvsdr", "node2", POOL, 2, True), **changes})  # type: ignore[arg-type]
    return found


def rows(**changes: dict[str, object]) -> tuple[cli_status.Row, ...]:
    """The healthy rows, some changed by node."""
    return tuple(row._replace(**changes.get(row.name, {})) for row in healthy().rows)  # type: ignore[arg-type]


def verdict(report: cli_status.Report) -> tuple[State, str]:
    """The state, and all that was said about it."""
    found = trouble.find(report)
    return trouble.state(found), "\n".join(f"{one.what} -> {one.hint}" for one in found)


def drawn(report: cli_status.Report, **how: object) -> list[str]:
    found = trouble.find(report)
    return status_screen.render(status_screen.screen(report, found, trouble.state(found)), **how)  # type: ignore[arg-type]


def test_a_healthy_cluster_fits_a_small_terminal() -> None:
    """80x24 for three nodes with read balancing, nothing folded, nothing wrong."""
    lines = drawn(healthy())
    assert len(lines) < HEIGHT
    assert max(map(len, lines)) <= WIDTH
    assert lines == drawn(healthy(), width=WIDTH)
    assert lines[-1] == "nothing is wrong"
    assert verdict(healthy()) == (State.HEALTHY, "")


def test_who_has_standbys_is_not_alone() -> None:
    """Only the primary that says so writes alone, whatever else there is to know."""
    assert any(line.endswith("takes writes, alone") for line in drawn(healthy(notes=("node1 goes on alone since no standby confirms",))))
    assert not any("alone" in line for line in drawn(healthy(notes=("the row of the distributed lock cannot be asked",))))


def test_the_screen_shows_every_member() -> None:
    """Role, timeline, LSN, lag in bytes and seconds, sync state, what it does."""
    lines = [re.split(r"  +", line) for line in drawn(healthy())]
    assert ["node1", "primary", "2", "0/5000250", "-", "-", "-", "takes writes"] in lines
    assert ["node3", "standby", "2", "0/50001A8", "168", "0.4", "async", "streams"] in lines
    assert ["writer address", "192.168.0.236", "node1", "vip-master"] in lines


@pytest.mark.parametrize(
    ("report", "state", "words"),
    [
        (healthy(quorate=False), State.DOWN, ("no quorum", "corosync-quorumtool")),
        (healthy(maintenance=True), State.DEGRADED, ("maintenance mode", "cls_unmaintenance")),
        (healthy(rows=rows(node1={"role": "started"}), primary=None), State.DOWN, ("nobody is primary", "cls_start")),
        (
            healthy(rows=rows(node1={"role": "stopped", "online": False}), primary=None, notes=("no primary: node1 went on alone at the end",)),
            State.DOWN,
            ("bring back node1", "lost for good: cls_reset_master --dry-run"),
        ),
        (healthy(rows=rows(node2={"role": "promoted"}), primary=None), State.DOWN, ("node1 and node2 are promoted",)),
        (healthy(vips={"vip-master": None, "vip-slave": "node2"}), State.DOWN, ("vip-master runs on no node", "cls_cleanup vip-master")),
        (healthy(vips={"vip-master": "node1", "vip-slave": None}), State.DEGRADED, ("vip-slave runs on no node", "cls_cleanup vip-slave")),
        (healthy(asked=Primary(Refusal.SILENT, "PostgreSQL did not answer within 1 s")), State.DOWN, ("does not answer", "within 1 s")),
        (healthy(asked=Primary(Refusal.NOT_ALLOWED, "no password")), State.HEALTHY, ("was not asked", "root")),
        (
            healthy(asked=Primary(Refusal.NOT_ALLOWED, "FATAL: password authentication failed")),
            State.DEGRADED,
            ("standbys cannot", "pgsql_reppassword"),
        ),
        (healthy(asked=Primary(Refusal.BLIND, "its role is no member")), State.HEALTHY, ("does not show who follows", "GRANT pg_monitor")),
        (healthy(asked=ANSWER._replace(standby=True)), State.DOWN, ("a standby answers",)),
        (healthy(asked=ANSWER._replace(names='2 ("node2", "node3")')), State.DOWN, ("commits wait", "1 of 2", "node2 node3")),
        (healthy(asked=ANSWER._replace(waiting=12.0)), State.DOWN, ("waiting for a standby for 12 s",)),
        (healthy(notes=("node1 goes on alone",), asked=ANSWER._replace(names="")), State.DEGRADED, ("goes on alone",)),
        (
            healthy(notes=("the row of the distributed lock cannot be asked: no answer",)),
            State.DEGRADED,
            ("distributed lock cannot be asked", "-> start the PostgreSQL server of the distributed lock"),
        ),
        (healthy(rows=rows(node3={"online": False})), State.DEGRADED, ("node3 is offline", "pcs cluster start node3")),
        (healthy(rows=rows(node3={"standby": True})), State.DEGRADED, ("node3 is in standby", "cls_unstandby_node node3")),
        (healthy(rows=rows(node3={"maintenance": True})), State.DEGRADED, ("node3 is in maintenance", "cls_unmaintenance_node node3")),
        (healthy(rows=rows(node3={"role": "stopped"})), State.DEGRADED, ("pgsql is stopped on node3", "cls_start")),
        (healthy(rows=rows(node3={"role": "starting"})), State.DEGRADED, ("pgsql is starting on node3", "wait")),
        (healthy(rows=rows(node3={"state": None})), State.DEGRADED, ("node3 does not stream", "cls_check")),
        (healthy(rows=rows(node3={"repair": "rewind 35 pg_rewind: 120/340 MB"})), State.DEGRADED, ("being repaired", "35")),
        (healthy(rows=rows(node3={"repair": "failed - no room on disk"})), State.DEGRADED, ("failed: no room", "-> on node3: cls_rebuild_slave")),
        (healthy(rows=rows(node3={"repair": "failed - try 1 of 4 failed: rewind: x"})), State.DEGRADED, ("failed: try 1", "wait, or on node3: cls")),
        (healthy(change="members change: a b now, a b c wished"), State.DEGRADED, ("members change", "cls_member list")),
        (
            healthy(bans=(Ban("pha4pgsql-no-member-msPostgresql-node3", "msPostgresql", "node3", "", ""),)),
            State.DEGRADED,
            ("kept off node3", "cls_member add node3"),
        ),
        (
            healthy(bans=(Ban("cli-ban-x", "msPostgresql", "node3", "", ""),)),
            State.DEGRADED,
            ("banned from node3 (for good)", "pcs resource clear msPostgresql node3"),
        ),
        (
            healthy(bans=(Ban("cli-ban-x", "msPostgresql", "node2", "Promoted", "2026-11-25 10:00:00Z"),)),
            State.DEGRADED,
            ("node2 as promoted (until", "pcs resource clear"),
        ),
        (
            healthy(reading=cli_status.Reading("lvsdr", None, cli_status.Pool(), None, True)),
            State.DEGRADED,
            ("lvsdr runs on no node", "cls_cleanup lvsdr"),
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_command_that_mends_it(report: cli_status.Report, state: State, words: tuple[str, ...]) -> None:
    """The state counts as healthy, degraded or down; each complaint says what to type."""
    found, said = verdict(report)
    assert (found, [word for word in words if word not in said]) == (state, []), said
    assert all(one.hint for one in trouble.find(report))


FORKED = "The master's timeline forked off current database system timeline 2 before latest checkpoint location 0000000001529C48, REPL_INF"


def failed(operation: str, node: str, reason: str = "") -> FailedAction:
    return FailedAction(operation, node, "error", "1", "43", "complete", reason, "2026-11-25 10:00:14Z", "0", "340")


def test_a_failure_that_is_over_is_no_trouble() -> None:
    """It is told, with what forgets it; while the resource does not work there it counts, with its whole reason and the command for it."""
    report = healthy()
    over = report._replace(view=report.view._replace(failed=(failed("pgsql_monitor_4000", "node2"),)))
    assert verdict(over)[0] is State.HEALTHY
    assert "cls_cleanup pgsql" in verdict(over)[1]
    stopped = [one._replace(instances=tuple(part for part in one.instances if "node3" not in part.nodes)) for one in report.view.resources]
    view = report.view._replace(failed=(failed("pgsql_start_0", "node3", FORKED),), resources=tuple(stopped))
    down = report._replace(view=view, rows=rows(node3={"role": "failed"}))
    state, said = verdict(down)
    assert (state, "on node3: cls_repair_by_pg_rewind" in said) == (State.DEGRADED, True), said
    nobody = down._replace(primary=None, rows=rows(node1={"role": "started"}, node3={"role": "failed"}))
    assert "-> when there is a primary to copy from, on node3: cls_repair" in verdict(nobody)[1]
    assert any(FORKED in line for line in drawn(down))
    folded = drawn(down, width=WIDTH)
    assert max(map(len, folded)) <= WIDTH
    assert FORKED in " ".join(" ".join(folded).split())


def test_a_maintenance_of_our_own_is_told_once() -> None:
    """A change of parameters holds the set for a moment; killed, cls_setup ends it, and nothing that a person would type for one of their own."""
    report = healthy()
    assert report.named is not None
    held = [one._replace(flags=(*one.flags, "unmanaged")) for one in report.view.resources]
    found = trouble.find(report._replace(named=report.named._replace(held=True), view=report.view._replace(resources=tuple(held))))
    assert [(one.worst, "cls_setup" in one.hint, "killed" in one.what) for one in found] == [(State.DEGRADED, True, True)]
    stopped: dict[str, object] = {"role": "stopped"}
    forgotten = report._replace(named=report.named._replace(held=True), primary=None, rows=rows(**dict.fromkeys(NODES, stopped)))
    assert report.asked.answered
    assert verdict(forgotten)[0] is State.DEGRADED, "Pacemaker has been told to look anew, and the primary answers"
    assert verdict(forgotten._replace(asked=Primary(Refusal.SILENT, "timeout")))[0] is State.DOWN
    assert verdict(forgotten._replace(named=report.named))[0] is State.DOWN


def test_an_agent_that_is_not_let_in_is_told_while_it_is_so() -> None:
    """Pacemaker keeps such a monitor among its failures afterwards, too; the member's last one counts."""
    report = healthy()
    said = failed("pgsql_monitor_3000", "node1", 'not watched any more: FATAL: no pg_hba.conf entry for host "[local]"')._replace(code="191")
    shut = report._replace(view=report.view._replace(failed=(said,)))
    assert verdict(shut)[0] is State.HEALTHY
    state, told = verdict(shut._replace(rows=rows(node1={"unwatched": True})))
    assert (state, "no pg_hba.conf entry" in told, "works again" in told) == (State.DEGRADED, True, False), told


def test_with_several_sets_the_command_names_the_one_that_is_looked_at() -> None:
    """`cls_start` without a name would start another one."""
    stopped = healthy(rows=rows(node3={"role": "stopped"}))
    assert verdict(stopped)[1].endswith("-> cls_start")
    assert verdict(stopped._replace(several=True))[1].endswith("-> cls_start --set msPostgresql")


def test_without_quorum_nobody_is_told_to_start_what_may_be_running() -> None:
    """What such a node says of others is old: one complaint, and where to look instead."""
    state, said = verdict(healthy(quorate=False, primary=None, rows=rows(node2={"online": False}, node3={"online": False})))
    assert (state, said.count("->"), "cls_status on node2 or node3" in said) == (State.DOWN, 1, True), said


def test_a_node_that_repairs_itself_is_not_to_be_repaired_by_hand() -> None:
    """While it does, and before it begins when auto_rejoin is on, nobody is told to type the same; when it failed, what to type instead."""
    report = healthy()
    assert report.named
    stopped = [one._replace(instances=tuple(part for part in one.instances if "node3" not in part.nodes)) for one in report.view.resources]
    view = report.view._replace(failed=(failed("pgsql_start_0", "node3", FORKED),), resources=tuple(stopped))
    named = report.named._replace(parameters={**report.named.parameters, "auto_rejoin": "rewind"})
    for repair, words in (
        (None, "it repairs itself"),
        ("rewind 35 from node1", "being repaired"),
        ("failed - given up", "-> on node3: cls_rebuild_slave"),
    ):
        state, said = verdict(report._replace(named=named, view=view, rows=rows(node3={"role": "failed", "repair": repair})))
        assert (state, words in said, said.count("->")) == (State.DEGRADED, True, 1), said


def test_a_running_repair_has_a_bar() -> None:
    """Kind, percent and what it says of itself."""
    assert "node3 rewind [#######.............]  35 %  pg_rewind: 120/340 MB" in drawn(
        healthy(rows=rows(node3={"repair": "rewind 35 pg_rewind: 120/340 MB"}))
    )


def test_without_the_primarys_word_attributes_tell() -> None:
    """Lag is unknown then, and said to be."""
    lines = [re.split(r"  +", line) for line in drawn(shown("healthy"))]
    assert ["node2", "standby", "?", "?", "?", "?", "sync", "last seen as HS:sync"] in lines


def test_colours_are_for_terminals() -> None:
    """Plain otherwise, and the same words."""
    plain, coloured = drawn(healthy()), drawn(healthy(), colour=True)
    assert not any("\x1b" in line for line in plain)
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
    assert any("\x1b[" in line for line in coloured)


def test_a_screen_that_is_watched_is_no_longer_than_the_terminal() -> None:
    """What does not fit is counted: a longer one would scroll, and flicker."""
    lines = drawn(healthy(), height=10)
    assert len(lines) == 10
    assert "more lines" in lines[-1]


def test_hints_name_commands_that_exist() -> None:
    """What a person is told to type is there."""
    source = "".join((ROOT / "pha4pgsql" / f"{name}.py").read_text() for name in ("trouble", "status_screen"))
    there = {path.name for path in (ROOT / "bin").iterdir()}
    assert set(re.findall(r"\bcls_[a-z_]+\b", source)) - there == set()


def test_json_has_the_judgement() -> None:
    """State, problems, and what each node does."""
    report = healthy(rows=rows(node3={"online": False}))
    found = trouble.find(report)
    told = json.loads(json.dumps(cli_screen.as_json(cli_screen.Look(sighted("healthy"), report, found, trouble.state(found)))))
    assert told["state"] == "degraded"
    assert "node3" in told["problems"][0]["what"]
    assert [row["doing"] for row in told["nodes"]] == ["takes writes", "streams", "offline"]
    assert told["asked"]["names"] == '"node2"'


def test_bans_are_read_from_the_configuration() -> None:
    """As crm_resource writes them: by node, or by a rule that ends at a date."""
    xml = """<cib><configuration><constraints>
    <rsc_location id="cli-ban-ms-on-node1" rsc="ms" role="Promoted" node="node1" score="-INFINITY"/>
    <rsc_location id="cli-ban-ms-on-node2" rsc="ms" role="Started" node="node2" score="-INFINITY"/>
    <rsc_location id="cli-prefer-ms" rsc="ms" role="Started" node="node2" score="INFINITY"/>
    <rsc_location id="cli-ban-ms-on-node3" rsc="ms"><rule id="r" score="-INFINITY" boolean-op="and">
      <expression id="e" attribute="#uname" operation="eq" value="node3" type="string"/>
      <date_expression id="d" operation="lt" end="2026-11-25 10:00:00Z"/></rule></rsc_location>
    </constraints></configuration></cib>"""
    assert text.bans(ElementTree.fromstring(xml)) == (  # noqa: S314
        Ban("cli-ban-ms-on-node1", "ms", "node1", "Promoted", ""),
        Ban("cli-ban-ms-on-node2", "ms", "node2", "", ""),
        Ban("cli-ban-ms-on-node3", "ms", "node3", "", "2026-11-25 10:00:00Z"),
    )
