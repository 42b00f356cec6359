"""Members that change: what is checked before, which list comes next, and what standbys outside of the cluster may confirm."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from world import parse_names

from pha4pgsql import cib, cli, cli_member, cli_status, cli_switch, setup, text, vote
from pha4pgsql.checks import Answer as Told
from pha4pgsql.checks import Check
from pha4pgsql.duties import missing_slots
from pha4pgsql.shown import standing_of
from pha4pgsql.sight import outside_slot, slot_name
from pha4pgsql.standby_names import choose_names, named_in, outsiders, quorum_names, step_names
from pha4pgsql.words import (
    NEVER,
    UNLISTED,
    Ballot,
    Circle,
    ClusterRefusal,
    Era,
    Follower,
    Instance,
    Lsn,
    Mode,
    Roster,
    Rules,
    Run,
    Scene,
    State,
    Vote,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

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


def test_whose_list_a_node_without_one_takes() -> None:
    """Where there is a history: one that is shown, whatever it has promised; the parameters may have changed since. Else the parameters."""
    first = Roster(NEVER, 0, Circle(("a", "b", "c"), 1), Circle(("a", "b", "c"), 1))
    wish, shown = Rules("pgsql", ("a", "c")), [Vote(TERM, roster=first)]
    old = State(TERM, (Era(2, Lsn(9), TERM),))
    assert vote.enrol(old, wish, shown).roster == first
    assert vote.enrol(old, wish, ()).roster == wish.roster
    assert vote.enrol(State(), wish, shown).roster == wish.roster
    assert vote.enrol(State(), wish, [Vote(TERM, old.eras, roster=first)]).roster == first
    assert vote.enrol(State(roster=first), wish, ()).roster == wish.roster
    assert vote.enrol(old._replace(roster=first), wish, ()).roster == first
    assert vote.enrol(State(roster=listed(THREE)), wish, ()).roster == listed(THREE)


def test_an_old_vote_is_read() -> None:
    """While the members are brought to this version one by one, both kinds of votes are about."""
    text = vote.vote_text(Vote(TERM, roster=listed(THREE)))
    assert "members=a,b,c;" in text
    assert vote.parse_vote(text.rpartition(";roster=")[0]).roster == UNLISTED


def test_the_order_of_a_list_is_of_no_matter() -> None:
    """Two nodes that stored their first list before and after somebody reordered node_list elect all the same."""
    first, other = (Roster(NEVER, 0, Circle(tuple(names), 1), Circle(tuple(names), 1)) for names in ("abc", "cab"))
    shown = {"b": Vote(roster=other), "c": Vote(roster=first)}
    assert vote.newest_list(first, shown) == first
    assert vote.waited_for(first, {"a": Vote(roster=first), **shown}, THREE) == []
    different = Roster(NEVER, 0, Circle(("a", "b"), 1), Circle(("a", "b"), 1))
    assert vote.newest_list(first, {"b": Vote(roster=different)}) is None


def test_lists_survive_the_files() -> None:
    roster = listed(Circle(("node-1", "node.2", "c"), 1), Circle(("node-1", "c"), 2, strict=True))
    assert vote.parse_state(vote.state_text(State(roster=roster))).roster == roster


@pytest.mark.parametrize("text", ["1.a:1", "1.a:x:a/1/0:a/1/0", "1.a:1:a/1:a/1/0"])
def test_a_damaged_list_is_none(text: str) -> None:
    """It is never taken for a missing one."""
    with pytest.raises(ValueError):  # noqa: PT011  whatever is wrong with it
        vote.parse_roster(text)


CIRCLES = [
    Circle(tuple(members), k)
    for size in range(2, 6)
    for members in itertools.combinations("abcde", size)
    for k in range(1, size // 2 + 1)
    if members[0] == "a"  # who is the primary all along
]
PAIRS = [(one, other) for one in CIRCLES for other in CIRCLES if len(set(one.members) & set(other.members)) > max(one.k, other.k)]


def misses(electing: Circle, confirming: Circle) -> bool:
    """Whether an election by the one can miss a commit by the other: k+1 holders, N-k answers, counted out."""
    holders = set(confirming.members)
    outside = len(set(electing.members) - holders)
    answers, inside = len(electing.members) - electing.k, len(holders & set(electing.members))
    unseen = len(holders) - inside  # may hold the commit, and are never asked
    return max(0, answers - outside) + max(0, confirming.k + 1 - unseen) <= inside


def test_counting_out() -> None:
    """The short way of counting says what the long way says."""
    for electing, confirming in itertools.product(CIRCLES[:12], repeat=2):
        quorums = itertools.combinations(electing.members, len(electing.members) - electing.k)
        holders = list(itertools.combinations(confirming.members, confirming.k + 1))
        assert misses(electing, confirming) == any(not set(quorum) & set(holder) for quorum in quorums for holder in holders)


def test_the_middle_fits_both_ends() -> None:
    """Any election by either of two neighbours meets any commit by either, however far the ends are apart."""
    for before, after in PAIRS:
        middle = vote.joined(before, after)
        for (electing, _), (_, confirming) in itertools.product(((before, before), middle), ((before, before), middle)):
            assert not misses(electing, confirming), (before, after)
        for (electing, _), (_, confirming) in itertools.product((middle, (after, after)), (middle, (after, after))):
            assert not misses(electing, confirming), (before, after)


def test_a_middle_fits_the_middle_before() -> None:
    """A change that is begun before the end of the one before is stored everywhere: whoever holds the middle of before loses no commit."""
    near = [(one, other) for one, other in PAIRS if len(set(one.members) ^ set(other.members)) + abs(one.k - other.k) == 1]
    for before, between in near:
        for after in (other for one, other in near if one == between):
            first, second = vote.joined(before, between), vote.joined(between, after)
            for electing, confirming in ((first[0], second[1]), (second[0], first[1])):
                assert not misses(electing, confirming), (before, between, after)


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


def place(names: str, name: str) -> int:
    """The priority that a walsender shows which has read this set."""
    quorum, _, listed_names = parse_names(names)
    return 0 if name not in listed_names else 1 if quorum else listed_names.index(name) + 1


def scene(mode: Mode, roster: Roster, followers: tuple[str, ...], externals: tuple[str, ...] = (), names: str = "") -> Scene:
    """a is the primary of TERM, and these stream: members through their slots. Its set is in force."""
    rules = Rules("pgsql", roster.elects.members, mode, roster.elects.k, externals=externals)
    slots = {name: slot_name("pha", TERM, name) for name in rules.members}
    slots.update({name: outside_slot("pha", name) for name in externals})
    names = names or quorum_names(rules.under(roster), "a")
    rows = tuple(Follower(name, "streaming", "", Lsn(9), slots.get(name, ""), place(names, name)) for name in followers)
    instance = Instance(Run.PRIMARY, Lsn(9), names=names, names_shown=names, followers=rows)
    return Scene("a", rules, State(TERM, reign=TERM, roster=roster), instance, online=frozenset(rules.members), dc="c")


def releases(known: Mapping[str, str], confirmed: frozenset[str]) -> bool:
    """Whether a walsender releases a commit that these have flushed: each by the set that it knows, counting whom the others show to be named."""
    places = {name: place(names, name) for name, names in known.items()}
    there = sorted((name for name in known if places[name]), key=lambda name: places[name])
    for name, names in known.items():
        quorum, number, _ = parse_names(names)
        if not places[name] or name not in confirmed or len(there) < number:
            continue
        chosen = there if quorum else there[:number]
        if name in chosen and sum(other in confirmed for other in chosen) >= number:
            return True
    return False


def sets(mode: Mode, members: str, k: int, courses: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """One set after the other, with who is connected, while standbys outside come and go."""
    roster, names, others = listed(Circle(tuple(members), k)), "", tuple(members[1:])
    for externals in courses:
        for connected in ((*others, *externals), (*others, "x", "y")):  # who goes may be there for a while, without its slot
            for _ in range(9):
                there = scene(mode, roster, connected, externals, names)
                before, names = there.instance.names, choose_names(there)
                if before == names:
                    break
                yield before, names, connected
            else:
                pytest.fail(f"{names}: it does not come to rest")


COURSES = [(), ("x",), ("x", "y"), ("y",), (), ("x", "y"), ("x",), ("y",), ()]


@pytest.mark.parametrize("mode", [Mode.SYNC, Mode.QUORUM])
@pytest.mark.parametrize(("members", "k"), [("ab", 1), ("abc", 1), ("abcde", 2), ("abcde", 1)])
def test_no_commit_without_k_members(mode: Mode, members: str, k: int) -> None:
    """While standbys outside come and go, whatever each walsender knows of two sets: a commit is on k members besides the primary."""
    seen = set()
    for before, after, connected in sets(mode, members, k, COURSES):
        seen |= named_in(after)
        for known in itertools.product((before, after), repeat=len(connected)):
            for size in range(len(connected)):
                for confirmed in itertools.combinations(connected, size):
                    if releases(dict(zip(connected, known)), frozenset(confirmed)):
                        assert len(set(confirmed) & set(members)) >= k, (before, after, known, confirmed)
    assert {"x", "y"} <= seen


def test_a_standby_outside_waits_until_the_members_are_there() -> None:
    """While it comes one confirmation more of members is asked for; commits do not wait for it where one is missing."""
    roster = listed(THREE)
    assert choose_names(scene(Mode.QUORUM, roster, ("b", "x"), ("x",))) == 'ANY 1 ("b", "c")'
    assert choose_names(scene(Mode.QUORUM, roster, ("b", "c", "x"), ("x",))) == step_names(2, ("b", "c"))
    late = scene(Mode.QUORUM, roster, ("b", "c", "x"), ("x",))
    rows = tuple(row._replace(flush=None, priority=0) if row.name == "c" else row for row in late.instance.followers)
    assert choose_names(late._replace(instance=late.instance._replace(followers=rows))) == 'ANY 1 ("b", "c")'


def test_a_name_that_two_have_does_not_count() -> None:
    """PostgreSQL counts connections: with both counted a commit could be on no member."""
    there = scene(Mode.QUORUM, listed(THREE), ("b", "c", "x", "x"), ("x",))
    assert outsiders(there) == ()
    assert choose_names(there) == 'ANY 1 ("b", "c")'


def test_who_has_no_slot_does_not_count() -> None:
    """It could come back while its lost connection is still there, and count twice. Every primary makes the slot."""
    there = scene(Mode.QUORUM, listed(THREE), ("b", "c", "x"), ("x",))
    assert outsiders(there) == ("x",)
    assert missing_slots(there) == ("pha_outside_x",)
    rows = tuple(row._replace(slot="") if row.name == "x" else row for row in there.instance.followers)
    assert outsiders(there._replace(instance=there.instance._replace(followers=rows))) == ()


def test_the_set_of_a_change_names_no_outsider() -> None:
    joint = listed(*vote.joined(Circle(("a", "b", "c", "d"), 1), THREE))
    there = scene(Mode.SYNC, joint, ("b", "c", "d", "x"), ("x",))
    assert choose_names(there) == step_names(1, ("b", "c")) == 'FIRST 1 ("pha4pgsql-step", "b", "c")'


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


def test_setup_keeps_postgres_off_who_was_taken_out() -> None:
    """Pacemaker knows a number of instances only: with one fewer it could stop any. Who is named again may run again."""
    live = cib.read(CIB)
    fewer = cib.with_bans(live, cib.with_value(live, ["p"], "node_list", "a b"), "p")
    assert [cib.banned(fewer, "c", node) for node in "abc"] == [False, False, True]
    again = cib.with_bans(fewer, cib.with_value(fewer, ["p"], "node_list", "a b c"), "p")
    assert cib.canonical(again) == cib.canonical(live)


SAMPLES = Path(__file__).parent.parent / "samples"


def ground(count: int = 0, absent: str = "", read: str = "") -> cli_member.Ground:
    """Three members, node1 is primary; others show the list of before or nothing."""
    xml = (SAMPLES / "cib-healthy.xml").read_text()
    xml = xml.replace('<nvpair id="pgsql-node_list"', f'<nvpair id="n-k" name="sync_count" value="{count}"/><nvpair id="pgsql-node_list"')
    xml = xml.replace('<nvpair id="pgsql-node_list"', f'<nvpair id="n-r" name="read_node_list" value="{read}"/><nvpair id="pgsql-node_list"')
    tree = cib.read(xml)
    cluster, named = text.cluster(cli_status.parse(xml)), cli.the_set(text.replicated_sets(cli_status.parse(xml)))
    if absent:
        cluster = cluster._replace(members={**cluster.members, absent: cluster.members[absent]._replace(online=False)})
    roster = listed(Circle(named.nodes, 1))
    votes = {node: Vote(TERM, reign=TERM if node == "node1" else NEVER, roster=roster) for node in cluster.online}
    return cli_member.Ground(cli.Site(cluster, named), tree, votes, cli_status.rules(named))


SEEN = {"primary": {}, "data": False, "mark": "", "system_identifier": "", "missing": [], "free": 1, "version": "", "major": 15, "promised": "0."}


def refused(checks: list[Check]) -> str:
    return "; ".join(check.seen for check in checks if check.answer is Told.NO)


def test_adding_needs_every_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a clone of hours ends in a wait for a node that is down."""
    monkeypatch.setattr("pha4pgsql.pacemaker.quorate", lambda: True)
    assert "node3: no stored list" in refused(cli_member.add_checks(ground(absent="node3"), "node2", SEEN))
    assert "no stored list" not in refused(cli_member.add_checks(ground(), "node2", SEEN))
    assert "no stored list" not in refused(cli_member.add_checks(ground(absent="node3"), "node3", SEEN))


