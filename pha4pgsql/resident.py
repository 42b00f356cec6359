"""A resident process: started by an action of an agent, it outlives it, and is known to live by a lock that it holds as long as it does.

Layer 3. PREFIX.lock is the lock, PREFIX.pid its process number (to signal it, never to believe in it), PREFIX.log what it says.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Callable

from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "/run/pha4pgsql"
"""What the agents of load balancing remember until the next boot."""
PAUSE = 0.01
"""Seconds between two looks at something that is awaited."""
GRACE = 2.0
"""Seconds from SIGTERM to SIGKILL."""
LARGEST_LOG = 1 << 20
"""Bytes of a log, beyond which it is put aside when the process starts."""


def lives(prefix: str) -> bool:
    """Whether the process lives."""
    try:
        handle = os.open(f"{prefix}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def launch(prefix: str, work: Callable[[], None]) -> None:
    """Let a process of its own do `work`, which should not return, unless one lives already. Does not wait for it."""
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            _become(prefix, work)
        os._exit(0)
    os.waitpid(child, 0)


def _become(prefix: str, work: Callable[[], None]) -> None:
    """Take the lock, leave the caller's streams, and work."""
    code = 1
    try:
        handle = os.open(f"{prefix}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(0)
        from pha4pgsql import system  # slow to import; whoever only asks whether it lives has no use for it

        system.write_file(f"{prefix}.pid", f"{os.getpid()}\n")
        _leave_streams(prefix, handle)
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        work()
        code = 0
    except Exception:  # noqa: BLE001  nobody waits for this process: its log is all that is left
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _leave_streams(prefix: str, keep: int) -> None:
    """No descriptor of the caller stays open: Pacemaker waits for the end of an action's output."""
    with suppress(FileNotFoundError):
        if os.stat(f"{prefix}.log").st_size > LARGEST_LOG:
            os.replace(f"{prefix}.log", f"{prefix}.log.old")
    null = os.open(os.devnull, os.O_RDWR)
    journal = os.open(f"{prefix}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(journal, 1)
    os.dup2(journal, 2)
    for number in range(3, 256):
        if number != keep:
            with suppress(OSError):
                os.close(number)


def end(prefix: str, deadline: float) -> bool:
    """End the process, by force if it does not obey; whether it has ended by the monotonic time `deadline`."""
    force, killed = min(time.monotonic() + GRACE, deadline - 0.5), False
    if lives(prefix):
        _send(prefix, signal.SIGTERM)
    while lives(prefix):
        now = time.monotonic()
        if now > deadline:
            return False
        if now > force and not killed:
            _send(prefix, signal.SIGKILL)
            killed = True
        time.sleep(PAUSE)
    return True


def _send(prefix: str, order: signal.Signals) -> None:
    with suppress(OSError, ValueError), open(f"{prefix}.pid", encoding="ascii") as stream:
        os.kill(int(stream.read()), order)


@contextmanager
def locked(path: str, deadline: float) -> Iterator[None]:
    """Hold the lock of a file; EnvironmentFailure if it cannot be had by the monotonic time `deadline`."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _taken(handle):
            if time.monotonic() > deadline:
                raise EnvironmentFailure(f"{path} is locked by another process, expected for moments only", f"see who holds it: fuser -v {path}")
            time.sleep(PAUSE)
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
