"""cls_reset_master: what it refuses, what it says is lost, and what the state file becomes: nothing that keeps histories apart is forgotten."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from pha4pgsql import cli, cli_reset, text, vote
from pha4pgsql.checks import Answer as Told
from pha4pgsql.words import NEVER, NOTHING, Answer, Ballot, Circle, Era, Instance, Lsn, Roster, Rules, Run, State, Statement, Vote

NODES = ("node1", "node2", "node3")
RULES = Rules("pgsql", NODES)
TERM = Ballot(2, "node2")
ERAS = (Era(2, Lsn(100), Ballot(1, "node1")), Era(3, Lsn(200), TERM))
ALONE = Statement(TERM, 1, "node2")
SAMPLES = Path(__file__).parent.parent / "samples"


def shown(end: int, *, promised: Ballot = TERM, said: Statement = ALONE) -> Vote:
    return Vote(promised, ERAS, said=said, lsn=Lsn(end), system_identifier="1")


def ground(votes: dict[str, Vote], state: State | None = State(TERM, ERAS, said=ALONE), *, reigns: bool = False) -> cli_reset.Ground:  # noqa: B008
    """node1's look at a cluster without a primary, all of whose nodes are in the membership."""
    xml = (SAMPLES / "cib-healthy.xml").read_text()
    tree = ElementTree.fromstring(xml)  # noqa: S314
    cluster, named = text.cluster(tree), cli.the_set(text.replicated_sets(tree))
    if not reigns:
        cluster = cluster._replace(members={name: one._replace(roles={}) for name, one in cluster.members.items()})
    return cli_reset.Ground(cli.Site(cluster, named), votes, RULES, "node1", state, 9)


def refused(found: cli_reset.Ground, target: str) -> list[str]:
    return [check.what for check in cli_reset.checks(found, target) if check.answer is Told.NO and check.code == cli_reset.REFUSED]


@pytest.fixture(autouse=True)
def quorate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node has quorum."""
    monkeypatch.setattr("pha4pgsql.pacemaker.quorate", lambda: True)


LEFT = {"node1": shown(300), "node3": shown(300, promised=Ballot(5, "node3"))}


def test_who_is_refused() -> None:
    """A primary there is; too few are left; somebody has more; the one that went on alone is here."""
    assert refused(ground(LEFT), "node1") == []
    assert refused(ground(LEFT, reigns=True), "node1")
    assert refused(ground({"node1": LEFT["node1"]}), "node1")
    assert refused(ground({**LEFT, "node3": shown(301)}), "node1")
    assert refused(ground(LEFT), "node2")
    assert refused(ground({**LEFT, "node2": shown(400)}), "node2")


def test_the_row_is_needed_where_a_member_is_missing() -> None:
    """Two nodes, one lost: without the row nobody can be elected, so nothing is begun."""
    two = RULES._replace(members=("node1", "node3"), row=True)
    assert refused(ground({"node1": LEFT["node1"]})._replace(rules=two), "node1") == []
    assert refused(ground({"node1": LEFT["node1"]})._replace(rules=two, silence="it cannot be asked"), "node1")
    assert refused(ground(LEFT)._replace(rules=two, silence="it cannot be asked"), "node1") == []


def test_what_is_lost_is_said() -> None:
    """By name, with what each member holds."""
    told = cli_reset.risk(ground(LEFT), "node1")
    assert "node2" in told.partition("LOST")[2]
    assert "0/12C" in told
    assert "LOST" not in cli_reset.risk(
        ground({"node1": shown(300, said=ALONE._replace(owner="")), "node3": shown(300)._replace(said=ALONE._replace(owner=""))}), "node1"
    )


def test_the_operators_word_lets_an_election_be_won() -> None:
    """With the lost member's word nobody is elected; with a newer one those who are left elect the furthest; terms and promises stay."""
    before, after = State(TERM, ERAS, said=ALONE), cli_reset.replacement(ground(LEFT))
    assert after._replace(said=before.said, promised=before.promised) == before
    assert after.promised == Ballot(5, "node3") == after.said.term
    ballot = Ballot(9, "node1")
    said = Answer(ballot, TERM, Lsn(300), 3, "1")
    answered = {name: one._replace(promised=ballot, answer=said) for name, one in LEFT.items()}
    assert isinstance(vote.elect(ballot, answered, RULES), vote.Waiting)
    answered["node1"] = answered["node1"]._replace(said=after.said)
    assert isinstance(vote.elect(ballot, answered, RULES), vote.Elected)
    other = State(Ballot(5, "node3"), ERAS, said=ALONE)
    stored = vote.store(other, after.said)
    assert stored is not None, "the other members take it over by themselves"
    assert stored.said == after.said