def test_sync_count_has_to_fit_those_who_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the agents would refuse their configuration, on all nodes at once."""
    monkeypatch.setattr("pha4pgsql.pacemaker.quorate", lambda: True)
    assert "sync_count is 2" in refused(cli_member.remove_checks(ground(count=2), "node3"))
    assert "sync_count" not in refused(cli_member.remove_checks(ground(count=1), "node3"))


def test_who_was_elected_while_leaving_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As primary it cannot leave: both the command that waits and the one that is run again tell to switch first."""
    monkeypatch.setattr("pha4pgsql.pacemaker.quorate", lambda: True)
    with pytest.raises(ClusterRefusal, match="node1 has become the primary") as told:
        cli_member.unremoved(ground(), "node1")
    hints = [check.hint for check in cli_member.remove_checks(ground(), "node1") if check.seen == "node1 is the primary"]
    assert hints == [told.value.hint] == [cli_member.AWAY]
    assert cli_member.unremoved(ground(), "node3") == "node_list wishes otherwise by now"


def test_readers_keep_their_instances() -> None:
    """PostgreSQL runs where it only reads, too; the watcher on members only."""
    there = ground(read="node8 node9")
    assert there.sizes["msPostgresql"] == 5
    tree = cib.with_meta(there.tree, ["msPostgresql"], "clone-max", "4")
    assert cib.meta(cli_member.with_sizes(tree, there), "msPostgresql", "clone-max") == "5"
    assert cib.meta(cli_member.with_sizes(there.tree, there), "msPostgresql", "clone-max") == cib.meta(there.tree, "msPostgresql", "clone-max")


