"""A node of the practice cluster with a kernel of its own (user-mode-linux), for what the machine's kernel lacks: from the outside.

Process 1 of the node's pid namespace starts the kernel and holds the other end of its line, a connection over a cable of its own
that no fault touches; whoever wants to run a command on the node talks to it by a socket. Killing it kills the kernel and everything
that the kernel runs: power loss. (A serial line would need no cable, but one that was full once never moved again: measured, 6.1.)
"""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import socket
import sys
import threading
from contextlib import suppress
from queue import SimpleQueue

from pha4pgsql import lab_line, system
from pha4pgsql.lab_line import Frame, Kind
from pha4pgsql.lab_node import checkout
from pha4pgsql.lab_words import SWITCH, Node, Plan
from pha4pgsql.words import EnvironmentFailure

KERNEL = "/usr/bin/linux.uml"
MODULES = "/usr/lib/uml/modules"
DISK_SIZE = "8G"
"""Of a sparse file: what the node has written is what it takes."""
MEMORY = "768M"
PRIORITY = -10
"""Its programs start many times slower than those of a namespace: give it a larger share of the processors."""
LINE_PORT = 7
LINE_DEADLINE = 80.0
MOST_WAITING = 1 << 20
"""Bytes for the line beyond which we stop listening to those who send."""


def socket_of(plan: Plan, node: Node) -> str:
    """Where commands for the node are taken."""
    return f"{plan.room}/{node.name}.sock"


def console_of(plan: Plan, node: Node) -> str:
    """The file with the kernel's own messages."""
    return f"{plan.room}/{node.name}.console"


def live(plan: Plan, node: Node, link: int, ready: int) -> None:
    """Be the node until killed: `link` becomes readable when the cable is there, `ready` hears "ok" or what went wrong."""
    try:
        disk = _disk(plan, node)
        init = _init_script(plan, node)
        os.read(link, 1)
        relay = _Relay(plan, node, *_switch_on(plan, node, disk, init))
    except (OSError, EnvironmentFailure) as failure:
        os.write(ready, f"{node.name}: {failure}".encode())
        os._exit(1)
    relay.serve(ready)
    os._exit(1)


def _disk(plan: Plan, node: Node) -> str:
    """The node's disk, an ext4 file system in a file; made when the node is switched on for the first time."""
    path = f"{plan.disks}/{node.name}.ext4"
    if not os.path.exists(path):
        os.makedirs(plan.disks, exist_ok=True)
        options = ["-q", "-F", "-m", "0", "-O", "^resize_inode", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]
        done = system.run(["mkfs.ext4", *options, f"{path}.new", DISK_SIZE], timeout=30)
        if not done.ok:
            raise EnvironmentFailure(f"mkfs.ext4 failed: {done.err.strip()}", "apt-get install e2fsprogs")
        os.rename(f"{path}.new", path)
    return path


def _init_script(plan: Plan, node: Node) -> str:
    """The kernel takes one program as its process 1, without arguments."""
    path = f"{plan.room}/{node.name}.init"
    command = ["/usr/bin/python3", "-IS", f"{checkout()}/bin/cls_lab", "guest", plan.name, node.name]
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(f"#!/bin/sh\nexec {shlex.join(command)}\n")
    os.chmod(path, 0o755)  # noqa: S103 - a program
    return path


