"""IPVS as bytes: what we write is what we read, answers of a real kernel are read exactly, and nothing in an answer can confuse us."""

from __future__ import annotations

import errno
import random
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import ipvs, ipvs_codec, netlink
from pha4pgsql.ipvs import IpvsRefusal
from pha4pgsql.ipvs_codec import Command
from pha4pgsql.lvs_words import (
    AddServer,
    AddService,
    Daemon,
    DeleteServer,
    DeleteService,
    Entry,
    Load,
    Method,
    RealServer,
    Role,
    Service,
    SetServer,
    SetService,
    Timeouts,
)
from pha4pgsql.netlink import ACK, CAPPED, CHANGED, DONE, ERROR, EXPLAINED, NOTHING, REQUEST, Answer, Garbled, Message
from pha4pgsql.netlink_line import Line
from pha4pgsql.words import EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pha4pgsql.lvs_words import Edit

SAMPLE = Path(__file__).parent.parent / "samples" / "ipvs-6.1.txt"
"""Datagrams of Linux 6.1, as it answered dumps."""

V4 = Service("192.168.0.237", 5432, scheduler="wlc", flags=1, persistence=300, prefix=24)
V6 = Service("2001:db8::237", 5432, ipv6=True)
FIRST = RealServer("192.168.0.232", 5432, 3, upper=100, lower=50)
MANY = 300
"""Cases of each property."""


def sample(name: str) -> bytes:
    return bytes.fromhex(dict(line.split() for line in SAMPLE.read_text(encoding="utf-8").splitlines())[name])


def bodies(datagram: bytes) -> list[bytes]:
    return [got.body for got in netlink.messages(datagram) if got.kind not in (DONE, ERROR)]


def address(dice: random.Random, *, ipv6: bool) -> str:
    return str(IPv6Address(dice.getrandbits(128)) if ipv6 else IPv4Address(dice.getrandbits(32)))


def any_service(dice: random.Random) -> Service:
    ipv6 = dice.random() < 0.5
    persistence = dice.choice((0, 1, 300, 86400))
    settings = Service(
        ipv6=ipv6, scheduler=dice.choice(("rr", "wlc", "sh")), flags=dice.choice((0, 4, 8, 8 | 16, 32)) | bool(persistence), persistence=persistence,
        prefix=dice.randrange(128 if ipv6 else 32),
    )  # fmt: skip
    if dice.random() < 0.3:
        return settings._replace(fwmark=dice.randrange(1, 1 << 32))
    return settings._replace(address=address(dice, ipv6=ipv6), port=dice.randrange(1 << 16))


def any_server(dice: random.Random) -> RealServer:
    where = address(dice, ipv6=dice.random() < 0.5)
    numbers = [dice.randrange(1 << 31) for _ in range(3)]
    return RealServer(where, dice.randrange(1 << 16), numbers[0], dice.choice(list(Method)), numbers[1], numbers[2])


def unknown(dice: random.Random) -> bytes:
    """Attributes that no kernel has yet, of any length."""
    return b"".join(netlink.attribute(dice.randrange(40, 16000), dice.randbytes(dice.randrange(30))) for _ in range(dice.randrange(4)))


def said(dice: random.Random, nested: bytes, more: bytes = b"") -> bytes:
    """The body of the kernel's answer about one object: more attributes in it and around it than anybody asked for."""
    kind = struct.unpack_from("=HH", nested)[1] & 0x3FFF
    inner = unknown(dice) + nested[4:] + more + unknown(dice)
    return netlink.generic(Command.NEW_SERVICE, 1, unknown(dice), netlink.nest(kind, inner), unknown(dice))


def counters(load: Load) -> bytes:
    kinds = (ipvs_codec.R_ACTIVE, ipvs_codec.R_INACTIVE, ipvs_codec.R_PERSISTENT)
    return b"".join(netlink.attribute(kind, netlink.U32.pack(count)) for kind, count in zip(kinds, load))


@pytest.mark.parametrize("seed", range(MANY))
def test_a_service_is_read_as_it_was_written(seed: int) -> None:
    """Whatever else the kernel says of it. IPv4-mapped IPv6 addresses have two spellings and are left out by chance alone."""
    dice = random.Random(seed)
    wish = any_service(dice)
    assert ipvs_codec.read_service(said(dice, ipvs_codec.service(wish))) == wish


@pytest.mark.parametrize("seed", range(MANY))
def test_a_server_is_read_as_it_was_written(seed: int) -> None:
    """With its counters, by a service of the other family, too."""
    dice = random.Random(seed)
    wish, load = any_server(dice), Load(*(dice.getrandbits(32) for _ in range(3)))
    assert ipvs_codec.read_entry(said(dice, ipvs_codec.server(wish), counters(load)), any_service(dice)) == Entry(wish, load)


