"""Members that change: what is checked before, which list comes next, and what standbys outside of the cluster may confirm."""

from __future__ import annotations

import itertools

import pytest
from world import parse_names

from pha4pgsql import cib, cli_member, vote
from pha4pgsql.pgsql import choose_names, named_in, outsiders, quorum_names, slot_name, step_names
from pha4pgsql.words import NEVER, UNLISTED, Ballot, Circle, Follower, Instance, Lsn, Mode, Roster, Rules, Run, Scene, State, Vote

TERM = Ballot(3, "a")
THREE = Circle(("a", "b", "c"), 1)


def listed(circle: Circle, confirms: Circle | None = None, count: int = 1) -> Roster:
    return Roster(TERM, count, circle, confirms or circle)


# -- the list ----------------------------------------------------------------------------------------------------


def test_an_old_state_file_is_read() -> None:
    """A file of a version before there were lists has no such line; the node then takes the list of its parameters."""
    text = "".join(line for line in vote.state_text(State(TERM)).splitlines(keepends=True) if not line.startswith("roster="))
    assert vote.parse_state(text) == State(TERM)
    assert vote.enrol(State(TERM), Rules("pgsql", ("a", "b")), ()).roster == Roster(NEVER, 0, Circle(("a", "b"), 1), Circle(("a", "b"), 1))


def test_an_old_vote_is_read() -> None:
    """While the members are brought to this version one by one, both kinds of votes are about."""
    text = vote.vote_text(Vote(TERM, roster=listed(THREE)))
    assert "members=a,b,c;" in text
    assert vote.parse_vote(text.rpartition(";roster=")[0]).roster == UNLISTED


def test_lists_survive_the_files() -> None:
    roster = listed(Circle(("node-1", "node.2", "c"), 1), Circle(("node-1", "c"), 2, strict=True))
    assert vote.parse_state(vote.state_text(State(roster=roster))).roster == roster


@pytest.mark.parametrize("text", ["1.a:1", "1.a:x:a/1/0:a/1/0", "1.a:1:a/1:a/1/0"])
def test_a_damaged_list_is_none(text: str) -> None:
    """It is never taken for a missing one."""
    with pytest.raises(ValueError):  # noqa: PT011  whatever is wrong with it
        vote.parse_roster(text)


FIT = list(itertools.permutations((THREE, Circle(("a", "b", "c", "d"), 1), Circle(("a", "b", "c"), 1, strict=True)), 2))


@pytest.mark.parametrize(("before", "after"), FIT)
def test_the_middle_fits_both_ends(before: Circle, after: Circle) -> None:
    """Any election by either of two neighbours meets any commit by either: counted out."""
    elects, confirms = vote.joined(before, after)
    for first, second in (((before, before), (elects, confirms)), ((elects, confirms), (after, after))):
        for (electing, _), (_, confirming) in itertools.product((first, second), repeat=2):
            for quorum in itertools.combinations(electing.members, len(electing.members) - electing.k):
                for holders in itertools.combinations(confirming.members, confirming.k + 1):
                    assert set(quorum) & set(holders), (electing, confirming)


def test_k_fits_too() -> None:
    """The same for k up and down."""
    one, two = Circle(tuple("abcde"), 1), Circle(tuple("abcde"), 2)
    elects, confirms = vote.joined(one, two)
    assert (elects, confirms) == (one, two)
    assert vote.joined(two, one) == (one, two)


def test_who_leaves_is_not_waited_for() -> None:
    """But more than k of those who confirm must have stored the list, whoever leaves."""
    roster = listed(Circle(("a", "b", "c", "d"), 1))
    shown = {node: Vote(roster=roster) for node in "abc"}
    assert vote.waited_for(roster, shown, THREE) == []
    assert vote.waited_for(roster, shown, Circle(("a", "b", "c", "d"), 1)) == ["d"]
    assert vote.waited_for(roster, {"a": shown["a"]}, Circle(("a",), 1)) == ["b", "c", "d"]


def test_what_is_enlisted() -> None:
    """Only what is newer, and nothing of a term below the promise."""
    old, new = listed(THREE), listed(Circle(("a", "b"), 1), count=2)
    assert vote.enlist(State(TERM, roster=old), new) == State(TERM, roster=new)
    assert vote.enlist(State(TERM, roster=new), old) is None
    assert vote.enlist(State(Ballot(4, "b"), roster=old), new) is None
    assert vote.enlist(State(TERM, reign=Ballot(2, "c"), roster=old), new) is None


