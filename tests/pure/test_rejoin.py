"""A node becomes a copy of the primary: when it may, what is stored before the first byte, what is believed of the copy; and when pgwatch tries."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import copies, copying, pgsql, postgres, rejoin, repair, shown
from pha4pgsql.settings import Settings
from pha4pgsql.words import (
    GIVEN_UP,
    NEVER,
    NOTHING,
    Ballot,
    Era,
    Instance,
    Launch,
    Lsn,
    Outcome,
    Publish,
    Rules,
    Run,
    Scene,
    Shutdown,
    State,
    Statement,
    Store,
    Vote,
)

if TYPE_CHECKING:
    from pha4pgsql.words import Action, Procedure

A, B = Ballot(1, "a"), Ballot(2, "b")
FIRST, SECOND = Era(2, Lsn(100), A), Era(3, Lsn(200), B)
RULES = Rules("pgsql", ("a", "b", "c"))
SYSTEM = "77"
REIGNING = Vote(B, (FIRST, SECOND), B, system_identifier=SYSTEM)
DIVERGED = Scene(
    "a", RULES, State(A, (FIRST,), reign=A), Instance(Run.DOWN, Lsn(250), 2, system_identifier=SYSTEM), votes=(("b", REIGNING),)
)  # fmt: skip
"""The old primary: it wrote up to 250, the next era began at 200."""


def steps(procedure: Procedure, *scenes: Scene) -> tuple[list[Action], Outcome]:
    """All actions, and the end, of a procedure that sees these scenes one after the other."""
    found: list[Action] = []
    try:
        found += next(procedure)
        for scene in scenes:
            found += procedure.send(scene)
        procedure.close()
    except StopIteration as end:
        return found, Outcome(*end.value)
    return found, Outcome(False, "goes on")


@pytest.mark.parametrize("rewind", [True, False])
def test_one_replacement_of_the_state_file_comes_first(rewind: bool) -> None:  # noqa: FBT001
    """The mark, the primary's terms, the promise and no reign are stored at once; shown without a position."""
    actions, outcome = steps(copying.begin_copy(DIVERGED, "m", rewind=rewind), DIVERGED)
    state = State(B, (FIRST, SECOND), mark="m")
    assert actions == [Store(state), Publish(Vote(B, (FIRST, SECOND), system_identifier=SYSTEM))]
    assert outcome == Outcome(True, "b")


def test_what_the_primary_says_of_going_alone_is_kept() -> None:
    """The newer word counts, as with every voice."""
    said = Statement(B, 1, "b")
    scene = DIVERGED._replace(votes=(("b", REIGNING._replace(said=said)),))
    found = copying.copied(scene, "m", rewind=False)
    assert isinstance(found, State)
    assert found.said == said


CASES = {
    "no primary is visible": (DIVERGED._replace(votes=()), False),
    "is promised": (DIVERGED._replace(state=State(Ballot(3, "c"), (FIRST,))), False),
    "no copy of the one": (DIVERGED._replace(instance=DIVERGED.instance._replace(system_identifier="78")), False),
    "unfinished copy": (DIVERGED._replace(state=State(A, (FIRST,), mark="m")), True),
    "could not be found out": (DIVERGED._replace(instance=DIVERGED.instance._replace(lsn=None)), True),
    "nothing to rewind": (DIVERGED._replace(instance=DIVERGED.instance._replace(lsn=Lsn(200))), True),
    "two timelines": (DIVERGED._replace(state=State(A, (FIRST, Era(3, Lsn(200), A)))), True),
}


@pytest.mark.parametrize("why", CASES)
def test_refusals(why: str) -> None:
    """Nothing is stored where a copy could lose what was confirmed, or would be no copy."""
    scene, rewind = CASES[why]
    actions, outcome = steps(copying.begin_copy(scene, "m", rewind=rewind))
    assert actions == []
    assert not outcome.ok
    assert why in outcome.reason