def test_an_old_kernel_tells_no_family_of_a_server() -> None:
    """Then it is the service's."""
    wish = RealServer("2001:db8::2", 5432)
    inner = netlink.attributes(ipvs_codec.server(wish)[4:])
    told = b"".join(netlink.attribute(kind, value) for kind, value in inner.items() if kind != ipvs_codec.R_FAMILY)
    body = netlink.generic(Command.NEW_SERVER, 1, netlink.nest(ipvs_codec.SERVER, told, counters(Load())))
    assert ipvs_codec.read_entry(body, V6).server == wish


@pytest.mark.parametrize("role", Role)
def test_a_daemon_is_read_as_it_was_written(role: Role) -> None:
    """Its name may have the length of the longest interface."""
    wish = Daemon(role, "interface-15-ch", 255)
    assert ipvs_codec.read_daemon(said(random.Random(1), ipvs_codec.daemon(wish))) == wish


def test_timeouts_are_read_as_they_were_written() -> None:
    wish = Timeouts(900, 120, 300)
    assert ipvs_codec.read_timeouts(netlink.generic(Command.SET_TIMEOUTS, 1, ipvs_codec.timeouts(wish))) == wish


@pytest.mark.parametrize(
    ("edit", "command", "complete"),
    [
        (AddService(V4), Command.NEW_SERVICE, True),
        (SetService(V4), Command.SET_SERVICE, True),
        (DeleteService(V4), Command.DEL_SERVICE, False),
        (AddServer(V4, FIRST), Command.NEW_SERVER, True),
        (SetServer(V4, FIRST), Command.SET_SERVER, True),
        (DeleteServer(V4, FIRST), Command.DEL_SERVER, False),
    ],
)  # fmt: skip
def test_an_edit_is_a_command_about_its_objects(edit: Edit, command: Command, *, complete: bool) -> None:
    """What is made or changed comes with all its settings, since the kernel replaces them all; what is deleted with its name alone."""
    kind, inner = ipvs_codec.request(edit)
    found = {number: netlink.attributes(value) for number, value in netlink.attributes(inner).items()}
    about_server = isinstance(edit, (AddServer, SetServer, DeleteServer))
    assert kind is command
    assert set(found) == ({ipvs_codec.SERVICE, ipvs_codec.SERVER} if about_server else {ipvs_codec.SERVICE})
    assert (ipvs_codec.S_SCHEDULER in found[ipvs_codec.SERVICE]) is (complete and not about_server)
    assert not about_server or (ipvs_codec.R_WEIGHT in found[ipvs_codec.SERVER]) is complete


@pytest.mark.parametrize(("where", "ipv6"), [("node2", False), ("192.168.0.1", True), ("2001:db8::1", False), ("", False), ("10.1", False)])
def test_only_numbers_are_addresses(where: str, *, ipv6: bool) -> None:
    """A name that nobody resolved never reaches the kernel."""
    with pytest.raises(ValueError, match="numeric"):
        ipvs_codec.packed(where, ipv6)


def test_services_of_a_real_kernel() -> None:
    assert {ipvs_codec.read_service(body) for body in bodies(sample("services"))} == {V4, V6, Service(fwmark=7)}


def test_servers_of_a_real_kernel() -> None:
    """Statistics, their padding, and the attributes of tunnels are skipped."""
    assert [ipvs_codec.read_entry(body, V4) for body in bodies(sample("servers"))] == [Entry(FIRST)]
    other = Entry(RealServer("2001:db8::2", 5432, 3, Method.TUNNEL))
    assert [ipvs_codec.read_entry(body, V6) for body in bodies(sample("servers6"))] == [other]


def test_timeouts_of_a_real_kernel() -> None:
    assert ipvs_codec.read_timeouts(sample("timeouts")) == Timeouts(900, 120, 300)


def test_a_service_of_another_protocol_is_nobodys() -> None:
    """A UDP service may have the address and port of ours."""
    body = bytearray(next(body for body in bodies(sample("services")) if ipvs_codec.read_service(body) == V6))
    at = body.index(struct.pack("=HHH", 6, ipvs_codec.S_PROTOCOL, socket.IPPROTO_TCP))
    body[at + 4] = socket.IPPROTO_UDP
    assert ipvs_codec.read_service(bytes(body)) is None


