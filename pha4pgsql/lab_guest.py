"""A node of the practice cluster with a kernel of its own, from the inside: process 1, and who runs the commands that come on the line."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import selectors
import socket
import stat
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pha4pgsql import lab_kernel, lab_line, lab_machine, lab_node, lab_uml, system
from pha4pgsql.lab_line import Frame, Kind
from pha4pgsql.lab_uml import MODULES
from pha4pgsql.lab_words import NIC, ROOM, SWITCH, Node, Plan, from_json
from pha4pgsql.words import EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

DISK = "/mnt"
DISK_DEVICE = (98, 0)
"""ubd0 (Documentation/admin-guide/devices.txt)."""


def live(name: str, own: str) -> None:
    """Be process 1 of the node `own` of a lab."""
    with open(f"{ROOM}/{name}/plan.json", encoding="utf-8") as stream:
        plan = from_json(stream.read())
    node = plan.node(own)
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    _early_devices()
    line = _line(node)
    try:
        _boot(plan, node)
        problem = ""
    except (OSError, Failure) as failure:
        problem = str(failure)
    _write_all(line, lab_line.pack(Frame(0, Kind.HELLO, problem.encode())))
    if not problem:
        if os.fork() == 0:
            os.setsid()
            _Guest(line).serve()
        if node.member:
            lab_node.start_cluster(lab_node.environment(plan))
    lab_node.reap()


def _line(node: Node) -> int:
    """Connect to the outside, then leave this network for one of our own: the node sees its own cable only."""
    ours, own = lab_uml.line_addresses(node)
    _must(["ip", "-batch", "-"], f"addr add {own}/30 dev vec1\nlink set vec1 up\n")
    line = socket.create_connection((ours, lab_uml.LINE_PORT)).detach()
    with open("/proc/self/ns/net", "rb") as outer:
        lab_kernel.unshare(lab_kernel.CLONE_NEWNET)
        with open("/proc/self/ns/net", "rb") as inner:
            lab_kernel.setns(outer.fileno(), lab_kernel.CLONE_NEWNET)
            _must(["ip", "link", "set", "vec0", "netns", f"/proc/1/fd/{inner.fileno()}", "name", NIC])
            lab_kernel.setns(inner.fileno(), lab_kernel.CLONE_NEWNET)
    return line


def _early_devices() -> None:
    """The first root is the machine's own, read only: what is needed before the node's own is there."""
    lab_kernel.mount("proc", "/proc", "proc")
    lab_kernel.mount("tmpfs", "/dev", "tmpfs", lab_kernel.MS_NOSUID, "mode=755")
    for name, kind, device in (("null", stat.S_IFCHR, (1, 3)), ("ubda", stat.S_IFBLK, DISK_DEVICE)):
        os.mknod(f"/dev/{name}", 0o600 | kind, os.makedev(*device))
    null = os.open("/dev/null", os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)


def _boot(plan: Plan, node: Node) -> None:
    modules = f"{MODULES}/{os.uname().release}"
    _must(["insmod", f"{modules}/kernel/fs/overlayfs/overlay.ko"])
    lab_kernel.mount("/dev/ubda", DISK, "ext4")
    lab_node.mount_all(plan, DISK, _share)
    socket.sethostname(node.name)
    lab_node.configure_network(node)
    lab_node.first_boot(plan, node)
    lab_node.start_ssh(plan)
    os.makedirs("/lib/modules", exist_ok=True)
    with suppress(FileExistsError):
        os.symlink(modules, f"/lib/modules/{os.uname().release}")


def _share(source: str, target: str) -> None:
    """The lab's directory, as the machine has it."""
    lab_kernel.mount("none", target, "hostfs", options=source)


def _must(command: list[str], text: str | None = None) -> None:
    done = system.run(command, text=text)
    if not done.ok:
        raise EnvironmentFailure(f"{' '.join(command)} failed: {done.err.strip()}")


def _write_all(line: int, data: bytes) -> None:
    while data:
        data = data[os.write(line, data) :]