def test_where_a_rewind_is_not_possible_a_clone_is() -> None:
    """All but the refusals that concern safety."""
    for why in ("unfinished copy", "could not be found out", "nothing to rewind", "two timelines"):
        assert isinstance(copying.copied(CASES[why][0], "m", rewind=False), State)
    empty = DIVERGED._replace(instance=Instance())
    assert isinstance(copying.copied(empty, "m", rewind=False), State)


def test_a_running_standby_is_shut_down_first_and_a_primary_never() -> None:
    """One that fell too far behind runs; it is down before the mark is stored."""
    standby = DIVERGED._replace(state=State(B, (FIRST, SECOND)), instance=DIVERGED.instance._replace(run=Run.STANDBY, lsn=Lsn(150)))
    down = standby._replace(instance=standby.instance._replace(run=Run.DOWN))
    actions, outcome = steps(copying.begin_copy(standby, "m", rewind=False), down, down)
    assert [type(action) for action in actions] == [Shutdown, Store, Publish]
    assert outcome.ok
    for instance, state in ((Run.PRIMARY, State(A, (FIRST,), reign=A)), (Run.STANDBY, State(A, (FIRST,), reign=A))):
        scene = DIVERGED._replace(state=state, instance=DIVERGED.instance._replace(run=instance))
        assert steps(copying.begin_copy(scene, "m", rewind=False)) == ([], Outcome(False, "this node acts as primary of term 1.a"))


MARKED = Scene("a", RULES, State(B, (FIRST, SECOND), mark="m"), Instance(Run.DOWN, Lsn(300), 3, system_identifier=SYSTEM), votes=(("b", REIGNING),))


def test_the_mark_keeps_everything_off() -> None:
    """Not started, no answer, no promotion, not followed with, no position shown; statements are stored all the same."""
    assert not steps(pgsql.start(MARKED))[1].ok
    assert not steps(pgsql.answer(MARKED, Ballot(9, "c")), MARKED)[1].ok
    running = MARKED._replace(instance=MARKED.instance._replace(run=Run.STANDBY))
    assert steps(pgsql.follow(running)) == ([], Outcome(False, "the data directory is not whole: m"))
    assert not steps(pgsql.promote(running))[1].ok
    demoted, _ = steps(pgsql.demote(MARKED._replace(state=MARKED.state._replace(reign=B))), MARKED)
    assert not any(isinstance(action, Launch) for action in demoted)
    assert shown.my_vote(MARKED).lsn == 0
    said = Statement(B, 1, "b")
    stored, _ = steps(pgsql.watch(MARKED._replace(votes=(("b", REIGNING._replace(said=said)),))), MARKED)
    assert Store(MARKED.state._replace(said=said, roster=RULES.roster)) in stored


def test_the_end_of_a_copy() -> None:
    """The mark goes if the copy holds nothing that the stored terms do not name, and if it is still the same copy."""
    known = MARKED._replace(instance=MARKED.instance._replace(histories=((2, 1, Lsn(100)), (3, 2, Lsn(200)))))
    actions, outcome = steps(copying.end_copy(known, "m", SYSTEM), known)
    assert actions[0] == Store(MARKED.state._replace(mark=""))
    assert outcome.ok
    for scene, mark, system in (
        (known._replace(instance=known.instance._replace(histories=((4, 3, Lsn(280)),))), "m", SYSTEM),
        (known._replace(instance=known.instance._replace(histories=((3, 2, Lsn(190)),))), "m", SYSTEM),
        (known, "n", SYSTEM),
        (known, "m", "78"),
        (known._replace(instance=known.instance._replace(run=Run.STANDBY)), "m", SYSTEM),
    ):
        actions, outcome = steps(copying.end_copy(scene, mark, system))
        assert (actions, outcome.ok) == ([], False)


def test_undone_while_nothing_was_copied() -> None:
    """The terms of before are back, a promise made meanwhile stays; another one's mark is left alone."""
    later = MARKED._replace(state=MARKED.state._replace(promised=Ballot(5, "c")))
    actions, _ = steps(copying.undo_copy(later, "m", DIVERGED.state), later)
    assert actions[0] == Store(State(Ballot(5, "c"), (FIRST,)))
    assert steps(copying.undo_copy(later, "n", DIVERGED.state))[0] == []


