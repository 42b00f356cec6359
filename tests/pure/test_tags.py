"""Tags of nodes (nofailover, nosync, priority), and nodes that only read: whom a primary names, who stands, who is never counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from simulator import Setting, prepare, rules
from stories import LOOSE, READ, STRICT, SYNC, Stage
from world import REAL

from pha4pgsql import duties, pgsql, shown, sight, standby_names, vote, words
from pha4pgsql.words import NEVER, SILENCE, Answer, Ballot, Era, Follower, Instance, Lsn, Mode, Outcome, Rules, Run, Scene, State, Statement, Vote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NONE: Mapping[str, str] = {}
MEMBERS = ("node1", "node2", "node3")
TERM = Ballot(1, "node1")
ERAS = (Era(2, Lsn(100), TERM),)
SYNC_RULES = Rules("pgsql", MEMBERS, Mode.SYNC, 1, slot_prefix="pgsql", readers=("node4",))


def primary(
    rules: Rules = SYNC_RULES, tags: Mapping[str, str] = NONE, *, streaming: Sequence[str] = ("node2", "node3", "node4"), names: str = ""
) -> Scene:
    """node1 reigns; these stream. Tags are given as `{"nosync": "node2 node3", "priority": "node2=5"}`."""
    return Scene(
        "node1",
        rules,
        State(TERM, ERAS, reign=TERM),
        Instance(
            Run.PRIMARY,
            Lsn(900),
            names=names,
            followers=tuple(Follower(node, "streaming", "async", Lsn(900), sight.slot_name("pgsql", TERM, node)) for node in streaming),
        ),
        votes=tuple((node, Vote(TERM, ERAS)) for node in streaming),
        online=frozenset((*MEMBERS, *rules.readers)),
        attributes=(*(((node, "pgsql-status"), "HS:alone") for node in streaming), *tag_attributes(tags)),
    )


def tag_attributes(tags: Mapping[str, str]) -> list[tuple[tuple[str, str], str]]:
    """The node attributes of these tags."""
    pairs = [(tag, *word.partition("=")[::2]) for tag, text in tags.items() for word in text.split()]
    return [((node, f"pgsql-{tag}"), value or "true") for tag, node, value in pairs]


@pytest.mark.parametrize(
    ("names", "tags", "expected"),
    [
        ("", {}, '"node2"'),
        ("", {"nosync": "node2"}, '"node3"'),
        ('"node2"', {"nosync": "node2"}, '"node3"'),
        ("", {"nosync": "node2 node3"}, '"node2"'),  # too few would be left: the tag is not obeyed
        ("", {"priority": "node3=5"}, '"node3"'),
        ('"node2"', {"priority": "node3=5"}, '"node3"'),
        ('"node3"', {}, '"node3"'),
        ("", {"priority": "node3=high"}, '"node2"'),
        ("", {"nofailover": "node2"}, '"node3"'),
        ("", {"nofailover": "node2", "nosync": "node3"}, '"node2"'),
    ],
)
def test_named_in_sync_mode(names: str, tags: dict[str, str], expected: str) -> None:
    """One who may be promoted, by priority; whoever is named stays named among equals; never a node that only reads."""
    assert standby_names.choose_names(primary(SYNC_RULES, tags, names=names)) == expected


def test_a_node_tagged_nosync_is_not_waited_for() -> None:
    """With nobody else streaming the primary says that it goes on alone, although that one streams."""
    scene = primary(SYNC_RULES, {"nosync": "node2"}, streaming=("node2", "node4"), names='"node3"')
    procedure = duties.reign(scene)
    next(procedure)
    assert procedure.send(scene._replace(elapsed=0.5)) == [] or procedure.send(scene._replace(elapsed=0.6)) == []
    steps = procedure.send(scene._replace(elapsed=2.0))
    assert isinstance(steps[0], words.Store)
    assert steps[0].state.said.owner == "node1"


def test_quorum_mode_names_all_but_the_tagged() -> None:
    """`ANY k` of the others; readers are never in it."""
    rules = SYNC_RULES._replace(mode=Mode.QUORUM)
    assert standby_names.choose_names(primary(rules)) == 'ANY 1 ("node2", "node3")'
    assert standby_names.choose_names(primary(rules, {"nosync": "node3"})) == 'ANY 1 ("node2")'
    assert standby_names.choose_names(primary(rules, {"nosync": "node2 node3"})) == 'ANY 1 ("node2", "node3")'


def test_a_reader_counts_as_nothing() -> None:
    """It is shown to people, it gets a slot, and no score."""
    scene = primary(streaming=("node4",), names='"node2"')
    assert sight.followers_of(scene) == []
    assert shown.standing_of(scene, "node4") == ("STREAMING|ASYNC", "HS:async", "-INFINITY")
    assert duties.missing_slots(scene) == ("pgsql_1_node1_node4",)
    assert shown.standing_of(scene._replace(wish=SYNC_RULES._replace(mode=Mode.ASYNC)), "node4")[2] == "-INFINITY"
    assert standby_names.choose_names(scene) == '"node2"'


@pytest.mark.parametrize(
    ("mode", "tags", "scores"),
    [
        (Mode.SYNC, {}, ["100", "-INFINITY"]),
        (Mode.SYNC, {"nofailover": "node2 node3"}, ["-INFINITY", "-INFINITY"]),
        (Mode.QUORUM, {"priority": "node3=7"}, ["100", "107"]),
        (Mode.QUORUM, {"priority": "node3=700"}, ["100", "200"]),
        (Mode.QUORUM, {"nofailover": "node2"}, ["-INFINITY", "100"]),
        (Mode.ASYNC, {"nofailover": "node3"}, ["100", "-INFINITY"]),
    ],
)
def test_scores(mode: Mode, tags: dict[str, str], scores: list[str]) -> None:
    """Among those who can win Pacemaker takes the one with the higher priority, and never one tagged nofailover."""
    scene = primary(SYNC_RULES._replace(mode=mode), tags)
    scene = scene._replace(instance=scene.instance._replace(names=standby_names.choose_names(scene)))
    assert [shown.standing_of(scene, node)[2] for node in ("node2", "node3")] == scores


def leaderless(me: str, places: Mapping[str, int], tags: Mapping[str, str] = NONE, scores: Mapping[str, str] = NONE) -> Scene:
    """No primary is visible; the others show how far they are."""
    return Scene(
        me,
        SYNC_RULES,
        State(TERM, ERAS),
        Instance(Run.STANDBY, Lsn(places.get(me, 500))),
        votes=tuple((node, Vote(TERM, ERAS, lsn=Lsn(lsn))) for node, lsn in places.items()),
        online=frozenset(places),
        attributes=(*(((node, "master-pgsql"), score) for node, score in scores.items()), *tag_attributes(tags)),
    )


@pytest.mark.parametrize(
    ("me", "places", "tags", "expected"),
    [
        ("node2", {"node2": 500, "node3": 500}, {}, "100"),
        ("node2", {"node2": 500, "node3": 500}, {"nofailover": "node2"}, "-INFINITY"),
        ("node3", {"node2": 500, "node3": 500}, {"nofailover": "node2"}, "100"),
        ("node2", {"node2": 600, "node3": 500}, {"nofailover": "node2"}, "100"),  # only it has everything
        ("node3", {"node2": 600, "node3": 500}, {"nofailover": "node2"}, "-INFINITY"),
        ("node2", {"node2": 500, "node3": 500}, {"nofailover": "node2 node3"}, "100"),
        ("node3", {"node2": 500, "node3": 500}, {"priority": "node3=5"}, "100"),
        ("node3", {"node2": 600, "node3": 500}, {"priority": "node3=5"}, "-INFINITY"),
    ],
)
def test_who_stands(me: str, places: dict[str, int], tags: dict[str, str], expected: str | None) -> None:
    """Tags choose among those who can win, and never against a commit."""
    assert pgsql.standing(leaderless(me, places, tags)) == expected


def test_a_reader_never_stands() -> None:
    """Nor is it promoted, nor does it promise; a score that it may have from a former life goes."""
    scene = leaderless("node4", {"node2": 500, "node3": 500}, scores={"node4": "100"})
    procedure = pgsql.follow(scene)
    steps = list(next(procedure))
    steps += procedure.send(scene)
    assert [dict(one.transient)["node4", "master-pgsql"] for one in steps if isinstance(one, words.Attributes)] == ["-INFINITY"]
    promotion = pgsql.promote(scene)
    assert [dict(one.transient) for one in next(promotion) if isinstance(one, words.Attributes)] == [{("node4", "master-pgsql"): "-INFINITY"}]
    with pytest.raises(StopIteration) as end:
        promotion.send(scene)
    assert "never promoted" in end.value.value.reason
    with pytest.raises(StopIteration):
        next(pgsql.answer(scene, Ballot(7, "node2")))


def test_a_reader_stores_no_statement() -> None:
    """It follows a primary that goes on alone, and is no voice for it."""
    said = Statement(TERM, 1, "node1")
    primary = Vote(TERM, ERAS, TERM, said, system_identifier="7")
    instance = Instance(Run.STANDBY, Lsn(500), 2, system_identifier="7")
    for node, stored in (("node4", SILENCE), ("node2", said)):
        found = pgsql.adopt(Scene(node, SYNC_RULES, State(TERM, ERAS), instance, (("node1", primary),)))
        assert not isinstance(found, Outcome)
        assert (found[0].promised, found[0].said) == (TERM, stored)


def test_async_does_not_wait_for_a_reader() -> None:
    """Whoever is no member is not asked, whatever it shows."""
    ballot = Ballot(2, "node2")
    given = Vote(ballot, ERAS, answer=Answer(ballot, TERM, Lsn(500), 2, "7"), system_identifier="7")
    shown = {"node2": given, "node4": Vote(TERM, ERAS)}
    assert isinstance(vote.elect(ballot, shown, SYNC_RULES._replace(mode=Mode.ASYNC)), vote.Elected)


@pytest.mark.parametrize(
    ("ahead", "gone", "kind", "reason"),
    [
        (True, {"node1"}, vote.Lost, "node3 is further: 0/258 of term"),
        (True, set(), vote.Waiting, "node3 is further, and no answer to ballot 2.node2 from node1; 2 of 3"),
        (False, {"node1", "node3"}, vote.Waiting, "no answer to ballot 2.node2 from node1 node3; 2 of 3"),
    ],
)
def test_who_is_behind_does_not_wait_for_the_dead(ahead: bool, gone: set[str], kind: type, reason: str) -> None:  # noqa: FBT001 - a table
    """Another that has answered is further: with the third one offline it is its turn at once. Without such another the third may come back."""
    ballot = Ballot(2, "node2")
    places = {"node2": 500, "node3": 600} if ahead else {"node2": 500}
    shown = {node: Vote(ballot, ERAS, answer=Answer(ballot, TERM, Lsn(place), 2, "7"), system_identifier="7") for node, place in places.items()}
    found = vote.elect(ballot, shown, SYNC_RULES, gone=frozenset(gone))
    assert isinstance(found, kind)
    assert not isinstance(found, vote.Elected)
    assert reason in found.reason
    assert getattr(found, "to", "node3") == "node3"


def test_the_only_copy_is_promoted_in_spite_of_its_tag() -> None:
    """b is tagged and alone has what a acknowledged. c tries, gives up and gives b no score; b stands by itself and is elected."""
    stage = Stage(STRICT, REAL)
    stage.world.tags["b", "pgsql-nofailover"] = "true"
    stage.cut("c")
    stage.settle()
    stage.world.write(stage.node("a"))
    stage.settle("b", "a")
    stage.world.crash(stage.node("a"))
    stage.world.attributes.clear()
    assert not stage.elect("c", "b")
    assert stage.world.attributes.get(("b", "master-pgsql")) is None
    stage.do("c", "demote")
    stage.heal()
    stage.deaf("b", "a")
    stage.hear("b", "c")
    stage.round(3)
    stage.do("b", "monitor")
    assert stage.world.attributes["b", "master-pgsql"] == "100"
    assert stage.elect("b", "c")


@pytest.mark.parametrize("setting", [STRICT, LOOSE, SYNC, READ], ids=lambda setting: setting.name)
def test_a_cluster_of_tagged_nodes_has_a_primary(setting: Setting) -> None:
    """Whatever people have tagged, when all is well a commit is acknowledged."""
    player = prepare(setting, 1)
    player.world.tags.update({(node, f"pgsql-{tag}"): "true" for node in player.world.nodes for tag in ("nofailover", "nosync")})
    player.world.crash(player.world.nodes["a"])
    player.heal()
    assert player.recover()


def test_readers_follow_the_next_primary() -> None:
    """After a failover they stream from the new primary through a slot of its term, and none of them was asked."""
    player = prepare(Setting("", rules(Mode.SYNC, 3, 1, strict=True, readers=2)), 1)
    player.world.kill_postgres(player.world.nodes["a"])
    player.heal()
    assert player.recover()
    now = next(node for node in player.world.nodes.values() if node.run is Run.PRIMARY)
    assert all(player.recover(1) for _ in range(3))
    for name in ("x", "y"):
        reader = player.world.nodes[name]
        assert reader.follows is not None
        assert reader.follows.node == now.name
        assert reader.receiver is not None
        assert all(shown.answer is None and shown.said == words.SILENCE for shown in player.world.published[name])
        assert reader.state.reign == NEVER
