"""A planned switchover: what a wish changes, how it ends, and who may be the target. No rule is weaker for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pha4pgsql import cli, cli_switch, duties, early, pgsql, shown, sight, standby_names, text
from pha4pgsql.checks import Answer as Told
from pha4pgsql.parameters import PGSQL
from pha4pgsql.words import (
    Answer,
    Attributes,
    Ballot,
    Checkpoint,
    Era,
    Follower,
    Instance,
    Lsn,
    Mode,
    Promote,
    Rules,
    Run,
    Scene,
    Shutdown,
    State,
    Statement,
    Vote,
    Wish,
)

NODES = ("node1", "node2", "node3")
TERM = Ballot(7, "node1")
ERAS = (Era(2, Lsn(100), TERM),)
HERE = Lsn(1000)
SAMPLES = Path(__file__).parent.parent / "samples"


def primary(wish: Wish | None = None, *, mode: Mode = Mode.SYNC, count: int = 1, nodes: tuple[str, ...] = NODES, absent: str = "") -> Scene:
    """The primary's look: everybody streams but `absent`; node2 (and more) is in its set."""
    rules = Rules("pgsql", nodes, mode, count, slot_prefix="pgsql")
    followers = tuple(
        Follower(node, "streaming", "sync", HERE, sight.slot_name("pgsql", TERM, node)) for node in nodes if node not in (nodes[0], absent)
    )
    names = standby_names.fixed_names(nodes[1 : 1 + count]) if mode is Mode.SYNC else standby_names.quorum_names(rules, nodes[0])
    instance = Instance(Run.PRIMARY, HERE, 2, Lsn(500), "1", names=names, names_shown=names, followers=followers)
    attributes = ((("node1", "pgsql-switch"), str(wish)),) if wish else ()
    return Scene("node1", rules, State(TERM, ERAS, reign=TERM), instance, online=frozenset(nodes), attributes=attributes, round=8)


def wish(target: str = "node3", term: Ballot = TERM, since: int = 0, looks: int = 5) -> Wish:
    return Wish(target, term, Lsn(since), looks)


def test_the_wished_one_is_named_first() -> None:
    """It gets every commit before it is promoted; k stay k."""
    assert standby_names.choose_names(primary()) == '"node2"'
    assert standby_names.choose_names(primary(wish())) == '"node3"'
    five = tuple(f"node{number}" for number in range(1, 6))
    assert standby_names.choose_names(primary(wish("node5"), count=2, nodes=five)) == '2 ("node2", "node5")'


@pytest.mark.parametrize(
    "scene",
    [
        primary(wish(), absent="node3"),
        primary(wish("node9")),
        primary(wish("node1")),
        primary(wish(term=Ballot(6, "node1"))),
        primary(wish(term=Ballot(8, "node2"))),
    ],
    ids=["does not stream", "unknown", "itself", "an earlier reign", "another's reign"],
)
def test_a_wish_that_does_not_fit_changes_nothing(scene: Scene) -> None:
    """Nobody who does not stream is ever waited for because somebody wished it."""
    assert standby_names.choose_names(scene) == '"node2"'


def test_quorum_set_stays() -> None:
    """It names all others for ever."""
    assert standby_names.choose_names(primary(wish(), mode=Mode.QUORUM)) == standby_names.choose_names(primary(mode=Mode.QUORUM))


def test_a_checkpoint_once() -> None:
    """Until one is there that began after the wish."""
    assert duties.prepare(primary(wish(since=501))) == [Checkpoint()]
    assert duties.prepare(primary(wish(since=500))) == []
    assert duties.prepare(primary()) == []


def told(scene: Scene) -> dict[tuple[str, str], str | None]:
    return dict(change for step in shown.report(scene) if isinstance(step, Attributes) for change in step.transient)


def test_a_wish_ends_by_itself() -> None:
    """Each look of the primary takes one; one that does not fit goes at once, and so does one at a node that was primary."""
    key = ("node1", "pgsql-switch")
    assert told(primary(wish(looks=5)))[key] == str(wish(looks=4))
    assert told(primary(wish(looks=1)))[key] is None
    assert told(primary(wish(term=Ballot(6, "node1"))))[key] is None
    assert key not in told(primary())
    former = primary()._replace(attributes=((("node2", "pgsql-switch"), str(wish("node1", Ballot(6, "node2")))),))
    assert told(former)["node2", "pgsql-switch"] is None