def test_data_that_are_lost_are_given_up() -> None:
    """The node answers with nothing, keeps its promises, and becomes a copy later; never while somebody reigns, never with a database here."""
    lost = Scene("a", RULES, State(A, (FIRST,), said=Statement(A, 1, "b")), Instance())
    actions, outcome = steps(copying.give_up(lost, f"{GIVEN_UP} today"), lost)
    state = State(A, said=Statement(A, 1, "b"), mark=f"{GIVEN_UP} today")
    assert actions == [Store(state), Publish(Vote(A, said=Statement(A, 1, "b"), lsn=NOTHING))]
    assert outcome.ok
    for scene in (
        lost._replace(votes=(("b", REIGNING),)),
        lost._replace(instance=DIVERGED.instance),
        lost._replace(instance=Instance(Run.STANDBY, Lsn(300), system_identifier=SYSTEM)),
    ):
        assert steps(copying.give_up(scene, GIVEN_UP))[0] == []
    given = lost._replace(state=state)
    actions, outcome = steps(pgsql.answer(given, Ballot(9, "c")), given._replace(state=state._replace(promised=Ballot(9, "c"))))
    said = next(action.vote.answer for action in actions if isinstance(action, Publish))
    assert said is not None
    assert (said.lsn, said.term) == (NOTHING, NEVER)
    assert not steps(pgsql.answer(given, A))[1].ok, "a promise is kept"
    copy, _ = steps(copying.begin_copy(given._replace(votes=(("b", REIGNING),)), "m", rewind=False), given)
    assert copy[0] == Store(State(B, (FIRST, SECOND), said=Statement(A, 1, "b"), mark="m"))


def test_crash_recovery_writes_nothing() -> None:
    """A standby of nobody, then down again; the reign of before ends first."""
    up = DIVERGED._replace(state=State(A, (FIRST,)), instance=DIVERGED.instance._replace(run=Run.STANDBY))
    down = up._replace(instance=DIVERGED.instance)
    actions, outcome = steps(copying.recover(DIVERGED), up, down)
    assert [type(action) for action in actions] == [Store, Launch, Shutdown]
    assert isinstance(actions[1], Launch)
    assert actions[1].upstream is None
    assert outcome.ok


# -- when pgwatch tries --------------------------------------------------------------------------------------------


def test_background_repair(tmp_path: Path) -> None:
    """Only where it is configured, Pacemaker wanted to start, a primary reigns, the data diverged; a bounded number of times for one term."""
    settings = Settings(tmpdir=str(tmp_path), auto_rejoin=("rewind",))
    mine = Vote(A, (FIRST,), lsn=Lsn(250), system_identifier=SYSTEM)
    scene = DIVERGED._replace(instance=Instance(), votes=(("a", mine), ("b", REIGNING)))
    assert not rejoin.wanted(settings, scene, 0.0)
    (tmp_path / "pgsql.refused").write_text("forked\n")
    assert rejoin.wanted(settings, scene, 0.0)
    assert not rejoin.wanted(settings._replace(auto_rejoin=()), scene, 0.0)
    assert not rejoin.wanted(settings, scene._replace(votes=(("a", mine),)), 0.0)
    assert not rejoin.wanted(settings, scene._replace(votes=(("a", mine._replace(lsn=Lsn(200))), ("b", REIGNING))), 0.0)
    assert rejoin.wanted(settings, scene._replace(state=MARKED.state), 0.0)
    now, count = 0.0, 0
    while rejoin.wanted(settings, scene, now):
        rejoin._remember(settings, rejoin.failed(rejoin.tries(settings), str(B), "no\nroom", now))
        assert not rejoin.wanted(settings, scene, now)
        now, count = rejoin.tries(settings).due, count + 1
    assert count == len(rejoin.PAUSES)
    assert rejoin.tries(settings).given_up
    assert rejoin.tries(settings).reason == "no room"
    newer = REIGNING._replace(reign=Ballot(5, "b"))
    assert rejoin.wanted(settings, scene._replace(votes=(("a", mine), ("b", newer))), now)
    rejoin.forget(settings)
    assert not rejoin.wanted(settings, scene, now)