def test_a_maintenance_that_was_left_is_known_as_ours() -> None:
    """A command that was killed in it is run again, and ends it; that of a person stays."""
    tree = cib.with_meta(ground().tree, ["vip-slave"], "maintenance", "true")
    left = cib.with_hold(tree, cib.unheld(tree, ["msPostgresql", "vip-slave"]))
    assert cib.holds(left) == ["msPostgresql"]
    assert cib.unheld(left, ["msPostgresql", "vip-slave"]) == ["msPostgresql"]
    again = ground()._replace(tree=left)
    assert "msPostgresql" in cli_member.remove_steps(again, "node3", argparse.Namespace(timeout=1.0), print)[0].what


def test_a_command_that_was_killed_in_its_maintenance_hides_no_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pacemaker looks anew, and for a moment shows PostgreSQL as stopped everywhere: the same command, run again at once, waits for that."""
    there = ground()
    left = there._replace(tree=cib.with_hold(there.tree, ["msPostgresql"]))
    members = {name: member._replace(roles={}) for name, member in there.site.cluster.members.items()}
    hidden = left._replace(site=there.site._replace(cluster=there.site.cluster._replace(members=members)))
    seen = [hidden, hidden, left, left]
    monkeypatch.setattr(cli_member, "look", lambda: seen.pop(0))
    assert cli_member.look_after(print).primary == "node1"
    seen[:] = [hidden._replace(tree=there.tree)] * 2  # nothing is held: it is stopped
    assert cli_member.look_after(print).primary == ""
    assert not seen
    assert (cli_member.primaryless(left)[:9], cli_member.primaryless(there)[:10]) == ("cls_setup", "cls_status")


def test_a_node_that_does_not_reply_keeps_nothing_in_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    """It died a moment ago, and Pacemaker does not know yet: the set is not left without failover until a minute is over."""
    did: list[tuple[str, float]] = []

    def settled(limit: float) -> bool:
        did.append(("settled", limit))
        return True

    monkeypatch.setattr("pha4pgsql.system.run", lambda argv, timeout: did.append((argv[1], timeout)))
    monkeypatch.setattr("pha4pgsql.pacemaker.wait_settled", settled)
    monkeypatch.setattr(setup, "_release", lambda held: did.append((held[0], 0.0)))
    setup.release(["msPostgresql", "pgwatch-clone"], ["vip-master"])
    assert [name for name, _ in did] == ["--refresh", "--refresh", "settled", "vip-master"]
    assert sum(timeout for name, timeout in did if name == "--refresh") <= 30


def test_a_node_that_is_to_be_fenced_is_no_fault_of_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither is what crm_verify has against the live one; what a change brings is."""
    sample = (SAMPLES / "cib-healthy.xml").read_text()
    state = '<node_state id="3" uname="node3" in_ccm="true"'
    assert state in sample
    live = cib.read(sample.replace(state, state.replace("true", "false")))
    setup.verify(live, live)
    vip = '<primitive id="vip-master" class="ocf" provider="heartbeat" type="IPaddr2">'
    assert vip in sample
    old = cib.read(sample.replace(vip, f'{vip}<meta_attributes id="m"><nvpair id="n" name="restart-type" value="restart"/></meta_attributes>'))
    with pytest.raises(ClusterRefusal, match=r"nothing was changed:\n  .*restart-type is deprecated") as refusal:
        setup.verify(live, old)
    assert "Blind faith" not in refusal.value.message
    setup.verify(old, old)
    assert "WARNING:   warning: Support for restart-type is deprecated" in capsys.readouterr().err


