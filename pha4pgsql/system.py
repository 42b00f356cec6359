"""Run a command, write a file, tell the time: the machine below, with deadlines and without a shell."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Completed(NamedTuple):
    """The end of a command. `code` is 124 when the deadline passed, 127 when the program does not exist."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0


def run(
    argv: Sequence[str],
    *,
    timeout: float = 30.0,
    text: str | None = None,
    user: str | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: str = "/",
    keep: tuple[int, int] = (0, 0),
) -> Completed:
    """Run `argv` (an argument list, never a shell line) and wait at most `timeout` seconds.

    An agent's own parameters stay here: they may hold secrets, and attrd_updater (2.1.5) takes OCF_RESKEY_CRM_meta_on_node
    for the node to ask about, even with --all.
    `text` goes to its standard input, `environment` is added to ours, `user` is the operating system's user to become.
    `keep` bounds what is kept of its output: the last so many characters, and of each line the first so many (0: all), for a program
    that may print gigabytes.
    A command that is not there or does not end is a value, not an exception: its `code` tells.
    """
    extra: dict[str, Any] = {}
    env = {name: value for name, value in os.environ.items() if not name.startswith("OCF_RESKEY_")}
    env.update({"LC_ALL": "C", **(environment or {})})
    if user is not None and user != pwd.getpwuid(os.geteuid()).pw_name:
        entry = pwd.getpwnam(user)
        extra = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": os.getgrouplist(user, entry.pw_gid)}
        env["HOME"] = entry.pw_dir
    if keep[0]:
        return _run_tail(argv, timeout=timeout, env=env, cwd=cwd, keep=keep, extra=extra)
    try:
        done = subprocess.run(
            list(argv),
            input=text,
            stdin=None if text is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=env,
            cwd=cwd,
            encoding="utf-8",
            errors="replace",
            check=False,
            **extra,
        )
    except subprocess.TimeoutExpired as late:
        return Completed(124, _decoded(late.stdout), f"no end within {timeout:g} s")
    except (FileNotFoundError, PermissionError) as missing:
        return Completed(127, "", f"{argv[0]}: {missing.strerror}")
    return Completed(done.returncode, done.stdout, done.stderr)


def _run_tail(argv: Sequence[str], *, timeout: float, env: Mapping[str, str], cwd: str, keep: tuple[int, int], extra: Mapping[str, Any]) -> Completed:
    """Run a command and keep the last characters of its output only, of each line the first."""
    import tempfile  # 14 ms, needed only here

    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=env, cwd=cwd, **extra)
        except (FileNotFoundError, PermissionError) as missing:
            return Completed(127, "", f"{argv[0]}: {missing.strerror}")
        deadline, tail = time.monotonic() + timeout, _Tail(*keep)
        assert child.stdout is not None  # noqa: S101  for the type checker: it is a pipe
        with child.stdout as stream:
            for line in stream:
                tail.append(line)
                if time.monotonic() > deadline:
                    child.kill()
                    child.wait()
                    return Completed(124, tail.text(), f"no end within {timeout:g} s")
        child.wait()
        errors.seek(0)
        return Completed(child.returncode, tail.text(), _decoded(errors.read()))


class _Tail:
    """The last lines of a long output: `keep` bytes at most, of each line the first `width` (0: all of it)."""

    def __init__(self, keep: int, width: int) -> None:
        self.keep, self.width = keep, width
        self.lines: deque[bytes] = deque()
        self.size = 0

    def append(self, line: bytes) -> None:
        if self.width and len(line) > self.width:
            line = line[: self.width] + b"\n"
        self.lines.append(line)
        self.size += len(line)
        while self.size - len(self.lines[0]) >= self.keep:
            self.size -= len(self.lines.popleft())

    def text(self) -> str:
        return _decoded(b"".join(self.lines)[-self.keep :])


def _decoded(output: bytes | str | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def write_file(path: str | Path, content: str, *, mode: int = 0o600, owner: str | None = None) -> None:
    """Replace a file atomically and durably: readers see the old or the new content, and the new one survives power loss."""
    path = os.fspath(path)
    folder = os.path.dirname(path) or "."
    temporary = f"{folder}/.{os.path.basename(path)}.{os.getpid()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                entry = pwd.getpwnam(owner)
                os.fchown(stream.fileno(), entry.pw_uid, entry.pw_gid)
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
