"""The practice cluster's words, files, judgements and fence agent. No namespace is made, no root is needed."""

from __future__ import annotations

import json
import socket
import threading
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import config, lab, lab_command, lab_fence, lab_health, lab_postgres, lab_up, lab_words, text
from pha4pgsql.lab_health import Server
from pha4pgsql.lab_words import Plan
from pha4pgsql.words import ConfigurationError, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SAMPLES = Path(__file__).parent.parent / "samples"
ABSENT = EnvironmentFailure("nobody there")


# ---------------------------------------------------------------- plans and files


def test_names_and_addresses_are_those_of_the_walkthrough() -> None:
    """node1 to node5 have 231 to 235; the client is no member of the cluster."""
    plan = Plan("x", size=5)
    assert [(node.name, node.address) for node in plan.members] == [(f"node{n}", f"192.168.0.{230 + n}") for n in range(1, 6)]
    assert [node.name for node in plan.nodes if not node.member] == ["client"]


def test_a_plan_survives_its_file() -> None:
    """What `up` was told is what every later command knows."""
    plan = Plan("x", 2, "/b", (("token", "500"),), fencing=False, settings=(("pgsql_rep_mode", "quorum"),), disk="/d")
    assert lab_words.from_json(lab_words.to_json(plan)) == plan


@pytest.mark.parametrize("plan", [Plan("Big"), Plan("../x"), Plan(""), Plan("a" * 32), Plan("x", 0), Plan("x", 6)])
def test_a_lab_that_cannot_be_is_refused(plan: Plan) -> None:
    """Names become paths and numbers become addresses: only those that fit are taken."""
    with pytest.raises(ConfigurationError):
        lab_words.checked(plan)


@pytest.mark.parametrize("given", ["token", "=5", "a b=c", "9=1"])
def test_what_is_no_pair_is_refused(given: str) -> None:
    """--set and --corosync take KEY=VALUE only."""
    with pytest.raises(ConfigurationError):
        lab_words.pair(given, "--set")


def test_corosync_times_are_always_written_and_can_be_changed() -> None:
    """token, token_coefficient and consensus never depend on Corosync's defaults."""
    usual = lab_words.corosync_conf(Plan("x"))
    fast = lab_words.corosync_conf(Plan("x", corosync=(("token", "500"), ("consensus", "600"))))
    assert all(f"    {line}\n" in usual for line in ("token: 1000", "token_coefficient: 0", "consensus: 1200"))
    assert all(f"    {line}\n" in fast for line in ("token: 500", "token_coefficient: 0", "consensus: 600"))
    assert "two_node" not in usual
    assert "two_node: 1" in lab_words.corosync_conf(Plan("x", size=2))


def test_the_first_cib_is_one() -> None:
    """A node's first CIB is XML with dc-deadtime, owned by the cluster's user."""
    plan = Plan("x")
    cib = next(file for file in lab_words.first_files(plan, plan.members[0]) if file.path.endswith("cib.xml"))
    pairs = {pair.get("name"): pair.get("value") for pair in ET.fromstring(cib.content).iter("nvpair")}  # noqa: S314
    assert pairs == {"dc-deadtime": "1s"}
    assert (cib.owner, cib.group, cib.mode) == ("hacluster", "haclient", 0o600)


def test_the_client_has_no_cluster_files() -> None:
    """The client is a machine outside the cluster."""
    plan = Plan("x")
    assert {file.path for file in lab_words.first_files(plan, plan.node("client"))} == {"/etc/hosts", "/etc/hostname", "/etc/machine-id"}


@pytest.mark.parametrize("size", range(2, 6))
def test_config_ini_is_one_that_config_takes(size: int) -> None:
    """The lab's config.ini has no problem, names all members, and --set wins, whatever quotes a value needs."""
    plan = Plan("x", size, settings=(("pgsql_rep_mode", "quorum"), ("pgsql_monitor_sql", "select 'it''s \"x\" $y'")))
    read = config.parse(lab_postgres.config_ini(plan))
    assert read.nodes == tuple(node.name for node in plan.members)
    assert read.pgsql_rep_mode.value == "quorum"
    assert read.pgsql_monitor_sql == "select 'it''s \"x\" $y'"


