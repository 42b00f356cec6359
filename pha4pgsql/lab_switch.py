"""The hub of a practice cluster: one process that holds its bridge, its disks and its power switch, and is the parent of its nodes.

It is process 1 of a pid namespace of its own, with network and mounts of its own: when it ends, however it ends, nothing of the lab
is left. It speaks JSON lines on a unix socket of the file system, which every node sees too: that is what the fence agent talks to.
"""

from __future__ import annotations

import functools
import json
import os
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import lab_kernel, lab_node, system
from pha4pgsql.lab_words import NIC, ROOM, SWITCH, Node, Plan, from_json
from pha4pgsql.words import ConfigurationError, EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BRIDGE = "hub"
REBOOT_AFTER = 10.0
"""Seconds from a fencing `reboot` to the node's boot: a node that is back sooner than the survivors have settled may win again."""

BOOT_DEADLINE = 20.0
DEATH_DEADLINE = 20.0


class Machine:
    """A node as its power switch and its port on the hub know it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.process = 0
        """Process 1 of the node in our pid namespace, 0 when it is off."""
        self.linked = True
        self.frozen = False
        self.boot_at: float | None = None

    def shown(self) -> dict[str, str]:
        state = "off" if not self.process else "frozen" if self.frozen else "running"
        return {"name": self.node.name, "address": self.node.address, "state": state, "link": "up" if self.linked else "cut"}


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
        self._disk = plan.disk or f"{plan.room}/disk"
        self._listener = socket.socket(socket.AF_UNIX)
        self._over = False

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
            while not self._over:
                for key, _ in selector.select(self._next_boot_in()):
                    if key.fileobj is self._listener:
                        self._answer_one()
                    else:
                        os.read(key.fd, 4096)
                self._bury()
                self._boot_the_rebooted()

    def _prepare(self) -> None:
        lab_kernel.mount("none", "/", flags=lab_kernel.MS_REC | lab_kernel.MS_PRIVATE)
        if not self._plan.disk:
            os.makedirs(self._disk, exist_ok=True)
            lab_kernel.mount("tmpfs", self._disk, "tmpfs", options="mode=755,size=75%")
        _ip(f"link set lo up\nlink add {BRIDGE} type bridge forward_delay 0 stp_state 0\nlink set {BRIDGE} up\n")

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
        if verb == "end":
            self._over = True
            return Reply()
        machines = [self._machines[self._plan.node(name).name] for name in names]
        if verb == "handle":
            return _handle(machines[0])
        self._verb(verb)(machines)
        return Reply()

    def _verb(self, verb: str) -> Callable[[list[Machine]], None]:
        verbs: dict[str, Callable[[list[Machine]], None]] = {
            "boot": self._boot, "crash": self._crash, "reboot": self._reboot, "cut": self._cut, "heal": self._heal,
            "freeze": self._freeze, "thaw": self._thaw, "kill-postgres": self._kill_postgres,
            "freeze-postgres": self._freeze_postgres, "thaw-postgres": self._thaw_postgres,
        }  # fmt: skip
        if verb not in verbs:
            raise ConfigurationError(f"the switch does not know {verb!r}, expected one of: {' '.join(sorted(verbs))}")
        return verbs[verb]

    def _boot(self, machines: list[Machine]) -> None:
        """Switch on those that are off; returns when their networks are up and cluster daemons begin to start."""
        self._bury()
        begun = [(machine, self._start(machine)) for machine in machines if not machine.process]
        problems = [problem for machine, ready in begun for problem in self._awaited(machine, ready)]
        if problems:
            raise EnvironmentFailure("; ".join(problems), f"cat {self._plan.room}/hub.log")

    def _start(self, machine: Machine) -> int:
        """Start process 1 of the node and plug in its network; returns the file on which it says that it is ready."""
        machine.boot_at = None
        link, plugged = os.pipe()
        ready, said = os.pipe()
        machine.process = _spawn(lambda: lab_node.live(self._plan, machine.node, f"{self._disk}/{machine.node.name}", link, said), (link, said))
        machine.frozen = False
        for end in (link, said):
            os.close(end)
        with os.fdopen(plugged, "wb", buffering=0) as stream:
            _plug_in(machine)
            stream.write(b"\n")
        return ready

    def _awaited(self, machine: Machine, ready: int) -> Iterable[str]:
        with selectors.DefaultSelector() as selector, os.fdopen(ready, "rb", buffering=0) as stream:
            selector.register(stream, selectors.EVENT_READ)
            said = stream.read(4096) if selector.select(BOOT_DEADLINE) else b"no word of it"
        if said != b"ok":
            self._crash([machine])
            yield f"{machine.node.name} did not boot: {(said or b'its process 1 ended').decode()}"

    def _crash(self, machines: list[Machine]) -> None:
        """Power loss. The ports go down first: a dying node's sockets must not say goodbye."""
        running = [machine for machine in machines if machine.process]
        for machine in machines:
            machine.boot_at = None
        if running:
            _ip("".join(f"link set {machine.node.name} down\n" for machine in running), check=False)
        for machine in running:
            os.kill(machine.process, signal.SIGKILL)
        for machine in running:
            _wait_for_end_of(machine)
            machine.process, machine.frozen = 0, False

    def _reboot(self, machines: list[Machine]) -> None:
        self._crash(machines)
        for machine in machines:
            machine.boot_at = time.monotonic() + REBOOT_AFTER

    def _cut(self, machines: list[Machine]) -> None:
        self._link(machines, up=False)

    def _heal(self, machines: list[Machine]) -> None:
        self._link(machines, up=True)

    def _link(self, machines: list[Machine], *, up: bool) -> None:
        for machine in machines:
            machine.linked = up
        _ip("".join(f"link set {machine.node.name} {'up' if up else 'down'}\n" for machine in machines if machine.process))

    def _freeze(self, machines: list[Machine]) -> None:
        for machine in machines:
            _running(machine)
            _stop_all(functools.partial(_processes_of, machine.process))
            machine.frozen = True

    def _thaw(self, machines: list[Machine]) -> None:
        for machine in machines:
            _signal_all(_processes_of(_running(machine)), signal.SIGCONT)
            machine.frozen = False

    def _kill_postgres(self, machines: list[Machine]) -> None:
        for machine in machines:
            process = _running(machine)
            found = _postgres_of(process)
            while found:
                _signal_all(found, signal.SIGKILL)
                found = _postgres_of(process)

    def _freeze_postgres(self, machines: list[Machine]) -> None:
        for machine in machines:
            process = _running(machine)
            if not _postgres_of(process):
                raise EnvironmentFailure(f"no postgres process on {machine.node.name}", "cls_status")
            _stop_all(functools.partial(_postgres_of, process))

    def _thaw_postgres(self, machines: list[Machine]) -> None:
        for machine in machines:
            _signal_all(_postgres_of(_running(machine)), signal.SIGCONT)

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
                    machine.process, machine.frozen = 0, False

    def _next_boot_in(self) -> float | None:
        times = [machine.boot_at for machine in self._machines.values() if machine.boot_at is not None]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _boot_the_rebooted(self) -> None:
        now = time.monotonic()
        due = [machine for machine in self._machines.values() if machine.boot_at is not None and machine.boot_at <= now]
        if due:
            self._boot(due)


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
    try:
        if handle is None:
            connection.sendall(text)
        else:
            socket.send_fds(connection, [text], [handle])
            os.close(handle)
    except OSError:
        return


