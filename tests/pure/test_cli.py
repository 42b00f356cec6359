"""The operators' commands: what is still missing, what is shown, exit codes. No cluster is needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pha4pgsql import arguments, cli, cli_start, cli_status, config_pages, pacemaker, text
from pha4pgsql.checks import Answer
from pha4pgsql.words import HOLD, Ballot, ClusterRefusal, ConfigurationError, EnvironmentFailure, Era, Failure, Lsn, Rules, Statement, Vote

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "tests" / "samples"
COMMANDS = sorted(path.name for path in (ROOT / "bin").glob("cls_*"))


def cib(name: str = "cib-healthy.xml", *changes: tuple[str, str]) -> text.Tree:
    """A saved CIB, with replacements each of which must hit."""
    xml = (SAMPLES / name).read_text()
    for old, new in changes:
        assert old in xml
        xml = xml.replace(old, new)
    return ElementTree.fromstring(xml)  # noqa: S314


def site(*changes: tuple[str, str]) -> cli.Site:
    """The healthy cluster, changed."""
    tree = cib("cib-healthy.xml", *changes)
    return cli.Site(text.cluster(tree), cli.the_set(text.replicated_sets(tree)))


POOL = cli_status.Pool((cli_status.Server("node2", "192.168.0.232", 1, 3, 0), cli_status.Server("node3", "192.168.0.233", 0, 0, 1)), 1700000000)


def with_director(*changes: tuple[str, str], pool: cli_status.Pool) -> cli.Site:
    """The healthy cluster where the director is, or should be; for want of another the writer's address stands for it."""
    return (found := site(*changes))._replace(named=found.named._replace(director="vip-slave"), pool=pool)


def test_cls_start_waits_for_director_and_pool() -> None:
    """The reader address alone serves nobody."""
    assert cli.missing_for_standbys(with_director(pool=POOL)) == []
    (reason,) = cli.missing_for_standbys(with_director(pool=cli_status.Pool()))
    assert "no real server" in reason
    (reason,) = cli.missing_for_standbys(with_director(pool=POOL._replace(servers=POOL.servers[1:])))
    assert "no real server" in reason
    absent = with_director(pool=cli_status.Pool())
    (reason,) = cli.missing_for_standbys(absent._replace(named=absent.named._replace(director="lvsdr")))
    assert reason == "lvsdr is not running"


def test_nothing_is_missing_in_a_healthy_cluster() -> None:
    """cls_start ends as soon as this is so."""
    assert cli.missing_for_primary(site()) == []
    assert cli.missing_for_standbys(site()) == []


def test_a_standby_that_does_not_stream_is_named() -> None:
    """The node and its data-status are in the message."""
    (reason,) = cli.missing_for_standbys(site(('value="STREAMING|ASYNC"', 'value="DISCONNECT"')))
    assert "node3" in reason
    assert "DISCONNECT" in reason


@pytest.mark.parametrize("status", ["STREAMING|SYNC", "STREAMING|QUORUM", "STREAMING|POTENTIAL", "STREAMING|ASYNC"])
def test_healthy_data_status(status: str) -> None:
    """The values with which a node counts as replicating."""
    assert cli.missing_for_standbys(site(('value="STREAMING|ASYNC"', f'value="{status}"'))) == []


def test_what_a_former_primary_shows_does_not_count() -> None:
    """Until the new primary has told, it still shows what it was; scripts take an end of cls_online_switch for a standby that streams."""
    (reason,) = cli.missing_for_standbys(site(('value="STREAMING|ASYNC"', 'value="LATEST"'), ('value="HS:async"', 'value="PRI"')))
    assert reason == "node3 does not replicate yet: data-status LATEST, status PRI"


def test_a_remembered_data_status_does_not_count() -> None:
    """After a reboot data-status still says that the standby streams, while status says that it is alone."""
    (reason,) = cli.missing_for_standbys(site(('value="HS:async"', 'value="HS:alone"')))
    assert "HS:alone" in reason


def test_an_offline_node_is_named() -> None:
    """Its data-status is permanent and still says that it streams: that does not count."""
    changed = site(('<node_state id="3" uname="node3" in_ccm="true"', '<node_state id="3" uname="node3" in_ccm="false"'))
    assert any("node3 is offline" in reason for reason in cli.missing_for_standbys(changed))


