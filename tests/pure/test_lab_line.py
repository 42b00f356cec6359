"""Frames on the line to a node with a kernel of its own: whatever the pieces in which they arrive, the same frames come out."""

from __future__ import annotations

import random

from pha4pgsql import lab_line
from pha4pgsql.lab_line import Frame, Kind
from pha4pgsql.lab_words import Plan

FRAMES = [
    Frame(0, Kind.HELLO), Frame(1, Kind.REQUEST, b"{}"), Frame(2**32 - 1, Kind.OUTPUT, bytes(range(256)) * 40), Frame(3, Kind.EXIT, b"137"),
    Frame(3, Kind.INPUT),
]  # fmt: skip


def test_frames_survive_any_pieces() -> None:
    """A stream that is cut anywhere gives the frames that were put into it, in order, and nothing is left."""
    whole = b"".join(map(lab_line.pack, FRAMES))
    for seed in range(50):
        dice = random.Random(seed)
        stream, found, rest = bytearray(), [], whole
        while rest:
            size = dice.choice((1, 3, 9, 500, 5000))
            stream += rest[:size]
            rest = rest[size:]
            found += list(lab_line.unpack(stream))
        assert found == FRAMES, seed
        assert not stream


def kernels(plan: Plan) -> list[str]:
    return [node.name for node in plan.nodes if node.uml]


def test_who_has_a_kernel_of_its_own() -> None:
    """The last members, never the first of several; readers and the client never; nobody where the machine's kernel serves."""
    assert kernels(Plan("x", ipvs="uml")) == ["node2", "node3"]
    assert kernels(Plan("x", ipvs="uml", directors=1, readers=2)) == ["node3"]
    assert kernels(Plan("x", size=2, ipvs="uml")) == ["node2"]
    assert kernels(Plan("x", size=1, ipvs="uml")) == ["node1"]
    assert kernels(Plan("x", size=5, ipvs="uml")) == ["node4", "node5"]
    assert kernels(Plan("x", ipvs="host")) == kernels(Plan("x")) == []
    assert [node.name for node in Plan("x", ipvs="uml").without_ipvs] == ["node1"]
    assert not Plan("x", ipvs="host").without_ipvs


def test_read_servers_are_no_members() -> None:
    """They have the next addresses and are unknown to Corosync."""
    plan = Plan("x", readers=2, ipvs="host")
    assert [(node.name, node.address, node.member) for node in plan.nodes if node.reader] == [
        ("node4", "192.168.0.234", False),
        ("node5", "192.168.0.235", False),
    ]
    assert [node.name for node in plan.members] == ["node1", "node2", "node3"]