def _switch_on(plan: Plan, node: Node, disk: str, init: str) -> tuple[int, socket.socket]:
    """Start the kernel; returns its process and our end of the line."""
    listener = _listener(node)
    command = [
        KERNEL, f"mem={MEMORY}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", f"ubd0={disk}",
        f"umid={node.name}", f"uml_dir={plan.room}/uml", f"vec0:transport=tap,ifname={node.name},mac={node.mac},gro=1",
        f"vec1:transport=tap,ifname={_cable_of(node)},gro=1", "con=null", "con0=null,fd:1", "ssl=null", "panic=1", "noreboot", "quiet",
    ]  # fmt: skip
    kernel = os.fork()
    if kernel == 0:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        console = os.open(console_of(plan, node), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for number, end in enumerate((null, console, console)):
            os.dup2(end, number)
        os.execve(KERNEL, command, {"PATH": "/usr/bin:/bin", "TMPDIR": plan.disks, "HOME": "/root"})  # noqa: S606
    listener.settimeout(LINE_DEADLINE)
    with listener:
        line, _ = listener.accept()
    line.setblocking(False)
    return kernel, line


def _cable_of(node: Node) -> str:
    return f"line-{node.name}"


def line_addresses(node: Node) -> tuple[str, str]:
    """Both ends of the node's line, ours first: from the block for tests of network devices (RFC 2544), nobody else sees it."""
    number = node.address.rpartition(".")[2]
    return f"198.18.{number}.1", f"198.18.{number}.2"


def _listener(node: Node) -> socket.socket:
    """Lay the cable, and wait at our end."""
    cable, (ours, _) = _cable_of(node), line_addresses(node)
    system.run(["ip", "link", "del", cable])
    batch = f"tuntap add {cable} mode tap\naddr add {ours}/30 dev {cable}\nlink set {cable} up\n"
    done = system.run(["ip", "-batch", "-"], text=batch)
    if not done.ok:
        raise EnvironmentFailure(f"the line of {node.name} cannot be laid: {done.err.strip()}")
    listener = socket.create_server((ours, LINE_PORT))
    os.set_inheritable(listener.fileno(), False)
    return listener


class _Caller:
    """Somebody who runs a command on the node."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.waiting = bytearray()


class _Relay:
    """Between the line, on which everything of the node travels, and the sockets of those who talk to it."""

    def __init__(self, plan: Plan, node: Node, kernel: int, line: socket.socket) -> None:
        self._plan = plan
        self._kernel = kernel
        self._line = line
        self._received = bytearray()
        self._waiting = bytearray()
        self._callers: dict[int, _Caller] = {}
        self._last = 0
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._path = socket_of(plan, node)
        self._answers: SimpleQueue[Frame] = SimpleQueue()
        self._answered, self._bell = socket.socketpair()

    def serve(self, ready: int) -> None:
        """Carry frames until the kernel ends."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._listener.bind(self._path)
        self._listener.listen(64)
        ended = os.pidfd_open(self._kernel)
        for source in (ended, self._answered):
            self._selector.register(source, selectors.EVENT_READ)
        while True:
            self._choose()
            for key, events in self._selector.select():
                if key.fileobj == ended:
                    return
                if key.fileobj is self._line:
                    self._use_line(events, ready)
                elif key.fileobj is self._answered:
                    self._answered.recv(1)
                    self._waiting += lab_line.pack(self._answers.get())
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._use_caller(key.data, events)
            _collect()

    def _choose(self) -> None:
        """Listen to everybody, as long as the line can take it, and write where something waits."""
        self._watch(self._line, None, read=True, write=bool(self._waiting))
        full = len(self._waiting) > MOST_WAITING
        for number, caller in self._callers.items():
            self._watch(caller.connection, number, read=not full, write=bool(caller.waiting))

    def _watch(self, connection: socket.socket, data: int | None, *, read: bool, write: bool) -> None:
        wish = selectors.EVENT_READ * read | selectors.EVENT_WRITE * write
        known = connection in self._selector.get_map()
        if wish and known:
            self._selector.modify(connection, wish, data)
        elif wish:
            self._selector.register(connection, wish, data)
        elif known:
            self._selector.unregister(connection)

    def _use_line(self, events: int, ready: int) -> None:
        with suppress(BlockingIOError):
            if events & selectors.EVENT_WRITE and self._waiting:
                del self._waiting[: self._line.send(self._waiting[: 1 << 16])]
            if events & selectors.EVENT_READ:
                self._received += self._line.recv(1 << 16)
        for frame in lab_line.unpack(self._received):
            self._deliver(frame, ready)

    def _deliver(self, frame: Frame, ready: int) -> None:
        if frame.kind is Kind.HELLO:
            os.write(ready, frame.body or b"ok")
            os.close(ready)
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif frame.kind is Kind.SWITCH:
            threading.Thread(target=self._ask_switch, args=(frame,), daemon=True).start()
        elif frame.channel in self._callers:
            self._callers[frame.channel].waiting += lab_line.pack(frame)

    def _ask_switch(self, frame: Frame) -> None:
        """The power switch may take its time, and others go on talking."""
        answer = b""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            try:
                connection.connect(f"{self._plan.room}/{SWITCH}")
                connection.sendall(frame.body)
                while part := connection.recv(1 << 16):
                    answer += part
            except OSError as failure:
                print(f"the switch was asked in vain: {failure}", file=sys.stderr, flush=True)
        self._answers.put(frame._replace(body=answer))
        self._bell.sendall(b".")

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        self._last += 1
        self._callers[self._last] = _Caller(connection)

    def _use_caller(self, number: int, events: int) -> None:
        caller = self._callers[number]
        try:
            if events & selectors.EVENT_WRITE and caller.waiting:
                del caller.waiting[: caller.connection.send(caller.waiting[: 1 << 16])]
            if events & selectors.EVENT_READ:
                part = caller.connection.recv(1 << 16)
                caller.received += part
                if not part:
                    self._hang_up(number)
        except BlockingIOError:
            return
        except OSError:
            self._hang_up(number)
        for frame in lab_line.unpack(caller.received):
            self._waiting += lab_line.pack(frame._replace(channel=number))

    def _hang_up(self, number: int) -> None:
        """Who is gone ends its command."""
        caller = self._callers.pop(number)
        self._watch(caller.connection, number, read=False, write=False)
        caller.connection.close()
        self._waiting += lab_line.pack(Frame(number, Kind.SIGNAL, str(int(signal.SIGKILL)).encode()))


def _collect() -> None:
    """Processes of the kernel that lost their parent are ours, as process 1."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
