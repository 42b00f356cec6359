"""The system calls of the practice cluster that Python 3.9 has no name for: namespaces, mounts, and a process inside them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
NODE_NAMESPACES = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

MS_NOSUID = 2
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
FIRST_BOOT = "/etc/pha4pgsql-lab"
"""Stands on a node's disk from the end of its first boot."""

CRASHED = 137
"""Exit code of a command whose node crashed: it was killed."""

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` for fresh ones (unshare(2)); a new pid namespace begins with the next fork."""
    _checked(_libc().unshare(flags), "unshare")


def setns(handle: int, flags: int) -> None:
    """Enter the namespaces named by `flags` of the process behind a pidfd (setns(2), Linux 5.8)."""
    _checked(_libc().setns(handle, flags), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or bind a directory (mount(2))."""
    done = _libc().mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None)
    _checked(done, f"mount of {kind or source} on {target}")


def detach(target: str) -> None:
    """Take a mount out of sight at once; it ends with its last user (umount2(2), MNT_DETACH)."""
    _checked(_libc().umount2(target.encode(), MNT_DETACH), f"umount of {target}")


def name_process(name: str) -> None:
    """Show this process under a name of its own in ps and top (15 characters)."""
    _libc().prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def inside(handle: int, argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command in the node behind the pidfd, with our standard streams, and return the exit code as a shell would give it.

    We stay outside and only wait: a frozen node freezes the command but not us, a crashed one ends it (137).
    """
    try:
        root = os.open(f"/proc/{_number_of(handle)}/root", os.O_PATH | os.O_DIRECTORY)
        setns(handle, NODE_NAMESPACES)
    except (ProcessLookupError, FileNotFoundError):
        return CRASHED
    _enter(root)
    child = os.fork()
    if child == 0:
        _become(argv, environment)
    _pass_signals_to(child)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _number_of(handle: int) -> int:
    """The number of the process behind a pidfd, as our /proc counts (proc(5), /proc/PID/fdinfo)."""
    with open(f"/proc/self/fdinfo/{handle}", encoding="utf-8") as stream:
        number = int(next(line for line in stream if line.startswith("Pid:")).split()[1])
    if number <= 0:
        raise ProcessLookupError(number, "the process has ended")
    return number


def _enter(root: int) -> None:
    """Make the node's root ours. The namespace alone does not do it: where the lab was started in a chroot, its root is another.

    Nothing may ever run on the machine's own files in a node's stead: what is no node's disk is refused.
    """
    os.fchdir(root)
    os.chroot(".")
    os.close(root)
    os.chdir("/")
    if not os.path.exists(FIRST_BOOT):
        raise SystemExit("this is not the file system of a node, nothing was run")


def _become(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], list(argv), dict(environment))  # noqa: S606
    except OSError as failure:
        os.write(2, f"{argv[0]}: {failure.strerror}\n".encode())
    os._exit(127)


def _pass_signals_to(child: int) -> None:
    """The terminal's interrupt reaches the command by itself; a request to end that reaches only us is handed on."""

    def hand_on(number: int, _frame: FrameType | None) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            return

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    raise SystemExit(inside(int(sys.argv[1]), sys.argv[2:], os.environ))