def candidate(end: int, *, asked: bool = True, score: str = sight.RAISED, reign: Ballot = Ballot(0, "")) -> Scene:  # noqa: B008  a frozen value
    """node2's look when node3 has answered its ballot, and the old primary's WAL ended at `end`."""
    ballot = Ballot(8, "node2")
    said = Answer(ballot, TERM, HERE, 2, "1")
    votes = {
        "node1": Vote(TERM, ERAS, reign, lsn=Lsn(end), system_identifier="1"),
        "node2": Vote(ballot, ERAS, answer=said, lsn=HERE, system_identifier="1"),
        "node3": Vote(ballot, ERAS, answer=said, lsn=HERE, system_identifier="1"),
    }
    names = 'ANY 1 ("node1", "node3")'
    instance = Instance(Run.STANDBY, HERE, 2, Lsn(500), "1", histories=((2, 1, Lsn(100)),), names=names, names_shown=names)
    attributes = ((("node2", "master-pgsql"), score), *([(("node1", "pgsql-switch"), str(wish("node2")))] if asked else []))
    rules = Rules("pgsql", NODES, slot_prefix="pgsql")
    return Scene("node2", rules, State(ballot, ERAS), instance, tuple(votes.items()), 8, online=frozenset(NODES), attributes=attributes)


def test_the_old_primarys_last_record_has_to_be_here() -> None:
    """Else the old primary would have left the history: it is preferred, once, and the wish is dropped."""
    steps = next(pgsql.promote(candidate(1001)))
    changes = dict(change for step in steps if isinstance(step, Attributes) for change in step.transient)
    assert changes == {("node1", "master-pgsql"): "1000", ("node2", "master-pgsql"): "-INFINITY", ("node1", "pgsql-switch"): None}
    for scene in (candidate(1000), candidate(1001, asked=False), candidate(1001, score="100")):
        assert Promote() in next(pgsql.promote(scene))


def test_the_old_primarys_last_word_is_waited_for() -> None:
    """A second at most: its vote still shows its reign."""
    procedure = pgsql.promote(candidate(0, reign=TERM))
    assert next(procedure) == []
    assert Promote() in procedure.send(candidate(1000))
    procedure = pgsql.promote(candidate(0, reign=TERM))
    assert next(procedure) == []
    assert Promote() in procedure.send(candidate(0, reign=TERM)._replace(elapsed=pgsql.HANDOVER))


def raised(scene: Scene, **changes: Any) -> Scene:  # noqa: ANN401
    """The target's score is raised: Pacemaker moves the role."""
    scores = ((("node1", "master-pgsql"), "1000"), (("node2", "master-pgsql"), sight.RAISED))
    return scene._replace(attributes=(*scene.attributes, *scores), **changes)


def test_nothing_in_the_cluster_changes_while_the_role_moves() -> None:
    """The old primary keeps its score, a standby says nothing of its status: Pacemaker need not plan anew between demotion and promotion."""
    assert next(pgsql.demote(raised(primary(wish("node2"))))) == [Shutdown()]
    gone = Attributes(((("node1", "master-pgsql"), "-INFINITY"),))
    for scene in (
        primary(wish("node2")),
        raised(primary(wish("node2")), online=frozenset({"node1", "node3"})),
        raised(primary())._replace(attributes=((("node2", "master-pgsql"), sight.RAISED), (("node2", "pgsql-status"), "STOP"))),
    ):
        assert next(pgsql.demote(scene)) == [gone]
    waiting = candidate(1000)._replace(me="node3", attributes=raised(primary()).attributes)
    with pytest.raises(StopIteration):
        next(pgsql.stand(waiting))
    assert isinstance(next(pgsql.stand(waiting._replace(attributes=())))[0], Attributes)