def test_a_name_that_the_cluster_does_not_know_is_named() -> None:
    """A slip in node_list is told, not waited for in silence."""
    changed = site(('value="node1 node2 node3"', 'value="node1 node2 nodeX"'))
    assert any("nodeX" in reason for reason in cli.missing_for_standbys(changed))


THREE = Rules("pgsql", ("node1", "node2", "node3"))
ERA = Era(2, Lsn(100), Ballot(1, "node1"))


def noted(**votes: Vote) -> tuple[str, ...]:
    return cli_status.notes(votes, THREE, (), "")


def test_a_first_election_that_waits_names_the_silent() -> None:
    """Nobody has a term and one member has not answered: the operator learns whom all wait for, and the way out."""
    new = Vote(lsn=Lsn(50))
    (reason,) = noted(node1=new, node2=new)
    assert "node3" in reason
    assert "cls_setup" in reason
    assert noted(node1=new, node2=new, node3=new) == ()


def test_it_is_told_whose_answer_an_election_misses() -> None:
    """Later two of three are enough, but not without the one that went on alone."""
    old = Vote(eras=(ERA,), lsn=Lsn(150))
    assert noted(node1=old, node2=old) == ()
    (reason,) = noted(node1=old)
    assert "node2 node3" in reason
    alone = old._replace(said=Statement(Ballot(1, "node1"), 1, "node1"))
    (reason,) = noted(node2=alone, node3=alone)
    assert "node1" in reason


def test_a_primary_that_goes_on_alone_is_told() -> None:
    """What is committed then is on one node only: the most important thing to know."""
    said = Statement(Ballot(1, "node1"), 1, "node1")
    votes = {"node1": Vote(eras=(ERA,), reign=ERA.term, said=said)}
    (note,) = cli_status.notes(votes, THREE, ("node1",), "")
    assert "node1 goes on alone" in note
    (note,) = cli_status.notes(votes, THREE, ("node1",), "", names='"node2"')
    assert "commits wait" in note, "it has said so, and not enough others have stored it"
    assert cli_status.notes({"node1": votes["node1"]._replace(said=said._replace(owner=""))}, THREE, ("node1",), "") == ()


def test_conditions_tell_every_online_member() -> None:
    """Role, status, data-status and score of each."""
    first, second, _ = cli.conditions(site())
    assert all(word in first for word in ("node1", "promoted", "PRI", "LATEST", "1000"))
    assert all(word in second for word in ("node2", "started", "HS:sync", "STREAMING|SYNC", "100"))


def test_still_running_lists_everything_of_the_set() -> None:
    """cls_stop waits for instances and addresses, not for pgwatch."""
    running = " ".join(cli.still_running(site()))
    assert all(name in running for name in ("vip-master", "vip-slave", "node1", "node2", "node3"))
    assert "pgwatch" not in running


def silent(_: str) -> None:
    """Say nothing."""


def test_a_plan_of_what_is_so_already_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """cls_start of a set that serves, cls_stop of one that is stopped."""
    monkeypatch.setattr(pacemaker, "quorate", lambda: True)
    assert all(step.done for step in cli_start.starting(site(), 1, silent).steps)
    stop = cli_start.stopping(site(), 1, silent)
    assert [step.done for step in stop.steps] == [False, False]
    assert stop.risk
    assert [step.done for step in cli_start.starting(site(("STREAMING|SYNC", "DISCONNECT")), 1, silent).steps] == [False, True, True, False]


@pytest.mark.parametrize(("resource", "forgotten"), [("", 3), ("msPostgresql", 1), ("pgsql", 1), ("vip-master", 1), ("fence-lab", 0)])
def test_cls_cleanup_tells_only_what_it_forgets(resource: str, forgotten: int) -> None:
    """The failures of the resource that is named, or of what is in it."""
    view = text.view(ElementTree.parse(SAMPLES / "crm_mon-failures.xml").getroot())  # noqa: S314
    assert len(cli_start.forgotten(view, resource)) == forgotten


def test_no_set_and_unknown_set() -> None:
    """Nothing configured is the cluster's refusal."""
    with pytest.raises(ClusterRefusal):
        cli.the_set([])