READERS: dict[str, Callable[[bytes], object]] = {
    "services": ipvs_codec.read_service,
    "servers": lambda body: ipvs_codec.read_entry(body, V4),
    "servers6": lambda body: ipvs_codec.read_entry(body, V6),
    "timeouts": ipvs_codec.read_timeouts,
}


@pytest.mark.parametrize("name", READERS)
def test_whatever_is_cut_off_is_noticed(name: str) -> None:
    """A shorter answer is an error of its own or lacks whole attributes; it is never taken for another value."""
    body = sample(name) if name == "timeouts" else bodies(sample(name))[0]
    whole = READERS[name](body)
    for length in range(len(body)):
        with pytest.raises(Garbled):
            READERS[name](body[:length])
    assert READERS[name](body) == whole


def test_a_datagram_that_is_cut_off_is_noticed() -> None:
    datagram = sample("services")
    ends = {0}
    for got in netlink.messages(datagram):
        ends.add(max(ends) + 16 + len(got.body))
    for length in set(range(len(datagram))) - ends:
        with pytest.raises(Garbled):
            list(netlink.messages(datagram[:length]))


@pytest.mark.parametrize("seed", range(MANY))
def test_noise_is_an_error_or_a_value(seed: int) -> None:
    """Any bytes whatever: nothing but Garbled comes out of them."""
    dice = random.Random(seed)
    for name, reader in READERS.items():
        body = bytearray(sample(name) if name == "timeouts" else bodies(sample(name))[0])
        for _ in range(dice.randrange(1, 6)):
            body[dice.randrange(len(body))] = dice.getrandbits(8)
        try:
            reader(bytes(body))
            [netlink.answer(got) for got in netlink.messages(bytes(body))]
        except Garbled as garbled:
            assert "cannot be read" in garbled.message  # noqa: PT017 - either end is right


# ---------------------------------------------------------------- acknowledgements


def acknowledged(sequence: int, number: int = 0, explanation: str = "", *, capped: bool = True) -> bytes:
    """What the kernel answers to request `sequence`."""
    echo = netlink.message(28, REQUEST | ACK, sequence, b"" if capped else b"a request")
    more = netlink.text(1, explanation) if explanation else b""
    flags = (CAPPED if capped else 0) | (EXPLAINED if explanation else 0)
    return netlink.message(ERROR, flags, sequence, struct.pack("=i", -number) + echo + more)


@pytest.mark.parametrize("capped", [True, False])
@pytest.mark.parametrize("explanation", ["", "why"])
def test_acknowledgements(explanation: str, *, capped: bool) -> None:
    """With the request in it or without, explained or not."""
    (got,) = netlink.messages(acknowledged(5, errno.ESRCH, explanation, capped=capped))
    assert got.sequence == 5
    assert netlink.answer(got) == Answer(errno.ESRCH, explanation)


def test_the_end_of_a_dump_has_a_number_too() -> None:
    assert netlink.answer(Message(DONE, 2, 1, struct.pack("=i", -errno.EPERM))) == Answer(errno.EPERM)
    assert netlink.answer(Message(DONE, 2, 1, b"")) == Answer(0)


def test_an_explanation_that_is_cut_off_is_noticed() -> None:
    body = next(netlink.messages(acknowledged(5, errno.EINVAL, "because"))).body
    for length in set(range(len(body))) - {20}:
        with pytest.raises(Garbled):
            netlink.answer(Message(ERROR, CAPPED | EXPLAINED, 5, body[:length]))


# ---------------------------------------------------------------- the line, with a twin of the kernel at its other end