class _Command:
    """A command that runs for somebody outside."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.input = bytearray()
        self.input_ended = False
        if request["terminal"]:
            self.process, self.out = _on_terminal(request)
            self.streams = {self.out: Kind.OUTPUT}
            self.into = self.out
        else:
            self.process = _start(request, subprocess.PIPE, subprocess.PIPE, subprocess.PIPE)
            assert self.process.stdin  # noqa: S101
            assert self.process.stdout  # noqa: S101
            assert self.process.stderr  # noqa: S101
            self.into = self.process.stdin.fileno()
            self.streams = {self.process.stdout.fileno(): Kind.OUTPUT, self.process.stderr.fileno(): Kind.ERROR}
        for number in {self.into, *self.streams}:
            os.set_blocking(number, False)
        self.ended = os.pidfd_open(self.process.pid)


def _start(request: dict[str, Any], into: int, out: int, err: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        request["argv"], stdin=into, stdout=out, stderr=err, env=request["environment"], cwd="/", start_new_session=True, bufsize=0
    )


def _on_terminal(request: dict[str, Any]) -> tuple[subprocess.Popen[bytes], int]:
    """With a terminal of its own, which is the node's end of the caller's."""
    outer, inner = pty.openpty()
    try:
        command = ["setsid", "--ctty", "--wait", *request["argv"]]
        return _start({**request, "argv": command}, inner, inner, inner), outer
    finally:
        os.close(inner)


class _Guest:
    """Runs commands that come on the line, all at the same time."""

    def __init__(self, line: int) -> None:
        self._line = line
        self._received = bytearray()
        self._waiting = bytearray()
        self._commands: dict[int, _Command] = {}
        self._askers: dict[int, socket.socket] = {}
        self._last = 0
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        os.set_blocking(self._line, False)
        self._selector.register(self._line, selectors.EVENT_READ, self._use_line)
        self._selector.register(_switch_stand_in(), selectors.EVENT_READ, self._accept_asker)
        while True:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._waiting else 0)
            self._selector.modify(self._line, events, self._use_line)
            for key, _ in self._selector.select():
                if key.fd in self._selector.get_map():
                    key.data(key.fd)

    def _send(self, channel: int, kind: Kind, body: bytes = b"") -> None:
        self._waiting += lab_line.pack(Frame(channel, kind, body))

    def _use_line(self, _: int) -> None:
        with suppress(BlockingIOError):
            del self._waiting[: os.write(self._line, self._waiting[: 1 << 16])]
        with suppress(BlockingIOError):
            self._received += os.read(self._line, 1 << 16)
        for frame in lab_line.unpack(self._received):
            self._obey(frame)

    def _obey(self, frame: Frame) -> None:
        command = self._commands.get(frame.channel)
        if frame.kind is Kind.REQUEST:
            self._begin(frame.channel, json.loads(frame.body))
        elif frame.kind is Kind.SWITCH:
            asker = self._askers.pop(frame.channel, None)
            if asker:
                with suppress(OSError), asker:
                    asker.sendall(frame.body)
        elif command and frame.kind is Kind.INPUT:
            command.input += frame.body
            command.input_ended = command.input_ended or not frame.body
            self._feed(command)
        elif command and frame.kind is Kind.SIGNAL:
            with suppress(ProcessLookupError):
                os.kill(command.process.pid, int(frame.body))

    def _begin(self, channel: int, request: dict[str, Any]) -> None:
        try:
            if "verb" in request:
                VERBS[request["verb"]]()
                self._send(channel, Kind.EXIT, b"0")
                return
            command = self._commands[channel] = _Command(request)
        except (OSError, Failure) as failure:
            self._send(channel, Kind.ERROR, f"{request.get('argv', ['the node'])[0]}: {getattr(failure, 'strerror', None) or failure}\n".encode())
            self._send(channel, Kind.EXIT, b"127")
            return
        for number in command.streams:
            self._selector.register(number, selectors.EVENT_READ, lambda got: self._read(channel, got))
        self._selector.register(command.ended, selectors.EVENT_READ, lambda _: self._end(channel))

    def _feed(self, command: _Command) -> None:
        """Write what is there; what does not fit is tried again when the command has read, as its pipe tells."""
        terminal = command.into in command.streams
        if command.into < 0:
            return
        try:
            while command.input:
                del command.input[: os.write(command.into, command.input)]
        except BlockingIOError:
            if not terminal and command.into not in self._selector.get_map():
                self._selector.register(command.into, selectors.EVENT_WRITE, lambda _: self._feed(command))
            return
        except OSError:
            command.input.clear()
            command.input_ended = True
        if command.into in self._selector.get_map() and not terminal:
            self._selector.unregister(command.into)
        if command.input_ended and not terminal and command.process.stdin:
            command.process.stdin.close()
            command.into = -1

    def _read(self, channel: int, number: int) -> bool:
        """Pass on what a command says; whether it may say more at once."""
        command = self._commands[channel]
        try:
            part = os.read(number, lab_line.PART)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        if part:
            self._send(channel, command.streams[number], part)
        else:
            self._selector.unregister(number)
            del command.streams[number]
        return bool(part)

    def _end(self, channel: int) -> None:
        command = self._commands[channel]
        code = command.process.wait()
        for number in list(command.streams):
            while self._read(channel, number):
                pass
        for number in {command.into, *command.streams, command.ended} & set(self._selector.get_map()):
            self._selector.unregister(number)
        os.close(command.ended)
        for stream in (command.process.stdin, command.process.stdout, command.process.stderr):
            if stream:
                stream.close()
        if command.process.stdout is None:
            os.close(command.out)
        del self._commands[channel]
        self._send(channel, Kind.EXIT, str(code if code >= 0 else 128 - code).encode())

    # -- the power switch: its socket is the machine's, so we stand in for it --

    def _accept_asker(self, listener: int) -> None:
        with socket.socket(fileno=os.dup(listener)) as known:
            connection, _ = known.accept()
        connection.settimeout(5)
        question = b""
        with suppress(OSError):
            while not question.endswith(b"\n"):
                part = connection.recv(4096)
                if not part:
                    return
                question += part
        self._last += 1
        self._askers[self._last] = connection
        self._send(self._last, Kind.SWITCH, question)


def _switch_stand_in() -> int:
    """Listen where the fence agent looks for the switch."""
    own = "/run/switch.sock"
    listener = socket.socket(socket.AF_UNIX)
    with suppress(FileNotFoundError):
        os.unlink(own)
    listener.bind(own)
    listener.listen(16)
    lab_kernel.mount(own, f"{ROOM}/{SWITCH}", flags=lab_kernel.MS_BIND)
    number = listener.detach()
    fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    return number


VERBS: dict[str, Callable[[], None]] = {
    "kill-postgres": lambda: lab_machine.kill_postgres_of(1),
    "freeze-postgres": lambda: lab_machine.freeze_postgres_of(1),
    "thaw-postgres": lambda: lab_machine.thaw_postgres_of(1),
}
"""What needs no program to be started, because it must happen at once."""
