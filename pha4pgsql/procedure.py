"""An operator's procedure as data: what must be so, and named steps with their undo. Shown by --dry-run, else performed with its progress.

Layer 4. A command builds a `Plan` from one look at the cluster; here it is refused with all reasons at once, shown, agreed to, carried out, and
undone when it cannot go on or is interrupted. A step whose aim is reached already is skipped, so the same command, run again, finishes the job.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from typing import TYPE_CHECKING, Callable, NamedTuple

from pha4pgsql.checks import Answer, Check
from pha4pgsql.words import ClusterRefusal, Failure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

POLL = 0.1
"""Seconds between two looks at what is waited for."""

Say = Callable[[str], None]


class Step(NamedTuple):
    """One step: what it does, whether a look showed it done, what does it, and what takes it back.

    `undo_what` says what the undo does, or, without an undo, why there is none; it is shown by --dry-run, and when the step has to be undone.
    """

    what: str
    do: Callable[[], object]
    done: bool = False
    undo: Callable[[], object] | None = None
    undo_what: str = ""


class Plan(NamedTuple):
    """A procedure: what must be so, what is done, and what a person should know before it is (asked on a terminal only when there is something).

    `insists`: a program, which cannot be asked, has to say --yes.
    """

    checks: Sequence[Check]
    steps: Sequence[Step]
    risk: str = ""
    insists: bool = False


class Refused(ClusterRefusal):
    """Preconditions that do not hold; `code` is the exit code of the first of them."""

    def __init__(self, message: str, hint: str, code: int) -> None:
        super().__init__(message, hint)
        self.code = code


class NotReached(ClusterRefusal):
    """The node that was meant did not become primary in the given time: another one did, or nobody."""

    code = 11


class Interrupted(Failure):
    """A person or the system ended the command."""

    code = 130


def options(parser: argparse.ArgumentParser, *, timeout: float, waits_for: str = "each step") -> None:
    """The options that every procedure has."""
    from pha4pgsql.arguments import seconds

    parser.add_argument("--dry-run", action="store_true", help="only say what is so, and what would be done")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument(
        "--timeout", type=seconds, default=timeout, metavar="SECONDS", help=f"how long to wait for {waits_for} (default: {timeout:g})"
    )


def perform(plan: Plan, given: argparse.Namespace, say: Say | None = None) -> bool:
    """Show the plan (--dry-run) or carry it out. False when it was only shown. What stands in the way is raised."""
    refusal = refused(plan.checks)
    if given.dry_run:
        show(plan)
        if refusal is not None:
            raise refusal
        return False
    if refusal is not None:
        raise refusal
    agree(plan.risk, yes=given.yes, insists=plan.insists)
    carry_out(plan.steps, say or stopwatch())
    return True


def refused(checks: Sequence[Check]) -> Refused | None:
    """All that stands in the way, with the hint and the exit code of the first; what could not be found out stops nothing by itself."""
    failing = [check for check in checks if check.answer is Answer.NO]
    if not failing:
        return None
    reasons = [f"{one.seen or one.what}{f' (expected: {one.what})' if one.seen else ''}" for one in failing]
    message = reasons[0] if len(reasons) == 1 else "nothing was changed:" + "".join(f"\n  {reason}" for reason in reasons)
    return Refused(message, failing[0].hint, failing[0].code)


def show(plan: Plan) -> None:
    """What is so, and what would be done."""
    for check in plan.checks:
        print(check)
    for step in plan.steps:
        print(f"{'done    ' if step.done else 'would   '}{step.what}{f' (undo: {step.undo_what})' if step.undo_what and not step.done else ''}")
    if plan.risk:
        print(f"note    {plan.risk}")


def agree(risk: str, *, yes: bool, insists: bool = False) -> None:
    """Ask a person on a terminal whether to accept a risk. A program that is not asked has decided already, unless the plan insists."""
    if not risk or yes:
        return
    if not sys.stdin.isatty():
        if insists:
            raise ClusterRefusal(f"{risk}: nobody can be asked here, nothing was changed", "say --yes")
        return
    if input(f"{risk}\nGo on? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise ClusterRefusal("nothing was changed")


def stopwatch() -> Say:
    """Progress on standard error, with the seconds since now: standard output keeps what scripts read."""
    began = time.monotonic()
    return lambda text: print(f"{time.monotonic() - began:5.1f} s  {text}", file=sys.stderr, flush=True)


def carry_out(steps: Sequence[Step], say: Say) -> None:
    """Do what is not done, in order; on a failure or an interruption take back what can be taken back, last first, and say what stays."""
    begun: list[Step] = []
    try:
        with interruptible():
            for step in steps:
                if not step.done:
                    say(step.what)
                    begun.append(step)
                    step.do()
    except (Failure, OSError, KeyboardInterrupt) as trouble:
        say(f"not done: {str(trouble) or 'interrupted'}".splitlines()[0])
        _take_back(begun, say)
        raise


def _take_back(begun: Sequence[Step], say: Say) -> None:
    """Every undo is tried, whatever became of the one before."""
    for step in reversed(begun):
        if step.undo is None:
            if step.undo_what:
                say(f"stays: {step.what} ({step.undo_what})")
            continue
        say(f"undo: {step.undo_what or step.what}")
        try:
            step.undo()
        except (Failure, OSError) as trouble:
            say(f"the undo failed: {trouble}")


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A termination is an interruption: what was begun is undone. SIGKILL leaves what the same command, run again, finishes."""

    def stop(number: int, _frame: object) -> None:
        raise Interrupted(f"ended by {signal.Signals(number).name}")

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def wait(missing: Callable[[], str], limit: float, say: Say, rest: Callable[[], object] = lambda: time.sleep(POLL)) -> str:
    """Look until nothing is missing or `limit` seconds have passed; return what is still missing. Changes are told.

    `rest` is what is done between two looks.
    """
    deadline, told = time.monotonic() + limit, ""
    while left := missing():
        if left != told:
            say(f"waiting: {left}")
            told = left
        if time.monotonic() > deadline:
            return left
        rest()
    return ""
