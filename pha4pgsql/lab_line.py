"""Commands on a node that is a kernel of its own: they travel over one connection as frames, many at a time.

This module knows the frames and the asking end, and imports nothing of the library: it is a program too, `lab_line.py SOCKET CMD...`,
which runs a command with our standard streams and ends with its exit code.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import struct
import sys
import termios
import tty
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CRASHED = 137
"""Exit code of a command whose node crashed: it was killed."""
PART = 8192
"""Bytes of a stream that travel in one frame."""


class Kind(IntEnum):
    """What a frame carries."""

    HELLO = 1
    """From the node, once: empty when it has booted, else why not."""
    REQUEST = 2
    """JSON: `argv`, `environment`, `terminal`; or `verb` for what the node does by itself."""
    INPUT = 3
    """For standard input; empty at its end."""
    OUTPUT = 4
    ERROR = 5
    EXIT = 6
    """The exit code as text; nothing follows on this channel."""
    SIGNAL = 7
    """A signal's number as text."""
    SWITCH = 8
    """A question to the power switch, and its answer."""


class Frame(NamedTuple):
    """Some bytes of one conversation."""

    channel: int
    kind: Kind
    body: bytes = b""


_HEAD = struct.Struct("!IBI")


def pack(frame: Frame) -> bytes:
    return _HEAD.pack(frame.channel, frame.kind, len(frame.body)) + frame.body


def unpack(stream: bytearray) -> Iterator[Frame]:
    """Take the complete frames off the beginning of a stream.

    >>> stream = bytearray(pack(Frame(7, Kind.EXIT, b"0")) + b"more")
    >>> list(unpack(stream)), stream
    ([Frame(channel=7, kind=<Kind.EXIT: 6>, body=b'0')], bytearray(b'more'))
    """
    while len(stream) >= _HEAD.size:
        channel, kind, length = _HEAD.unpack_from(stream)
        end = _HEAD.size + length
        if len(stream) < end:
            return
        body = bytes(stream[_HEAD.size : end])
        del stream[:end]
        yield Frame(channel, Kind(kind), body)


# ---------------------------------------------------------------- the asking end


def converse(path: str, argv: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command on the node behind the socket with our standard streams, and return its exit code: 137 if the node crashes."""
    terminal = all(os.isatty(number) for number in (0, 1))
    request = json.dumps({"argv": list(argv), "environment": dict(environment), "terminal": terminal}).encode()
    with socket.socket(socket.AF_UNIX) as connection, _raw_terminal(terminal):
        try:
            connection.connect(path)
        except OSError:
            return CRASHED
        connection.sendall(pack(Frame(0, Kind.REQUEST, request)))
        _hand_on_signals(connection)
        return _forward(connection)


def order(path: str, verb: str, timeout: float) -> str:
    """Have the node do something by itself; returns what went wrong, or nothing."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        said, stream = b"", bytearray()
        try:
            connection.connect(path)
            connection.sendall(pack(Frame(0, Kind.REQUEST, json.dumps({"verb": verb}).encode())))
            while part := connection.recv(65536):
                stream += part
                for frame in unpack(stream):
                    if frame.kind is Kind.EXIT:
                        return "" if frame.body == b"0" else said.decode()
                    said += frame.body
        except OSError as failure:
            return f"its line failed: {failure}"
    return "it crashed meanwhile"


@contextlib.contextmanager
def _raw_terminal(terminal: bool) -> Iterator[None]:  # noqa: FBT001
    """With a terminal on the node, ours only passes on what is typed."""
    if not terminal:
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _hand_on_signals(connection: socket.socket) -> None:
    """The command gets them; if it does not end by them soon, because the node is frozen for instance, we end alone."""

    def hand_on(number: int, _: object) -> None:
        connection.sendall(pack(Frame(0, Kind.SIGNAL, str(number).encode())))
        signal.alarm(2)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, hand_on)


def _forward(connection: socket.socket) -> int:
    """Carry the streams to and fro until the command has ended."""
    stream = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        _listen_to_input(selector, connection)
        while True:
            for key, _ in selector.select():
                if key.fileobj is connection:
                    part = connection.recv(1 << 16)
                    stream += part
                    for frame in unpack(stream):
                        if frame.kind is Kind.EXIT:
                            return int(frame.body)
                        _write_all(2 if frame.kind is Kind.ERROR else 1, frame.body)
                    if not part:
                        return CRASHED
                elif not _pass_input(connection):
                    selector.unregister(0)


def _listen_to_input(selector: selectors.BaseSelector, connection: socket.socket) -> None:
    try:
        selector.register(0, selectors.EVENT_READ)
    except PermissionError:  # a file or /dev/null: always readable, which epoll refuses to tell
        while _pass_input(connection):
            pass


def _pass_input(connection: socket.socket) -> bool:
    part = os.read(0, PART)
    connection.sendall(pack(Frame(0, Kind.INPUT, part)))
    return bool(part)


def _write_all(number: int, body: bytes) -> None:
    while body:
        body = body[os.write(number, body) :]


if __name__ == "__main__":
    raise SystemExit(converse(sys.argv[1], sys.argv[2:], os.environ))
