"""The hub of a practice cluster: one process that holds its bridge, its disks and its power switch, and is the parent of its nodes.

It is process 1 of a pid namespace of its own, with network and mounts of its own: when it ends, however it ends, nothing of the lab
is left. It speaks JSON lines on a unix socket of the file system, which every node sees too: that is what the fence agent talks to.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import lab_kernel, lab_machine
from pha4pgsql.lab_machine import Machine
from pha4pgsql.lab_words import ROOM, SWITCH, Plan, from_json
from pha4pgsql.words import ConfigurationError, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

REBOOT_AFTER = 10.0
"""Seconds from a fencing `reboot` to the node's boot: a node that is back sooner than the survivors have settled may win again."""


class Reply(NamedTuple):
    """What goes back: a value for the asker, and perhaps an open file to hand over."""

    value: object = None
    handle: int | None = None


def serve(name: str) -> None:
    """Run the hub of the lab until it is told to end. Called as process 1 of fresh namespaces."""
    with open(f"{ROOM}/{name}/plan.json", encoding="utf-8") as stream:
        plan = from_json(stream.read())
    lab_kernel.name_process("lab-hub")
    Switch(plan).serve()


class Switch:
    """The machines of one lab and everything that can be done to them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._machines = {node.name: Machine(node) for node in plan.nodes}
        self._listener = socket.socket(socket.AF_UNIX)

    def serve(self) -> None:
        """Answer one request after the other; each is short, so nobody waits long and no two overlap."""
        self._prepare()
        path = f"{self._plan.room}/{SWITCH}"
        self._listener.bind(f"{path}.new")
        self._listener.listen(64)
        os.rename(f"{path}.new", path)
        os.write(1, b"ok")
        os.dup2(2, 1)
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(_children_that_end(), selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._next_boot_in()):
                    if key.fileobj is self._listener:
                        self._answer_one()
                    else:
                        os.read(key.fd, 4096)
                self._bury()
                self._boot_the_rebooted()

    def _prepare(self) -> None:
        lab_kernel.mount("none", "/", flags=lab_kernel.MS_REC | lab_kernel.MS_PRIVATE)
        os.makedirs(self._plan.disks, exist_ok=True)
        if not self._plan.disk:
            lab_kernel.mount("tmpfs", self._plan.disks, "tmpfs", options="mode=755,size=75%")
        lab_machine.build_hub()

    def _answer_one(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.settimeout(1)
            try:
                request = json.loads(_line(connection))
                reply = self._perform(str(request["verb"]), [str(name) for name in request.get("nodes", [])])
                answer = {"ok": True, "value": reply.value}
            except Failure as failure:
                reply, answer = Reply(), {"ok": False, "message": failure.message, "hint": failure.hint}
            except (OSError, ValueError, KeyError) as failure:
                reply, answer = Reply(), {"ok": False, "message": f"the switch failed: {type(failure).__name__}: {failure}", "hint": ""}
            _send(connection, json.dumps(answer).encode() + b"\n", reply.handle)

    def _perform(self, verb: str, names: list[str]) -> Reply:
        if verb == "list":
            return Reply([machine.shown() for machine in self._machines.values()])
        self._bury()
        machines = [self._machines[self._plan.node(name).name] for name in names]
        if verb == "handle":
            first = machines[0].running()
            return Reply() if machines[0].node.uml else Reply(None, os.pidfd_open(first))
        self._verb(verb)(machines)
        return Reply()

    def _verb(self, verb: str) -> Callable[[list[Machine]], None]:
        verbs: dict[str, Callable[[list[Machine]], None]] = {
            "boot": partial(lab_machine.boot, self._plan), "crash": lab_machine.crash, "reboot": _reboot,
            "cut": lab_machine.cut, "heal": lab_machine.heal, "freeze": lab_machine.freeze, "thaw": lab_machine.thaw,
            "kill-postgres": partial(lab_machine.kill_postgres, self._plan), "freeze-postgres": partial(lab_machine.freeze_postgres, self._plan),
            "thaw-postgres": partial(lab_machine.thaw_postgres, self._plan),
        }  # fmt: skip
        if verb not in verbs:
            raise ConfigurationError(f"the switch does not know {verb!r}, expected one of: {' '.join(sorted(verbs))}")
        return verbs[verb]

    def _bury(self) -> None:
        """Collect children; a node whose process 1 is among them is off."""
        while True:
            try:
                process, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            for machine in self._machines.values():
                if machine.process == process:
                    machine.ended()

    def _next_boot_in(self) -> float | None:
        times = [machine.boot_at for machine in self._machines.values() if machine.boot_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _boot_the_rebooted(self) -> None:
        now = time.monotonic()
        due = [machine for machine in self._machines.values() if machine.boot_at is not None and machine.boot_at <= now]
        for machine in due:
            machine.boot_at = None
        try:
            lab_machine.boot(self._plan, due)
        except Failure as failure:
            print(failure, file=sys.stderr, flush=True)


def _reboot(machines: list[Machine]) -> None:
    """Off now; the hub's loop switches on again when the time has come."""
    lab_machine.crash(machines)
    for machine in machines:
        machine.boot_at = time.monotonic() + REBOOT_AFTER


def _children_that_end() -> int:
    """A file that becomes readable whenever a child ended."""
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _line(connection: socket.socket) -> bytes:
    text = b""
    while not text.endswith(b"\n"):
        part = connection.recv(4096)
        if not part:
            raise ValueError("a request without an end")
        text += part
    return text


def _send(connection: socket.socket, text: bytes, handle: int | None) -> None:
    """An asker that is gone does not matter."""
    try:
        if handle is None:
            connection.sendall(text)
        else:
            socket.send_fds(connection, [text], [handle])
    except OSError:
        pass
    finally:
        if handle is not None:
            os.close(handle)
