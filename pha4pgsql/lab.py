"""A practice cluster as its user sees it: switch machines on and off, cut their links, freeze them, run commands on them.

    lab = Lab("drill")
    lab.crash("node1")
    lab.run("client", ["psql", "-h", lab.writer_vip, "-U", "postgres", "-c", "select 1"])

`lab_up.bring_up` builds one; everything here works on one that exists. The lab itself lives in the hub's process (lab_switch.py).
"""

from __future__ import annotations

import json
import os
import pwd
import select
import shutil
import signal
import socket
import struct
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import lab_kernel, lab_line, lab_uml
from pha4pgsql.lab_node import checkout, environment
from pha4pgsql.lab_words import READER_VIP, ROOM, SWITCH, WRITER_VIP, Plan, from_json, to_json
from pha4pgsql.system import Completed
from pha4pgsql.words import ClusterRefusal, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

PYTHON = ("/usr/bin/python3", "-IS")
HUB_DEADLINE = 10.0


class Seen(NamedTuple):
    """One row of `list`: state is running, off or frozen; link is up or cut."""

    name: str
    address: str
    state: str
    link: str


class Lab:
    """A handle on the lab of that name; holds no state but the name and the plan."""

    writer_vip = WRITER_VIP
    reader_vip = READER_VIP

    def __init__(self, name: str = "lab") -> None:
        self.name = name
        self.room = f"{ROOM}/{name}"

    @property
    def plan(self) -> Plan:
        """What the lab was built from; a lab that does not exist is a refusal."""
        try:
            with open(f"{self.room}/plan.json", encoding="utf-8") as stream:
                return from_json(stream.read())
        except FileNotFoundError:
            raise self._absent() from None
        except (TypeError, KeyError, ValueError):
            raise ClusterRefusal(f"lab {self.name} was built by another version of cls_lab", f"cls_lab down --name {self.name}") from None

    def _absent(self) -> ClusterRefusal:
        others = existing()
        hint = f"cls_lab up --name {self.name}" + (f"; labs that are up: {' '.join(others)}" if others else "")
        return ClusterRefusal(f"no lab {self.name} is up on this machine", hint)

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the cluster's nodes, in the order of their numbers."""
        return tuple(node.name for node in self.plan.members)

    @property
    def port(self) -> str:
        """Where PostgreSQL listens."""
        return dict(self.plan.settings).get("pgsql_pgport", "5432")

    def address(self, node: str) -> str:
        return self.plan.node(node).address

    def boot(self, *nodes: str) -> None:
        """Switch nodes on, all at once; those that are on already are left alone. Their cluster daemons start by themselves."""
        self._ask("boot", nodes)

    def crash(self, *nodes: str) -> None:
        """Power loss: the links first, so that nothing says goodbye, then every process. The disks stay as they are."""
        self._ask("crash", nodes)

    def cut(self, *nodes: str) -> None:
        """Take the link away at the hub."""
        self._ask("cut", nodes)

    def heal(self, *nodes: str) -> None:
        self._ask("heal", nodes)

    def freeze(self, *nodes: str) -> None:
        """Stop every process of the nodes (SIGSTOP) until `thaw`."""
        self._ask("freeze", nodes)

    def thaw(self, *nodes: str) -> None:
        self._ask("thaw", nodes)

    def kill_postgres(self, *nodes: str) -> None:
        """SIGKILL for the postmaster and all its children."""
        self._ask("kill-postgres", nodes)

    def freeze_postgres(self, *nodes: str) -> None:
        self._ask("freeze-postgres", nodes)

    def thaw_postgres(self, *nodes: str) -> None:
        self._ask("thaw-postgres", nodes)

    def act(self, verb: str, *nodes: str) -> None:
        """Any of the verbs above by its name on the command line."""
        self._ask(verb, nodes)

    def list(self) -> tuple[Seen, ...]:
        rows = self._ask("list", ()).value
        assert isinstance(rows, list)  # noqa: S101
        return tuple(Seen(**row) for row in rows)

    def run(
        self, node: str, argv: Sequence[str], *, timeout: float = 30.0, text: str | None = None, user: str | None = None,
    ) -> Completed:  # fmt: skip
        """Run a command on a node and wait for it, as `system.run` does: late is code 124, a crash of the node 137."""
        command = self.popen(node, argv, user=user, stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL)
        with command:
            try:
                out, err = command.communicate(text, timeout=timeout)
            except subprocess.TimeoutExpired:
                command.kill()
                out, err = command.communicate()
                return Completed(124, out, f"{err}no end within {timeout:g} s on {node}")
        return Completed(command.returncode, out, err)

    def popen(self, node: str, argv: Sequence[str], *, user: str | None = None, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        """Start a command on a node; it ends when the returned process is killed, or the node crashes."""
        handle, way = self._way(node)
        try:
            return subprocess.Popen(
                [*PYTHON, *way, *_as_user(argv, user)], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=handle,
                env=environment(self.plan), encoding="utf-8", errors="replace",
            )  # fmt: skip
        finally:
            for number in handle:
                os.close(number)

    def _way(self, node: str) -> tuple[Sequence[int], Sequence[str]]:
        """The program that runs a command on a node, with its arguments, and the open files that it needs."""
        plan = self.plan
        handle = self._handle(node)
        if handle is None:
            return (), [lab_line.__file__, lab_uml.socket_of(plan, plan.node(node))]
        return (handle,), [lab_kernel.__file__, str(handle)]

    def run_here(self, node: str, argv: Sequence[str]) -> int:
        """Run a command on a node with this process' own terminal and streams; this process ends up in the node and must end after it."""
        plan = self.plan
        handle = self._handle(node)
        if handle is None:
            return lab_line.converse(lab_uml.socket_of(plan, plan.node(node)), argv, environment(plan))
        return lab_kernel.inside(handle, argv, environment(plan))

    def _handle(self, node: str) -> int | None:
        """An open pidfd of the node's process 1, which the caller closes; None for a node with a kernel of its own. The node must be on."""
        self.plan.node(node)
        return self._ask("handle", (node,)).handle

    def disk(self, node: str) -> str:
        """Where the machine sees what a node has written, also while it is off: the root of its own files.

        The disk of a node with a kernel of its own can only be read by that kernel.
        """
        plan = self.plan
        if plan.node(node).uml:
            raise EnvironmentFailure(f"{node} has a kernel of its own, its disk is not seen from outside", f"cls_lab run {node} -- cat FILE")
        outside = "" if plan.disk else f"/proc/{_hub(self.room)}/root"
        return f"{outside}{plan.disks}/{node}/upper/root"

    def down(self) -> None:
        """End the lab with everything in it. Nothing to end is no failure."""
        plan = None
        with suppress(ClusterRefusal):
            plan = self.plan
        hub = _hub(self.room)
        if hub:
            _end(hub)
        if plan is not None and plan.disk:
            shutil.rmtree(plan.disks, ignore_errors=True)
        shutil.rmtree(self.room, ignore_errors=True)
        with suppress(OSError):
            os.rmdir(ROOM)

    def _ask(self, verb: str, nodes: Sequence[str]) -> _Answer:
        return ask(f"{self.room}/{SWITCH}", verb, nodes, self._absent())


class _Answer(NamedTuple):
    value: object
    handle: int | None


def ask(path: str, verb: str, nodes: Sequence[str], absent: Exception) -> _Answer:
    """One question to a hub; its refusals are ours."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        try:
            connection.connect(path)
        except OSError:
            raise absent from None
        connection.sendall(json.dumps({"verb": verb, "nodes": list(nodes)}).encode() + b"\n")
        text, handles = b"", []
        while not text.endswith(b"\n"):
            part, received, _, _ = socket.recv_fds(connection, 65536, 1)
            handles += received
            if not part:
                raise EnvironmentFailure(f"the lab's hub ended while it was asked to {verb}", "cls_lab down")
            text += part
    answer = json.loads(text)
    if not answer["ok"]:
        raise EnvironmentFailure(answer["message"], answer["hint"])
    return _Answer(answer["value"], handles[0] if handles else None)


def existing() -> tuple[str, ...]:
    """The names of the labs on this machine."""
    try:
        return tuple(sorted(name for name in os.listdir(ROOM) if os.path.exists(f"{ROOM}/{name}/plan.json")))
    except FileNotFoundError:
        return ()


def create(plan: Plan) -> Lab:
    """Start the hub of a new lab: bridge, disks and switch, with every node off."""
    lab = Lab(plan.name)
    if os.path.exists(f"{lab.room}/plan.json") and _hub(lab.room):
        raise ClusterRefusal(f"a lab {plan.name} is up already", f"cls_lab down --name {plan.name}, or another --name")
    lab.down()
    try:
        os.makedirs(lab.room, mode=0o755)
    except FileExistsError:
        raise ClusterRefusal(f"somebody else is just building a lab {plan.name}", "cls_lab up with another --name") from None
    with open(f"{lab.room}/plan.json", "w", encoding="utf-8") as stream:
        stream.write(to_json(plan))
    if plan.readers:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", plan.name, "-f", f"{lab.room}/key"], check=True)
    _start_hub(lab)
    return lab


def _start_hub(lab: Lab) -> None:
    """Start it as nobody's child; its standard output says "ok" when the switch can be used, its errors go to hub.log."""
    unshared = ["setsid", "--fork", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--"]
    reader, writer = os.pipe()
    with open(f"{lab.room}/hub.log", "ab") as log, os.fdopen(writer, "wb") as ready:
        subprocess.run(
            [*unshared, *PYTHON, f"{checkout()}/bin/cls_lab", "hub", lab.name],
            stdin=subprocess.DEVNULL, stdout=ready, stderr=log, cwd="/", check=False,
        )  # fmt: skip
    with os.fdopen(reader, "rb", buffering=0) as stream:
        said = stream.read(16) if select.select([stream], [], [], HUB_DEADLINE)[0] else b""
    if said != b"ok":
        with open(f"{lab.room}/hub.log", encoding="utf-8", errors="replace") as stream:
            reason = stream.read().strip()
        lab.down()
        raise EnvironmentFailure(f"the lab's hub did not start: {reason or 'no word of it'}", "run it as root of the machine")


def _hub(room: str) -> int:
    """The number of the hub's process on this machine, 0 when there is none (any more): the kernel knows who listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(f"{room}/{SWITCH}")
        except OSError:
            return 0
        return int(struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def _end(hub: int) -> None:
    """SIGKILL of the hub ends its namespaces, hence all; wait until the kernel is through with it."""
    handle = os.pidfd_open(hub)
    with suppress(ProcessLookupError):
        os.kill(hub, signal.SIGKILL)
    _wait_for_pidfd(handle)


def _wait_for_pidfd(handle: int) -> None:
    if not select.select([handle], [], [], 20.0)[0]:
        raise EnvironmentFailure("the lab's hub does not end within 20 s of its SIGKILL")
    os.close(handle)


def _as_user(argv: Sequence[str], user: str | None) -> list[str]:
    if user is None:
        return list(argv)
    return ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--init-groups", "--", *argv]