def _handle(machine: Machine) -> Reply:
    """An open file that stands for process 1 of the node, by which others enter its namespaces."""
    return Reply(None, os.pidfd_open(_running(machine)))


def _running(machine: Machine) -> int:
    if not machine.process:
        raise EnvironmentFailure(f"{machine.node.name} is off", f"cls_lab boot {machine.node.name}")
    return machine.process


def _ip(batch: str, *, check: bool = True) -> None:
    if not batch:
        return
    done = system.run(["ip", *([] if check else ["-force"]), "-batch", "-"], text=batch)
    if check and not done.ok:
        raise EnvironmentFailure(f"ip refused {batch.strip()!r}: {done.err.strip()}")


def _spawn(task: Callable[[], None], kept: tuple[int, ...]) -> int:
    """Run `task` as process 1 of fresh namespaces and return its number here. Of our open files it has only `kept` and the log."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            lab_kernel.unshare(lab_kernel.NODE_NAMESPACES)
            child = os.fork()
            if child:
                os.write(writer, str(child).encode())
                os._exit(0)
            _keep_only({0, 1, 2, *kept})
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            lab_kernel.name_process("lab-node")
            task()
        finally:
            os._exit(1)
    os.close(writer)
    os.waitpid(middle, 0)
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    if not said:
        raise EnvironmentFailure("no new namespaces", "run it as root of the machine, not inside an unprivileged container")
    return int(said)


def _keep_only(kept: set[int]) -> None:
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) not in kept:
            try:
                os.close(int(entry))
            except OSError:
                continue


def _plug_in(machine: Machine) -> None:
    """Make the node's cable. One of a former life may still be there: the kernel takes a network apart some time after its last process."""
    port = machine.node.name
    _ip(f"link del {port}\n", check=False)
    _ip(
        f"link add {port} type veth peer name {NIC} netns {machine.process}\n"
        f"link set {port} master {BRIDGE}\nlink set {port} {'up' if machine.linked else 'down'}\n"
    )


def _wait_for_end_of(machine: Machine) -> None:
    """The kernel has killed everything of the node, and its file system is free, when process 1 can be collected."""
    deadline = time.monotonic() + DEATH_DEADLINE
    while time.monotonic() < deadline:
        try:
            if os.waitpid(machine.process, os.WNOHANG) != (0, 0):
                return
        except ChildProcessError:
            return
        time.sleep(0.002)
    raise EnvironmentFailure(f"{machine.node.name} does not die within {DEATH_DEADLINE:g} s of its SIGKILL")


def _processes_of(first: int) -> list[int]:
    """All processes in the pid namespace of a node's process 1, itself first."""
    space = os.readlink(f"/proc/{first}/ns/pid")
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _link(f"/proc/{entry}/ns/pid") == space)


def _postgres_of(first: int) -> list[int]:
    """The node's living server processes, postmasters before their children."""
    found = [process for process in _processes_of(first) if _link(f"/proc/{process}/exe").rpartition("/")[2].startswith("postgres")]
    alive = {process: _parent(process) for process in found}
    return sorted((process for process in found if alive[process]), key=lambda process: (alive[process] in alive, process))


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _stat(process: int) -> list[str]:
    """State and parent first, of /proc/PID/stat; nothing for a process that is gone."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(process: int) -> int:
    """The parent's number, 0 for a process that is gone or a zombie."""
    fields = _stat(process)
    return int(fields[1]) if fields and fields[0] not in "ZX" else 0


def _stop_all(find: Callable[[], list[int]]) -> None:
    """SIGSTOP until all that `find` finds are stopped: some may fork while we are at it."""
    moving = find()
    deadline = time.monotonic() + 5
    while moving and time.monotonic() < deadline:
        _signal_all(moving, signal.SIGSTOP)
        moving = [process for process in find() if _stat(process)[:1] and _stat(process)[0] not in "TtZX"]


def _signal_all(processes: Iterable[int], number: int) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