# -- the set -----------------------------------------------------------------------------------------------------


def scene(mode: Mode, roster: Roster, followers: tuple[str, ...], externals: tuple[str, ...] = ()) -> Scene:
    """a is the primary of TERM, and these stream: members through their slots."""
    rules = Rules("pgsql", roster.elects.members, mode, roster.elects.k, externals=externals)
    slots = {name: slot_name("pha", TERM, name) for name in rules.members}
    rows = tuple(Follower(name, "streaming", "", Lsn(9), slots.get(name, "")) for name in followers)
    instance = Instance(Run.PRIMARY, Lsn(9), names=quorum_names(rules.under(roster), "a"), followers=rows)
    return Scene("a", rules, State(TERM, reign=TERM, roster=roster), instance, online=frozenset(rules.members), dc="c")


def releases(names: str, confirmed: set[str], connected: list[str]) -> bool:
    """What PostgreSQL does: `connected` are walsenders, two of one name if there are two."""
    quorum, number, listed_names = parse_names(names)
    there = [name for name in connected if name in listed_names]
    if len(there) < number:
        return False
    if quorum:
        return sum(name in confirmed for name in there) >= number
    return all(name in confirmed for name in sorted(there, key=listed_names.index)[:number])


@pytest.mark.parametrize("mode", [Mode.SYNC, Mode.QUORUM])
@pytest.mark.parametrize("members", ["abc", "abcde"])
@pytest.mark.parametrize("externals", [(), ("x",), ("x", "y")])
def test_no_commit_without_k_members(mode: Mode, members: str, externals: tuple[str, ...]) -> None:
    """Whoever streams and whoever confirms: a commit is on k members besides the primary, with any number of standbys outside."""
    k = len(members) // 2
    roster = listed(Circle(tuple(members), k))
    everybody = [*members[1:], *externals]
    for size in range(len(everybody) + 1):
        for connected in itertools.combinations(everybody, size):
            names = choose_names(scene(mode, roster, connected, externals))
            for confirmed in (set(some) for few in range(size + 1) for some in itertools.combinations(connected, few)):
                if releases(names, confirmed, list(connected)):
                    assert len(confirmed & set(members)) >= k, (names, connected, confirmed)
    full = choose_names(scene(mode, roster, tuple(everybody), externals))
    assert set(externals) <= named_in(full)


def test_a_name_that_two_have_does_not_count() -> None:
    """PostgreSQL counts connections: with both counted a commit could be on no member."""
    there = scene(Mode.QUORUM, listed(THREE), ("b", "c", "x", "x"), ("x",))
    assert outsiders(there) == ()
    assert choose_names(there) == 'ANY 1 ("b", "c")'


def test_the_set_of_a_change_names_no_outsider() -> None:
    joint = listed(*vote.joined(Circle(("a", "b", "c", "d"), 1), THREE))
    there = scene(Mode.SYNC, joint, ("b", "c", "d", "x"), ("x",))
    assert choose_names(there) == step_names(there.rules, "a") == 'FIRST 1 ("pha4pgsql-step", "b", "c")'


# -- the command -------------------------------------------------------------------------------------------------

CIB = """<cib><configuration><crm_config/><nodes/><resources><clone id="c"><primitive id="p" provider="pha4pgsql" type="pgsql">
<instance_attributes id="p-instance_attributes"><nvpair id="p-n" name="node_list" value="a b c"/></instance_attributes></primitive></clone>
</resources><constraints/></configuration></cib>"""


def test_the_configuration_is_changed_and_changed_back() -> None:
    tree = cib.read(CIB)
    new = cib.with_ban(cib.with_value(tree, ["p"], "node_list", "a b"), ["c"], "c")
    assert cib.parameters(new, "p")["node_list"] == "a b"
    assert cib.banned(new, "c", "c")
    assert not cib.banned(tree, "c", "c")
    back = cib.without_ban(cib.with_value(new, ["p"], "node_list", "a b c"), ["c"], "c")
    assert cib.canonical(back) == cib.canonical(tree)


def test_wrong_usage() -> None:
    with pytest.raises(SystemExit) as end:
        cli_member.main(["add"])
    assert end.value.code == 100