# -- words and files -----------------------------------------------------------------------------------------------


def test_grants() -> None:
    """The manual's functions; a checkpoint can be granted from PostgreSQL 15 on. The role is quoted."""
    assert len(repair.grants(Settings(repuser="re"), 14)) == len(repair.FUNCTIONS)
    assert repair.grants(Settings(repuser='r"e'), 15)[-1] == 'GRANT pg_checkpoint TO "r""e";'


def test_own_files_are_those_that_say_nothing_of_the_copy(tmp_path: Path) -> None:
    """Settings, certificates and whatever else a person laid there; never what PostgreSQL itself keeps there."""
    for name in ("postgresql.conf", "server.key", "PG_VERSION", "backup_label", "standby.signal"):
        (tmp_path / name).write_bytes(b"\xff" + name.encode())
    (tmp_path / "base").mkdir()
    assert sorted(copies.own_files(str(tmp_path))) == ["postgresql.conf", "server.key"]


def test_wal_of_later_timelines_goes_after_a_rewind(tmp_path: Path) -> None:
    """pg_rewind leaves what it has read, and the next timeline may have the same number. What leads to the source's timeline stays."""
    wal = tmp_path / "pg_wal"
    (wal / "archive_status").mkdir(parents=True)
    later = ["00000003.history", "000000030000000000000001", "000000030000000000000002.partial"]
    for name in (*later, "00000002.history", "000000020000000000000001", "000000010000000000000001.partial", "xlogtemp.7"):
        (wal / name).touch()
    assert copies.drop_later(str(tmp_path), 2) == later
    assert len(list(wal.iterdir())) == 5


def test_a_single_user_server_is_no_postmaster(tmp_path: Path) -> None:
    """Its process number is negative in postmaster.pid: nobody can ask it, and nothing may take it for a server."""
    (tmp_path / "postmaster.pid").write_text("-1\n/x\n")
    assert postgres.postmaster(Settings(datadir=str(tmp_path))) is None


def test_what_is_shown_of_a_copy() -> None:
    """No state is a reign, no mark is a promise."""
    assert shown.my_vote(MARKED).reign == NEVER


def test_what_a_clone_may_delete_of_tablespaces(tmp_path: Path) -> None:
    """What half a clone has left; with --discard what belongs to the data that are deleted; never what others have there."""
    data, fast, slow = tmp_path / "data", tmp_path / "fast", tmp_path / "slow"
    for folder in (data / "pg_tblspc", fast / "PG_15_202209061" / "5", slow / "PG_15_202209061"):
        folder.mkdir(parents=True)
    (data / "pg_tblspc" / "16400").symlink_to(fast)
    settings = Settings(resource="pgsql", datadir=str(data))
    found = repair.Facts(15, False, 2, 1 << 20, 0, f"{fast}\n{slow}\n{tmp_path}/new", True)

    def occupied(state: State = State(), *, discard: bool = False) -> list[str]:  # noqa: B008
        return [Path(folder).name for folder in repair.occupied(settings, found, state, discard=discard)]

    assert occupied() == ["fast", "slow"]
    assert occupied(discard=True) == ["slow"]
    assert occupied(State(mark="pg_rewind of b began")) == ["fast", "slow"]
    assert occupied(State(mark="a copy of b began")) == []
    (fast / "lost+found").mkdir()
    assert occupied(State(mark="a copy of b began"), discard=True) == ["fast"]
    copies.empty_data(str(data), getpass.getuser())
    assert copies.entries(str(data)) == []
    assert [item.name for item in copies.entries(str(fast))] == ["lost+found"]
    assert [item.name for item in copies.entries(str(slow))] == ["PG_15_202209061"]
