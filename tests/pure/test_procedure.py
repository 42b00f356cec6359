"""An operator's procedure: refused with all reasons, shown, agreed to, carried out in order, undone."""

from __future__ import annotations

import argparse
import io
import os
import signal
from typing import TYPE_CHECKING

import pytest

from pha4pgsql.checks import Answer, Check, must
from pha4pgsql.procedure import Interrupted, Plan, Refused, Step, carry_out, perform, wait
from pha4pgsql.words import ClusterRefusal

if TYPE_CHECKING:
    from collections.abc import Callable


class Diary:
    """What happened, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def step(self, what: str, *, fails: bool = False, done: bool = False, undo: bool = True) -> Step:
        def do() -> None:
            self.lines.append(what)
            if fails:
                raise ClusterRefusal("no")

        return Step(what, do, done, self.writer(f"undo {what}") if undo else None, "" if undo else "it cannot be taken back")

    def writer(self, line: str) -> Callable[[], None]:
        return lambda: self.lines.append(line)


def given(*, dry_run: bool = False, yes: bool = False) -> argparse.Namespace:
    return argparse.Namespace(dry_run=dry_run, yes=yes)


def silent(_: str) -> None:
    """Say nothing."""


def test_steps_in_order_and_what_is_done_is_skipped() -> None:
    """The same command, run again, finishes the job."""
    diary = Diary()
    assert perform(Plan((), [diary.step("a", done=True), diary.step("b"), diary.step("c")]), given(), silent)
    assert diary.lines == ["b", "c"]


def test_a_failure_takes_back_last_first() -> None:
    """The step that failed may have done a half: it is undone, too; what has no undo is told."""
    diary, said = Diary(), list[str]()
    with pytest.raises(ClusterRefusal):
        carry_out([diary.step("a"), diary.step("b", undo=False), diary.step("c", fails=True), diary.step("d")], said.append)
    assert diary.lines == ["a", "b", "c", "undo c", "undo a"]
    assert said[-3:] == ["undo: c", "stays: b (it cannot be taken back)", "undo: a"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_interruption_is_undone(number: signal.Signals) -> None:
    """Whoever ends the command, what was begun is taken back."""
    diary = Diary()
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        carry_out([diary.step("a"), Step("ended", lambda: os.kill(os.getpid(), number))], silent)
    assert diary.lines == ["a", "undo a"]


def test_a_failing_undo_does_not_hide_the_others() -> None:
    """Each undo is tried, and the first trouble is what is raised."""
    diary = Diary()

    def refuse() -> None:
        raise ClusterRefusal("the undo, too")

    with pytest.raises(ClusterRefusal, match=r"^no$"):
        carry_out([diary.step("a"), Step("b", lambda: None, undo=refuse), diary.step("c", fails=True)], silent)
    assert diary.lines == ["a", "c", "undo c", "undo a"]


def test_refusal_names_everything_and_does_nothing() -> None:
    """All reasons at once; hint and exit code are those of the first; the unknown stops nothing."""
    diary = Diary()
    checks = [
        Check("x", Answer.UNKNOWN),
        must("y is so", is_so=False, seen="y is not so", hint="make it so", code=10),
        must("z", is_so=False, code=11),
    ]
    with pytest.raises(Refused) as caught:
        perform(Plan(checks, [diary.step("a")]), given())
    assert (caught.value.code, caught.value.hint, diary.lines) == (10, "make it so", [])
    assert "y is not so" in caught.value.message
    assert "z" in caught.value.message


def test_dry_run_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """It shows preconditions, steps with their undo, the risk; and is refused where the command would be."""
    diary = Diary()
    plan = Plan([must("x", is_so=True), must("y", is_so=False, code=10)], [diary.step("a", done=True), diary.step("b", undo=False)], "writes pause")
    with pytest.raises(Refused):
        perform(plan, given(dry_run=True))
    assert capsys.readouterr().out.splitlines() == [
        "yes     x",
        "no      y",
        "done    a",
        "would   b (undo: it cannot be taken back)",
        "note    writes pause",
    ]
    assert not perform(plan._replace(checks=()), given(dry_run=True))
    assert diary.lines == []


def test_a_plan_may_insist_on_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program cannot be asked: mostly it has decided already, but for some risks it has to say --yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    diary = Diary()
    plan = Plan((), [diary.step("a")], "data is deleted", insists=True)
    with pytest.raises(ClusterRefusal):
        perform(plan, given(), silent)
    assert diary.lines == []
    assert perform(plan, given(yes=True), silent)
    assert perform(plan._replace(insists=False), given(), silent)


def test_wait_tells_changes_once() -> None:
    """Until nothing is missing; after the limit, what is missing."""
    said: list[str] = []
    answers = iter(["a", "a", "b", ""])
    assert not wait(lambda: next(answers), 60, said.append)
    assert said == ["waiting: a", "waiting: b"]
    assert wait(lambda: "c", 0, silent) == "c"
