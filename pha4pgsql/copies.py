"""Making a data directory a copy of another server's: pg_basebackup and pg_rewind, run as the database's user, with their progress as numbers.

Layer 3. What may be copied, and when, is decided elsewhere. A program that is begun here never outlives its caller: half a copy that is
still growing could not be told from one that is not.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from pha4pgsql import postgres
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pha4pgsql.settings import Settings

    Hear = Callable[[str], None]

ANEW = "correct the cause, then run the command again: it begins the copy anew"
NOT_REQUIRED = "no rewind required"
"""What pg_rewind says when no page was changed after the histories parted."""
FOREIGN = frozenset({
    "PG_VERSION", "backup_label", "backup_label.old", "backup_manifest", "tablespace_map", "tablespace_map.old", "postmaster.opts",
    "postmaster.pid", "current_logfiles", "standby.signal", "recovery.signal",
})  # fmt: skip
"""Files at the top of a data directory that say what the copy is; every other one there is the node's own configuration."""


class Progress(NamedTuple):
    """How far a program says it is: kilobytes done and to be done (an estimate that can be exceeded)."""

    done: int
    total: int

    @property
    def percent(self) -> int:
        return min(100, self.done * 100 // self.total) if self.total else 0


def progress(line: str) -> Progress | None:
    """Read a line of pg_basebackup's or pg_rewind's option --progress.

    >>> progress("  22954/ 22954 kB (100%), 0/1 tablespace"), progress("102359/102360 kB (99%) copied"), progress("waiting for checkpoint")
    (Progress(done=22954, total=22954), Progress(done=102359, total=102360), None)
    """
    found = re.match(r"\s*(\d+)/\s*(\d+) kB", line)
    return Progress(int(found[1]), int(found[2])) if found else None


def base_backup(settings: Settings, conninfo: str, target: str, options: Sequence[str], hear: Hear, *, keep: Sequence[int] = ()) -> None:
    """Copy a running server into the empty directory `target`, the WAL that the copy needs included. Raises what pg_basebackup says."""
    argv = [settings.program("pg_basebackup"), "-d", conninfo, "-D", target, "-X", "stream", "-c", "fast", "-P", "-w", *options]
    code, said = _run(settings, argv, hear, keep)
    if code:
        raise EnvironmentFailure(f"pg_basebackup failed: {_last(said)}", ANEW)


def rewind(settings: Settings, conninfo: str, hear: Hear, *, dry: bool, restore: bool, keep: Sequence[int] = ()) -> bool:
    """Run pg_rewind on a directory that was shut down cleanly; whether there was something to rewind. `dry`: change nothing.

    `restore`: fetch what is missing of the local WAL with restore_command, which our own configuration file has (PostgreSQL 15 on).
    """
    argv = [settings.program("pg_rewind"), "-D", settings.datadir, "--source-server", conninfo, "-P", "--no-ensure-shutdown"]
    argv += [*(["--dry-run"] if dry else []), *(["-c", f"--config-file={postgres.config_file(settings)}"] if restore else [])]
    code, said = _run(settings, argv, hear, keep)
    if code:
        raise EnvironmentFailure(f"pg_rewind failed: {_last(said)}")
    return not any(NOT_REQUIRED in line for line in said)


def drop_later(datadir: str, timeline: int) -> list[str]:
    """Delete WAL of timelines beyond this one, the source's; the names of the files.

    pg_rewind leaves segments that it has read. When the next primary makes a timeline of that number they would pass for WAL of it.
    """
    folder = f"{datadir}/pg_wal"
    names = [name for name in os.listdir(folder) if re.fullmatch(r"[0-9A-F]{24}(\.partial)?|[0-9A-F]{8}\.history", name)]
    later = sorted(name for name in names if int(name[:8], 16) > timeline)
    for name in later:
        os.unlink(f"{folder}/{name}")
    return later


def recover_alone(settings: Settings, *, keep: Sequence[int] = ()) -> None:
    """Replay the local WAL to its end in a single-user server, which then writes a shutdown checkpoint behind it.

    That makes a database which was a standby one that pg_rewind takes back: of a standby it looks at changed pages only.
    """
    for name in ("standby.signal", "recovery.signal"):
        if os.path.exists(f"{settings.datadir}/{name}"):
            os.unlink(f"{settings.datadir}/{name}")
    options = ["-c", f"config_file={postgres.config_file(settings)}"]
    argv = [settings.program("postgres"), "--single", "-F", "-D", settings.pgdata, *options, "template1"]
    code, said = _run(settings, argv, lambda _: None, keep)
    if code:
        raise EnvironmentFailure(f"the crash recovery failed: {_last(said)}")


def _last(said: Sequence[str]) -> str:
    """The words of a program that tell why it ended."""
    errors = [line for line in said if "error:" in line or "FATAL" in line or "PANIC" in line or "hint:" in line or "detail:" in line]
    return " / ".join((errors or list(said))[-3:])


def _run(settings: Settings, argv: Sequence[str], hear: Hear, keep: Sequence[int]) -> tuple[int, list[str]]:
    """Run a program as the database's user and hear each line; its exit code and last words. It ends with this process, all of it.

    `keep`: descriptors that it holds too, so that a lock lasts as long as either lives.
    """
    entry = pwd.getpwnam(settings.pgdba)
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C", "HOME": entry.pw_dir, **postgres.libraries(settings)}
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", env=environment, text=True, errors="replace",
        pass_fds=tuple(keep), start_new_session=True, **_as_user(entry),
    ) as child, _guarded(child.pid):  # fmt: skip
        assert child.stderr is not None  # noqa: S101  for the type checker: it is a pipe
        said: list[str] = []
        try:
            for line in child.stderr:
                said = [*said[-19:], line.strip()]
                hear(line.strip())
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
    return child.returncode, said