def test_secrets_are_quoted_in_sql() -> None:
    """A password with a quote is a password with a quote."""
    plan = Plan("x", settings=(("pgsql_reppassword", "o'x"), ("pgsql_repuser", 'a"b')))
    assert "CREATE ROLE \"a\"\"b\" LOGIN REPLICATION SUPERUSER PASSWORD 'o''x';" in lab_postgres.first_statements(plan)


def test_fencing_xml_names_every_member() -> None:
    """Every member can be fenced, and fenced means off."""
    tree = ET.fromstring(lab_up.fencing_xml(Plan("x", size=4)))  # noqa: S314
    pairs = {pair.get("name"): pair.get("value") for pair in tree.iter("nvpair")}
    assert pairs["pcmk_host_list"] == "node1 node2 node3 node4"
    assert (pairs["stonith-enabled"], pairs["stonith-action"]) == ("true", "off")


# ---------------------------------------------------------------- health

NODES = {"node1": "a1", "node2": "a2", "node3": "a3"}
HEALTHY = {"a1": Server(timeline=2), "a2": Server(recovery=True, timeline=2), "a3": Server(recovery=True, timeline=2)}
VIPS = {"w": Server(timeline=2), "r": Server(recovery=True, timeline=2)}


def lacks(**changed: Server) -> tuple[str, ...]:
    """What is missing when these addresses answer otherwise."""
    return lab_health.servers_lack({**HEALTHY, **VIPS, **changed}, NODES, "w", "r")


def test_healthy_servers_lack_nothing() -> None:
    """One primary, the others receive its timeline, both virtual addresses lead to the right kind."""
    assert lacks() == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"a1": Server(recovery=True, timeline=2)},
        {"a1": Server(error="refused")},
        {"a2": Server(timeline=2)},
        {"a2": Server(recovery=True)},
        {"a2": Server(recovery=True, timeline=1)},
        {"a3": Server(error="timeout")},
        {"w": Server(recovery=True, timeline=2)},
        {"w": Server(timeline=1)},
        {"w": Server(error="refused")},
        {"r": Server(timeline=2)},
        {"r": Server(error="refused")},
    ],
)
def test_everything_else_lacks_something(changed: dict[str, Server]) -> None:
    """No primary, two, a standby that receives nothing or another timeline, an address that leads elsewhere."""
    assert lacks(**changed)


def test_a_primary_alone_needs_no_reader() -> None:
    """Where only one member is on there is no standby to read from."""
    servers = {"a1": Server(timeline=2), "w": Server(timeline=2), "r": Server(error="nobody")}
    assert lab_health.servers_lack(servers, {"node1": "a1"}, "w", "r") == ()