def test_notifications_that_end_at_once(tmp_path: Path) -> None:
    """All but those that somebody has to act on: the whole cluster waits for each."""
    (tmp_path / "recovery.conf").write_text("# upstream node2 pgsql_8_node2_node3\nprimary_conninfo = ''\n")

    def idle(kind: str, operation: str, promoted: str, here: str = "node3", tmpdir: Path = tmp_path) -> bool:
        meta = {"notify_type": kind, "notify_operation": operation, "notify_promote_uname": promoted, "on_node": here}
        environment = {f"OCF_RESKEY_CRM_meta_{name}": value for name, value in meta.items()}
        return early.idle(["pgsql", "notify"], {**environment, "OCF_RESKEY_tmpdir": str(tmpdir)})

    assert idle("pre", "demote", "node2")
    assert idle("post", "demote", "node2 ")
    assert not idle("post", "demote", " ")
    assert not idle("pre", "promote", "node2")
    assert idle("post", "promote", "node2")
    assert idle("post", "promote", "node3")
    assert not idle("post", "promote", "node1")
    assert not idle("post", "promote", "node2", tmpdir=tmp_path / "nothing")
    assert not idle("post", "start", " ")
    assert {row.name: row.default for row in PGSQL.parameters}["tmpdir"] == early.TMPDIR


# ---------------------------------------------------------------- the command


def ground(*changes: tuple[str, str], votes: dict[str, Vote] | None = None) -> cli_switch.Ground:
    """The healthy cluster of the samples, changed: node1 is primary, node2 sync, node3 async."""
    xml = (SAMPLES / "cib-healthy.xml").read_text()
    for old, new in changes:
        assert old in xml
        xml = xml.replace(old, new)
    tree = ElementTree.fromstring(xml)  # noqa: S314
    shown = votes if votes is not None else {"node1": Vote(reign=TERM), "node2": Vote(), "node3": Vote()}
    return cli_switch.Ground(text.cluster(tree), cli.the_set(text.replicated_sets(tree)), shown, Rules("pgsql", NODES))


def refused(found: cli_switch.Ground, target: str) -> set[int]:
    """The codes of what stands in the way, quorum apart."""
    return {check.code for check in cli_switch.checks(found, target, target) if check.answer is Told.NO}


@pytest.fixture(autouse=True)
def quorate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node has quorum."""
    monkeypatch.setattr("pha4pgsql.pacemaker.quorate", lambda: True)


def test_the_best_standby_is_chosen() -> None:
    """One that commits wait for; not the DC when there is a choice; nobody when nobody can."""
    assert cli_switch.choose(ground()) == "node2"
    assert cli_switch.choose(ground(('dc-uuid="1"', 'dc-uuid="2"'))) == "node3"
    assert cli_switch.choose(ground(("STREAMING|SYNC", "DISCONNECT"), ("STREAMING|ASYNC", "DISCONNECT"))) == ""


def test_who_may_not_be_the_target() -> None:
    """Each with exit code 10."""
    assert refused(ground(), "node2") == set()
    for target, changes in (
        ("node1", ()),
        ("node9", ()),
        ("node3", (('<node_state id="3" uname="node3" in_ccm="true"', '<node_state id="3" uname="node3" in_ccm="false"'),)),
        ("node3", (("STREAMING|ASYNC", "DISCONNECT"),)),
        ("node3", (('value="HS:async"', 'value="HS:alone"'),)),
    ):
        assert refused(ground(*changes), target) == {cli_switch.REFUSED}, (target, changes)


def test_safety_is_not_given_up() -> None:
    """A primary that is alone stays; and so does one whose successor nobody could elect."""
    votes = {"node1": Vote(reign=TERM, said=Statement(TERM, 1, "node1")), "node2": Vote(), "node3": Vote()}
    assert refused(ground(votes=votes), "node2") == {cli_switch.REFUSED}
    assert refused(ground(votes={"node1": Vote(reign=TERM)}), "node2") == {cli_switch.REFUSED}
    assert refused(ground(votes=dict.fromkeys(("node1", "node2"), votes["node2"])), "node2") == set()


def test_readiness() -> None:
    """Commits wait for it, it may be promoted, the checkpoint is written, and little is left to replay."""
    facts = cli_switch.Facts(600, 1000, 0)
    assert cli_switch.unready(ground(), "node2", facts, Lsn(600)) == ""
    assert cli_switch.unready(ground(), "node2", None, Lsn(600)) == ""
    assert cli_switch.unready(ground(), "node3", facts, Lsn(600)) != ""
    assert cli_switch.unready(ground(), "node2", facts, Lsn(601)) != ""
    for behind in (None, cli_switch.CLOSE + 1):
        assert cli_switch.unready(ground(), "node2", facts._replace(behind=behind), Lsn(600)) != ""
