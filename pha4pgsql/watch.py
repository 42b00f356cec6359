"""The pgwatch agent: a small resident process on every member that is the voice of the node, whatever PostgreSQL does there.

It stores the statements of a primary that wants to go on alone and, while PostgreSQL is down, answers ballots from disk.
It decides nothing of its own: `pgsql.watch` does, under the same lock as the pgsql agent.
"""

from __future__ import annotations

import binascii
import os
import select
import sys
import time
from typing import TYPE_CHECKING, Callable

from pha4pgsql import chronicle, duties, pacemaker, pgsql, postgres, rejoin, resident, system
from pha4pgsql.ocf import Code, exit_reason, log
from pha4pgsql.site import MOVING, Scope, Site
from pha4pgsql.words import NEVER, Failure, Run, Scene

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.settings import Context, Settings

DOWN_PAUSE = 0.2
"""Seconds between two looks at the votes while PostgreSQL is down: a candidate may be waiting for our answer."""
UP_PAUSE = 1.0
"""Seconds between two looks while PostgreSQL runs: only a statement about going alone can concern us."""
PARTING = 3.0
"""Seconds that PostgreSQL may take to begin to end when the watcher is stopped: Pacemaker stops both at once."""
LAST_WORD = 5.0
"""Seconds for which the end of the last voice waits until a primary has said that it goes on alone."""