@pytest.mark.parametrize(("chosen", "found"), [("msShop", "msShop"), ("shop", "msShop"), ("msPostgresql", "msPostgresql"), ("", "msShop")])
def test_one_set_of_several(chosen: str, found: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """--set names the set or its resource; without it the config.ini that belongs to the command tells."""
    (tmp_path / "config.ini").write_text(config_pages.sample().replace("msPostgresql vip-master vip-slave", "msShop vip-shop vip-shop-read"))
    monkeypatch.setattr("sys.argv", [str(tmp_path / "bin" / "cls_status")])
    monkeypatch.setenv(cli.CHOSEN, chosen)
    sets = text.replicated_sets(cib())
    assert cli.the_set([*sets, sets[0]._replace(promotable="msShop", primitive="shop")]).promotable == found


def test_a_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there is one only: whoever names a set means that one."""
    monkeypatch.setenv(cli.CHOSEN, "shop")
    with pytest.raises(ConfigurationError, match="the sets msPostgresql, --set means shop"):
        cli.the_set(text.replicated_sets(cib()))


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (pacemaker.Unreachable("x"), 101),
        (cli.WithoutQuorum("x"), 102),
        (ClusterRefusal("x"), 1),
        (ConfigurationError("x"), 1),
        (EnvironmentFailure("x"), 1),
    ],
)
def test_exit_codes(failure: Failure, code: int) -> None:
    """100 + the seed's reasons; 1 for the rest."""
    assert failure.code == code


@pytest.mark.parametrize("command", COMMANDS)
def test_help_works_from_anywhere_and_through_a_symbolic_link(command: str, tmp_path: Path) -> None:
    """The library is found from the real place of the command."""
    link = tmp_path / command
    link.symlink_to(ROOT / "bin" / command)
    done = subprocess.run([sys.executable, "-IS", link, "--help"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert command in done.stdout
    assert os.access(ROOT / "bin" / command, os.X_OK)


@pytest.mark.parametrize(("command", "words"), [("cls_start", ["--timeout", "soon"]), ("cls_status", ["--jso n"]), ("cls_master", ["node1"])])
def test_wrong_usage(command: str, words: list[str]) -> None:
    """Code 100, a message and a hint."""
    done = subprocess.run([sys.executable, "-IS", ROOT / "bin" / command, *words], capture_output=True, text=True, check=False)
    assert done.returncode == arguments.USAGE
    assert "HINT:" in done.stderr
    assert done.stdout == ""


def test_a_fragment_holds_all_changes() -> None:
    """One write for all attributes and properties, by the ids which crm_attribute uses."""
    xml = pacemaker._fragment({("a", "x"): "<1>", ("b", "x"): "2"}, {"p": "q|r"}, "pgsql_replication", {"a": "1", "b": "2"})
    found = text.cluster(ElementTree.fromstring(xml))  # noqa: S314
    assert {node: dict(member.permanent) for node, member in found.members.items()} == {"a": {"x": "<1>"}, "b": {"x": "2"}}
    assert found.properties == {"p": "q|r"}
    assert 'id="nodes-1-x"' in xml


def test_an_unknown_node_is_refused_before_anything_is_written() -> None:
    """A write to a node that Pacemaker does not know would create one."""
    with pytest.raises(EnvironmentFailure):
        pacemaker._fragment({("ghost", "x"): "1"}, {}, "s", {"a": "1"})


def test_a_set_that_is_held_is_neither_started_nor_stopped() -> None:
    """What a killed command has left is seen in the configuration; `start resource successful` would be a lie."""
    tree = cib()
    (named,) = text.replicated_sets(tree)
    assert not named.held
    clone = next(one for one in tree.iter("clone") if one.get("id") == named.promotable)
    meta = ElementTree.SubElement(clone, "meta_attributes", id="m")
    ElementTree.SubElement(meta, "nvpair", id=f"{HOLD}{named.promotable}", name="maintenance", value="true")
    (held,) = text.replicated_sets(tree)
    assert held.held
    check = cli_start.unheld(cli.Site(text.cluster(tree), held))
    assert (check.answer, check.hint) == (Answer.NO, "wait for its end; if none is at work: cls_setup")
    assert cli_start.unheld(cli.Site(text.cluster(tree), named)).answer is Answer.YES
