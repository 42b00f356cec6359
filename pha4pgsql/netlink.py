"""Netlink messages as bytes (linux/netlink.h, linux/genetlink.h): attributes, messages, acknowledgements.

Layer 2: bytes in, bytes out. Numbers are in the machine's byte order; attributes and messages start at multiples of four.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal, NamedTuple

from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300
"""Flags of a request."""
CHANGED, CAPPED, EXPLAINED = 0x10, 0x100, 0x200
"""Flags of an answer: a dump was overtaken by a change; an acknowledgement without the request in it; one with attributes."""
NOTHING, ERROR, DONE, OVERRUN = 1, 2, 3, 4
"""Kinds of message beside those of a family. ERROR with the number 0 is an acknowledgement."""

CONTROL = 16
"""The family that knows the others by name (GENL_ID_CTRL), and what it is asked and says."""
GET_FAMILY, FAMILY_ID, FAMILY_NAME = 3, 1, 2

U16, U32 = struct.Struct("=H"), struct.Struct("=I")
_ORDER: Literal["little", "big"] = "little" if U16.pack(1)[0] else "big"
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_KIND = 0x3FFF
_EXPLANATION = 1
"""NLMSGERR_ATTR_MSG"""


class Garbled(EnvironmentFailure):
    """Bytes that are no netlink message, or less than one."""

    def __init__(self, seen: str) -> None:
        super().__init__(f"an answer of the kernel cannot be read: {seen}")


class Message(NamedTuple):
    """One message; `body` is what follows the header, and in a generic family begins with its command."""

    kind: int
    flags: int
    sequence: int
    body: bytes


class Answer(NamedTuple):
    """An acknowledgement: 0, or an errno with the kernel's explanation if it gave one."""

    number: int
    explanation: str = ""


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded.

    >>> len(attribute(1, b"12345"))
    12
    """
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nest(kind: int, *inner: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(inner))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by their kind. Whoever reads takes those that he knows; what nests is taken apart in the same way.

    >>> attributes(attribute(1, b"five5") + attribute(7, b""))
    {1: b'five5', 7: b''}
    """
    found, at, end = {}, 0, len(data)
    header = _ATTRIBUTE.unpack_from
    while at + 4 <= end:
        size, kind = header(data, at)
        if size < 4 or at + size > end:
            raise Garbled(f"an attribute of {size} bytes where {end - at} are left")
        found[kind & _KIND] = data[at + 4 : at + size]
        at += (size + 3) & ~3
    if at < end:
        raise Garbled(f"{end - at} bytes after the last attribute")
    return found


def number(value: bytes) -> int:
    """An unsigned number of one, two, four or eight bytes."""
    if len(value) not in (1, 2, 4, 8):
        raise Garbled(f"a number of {len(value)} bytes")
    return int.from_bytes(value, _ORDER)


def word(value: bytes) -> str:
    """A text, which ends at a zero byte."""
    return value.partition(b"\0")[0].decode("utf-8", "replace")


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


def generic(command: int, version: int = 1, *inner: bytes) -> bytes:
    """The body of a message of a generic family."""
    return struct.pack("=BBxx", command, version) + b"".join(inner)


def generic_attributes(body: bytes) -> dict[int, bytes]:
    """What a message of a generic family says, its command left out."""
    if len(body) < 4:
        raise Garbled(f"a body of {len(body)} bytes, without a command")
    return attributes(body[4:])


def messages(data: bytes) -> Iterator[Message]:
    """All messages of one datagram."""
    at, end = 0, len(data)
    while at < end:
        if at + _HEADER.size > end:
            raise Garbled(f"{end - at} bytes where a message should begin")
        size, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size or at + size > end:
            raise Garbled(f"a message of {size} bytes where {end - at} are left")
        yield Message(kind, flags, sequence, data[at + _HEADER.size : at + size])
        at += (size + 3) & ~3


def answer(got: Message) -> Answer:
    """Read an ERROR message, or the DONE of a dump, which carries a number too."""
    if len(got.body) < 4:
        return Answer(0) if got.kind == DONE else _no_number(got)
    result = -struct.unpack_from("=i", got.body)[0]
    if not got.flags & EXPLAINED or got.kind != ERROR:
        return Answer(result)
    return Answer(result, _explanation(got))


def _no_number(got: Message) -> Answer:
    raise Garbled(f"an acknowledgement of {len(got.body)} bytes")


def _explanation(got: Message) -> str:
    """The extended acknowledgement behind the number and the header of the request, or the request as a whole."""
    if len(got.body) < 4 + _HEADER.size:
        raise Garbled(f"an explained acknowledgement of {len(got.body)} bytes")
    size = _HEADER.size if got.flags & CAPPED else _HEADER.unpack_from(got.body, 4)[0]
    return word(attributes(got.body[4 + ((size + 3) & ~3) :]).get(_EXPLANATION, b""))
