"""auto_rejoin: a node whose data left the primary's history repairs itself in the background, a bounded number of times.

Layer 3. pgwatch asks in each round whether it is time (cheap: files, and the votes it has just read), and lets a process of its own do it.
What was tried is remembered beside the state file, so neither a restart nor a repair that kills the node makes it try for ever.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, NamedTuple

from pha4pgsql import copying, pacemaker, postgres, resident, sight, system
from pha4pgsql.site import Scope
from pha4pgsql.words import Failure

if TYPE_CHECKING:
    from pha4pgsql.settings import Settings
    from pha4pgsql.words import Scene

    Say = Callable[[str], None]

PAUSES = (0.0, 30.0, 120.0, 600.0)
"""Seconds before each try; there are as many tries as pauses for one primary's term."""

WAIT = 10.0
"""Seconds until it is looked again whether a try may begin."""


class Tries(NamedTuple):
    """What was tried for the present term of the primary: how often, when the next one may begin (seconds since 1970), why the last one failed."""

    term: str = ""
    number: int = 0
    due: float = 0.0
    reason: str = ""

    @property
    def given_up(self) -> bool:
        return self.number >= len(PAUSES)


def _path(settings: Settings) -> str:
    return f"{settings.tmpdir}/{settings.resource}.rejoin"


def refusal_file(settings: Settings) -> str:
    """What says that Pacemaker wanted to start PostgreSQL here since the last repair, and that it was refused."""
    return f"{settings.tmpdir}/{settings.resource}.refused"


def tries(settings: Settings) -> Tries:
    """Read what was tried; a file that cannot be read says nothing was.

    >>> from pha4pgsql.settings import Settings
    >>> tries(Settings(tmpdir="/nowhere"))
    Tries(term='', number=0, due=0.0, reason='')
    """
    try:
        term, count, due, reason = postgres.read_text(f"{_path(settings)}.tries").rstrip("\n").split("\n", 3)
        return Tries(term, int(count), float(due), reason)
    except ValueError:
        return Tries()


def failed(before: Tries, term: str, reason: str, now: float) -> Tries:
    """What to remember after a try that failed.

    >>> failed(Tries("7.a", 1, 5.0, "x"), "7.a", "y", 100.0)
    Tries(term='7.a', number=2, due=220.0, reason='y')
    >>> failed(Tries("7.a", 3, 5.0, "x"), "8.b", "y", 100.0).number
    1
    """
    count = before.number + 1 if before.term == term else 1
    return Tries(term, count, now + PAUSES[min(count, len(PAUSES) - 1)], " ".join(reason.split()))


def wanted(settings: Settings, scene: Scene, now: float) -> bool:
    """Whether a repair should begin now: Pacemaker wanted to start, the data here diverged or half a copy, and it is time for a try."""
    primary = sight.reigning(scene)
    if not settings.auto_rejoin or not primary or not os.path.exists(refusal_file(settings)):
        return False
    if not scene.state.mark and not copying.diverged(scene):
        return False
    if resident.lives(_path(settings)):
        return False
    known = tries(settings)
    return known.term != str(scene.vote(primary).reign) or (not known.given_up and now >= known.due)


def begin(settings: Settings, node: str, say: Say) -> None:
    """Let a process of its own do it."""
    resident.launch(_path(settings), lambda: work(settings, node, say))


def work(settings: Settings, node: str, say: Say) -> None:
    """One try, from the first method to the last."""
    from pha4pgsql import repair

    site = repair.fresh(settings, node)
    scene = site.look(site.instance(disk=False), scope=Scope.VOTES)
    term = str(scene.vote(sight.reigning(scene)).reign)
    if not _may():
        known = tries(settings)
        _remember(settings, Tries(term, known.number if known.term == term else 0, time.time() + WAIT, "no quorum, or maintenance mode"))
        return
    try:
        reason = _tried(settings, node, say)
    except repair.Busy as busy:
        say(busy.message)
        return
    if reason:
        now = failed(tries(settings), term, reason, time.time())
        said = f"given up after {now.number} tries: {reason}" if now.given_up else f"try {now.number} of {len(PAUSES)} failed: {reason}"
        say(said)
        _remember(settings, now)
        repair.tell(settings, said)
        return
    say("done: Pacemaker may start PostgreSQL again")
    forget(settings)
    with suppress(Failure):
        pacemaker.cleanup(settings.resource, node=node)


def _may() -> bool:
    """Whether this partition has quorum, and Pacemaker the management: whoever works by hand is not disturbed."""
    try:
        return pacemaker.quorate() and not pacemaker.read_cluster().property_is("maintenance-mode", default=False)
    except Failure:
        return False


def _tried(settings: Settings, node: str, say: Say) -> str:
    """Try what auto_rejoin allows, in its order; why all of it failed, or empty."""
    from pha4pgsql import repair

    reasons = []
    for method in settings.auto_rejoin:
        one = repair.Repair(settings, node, repair.Wish(method == "rewind"), say)
        try:
            one.acquire()
            say(f"{method} begins")
            one.run()
        except repair.Busy:
            raise
        except (Failure, OSError) as failure:
            reasons.append(f"{method}: {failure.message if isinstance(failure, Failure) else failure}")
            say(str(reasons[-1]))
            one.settle(str(reasons[-1]))
        else:
            return ""
        finally:
            one.release()
    return "; ".join(reasons)


def _remember(settings: Settings, what: Tries) -> None:
    system.write_file(f"{_path(settings)}.tries", f"{what.term}\n{what.number}\n{what.due}\n{what.reason}\n")


def forget(settings: Settings) -> None:
    """The node is whole again: the next time is a first one."""
    for path in (f"{_path(settings)}.tries", refusal_file(settings)):
        with suppress(FileNotFoundError):
            os.unlink(path)