def test_once_is_enough() -> None:
    """Run again, it changes nothing any more."""
    state = cli_reset.replacement(ground(LEFT))
    again = {name: one._replace(said=state.said, promised=state.promised) for name, one in LEFT.items()}
    assert cli_reset.replacement(ground(again, state)) == state


def test_by_the_stored_list() -> None:
    """In the middle of a change one more has to be here, who only elects is no target, and a new state file has the list."""
    middle = Roster(TERM, 1, Circle((*NODES, "node4"), 1), Circle(NODES, 1))
    here = {**LEFT, "node4": shown(400, promised=TERM)}
    there = ground(here)._replace(rules=RULES.under(middle))
    cluster = there.site.cluster
    cluster = cluster._replace(members={**cluster.members, "node4": cluster.members["node3"]._replace(name="node4")})
    there = there._replace(site=there.site._replace(cluster=cluster))
    assert there.furthest == ["node1", "node3"]
    assert cli_reset.replacement(there._replace(state=None)).roster == middle
    assert refused(ground(LEFT)._replace(rules=RULES.under(middle)), "node1"), "two of four"


def test_a_damaged_state_file() -> None:
    """The new one has promised more than anybody can have asked for, knows no terms, and does not forget who is alone."""
    here = {"node1": shown(300, said=ALONE), "node2": shown(300, said=ALONE), "node3": shown(300)}
    state = cli_reset.replacement(ground(here, None))
    assert (state.promised, state.eras, state.said) == (Ballot(10, "node1"), (), ALONE)
    assert vote.term_at(state.eras, Lsn(300)) == NEVER
    assert ground(LEFT, None).furthest == ["node3"], "it cannot be compared any more"
    told = cli_reset.risk(ground({"node2": shown(300), "node3": shown(300)}, None), "node3")
    assert "node1 is here, but its state file is damaged" in told
    assert "must be off" not in told
    lost = cli_reset.replacement(ground(LEFT, None))
    assert (lost.promised.round, lost.said.owner) == (10, "")


def no_data_refused(found: cli_reset.Ground, named: str = "") -> list[str]:
    return [check.what for check in cli_reset.no_data_checks(found, named) if check.answer is Told.NO]


def test_a_node_without_data() -> None:
    """Only where there is no primary, nothing in the data directory, and somebody else who has something; then it counts as an answer."""
    place = Path("/nowhere/data")
    lost = ground({"node3": LEFT["node3"]}, State(TERM))
    empty = lost._replace(site=lost.site._replace(named=lost.site.named._replace(parameters={**lost.site.named.parameters, "pgdata": str(place)})))
    assert no_data_refused(empty) == []
    assert no_data_refused(empty, "node3") == ["--no-data is about this node"]
    assert no_data_refused(empty._replace(votes={})) == ["another member shows what it holds"]
    assert no_data_refused(empty._replace(votes={"node3": LEFT["node3"]._replace(lsn=NOTHING)})) == ["another member shows what it holds"]
    assert no_data_refused(empty._replace(state=None)) == ["the state file of node1 can be read"]
    assert cli_reset.missing_answers(empty) == 0
    assert cli_reset.missing_answers(empty._replace(votes={})) == 1
    told = cli_reset.no_data_risk(empty)
    assert "what only node2 and node1 had" in told
    assert "node2 must be off" in told
    nothing = empty._replace(votes={**empty.votes, "node1": Vote(TERM, lsn=NOTHING)})
    assert cli_reset.holdings(nothing) == "node1 has no data, node2 is here, and shows nothing, node3 0/12C of term 2.node2"


