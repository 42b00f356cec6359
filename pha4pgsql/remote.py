"""install.sh on the other nodes: over ssh, one connection per node (so a password is asked for once), all checked before one is changed."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import socket
import subprocess
import tarfile
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.words import ConfigurationError, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CONNECT = 5
"""Seconds in which a node must take the connection; typing a password comes on top."""


class Answer(NamedTuple):
    """What a command on another node returned. ssh's own failure is code 255."""

    code: int
    output: str


Shell = "Callable[[str, Sequence[str], bytes], Answer]"
"""Run a command on a node with this standard input."""


class Ssh:
    """The other nodes, reached as root by ssh; connections are kept open and shared until `close`."""

    def __init__(self, *options: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="pha4pgsql.")
        self.nodes: set[str] = set()
        self.options = options

    def __call__(self, node: str, command: Sequence[str], data: bytes = b"") -> Answer:
        self.nodes.add(node)
        # ssh joins its words with blanks and hands them to the login shell of the other side: hence the quotes.
        done = subprocess.run(
            [*self._ssh(), f"root@{node}", shlex.join(command)], input=data, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        return Answer(done.returncode, done.stdout.decode("utf-8", "replace"))

    def lines(self, node: str, command: Sequence[str], data: bytes, say: Callable[[str], None]) -> int:
        """Run a command that may take long, hand on each line of its output as it comes, and return its exit code."""
        self.nodes.add(node)
        with subprocess.Popen(
            [*self._ssh(), f"root@{node}", shlex.join(command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child:
            assert child.stdin is not None  # noqa: S101  for the type checker: they are pipes
            assert child.stdout is not None  # noqa: S101
            with contextlib.suppress(BrokenPipeError), child.stdin:
                child.stdin.write(data)
            for line in child.stdout:
                say(line.decode("utf-8", "replace").rstrip("\r\n"))
        return child.returncode

    def _ssh(self) -> list[str]:
        options = (*self.options, "ControlMaster=auto", f"ControlPath={self.folder}/%C", "ControlPersist=60", f"ConnectTimeout={CONNECT}")
        return ["ssh", *(word for option in options for word in ("-o", option))]

    def close(self) -> None:
        for node in self.nodes:
            subprocess.run([*self._ssh(), "-O", "exit", f"root@{node}"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)  # a connection that ends takes its socket away by itself, now or a moment later


def this_node(nodes: Sequence[str]) -> str:
    """Return which of the nodes this machine is: by its name, else by an address of its own (the host name need not be the node name)."""
    names = {socket.gethostname(), socket.gethostname().partition(".")[0]}
    for node in nodes:
        if node in names:
            return node
    for node in nodes:
        if _is_own(node):
            return node
    raise ConfigurationError(
        f"this machine ({socket.gethostname()}) is none of the nodes {' '.join(nodes)}: neither by its name nor by its addresses",
        "run install.sh on one of the nodes, or with --local for this machine alone",
    )


def is_here(node: str) -> bool:
    """Tell whether a name means this machine."""
    return node in {socket.gethostname(), socket.gethostname().partition(".")[0]} or _is_own(node)


def _is_own(node: str) -> bool:
    """Tell whether a name stands for an address of this machine: the kernel would send to it from the very same address. Nothing is sent."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(node, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return bool(probe.getsockname()[0] == address[0])
    except OSError:
        return False


def pack(source: str, names: Mapping[str, int], config_file: str = "") -> bytes:
    """Return a tree for another machine as a tar archive; config.ini, if a file is named, is in it, readable by root only."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as archive:
        for name, mode in [*names.items(), *([("config.ini", 0o600)] if config_file else [])]:
            path = config_file if name == "config.ini" else os.path.join(source, name)
            member = archive.gettarinfo(path, name)
            member.mode, member.uid, member.gid, member.uname, member.gname = mode, 0, 0, "root", "root"
            with open(path, "rb") as content:
                archive.addfile(member, content)
    return stream.getvalue()


def library(command: str) -> bytes:
    """Return the library and one command as such an archive: all that an errand on another machine needs."""
    source = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    names = sorted(name for name in os.listdir(os.path.join(source, "pha4pgsql")) if name.endswith(".py"))
    return pack(source, {**{f"pha4pgsql/{name}": 0o644 for name in names}, f"bin/{command}": 0o755})


class Stage(NamedTuple):
    """The tree unpacked on another node, in a directory of its own that is removed in the end."""

    node: str
    folder: str


def reach(shell: Callable[..., Answer], nodes: Sequence[str]) -> None:
    """Make sure that a command runs on every node; all that cannot be reached are named at once."""
    lost = []
    for node in nodes:
        answer = shell(node, ["test", "-w", "/usr"])
        if answer.code:
            lost.append(f"{node}: {answer.output.strip().splitlines()[-1] if answer.output.strip() else 'is root there, but /usr is not writable'}")
    if lost:
        raise EnvironmentFailure(
            "unreachable, expected to run commands as root by ssh" + "".join(f"\n  {line}" for line in lost) + "\nnothing was changed on any node",
            f"try ssh root@{lost[0].partition(':')[0]} true; or run install.sh --local on each node",
        )


def stage(shell: Callable[..., Answer], nodes: Sequence[str], archive: bytes) -> Iterator[Stage]:
    """Unpack the tree on each node."""
    script = 'umask 077; d=$(mktemp -d /tmp/pha4pgsql.XXXXXX) && tar -xzf - -C "$d" && echo "$d"'
    for node in nodes:
        answer = shell(node, ["sh", "-c", script], archive)
        if answer.code:
            raise EnvironmentFailure(f"{node}: the programs could not be unpacked: {answer.output.strip()}", "is there room in its /tmp, and tar?")
        yield Stage(node, answer.output.split()[-1])


def install_on(shell: Callable[..., Answer], place: Stage, *options: str) -> int:
    """Run install.sh --local on the other node, print what it says with the node's name before it, and return its exit code."""
    answer = shell(place.node, ["sh", f"{place.folder}/install.sh", "--local", "--config", f"{place.folder}/config.ini", *options])
    for line in answer.output.splitlines():
        print(f"{place.node}: {line}", flush=True)
    return answer.code


def remove(shell: Callable[..., Answer], places: Sequence[Stage]) -> None:
    for place in places:
        shell(place.node, ["rm", "-rf", place.folder])
