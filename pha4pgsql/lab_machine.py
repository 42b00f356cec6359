"""What can be done to the machines of a practice cluster, as the hub does it: power, cable, and signals to what runs on them.

All functions take the machines that they concern. They run in the hub's namespaces: process numbers and cables are the hub's.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from pha4pgsql import lab_kernel, lab_line, lab_node, lab_uml, system
from pha4pgsql.lab_words import NIC, Node, Plan
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

BRIDGE = "hub"
BOOT_DEADLINE = 20.0
KERNEL_BOOT_DEADLINE = 90.0
"""A kernel in a process, and perhaps several at once on few processors."""
DEATH_DEADLINE = 20.0
ORDER_DEADLINE = 20.0


class Machine:
    """A node as its power switch and its port on the hub know it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.process = 0
        """Process 1 of the node in our pid namespace, 0 when it is off."""
        self.linked = True
        self.frozen = False
        self.boot_at: float | None = None
        """When the second half of a `reboot` is due."""

    def shown(self) -> dict[str, str]:
        """The row of `list`."""
        state = "off" if not self.process else "frozen" if self.frozen else "running"
        return {"name": self.node.name, "address": self.node.address, "state": state, "link": "up" if self.linked else "cut"}

    def ended(self) -> None:
        """Note that its process 1 is no more."""
        self.process, self.frozen = 0, False

    def running(self) -> int:
        """Process 1; a machine that is off is a failure."""
        if not self.process:
            raise EnvironmentFailure(f"{self.node.name} is off", f"cls_lab boot {self.node.name}")
        return self.process


def build_hub() -> None:
    """Make the switch that the cables go to."""
    _ip(f"link set lo up\nlink add {BRIDGE} type bridge forward_delay 0 stp_state 0\nlink set {BRIDGE} up\n")


# ---------------------------------------------------------------- power


def boot(plan: Plan, machines: Sequence[Machine]) -> None:
    """Switch on those that are off; returns when their networks are up and their cluster daemons begin to start."""
    begun = [(machine, _start(plan, machine)) for machine in machines if not machine.process]
    problems = [problem for machine, ready in begun for problem in _awaited(machine, ready)]
    if problems:
        raise EnvironmentFailure("; ".join(problems), f"cat {plan.room}/hub.log")


def _start(plan: Plan, machine: Machine) -> int:
    """Start process 1 of the node and plug in its network; returns the file on which it says that it is ready."""
    machine.boot_at = None
    link, plugged = os.pipe()
    ready, said = os.pipe()
    machine.process = _spawn(*_life(plan, machine.node, link, said), (link, said))
    for end in (link, said):
        os.close(end)
    with os.fdopen(plugged, "wb", buffering=0) as stream:
        _plug_in(machine)
        stream.write(b"\n")
    return ready


def _life(plan: Plan, node: Node, link: int, said: int) -> tuple[Callable[[], None], int]:
    """What process 1 of the node does, and which namespaces it gets: a kernel of its own brings network and mounts of its own."""
    if node.uml:
        return partial(lab_uml.live, plan, node, link, said), lab_kernel.CLONE_NEWPID
    return partial(lab_node.live, plan, node, f"{plan.disks}/{node.name}", link, said), lab_kernel.NODE_NAMESPACES


def _awaited(machine: Machine, ready: int) -> Iterable[str]:
    """What the node says instead of "ok"; then it is off again."""
    with selectors.DefaultSelector() as selector, os.fdopen(ready, "rb", buffering=0) as stream:
        selector.register(stream, selectors.EVENT_READ)
        patience = KERNEL_BOOT_DEADLINE if machine.node.uml else BOOT_DEADLINE
        said = stream.read(4096) if selector.select(patience) else b"no word of it"
    if said != b"ok":
        crash([machine])
        yield f"{machine.node.name} did not boot: {(said or b'its process 1 ended').decode()}"


def _spawn(task: Callable[[], None], namespaces: int, kept: tuple[int, ...]) -> int:
    """Run `task` as process 1 of fresh namespaces and return its number here. Of our open files it has only `kept` and the log."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            lab_kernel.unshare(namespaces)
            child = os.fork()
            if child:
                os.write(writer, str(child).encode())
                os._exit(0)
            _forget_the_hub(kept)
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


def _forget_the_hub(kept: tuple[int, ...]) -> None:
    """Close what a copy of the hub has open, and take back what it does with signals."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    lab_kernel.name_process("lab-node")
    for entry in os.listdir("/proc/self/fd"):
        if int(entry) not in {0, 1, 2, *kept}:
            try:
                os.close(int(entry))
            except OSError:
                continue


def crash(machines: Sequence[Machine]) -> None:
    """Power loss. The ports go down first: a dying node's sockets must not say goodbye."""
    running = [machine for machine in machines if machine.process]
    for machine in machines:
        machine.boot_at = None
    _ip("".join(f"link set {machine.node.name} down\n" for machine in running), check=False)
    for machine in running:
        os.kill(machine.process, signal.SIGKILL)
    for machine in running:
        _wait_for_end_of(machine)
        machine.ended()


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