def test_data_that_are_there_are_not_given_up(tmp_path: Path) -> None:
    """Whatever is in the directory may be the only copy."""
    (tmp_path / "PG_VERSION").write_text("15\n")
    found = ground({"node3": LEFT["node3"]}, State(TERM))
    found = found._replace(
        site=found.site._replace(named=found.site.named._replace(parameters={**found.site.named.parameters, "pgdata": str(tmp_path)}))
    )
    assert no_data_refused(found) == [f"{tmp_path} is empty"]
    (tmp_path / "PG_VERSION").rename(tmp_path / "lost+found")
    assert no_data_refused(found) == [], "a file system of its own"
    (tmp_path / "lost+found").rename(tmp_path / "PG_VERSION")
    assert no_data_refused(found._replace(state=State(TERM, mark="a copy of node2 began and has not ended"))) == []


def test_who_has_no_data_does_not_make_it_a_first_election() -> None:
    """While the one that has something does not show it, nobody is told that nobody was ever promoted."""
    given = {"node2": Vote(TERM, lsn=NOTHING)}
    assert "nobody was ever promoted" not in vote.obstacle(given, RULES)
    assert vote.able(given, RULES) == []
    assert vote.able({**given, "node1": shown(300, said=ALONE._replace(owner=""))}, RULES) == ["node1"]


def test_who_went_on_alone_and_lost_its_data_says_so() -> None:
    """By name, with its last word."""
    found = ground({"node3": LEFT["node3"]._replace(said=ALONE._replace(owner="node1"))}, State(TERM))
    assert "what node1 confirmed alone" in cli_reset.no_data_risk(found)


RESTORED = Instance(Run.DOWN, Lsn(180), 4, system_identifier="1", histories=((2, 1, Lsn(100)), (4, 2, Lsn(150))))
BEHIND = {"node1": shown(180), "node2": shown(300), "node3": shown(290, promised=Ballot(5, "node3"))}


def restored(instance: Instance, votes: dict[str, Vote] = BEHIND, state: State | None = State(TERM, ERAS), named: str = "") -> list[str]:  # noqa: B008
    return [check.what for check in cli_reset.restored_checks(ground(votes, state), instance, named) if check.answer is Told.NO]


def test_what_was_restored() -> None:
    """It is down, whole, a copy of the same database, and on a timeline that this cluster has not made; enough others are here."""
    assert restored(RESTORED) == []
    assert restored(RESTORED, named="node2") == ["--restored is about this node"]
    assert restored(RESTORED._replace(run=Run.STANDBY)) == ["PostgreSQL does not run here"]
    assert restored(RESTORED._replace(lsn=None)) == ["the end of the WAL here can be read"]
    assert restored(RESTORED._replace(timeline=2)) == ["the data here are on a timeline of their own"]
    assert restored(RESTORED._replace(system_identifier="2")) == ["the other members have copies of the same database"]
    assert restored(RESTORED, {"node1": shown(180)}) == ["2 of 3 members are here"]
    assert "the state file of node1 can be read, and knows terms" in restored(RESTORED, state=State())
    assert restored(RESTORED, state=State(TERM, ERAS, mark="half a copy")) == ["the data here are whole"]
    number = (*RESTORED.histories[:1], (3, 2, Lsn(150)))  # the restore took a number that an election has used
    assert restored(RESTORED._replace(timeline=3, histories=number)) == []


def test_the_word_for_what_was_restored() -> None:
    """A term above all promises for the timeline of its own; the others hear that this node alone knows; said once, and told what it costs."""
    said = cli_reset.vouched(ground(BEHIND, State(TERM, ERAS)), RESTORED)
    term = Ballot(10, "node1")  # the round is 9
    assert (said.promised, said.said) == (term, Statement(term, 1, "node1"))
    assert said.eras == (ERAS[0], Era(4, Lsn(150), term))
    again = ground(BEHIND, said)
    assert cli_reset.vouched(again, RESTORED) == said
    assert cli_reset.said_before(again)
    told = cli_reset.restored_risk(ground(BEHIND, State(TERM, ERAS)), RESTORED)
    assert "node2 0/12C of term 2.node2" in told
    assert "LOST FOR EVER: what node2 and node3 hold beyond 0/96" in told
    assert "what node2 confirmed alone" in told