def test_the_cluster_is_judged_by_crm_mon() -> None:
    """Members that are on must be online, with quorum, and one instance promoted."""
    shown = text.view(ET.parse(SAMPLES / "crm_mon-healthy.xml").getroot())  # noqa: S314
    names = [host.name for host in shown.hosts]
    assert lab_health.cluster_lacks(shown, names) == ()
    assert lab_health.cluster_lacks(shown, [*names, "node9"])
    assert lab_health.cluster_lacks(shown._replace(quorate=False), names)
    assert lab_health.cluster_lacks(shown._replace(resources=()), names)
    assert lab_health.cluster_lacks(None, names)
    assert lab_health.cluster_lacks(shown, [])


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    "argv", [[], ["frob"], ["crash"], ["run"], ["run", "node1"], ["up", "--nodes", "9"], ["up", "--set", "x"], ["up", "--nodes", "x"]],
)  # fmt: skip
def test_wrong_usage_is_told_before_anything_happens(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 100 and a sentence on standard error."""
    assert lab_command.main(argv) == lab_command.WRONG_USAGE
    assert capsys.readouterr().err


def test_a_lab_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 with a hint, for every verb but `down`, which has nothing to do."""
    for argv in (["list"], ["crash", "node1"], ["run", "node1", "--", "true"], ["wait"], ["logs", "node1"]):
        assert lab_command.main([argv[0], "--name", "no-such-lab", *argv[1:]]) == 1
        assert "HINT: " in capsys.readouterr().err
    assert lab_command.main(["down", "--name", "no-such-lab"]) == 0


# ---------------------------------------------------------------- the fence agent, with a twin of the power switch


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[tuple[str, list[tuple[str, list[str]]]]]:
    """A power switch that notes what it is asked: node1 is running, node2 is off."""
    path, asked = f"{tmp_path}/switch", list[tuple[str, list[str]]]()
    rows = [{"name": name, "address": "", "state": state, "link": "up"} for name, state in (("node1", "running"), ("node2", "off"))]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection, connection.makefile("rw") as stream:
                    line = stream.readline()
                    if not line:
                        return
                    request = json.loads(line)
                    asked.append((request["verb"], request["nodes"]))
                    stream.write(json.dumps({"ok": request["nodes"] != ["nobody"], "value": rows, "message": "no such node", "hint": ""}) + "\n")

        server = threading.Thread(target=serve)
        server.start()
        yield path, asked
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(path)
        server.join()


def fence(path: str) -> Callable[[Sequence[str]], int]:
    """Call the agent as Pacemaker does."""
    return lambda lines: lab_fence.main([], [*(f"{line}\n" for line in lines), f"switch={path}\n"])


@pytest.mark.parametrize(("action", "verb"), [("off", "crash"), ("on", "boot"), ("reboot", "reboot")])
@pytest.mark.parametrize("key", ["port", "plug", "nodename"])
def test_orders_reach_the_switch(switch: tuple[str, list[tuple[str, list[str]]]], action: str, verb: str, key: str) -> None:
    """off, on and reboot of a node, however Pacemaker names the node's parameter."""
    path, asked = switch
    assert fence(path)(["# comment", f"action={action}", f"{key}=node1"]) == 0
    assert asked == [(verb, ["node1"])]


def test_questions_are_answered(switch: tuple[str, list[tuple[str, list[str]]]], capsys: pytest.CaptureFixture[str]) -> None:
    """monitor: 0; list: one node a line; status: 0 for on, 2 for off."""
    ask = fence(switch[0])
    assert ask(["action=monitor"]) == 0
    assert ask(["action=list"]) == 0
    assert capsys.readouterr().out.split() == ["node1,", "node2,"]
    assert (ask(["action=status", "port=node1"]), ask(["action=status", "port=node2"])) == (0, lab_fence.IS_OFF)


@pytest.mark.parametrize("lines", [["action=off"], ["action=dance", "port=node1"], ["action=status", "port=node9"], ["action=off", "port=nobody"]])
def test_orders_that_cannot_be_carried_out_fail(switch: tuple[str, list[tuple[str, list[str]]]], lines: list[str]) -> None:
    """Never a success for a node that was not switched."""
    assert fence(switch[0])(lines) == 1


def test_no_switch_is_a_failure(tmp_path: Path) -> None:
    """A fence device that cannot be reached never says that somebody is off."""
    for action in ("off", "monitor", "list", "status"):
        assert lab_fence.main([], [f"action={action}\n", "port=node1\n", f"switch={tmp_path}/none\n"]) == 1
    with pytest.raises(EnvironmentFailure):
        lab.ask(f"{tmp_path}/none", "list", [], ABSENT)


def test_metadata_declares_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    """It is XML, needs no switch, and no action is automatic."""
    assert lab_fence.main(["-o", "metadata"], []) == 0
    tree = ET.fromstring(capsys.readouterr().out)  # noqa: S314
    actions = {action.get("name"): action.get("automatic", "0") for action in tree.iter("action")}
    assert set(actions) == set(lab_fence.ACTIONS)
    assert set(actions.values()) == {"0"}