# ---------------------------------------------------------------- cables


def cut(machines: Sequence[Machine]) -> None:
    """Take the cables out, also of those that are off."""
    _set_links(machines, up=False)


def heal(machines: Sequence[Machine]) -> None:
    """Put the cables in again."""
    _set_links(machines, up=True)


def _set_links(machines: Sequence[Machine], *, up: bool) -> None:
    for machine in machines:
        machine.linked = up
    _ip("".join(f"link set {machine.node.name} {'up' if up else 'down'}\n" for machine in machines if machine.process))


def _plug_in(machine: Machine) -> None:
    """Make the node's cable. One of a former life may still be there: the kernel takes a network apart some time after its last process."""
    port = machine.node.name
    _ip(f"link del {port}\n", check=False)
    cable = f"link add {port} type veth peer name {NIC} address {machine.node.mac} netns {machine.process}\n"
    _ip(f"tuntap add {port} mode tap\n" if machine.node.uml else cable)
    _ip(f"link set {port} master {BRIDGE}\nlink set {port} {'up' if machine.linked else 'down'}\n")


def _ip(batch: str, *, check: bool = True) -> None:
    if not batch:
        return
    done = system.run(["ip", *([] if check else ["-force"]), "-batch", "-"], text=batch)
    if check and not done.ok:
        raise EnvironmentFailure(f"ip refused {batch.strip()!r}: {done.err.strip()}")


# ---------------------------------------------------------------- what runs on them


def freeze(machines: Sequence[Machine]) -> None:
    """Stop every process of the nodes."""
    for machine in machines:
        _stop_all(partial(_all_of, machine))
        machine.frozen = True


def thaw(machines: Sequence[Machine]) -> None:
    """Let everything on the nodes go on."""
    for machine in machines:
        _signal_all(_all_of(machine), signal.SIGCONT)
        machine.frozen = False


def kill_postgres(plan: Plan, machines: Sequence[Machine]) -> None:
    """SIGKILL for postmasters, then for their children, until none is left."""
    _on_each(plan, machines, "kill-postgres", kill_postgres_of)


def freeze_postgres(plan: Plan, machines: Sequence[Machine]) -> None:
    """Stop every postgres process; where there is none to stop, say so."""
    _on_each(plan, machines, "freeze-postgres", freeze_postgres_of)


def thaw_postgres(plan: Plan, machines: Sequence[Machine]) -> None:
    """Let them go on."""
    _on_each(plan, machines, "thaw-postgres", thaw_postgres_of)


def _on_each(plan: Plan, machines: Sequence[Machine], verb: str, perform: Callable[[int], None]) -> None:
    """Processes of another kernel cannot be seen from here: it is told."""
    for machine in machines:
        first = machine.running()
        if not machine.node.uml:
            perform(first)
        elif problem := lab_line.order(lab_uml.socket_of(plan, machine.node), verb, ORDER_DEADLINE):
            raise EnvironmentFailure(f"{verb} on {machine.node.name}: {problem}", "cls_status")


def kill_postgres_of(first: int) -> None:
    while found := _postgres_of(first):
        _signal_all(found, signal.SIGKILL)


def freeze_postgres_of(first: int) -> None:
    if not _postgres_of(first):
        raise EnvironmentFailure("there is no postgres process", "cls_status")
    _stop_all(partial(_postgres_of, first))


def thaw_postgres_of(first: int) -> None:
    _signal_all(_postgres_of(first), signal.SIGCONT)


def _all_of(machine: Machine) -> list[int]:
    """What stops when a node is frozen: everything, or a kernel of its own, with which the processes that it runs stop."""
    first = machine.running()
    return [process for process in _processes_of(first) if not machine.node.uml or _stat(process)[1] == first]


def _processes_of(first: int) -> list[int]:
    """All processes in the pid namespace of a node's process 1, itself first."""
    space = os.readlink(f"/proc/{first}/ns/pid")
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _target(f"/proc/{entry}/ns/pid") == space)


def _postgres_of(first: int) -> list[int]:
    """The node's living server processes, postmasters before their children."""
    found = [process for process in _processes_of(first) if _target(f"/proc/{process}/exe").rpartition("/")[2].startswith("postgres")]
    alive = {process: parent for process in found for state, parent in [_stat(process)] if state not in "ZX"}
    return sorted(alive, key=lambda process: (alive[process] in alive, process))


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _stat(process: int) -> tuple[str, int]:
    """State and parent (0: outside the lab), from /proc/PID/stat; X for a process that is gone."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except OSError:
        return "X", 0
    return fields[0], int(fields[1])


def _stop_all(find: Callable[[], list[int]]) -> None:
    """SIGSTOP until all that `find` finds are stopped: some may fork while we are at it."""
    moving = find()
    deadline = time.monotonic() + 5
    while moving and time.monotonic() < deadline:
        _signal_all(moving, signal.SIGSTOP)
        moving = [process for process in find() if _stat(process)[0] not in "TtZX"]


def _signal_all(processes: Iterable[int], number: int) -> None:
    for process in processes:
        try:
            os.kill(process, number)
        except ProcessLookupError:
            continue
