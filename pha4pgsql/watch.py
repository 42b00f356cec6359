"""The pgwatch agent: a small resident process on every member that is the voice of the node, whatever PostgreSQL does there.

It stores the statements of a primary that wants to go on alone and, while PostgreSQL is down, answers ballots from disk.
It decides nothing of its own: `pgsql.watch` does, under the same lock as the pgsql agent.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Callable

from pha4pgsql import pacemaker, pgsql, postgres, system
from pha4pgsql.ocf import Code, exit_reason, log
from pha4pgsql.site import Scope, Site
from pha4pgsql.words import NEVER, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.settings import Context, Settings

DOWN_PAUSE = 0.2
"""Seconds between two looks at the votes while PostgreSQL is down: a candidate may be waiting for our answer."""
UP_PAUSE = 1.0
"""Seconds between two looks while PostgreSQL runs: only a statement about going alone can concern us."""


def record(level: str, text: str) -> None:
    """A line in the watcher's own log, with the time: nobody else adds it here."""
    log(level, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


def _path(settings: Settings, name: str) -> str:
    return f"{settings.tmpdir}/{settings.resource}.watch.{name}"


def _held(settings: Settings) -> bool:
    """Whether a watcher lives: it holds a lock as long as it does, so no process number is ever believed."""
    try:
        handle = os.open(_path(settings, "lock"), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def start(settings: Settings, context: Context) -> int:
    """Start the watcher, unless it lives."""
    postgres.prepare(settings)
    if not _held(settings) and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            _become_watcher(settings, context)
        os._exit(0)
    return _await(settings, context, held=True)


def stop(settings: Settings, context: Context) -> int:
    """End the watcher."""
    if not _held(settings):
        return Code.SUCCESS
    with open(_path(settings, "pid"), encoding="utf-8") as stream:
        os.kill(int(stream.read()), signal.SIGTERM)
    return _await(settings, context, held=False)


def _await(settings: Settings, context: Context, *, held: bool) -> int:
    while _held(settings) is not held:
        if time.monotonic() > context.deadline:
            exit_reason(f"the watcher did not {'start' if held else 'end'} in time")
            return Code.ERROR
        time.sleep(0.01)
    return Code.SUCCESS


def monitor(settings: Settings, context: Context) -> int:  # noqa: ARG001
    """Tell whether the watcher lives."""
    return Code.SUCCESS if _held(settings) else Code.NOT_RUNNING


def _become_watcher(settings: Settings, context: Context) -> None:
    """Take the lock, leave the caller's streams, and watch until the end."""
    handle = os.open(_path(settings, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os._exit(0)
    system.write_file(_path(settings, "pid"), f"{os.getpid()}\n")
    null = os.open(os.devnull, os.O_RDWR)
    journal = os.open(_path(settings, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(journal, 1)
    os.dup2(journal, 2)
    for number in range(3, 256):
        if number != handle:
            try:
                os.close(number)
            except OSError:
                continue
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
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
    newer = any(vote.said.number > state.said.number for vote in votes.values())
    asked = any(vote.answer and vote.answer.ballot.node == node and vote.answer.ballot > state.promised for node, vote in votes.items())
    shown = mine is not None and (mine.promised, mine.said, mine.eras, mine.reign) == (state.promised, state.said, state.eras, NEVER) and mine.lsn
    if newer or (down and (asked or not shown)):
        site.drive(pgsql.watch, scope=Scope.VOTES)
    if state.reign != NEVER and not down:
        scene = site.look(site.instance(disk=False), scope=Scope.VOTES)
        if pgsql.lacking(scene) or pgsql.missing_slots(scene):
            record("INFO", "commits wait for a standby that does not stream, or one wants to follow: looking after the set")
            site.reign()
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

    Not when the agent ended it: then the agent holds the node's lock, or has already put away the reign.
    """
    site = Site(settings, context._replace(started=time.monotonic(), timeout=20.0), record)
    with site.lock():
        gone = postgres.postmaster(settings) is None and site.state().reign != NEVER
    if gone:
        record("WARNING", "the primary's postmaster ended by itself: resigning")
        pacemaker.set_transient({(context.node, f"master-{settings.resource}"): "-INFINITY"})


ACTIONS: Mapping[str, Callable[[Settings, Context], int]] = {"start": start, "stop": stop, "monitor": monitor}