def record(level: str, text: str) -> None:
    """A line in the watcher's own log, with the time: nobody else adds it here."""
    log(level, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


def _prefix(settings: Settings) -> str:
    return f"{settings.tmpdir}/{settings.resource}.watch"


def start(settings: Settings, context: Context) -> int:
    """Start the watcher, unless it lives."""
    postgres.prepare(settings)
    if not resident.lives(_prefix(settings)):
        system.write_file(f"{_prefix(settings)}.settings", _mark(settings))
        resident.launch(_prefix(settings), lambda: _watch(settings, context))
    while not resident.lives(_prefix(settings)):
        if time.monotonic() > context.deadline:
            exit_reason("the watcher did not start in time")
            return Code.ERROR
        time.sleep(resident.PAUSE)
    return Code.SUCCESS


def stop(settings: Settings, context: Context) -> int:
    """End the watcher, when nobody waits for its voice."""
    try:
        speak_last(settings, context)
    except Failure as failure:
        log("WARNING", failure.message)
    return _end(settings, context)


def speak_last(settings: Settings, context: Context) -> None:
    """Where PostgreSQL ends with the watcher and the primary has no other standby: wait until it goes on alone, which it needs a voice for."""
    began, said = time.monotonic(), False
    while time.monotonic() < min(began + LAST_WORD, context.deadline - 5.0):
        site = Site(settings, context, log)
        scene = site.look(site.instance(disk=False))
        leaving = {name for name, member in site.cluster.members.items() if member.standby} if site.cluster else set()
        scene = scene._replace(online=scene.online - leaving)  # of two that leave at once each is the last
        if not pgsql.waited_for(scene) or (scene.instance.run is not Run.DOWN and time.monotonic() > began + PARTING):
            return
        if not said:
            log("INFO", "this is the last voice beside the primary: waiting until that has said that it goes on alone")
            said = True
        time.sleep(DOWN_PAUSE)


def _end(settings: Settings, context: Context) -> int:
    if resident.end(_prefix(settings), context.deadline):
        return Code.SUCCESS
    exit_reason("the watcher did not end in time")
    return Code.ERROR


def monitor(settings: Settings, context: Context) -> int:
    """Tell whether the watcher lives; one that began with other parameters than the present ones begins anew, probes included."""
    if not resident.lives(_prefix(settings)):
        return Code.NOT_RUNNING
    if postgres.read_text(f"{_prefix(settings)}.settings") == _mark(settings):
        return Code.SUCCESS
    log("INFO", "the parameters have changed: the watcher begins anew")
    return _end(settings, context) or start(settings, context)


def _mark(settings: Settings) -> str:
    """A checksum of the parameters: passwords are among them."""
    return f"{binascii.crc32(repr(settings).encode()):08x}\n"


def _watch(settings: Settings, context: Context) -> None:
    """Watch until the end."""
    while True:
        try:
            pause = watch_once(settings, context)
        except Failure as failure:
            record("WARNING", failure.message)
            pause = UP_PAUSE
        except Exception as bug:  # noqa: BLE001 - the voice of a node must not end because of one bad look
            record("ERROR", f"internal error: {bug!r}")
            pause = UP_PAUSE
        sys.stderr.flush()
        if _await_death(settings, pause):
            try:
                resign(settings, context)
            except Failure as failure:
                record("WARNING", failure.message)


def watch_once(settings: Settings, context: Context) -> float:
    """One look, and what follows from it; returns the pause until the next."""
    site = Site(settings, context._replace(started=time.monotonic(), timeout=20.0), record)
    down = postgres.postmaster(settings) is None
    votes = dict(site.votes())
    state = site.state()
    mine = votes.get(context.node)
    newer = any(vote.said.number > state.said.number or vote.roster.number > state.roster.number for vote in votes.values())
    asked = any(vote.answer and vote.answer.ballot.node == node and vote.answer.ballot > state.promised for node, vote in votes.items())
    shown = (
        mine is not None
        and (mine.promised, mine.said, mine.eras, mine.reign) == (state.promised, state.said, state.eras, NEVER)
        and (mine.lsn or state.mark)
    )
    newer = newer or not state.roster.listed
    if newer or (down and (asked or not shown)):
        site.drive(pgsql.watch, scope=Scope.VOTES)
    scene = Scene(context.node, site.rules, state, votes=tuple(votes.items()))
    if down and state.mark and not site.under_repair():
        from pha4pgsql import repair

        repair.abandoned(settings, context.node)
    if down and rejoin.wanted(settings, scene, time.time()) and not site.under_repair():
        record("INFO", f"the data here are not the primary's: {'/'.join(settings.auto_rejoin)} begins (auto_rejoin)")
        rejoin.begin(settings, context.node, lambda text: record("INFO", text))
    if state.reign != NEVER and not down:
        scene = site.look(site.instance(disk=False), scope=Scope.VOTES)
        if duties.lacking(scene) or duties.missing_slots(scene):
            record("INFO", "commits wait for a standby that does not stream, or one wants to follow: looking after the set")
            site.reign(duties.tend)
        elif MOVING <= site.promoted_since() < MOVING + 2 * UP_PAUSE:
            site.reign(duties.tend)  # what the first monitor has left, so that people see the new primary at once
    chronicle.tell_end(settings)
    return DOWN_PAUSE if down else UP_PAUSE


def _await_death(settings: Settings, pause: float) -> bool:
    """Wait `pause` seconds, or until the postmaster ends: the kernel tells within milliseconds, a monitor within seconds."""
    server = postgres.postmaster(settings)
    try:
        handle = os.pidfd_open(server.pid) if server else -1
    except OSError:
        return True
    if handle < 0:
        time.sleep(pause)
        return False
    try:
        return bool(select.select([handle], [], [], pause)[0])
    finally:
        os.close(handle)


def resign(settings: Settings, context: Context) -> None:
    """Give up the promotion score of a primary whose postmaster ended by itself, so that Pacemaker promotes another node at once.

    Not when the agent is ending it, which holds the node's lock only from look to look, or has already put away the reign.
    """
    site = Site(settings, context._replace(started=time.monotonic(), timeout=20.0), record)
    with site.lock(), site.ending() as free:
        gone = free is not None and postgres.postmaster(settings) is None and site.state().reign != NEVER
        if gone:
            chronicle.ends(settings, site.state())
    if gone:
        record("WARNING", "the primary's postmaster ended by itself: resigning")
        pacemaker.set_transient({(context.node, f"master-{settings.resource}"): "-INFINITY"})


ACTIONS: Mapping[str, Callable[[Settings, Context], int]] = {"start": start, "stop": stop, "monitor": monitor}
