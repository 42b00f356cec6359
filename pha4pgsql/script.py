"""A user's command line, run with a limit of time and of output, and killed with everything it has started."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pha4pgsql.lvs_words import Unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST = 65536
"""Characters of output: a list of a thousand servers has a third of that."""
SHELL = frozenset("|&;<>()$`*?[]~#!{}\n\\")
"""Characters that mean something to a shell, quoted or not."""


def command(line: str, *more: str) -> list[str]:
    """The argument list of a command line; a shell runs what only a shell can read.

    >>> command('tool "host=a port=1" -h', "node1")
    ['tool', 'host=a port=1', '-h', 'node1']
    >>> command("one | two", "node1")
    ['/bin/sh', '-c', 'one | two node1']
    """
    import shlex  # needed by few

    if not SHELL & set(line):
        with suppress(ValueError):
            return [*shlex.split(line), *more]
    return ["/bin/sh", "-c", " ".join([line, *(shlex.quote(word) for word in more)])]


class Runner:
    """Runs command lines, from any thread, and knows which of them run."""

    def __init__(self) -> None:
        self._running: set[int] = set()

    def run(self, argv: Sequence[str], timeout: float) -> str | Unknown:
        """Run it; its output if it succeeds, else why not."""
        return _run(argv, timeout, self._running)

    def kill(self) -> None:
        """Kill all that run, with everything they have started."""
        for group in tuple(self._running):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)


def _run(argv: Sequence[str], timeout: float, running: set[int]) -> str | Unknown:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OCF_RESKEY_")}
    try:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", env=environment, start_new_session=True
        )
    except OSError as missing:
        return Unknown(f"{argv[0]}: {(missing.strerror or 'cannot be run').lower()}")
    running.add(child.pid)
    try:
        return _watch(child, timeout)
    finally:
        running.discard(child.pid)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()


def _watch(child: subprocess.Popen[bytes], timeout: float) -> str | Unknown:
    """Read both streams until they end, the time is over or there is too much."""
    assert child.stdout is not None  # noqa: S101  for the type checker: both are pipes
    assert child.stderr is not None  # noqa: S101
    deadline = time.monotonic() + timeout
    said = {child.stdout.fileno(): b"", child.stderr.fileno(): b""}
    out, err = said
    open_ones = set(said)
    while open_ones:
        ready, _, _ = select.select(list(open_ones), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return Unknown(f"no end within {timeout:g} s")
        for handle in ready:
            chunk = os.read(handle, 65536)
            said[handle] += chunk
            open_ones -= set() if chunk else {handle}
        if len(said[out]) > LARGEST:
            return Unknown(f"more than {LARGEST} characters of output")
        said[err] = said[err][-LARGEST:]
    try:
        code = child.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Unknown(f"no end within {timeout:g} s")
    text = said[out].decode("utf-8", "replace")
    if code:
        lines = (said[err].decode("utf-8", "replace").strip() or text.strip()).splitlines()
        return Unknown(f"exit code {code}" + (f": {lines[-1][:200]}" if lines else ""))
    return text