def test_a_status_tells_of_a_change() -> None:
    """While the primary's list is not the wished one."""
    there = ground()
    assert cli_status.change(there.votes, there.rules, ("node1",)) == ""
    assert "node1 node2 node3" in cli_status.change(there.votes, there.rules._replace(members=("node1", "node2")), ("node1",))


def test_who_is_not_in_the_list_yet_is_no_target() -> None:
    """It would lose its election, after the old primary has stepped down."""
    there = ground()
    rules = there.rules.under(listed(Circle(("node1", "node2", "node3"), 1), Circle(("node1", "node2"), 1)))
    switching = cli_switch.Ground(there.site.cluster, there.site.named, there.votes, rules)
    assert "list of members" in " ".join(reason for reason, _ in cli_switch.unfit(switching, "node3"))
    assert "list of members" not in " ".join(reason for reason, _ in cli_switch.unfit(switching, "node2"))


def test_who_is_to_leave_is_preferred_last() -> None:
    """As primary it could not leave; but where nobody else can win it still may."""
    there = scene(Mode.QUORUM, listed(THREE), ("b", "c"))
    assert standing_of(there, "b")[2] == "100"
    leaving = there._replace(wish=there.wish._replace(members=("a", "c")))
    assert (standing_of(leaving, "b")[2], standing_of(leaving, "c")[2]) == ("1", "100")


def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[argparse.Namespace] = []

    def add(options: argparse.Namespace) -> int:
        given.append(options)
        return 0

    monkeypatch.setattr(cli_member, "_add", add)
    assert cli_member.main(["add", "node4"]) == 0
    assert cli_member.main(["add", "node4", "--max-rate", "2M"]) == 0
    assert [one.max_rate for one in given] == [None, "2M"]


def test_wrong_usage() -> None:
    with pytest.raises(SystemExit) as end:
        cli_member.main(["add"])
    assert end.value.code == 100