@pytest.fixture
def ends() -> Iterator[tuple[Line, socket.socket]]:
    """A line, and the kernel's end of it."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = Line(ours)
    with ours, kernel:
        kernel.settimeout(1)
        yield line, kernel


def test_requests_travel_together_and_an_empty_one_ends_them(ends: tuple[Line, socket.socket]) -> None:
    """One datagram, whatever the number of requests."""
    line, kernel = ends
    kernel.send(b"".join(acknowledged(sequence) for sequence in range(1, 5)))
    assert line.ask(28, [b"one1", b"two2", b"six6"]) == ([Answer(0)] * 3, [])
    sent = list(netlink.messages(kernel.recv(1 << 16)))
    assert [(got.kind, got.flags, got.sequence, got.body) for got in sent] == [
        (28, REQUEST | ACK, 1, b"one1"), (28, REQUEST | ACK, 2, b"two2"), (28, REQUEST | ACK, 3, b"six6"), (NOTHING, REQUEST | ACK, 4, b""),
    ]  # fmt: skip


def test_each_request_has_its_own_answer(ends: tuple[Line, socket.socket]) -> None:
    """Answers come in several datagrams; the kernel is silent about what it calls interrupted."""
    line, kernel = ends
    kernel.send(acknowledged(1) + netlink.message(28, 0, 2, b"said") + acknowledged(2))
    kernel.send(acknowledged(3, errno.ENOENT, "no"))
    kernel.send(acknowledged(5))
    assert line.ask(28, [b""] * 4) == ([Answer(0), Answer(0), Answer(errno.ENOENT, "no"), Answer(errno.EINTR)], [b"said"])


def test_answers_to_earlier_requests_are_skipped(ends: tuple[Line, socket.socket]) -> None:
    """Somebody was interrupted between asking and hearing."""
    line, kernel = ends
    kernel.send(acknowledged(1, errno.EPERM))
    kernel.send(acknowledged(2))
    line.ask(28, [b""])
    kernel.send(acknowledged(1, errno.EPERM) + acknowledged(2) + acknowledged(3) + acknowledged(4))
    assert line.ask(28, [b""])[0] == [Answer(0)]


def dumped(sequence: int, *contents: bytes, flags: int = 2) -> bytes:
    parts = [netlink.message(28, flags, sequence, content) for content in contents]
    return b"".join([*parts, netlink.message(DONE, 2, sequence, struct.pack("=i", 0))])


def test_a_dump_that_was_overtaken_is_repeated(ends: tuple[Line, socket.socket]) -> None:
    """Until one is whole."""
    line, kernel = ends
    kernel.send(dumped(1, b"old1", b"old2", flags=2 | CHANGED))
    kernel.send(dumped(2, b"new1"))
    assert line.dump(28, b"") == (Answer(0), [b"new1"])


def test_a_dump_that_is_always_overtaken_ends(ends: tuple[Line, socket.socket]) -> None:
    """With what was heard last."""
    line, kernel = ends
    for sequence in range(1, 9):
        kernel.send(dumped(sequence, str(sequence).encode() * 4, flags=2 | CHANGED))
    assert line.dump(28, b"") == (Answer(0), [b"5555"])


def test_a_dump_may_be_refused(ends: tuple[Line, socket.socket]) -> None:
    line, kernel = ends
    kernel.send(acknowledged(1, errno.EPERM))
    assert line.dump(28, b"") == (Answer(errno.EPERM), [])


def test_a_family_is_looked_up_by_its_name(ends: tuple[Line, socket.socket]) -> None:
    """A name that the kernel does not know is 0, not an error."""
    line, kernel = ends
    kernel.send(netlink.message(16, 0, 1, netlink.generic(1, 2, netlink.attribute(netlink.FAMILY_ID, netlink.U16.pack(28)))) + acknowledged(2))
    assert line.family("IPVS") == 28
    kernel.send(acknowledged(3, errno.ENOENT) + acknowledged(4))
    assert line.family("NONE") == 0
    kernel.send(acknowledged(5, errno.EPERM) + acknowledged(6))
    with pytest.raises(EnvironmentFailure):
        line.family("IPVS")


def test_a_line_that_breaks_is_a_failure(ends: tuple[Line, socket.socket]) -> None:
    """Not an endless wait."""
    line, kernel = ends
    kernel.shutdown(socket.SHUT_WR)
    with pytest.raises(EnvironmentFailure):
        line.ask(28, [b""])


# ---------------------------------------------------------------- what errno means


@pytest.mark.parametrize(
    ("edit", "number", "kind"),
    [
        (AddService(V4), errno.EEXIST, ipvs.ServiceExists),
        (AddService(V4), errno.ENOENT, ipvs.NoSuchScheduler),
        (DeleteService(V4), errno.ESRCH, ipvs.NoSuchService),
        (AddServer(V4, FIRST), errno.EEXIST, ipvs.ServerExists),
        (AddServer(V4, FIRST), errno.ESRCH, ipvs.NoSuchService),
        (SetServer(V4, FIRST), errno.ENOENT, ipvs.NoSuchServer),
        (SetServer(V4, FIRST), errno.EPERM, ipvs.NotPermitted),
        (SetServer(V4, FIRST), errno.ERANGE, IpvsRefusal),
    ],
)  # fmt: skip
def test_the_meaning_of_an_errno_depends_on_the_object(edit: Edit, number: int, kind: type[IpvsRefusal]) -> None:
    """And the message names the object."""
    found = ipvs._matter(edit).refusal(Answer(number, "said"))
    assert type(found) is kind
    assert found.number == number
    assert found.subject == (edit.server if isinstance(edit, (AddServer, SetServer, DeleteServer)) else edit.service)
    assert str(found.subject) in found.message
    assert "said" in found.message