@contextlib.contextmanager
def _guarded(group: int) -> Iterator[None]:
    """Let a process of its own end a process group when this process dies, whatever kills it: its standard input ends then.

    pg_basebackup's second process, which receives the WAL, outlives the first one.
    """
    argv = [sys.executable, "-ISc", "import os, sys; os.read(0, 1) or os.killpg(int(sys.argv[1]), 9)", str(group)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as guard:
        try:
            yield
        finally:
            guard.kill()


def _as_user(entry: pwd.struct_passwd) -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": os.getgrouplist(entry.pw_name, entry.pw_gid)}


# ---------------------------------------------------------------- directories


def empty(folder: str, owner: str) -> None:
    """Make it an empty directory of the database's user; the directory itself may be a mount point and stays."""
    entry = pwd.getpwnam(owner)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for item in os.scandir(folder):
        if item.is_dir(follow_symlinks=False):
            shutil.rmtree(item.path)
        else:
            os.unlink(item.path)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    os.chmod(folder, 0o700)


def entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a directory; nothing where there is none."""
    return list(os.scandir(folder)) if os.path.isdir(folder) else []


def tablespaces_of(datadir: str) -> list[str]:
    """The places of a data directory's tablespaces, without links."""
    return [os.path.realpath(link.path) for link in entries(f"{datadir}/pg_tblspc")]


def is_tablespace(name: str) -> bool:
    """Whether this is a directory in which a server keeps what is in a tablespace (manual, Database File Layout).

    >>> is_tablespace("PG_15_202209061"), is_tablespace("lost+found")
    (True, False)
    """
    return re.fullmatch("PG_[0-9]+_[0-9]+", name) is not None


def clear_tablespace(folder: str) -> None:
    """Delete what servers keep in a tablespace's place; the place itself, and what others have there, stays."""
    for item in entries(folder):
        if is_tablespace(item.name):
            shutil.rmtree(item.path)


def empty_data(folder: str, owner: str) -> None:
    """Empty a data directory, and its tablespaces with it."""
    for place in tablespaces_of(folder):
        clear_tablespace(place)
    empty(folder, owner)


def used(folders: Iterable[str]) -> int:
    """The bytes on disk of these directories with all that is in them."""
    total = 0
    for folder in folders:
        for place, _, files in os.walk(folder):
            for name in files:
                try:
                    total += os.lstat(f"{place}/{name}").st_blocks * 512
                except FileNotFoundError:
                    continue
    return total


def free(path: str) -> int:
    """The bytes that are free where this path is, or will be."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    seen = os.statvfs(path)
    return seen.f_bavail * seen.f_frsize


def own_files(datadir: str) -> dict[str, tuple[bytes, int]]:
    """The node's own configuration at the top of the data directory, name -> (content, mode): a copy has the source's in its place."""
    found = {}
    for item in os.scandir(datadir) if os.path.isdir(datadir) else ():
        if item.is_file(follow_symlinks=False) and item.name not in FOREIGN and item.stat().st_size < 1 << 20:
            with open(item.path, "rb") as stream:
                found[item.name] = (stream.read(), item.stat().st_mode & 0o777)
    return found


def lay_own_files(folder: str, owner: str, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Put the node's own configuration back."""
    entry = pwd.getpwnam(owner)
    for name, (content, mode) in files.items():
        handle = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            os.fchown(stream.fileno(), entry.pw_uid, entry.pw_gid)
            os.fsync(stream.fileno())


def sync(folder: str) -> None:
    """Make a rename in this directory durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
