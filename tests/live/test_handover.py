"""A virtual address between two directors, with the kernel's own packets: two namespaces and a link, nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
ADDRESSES = {"ipv4": ("198.51.100.1/24", "198.51.100.2/24", "198.51.100.9"), "ipv6": ("2001:db8::1/64", "2001:db8::2/64", "2001:db8::9")}
KNOCK = """
import errno, socket, sys
with socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET) as line:
    line.settimeout(0.5)
    try:
        line.connect((sys.argv[1], 5432))
    except OSError as refused:
        print("reset" if refused.errno == errno.ECONNREFUSED else "silence")
"""
HAND_OVER = """
import sys, time
sys.path[:0] = [sys.argv[1]]
from pha4pgsql import handover
handover.begin(sys.argv[2], sys.argv[3])
"""
ANNOUNCE = """
import socket, struct, sys
from ipaddress import ip_address
vip, own, own6 = ip_address(sys.argv[1]), bytes.fromhex("020000000001"), ip_address("fe80::1")
if vip.version == 4:
    kind, body = 0x0806, struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + own + vip.packed + bytes(6) + vip.packed
else:
    advertisement = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + vip.packed + b"\\x02\\x01" + own
    kind, body = 0x86DD, struct.pack("!IHBB", 6 << 28, len(advertisement), 58, 255) + own6.packed + ip_address("ff02::1").packed + advertisement
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as line:
    line.bind(("there", 0))
    line.send(b"\\xff" * 6 + own + struct.pack("!H", kind) + body)
"""


class Link:
    """One node has the virtual address on lo; the other knocks at it."""

    def __init__(self, here: str, there: str, vip: str) -> None:
        self.vip = vip
        self.nodes = [subprocess.Popen(["unshare", "--net", "sleep", "600"]) for _ in "ht"]
        self.here, self.there = (("nsenter", "-t", str(node.pid), "-n", "--") for node in self.nodes)
        for node in (self.here, self.there):
            self.until_apart(node)
        self.run(self.here, "ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(self.nodes[1].pid))
        for side, name, address in ((self.here, "here", here), (self.there, "there", there)):
            self.run(side, "ip", "link", "set", "lo", "up")
            self.run(side, "ip", "link", "set", name, "up")
            self.run(side, "ip", "address", "add", address, "dev", name, *(("nodad",) if ":" in vip else ()))
        self.run(self.here, "ip", "address", "add", vip, "dev", "lo", *(("nodad",) if ":" in vip else ()))
        self.run(self.there, "ip", "route", "add", vip, "via", here.partition("/")[0])

    def until_apart(self, node: tuple[str, ...]) -> None:
        deadline = time.monotonic() + 10
        while self.run(node, "readlink", "/proc/self/ns/net") == self.run((), "readlink", "/proc/self/ns/net"):
            assert time.monotonic() < deadline, "no namespace of its own"
            time.sleep(0.01)

    def run(self, node: tuple[str, ...], *command: str) -> str:
        done = subprocess.run([*node, *command], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def knock(self) -> str:
        """What a connection that nobody listens for is answered with."""
        return self.run(self.there, PYTHON, "-IS", "-c", KNOCK, self.vip)

    def end(self) -> None:
        for node in self.nodes:
            node.kill()
            node.wait()


@pytest.fixture(params=ADDRESSES)
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    found = Link(*ADDRESSES[request.param])
    yield found
    found.end()


def answers_within(link: Link, answer: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (seen := link.knock()) != answer:
        assert time.monotonic() < deadline, f"{seen} for {seconds} s, expected {answer}"


def test_silence_until_another_node_has_the_address(link: Link, tmp_path: Path) -> None:
    """No reset meanwhile; right after the announcement, and not before, the node speaks again."""
    assert link.knock() == "reset"
    link.run(link.here, PYTHON, "-IS", "-c", HAND_OVER, str(ROOT), link.vip, str(tmp_path))
    assert [link.knock() for _ in range(2)] == ["silence", "silence"]
    link.run(link.there, PYTHON, "-IS", "-c", ANNOUNCE, link.vip)
    answers_within(link, "reset", 2)
    assert not link.run(link.here, "ip", "-6" if ":" in link.vip else "-4", "rule", "list", "from", link.vip)
    assert not list(tmp_path.glob("*.silent"))


def test_silence_ends_when_nobody_takes_over(link: Link, tmp_path: Path) -> None:
    """Then a reset is the right answer."""
    link.run(link.here, PYTHON, "-IS", "-c", HAND_OVER, str(ROOT), link.vip, str(tmp_path))
    assert link.knock() == "silence"
    answers_within(link, "reset", 30)


def test_silence_ends_although_its_process_was_killed(link: Link, tmp_path: Path) -> None:
    """An action of the real server's agent sees to it when the time is over, not before."""
    clear = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from pha4pgsql import handover; handover.clear({link.vip!r}, {str(tmp_path)!r})"
    link.run(link.here, PYTHON, "-IS", "-c", HAND_OVER, str(ROOT), link.vip, str(tmp_path))
    link.run(link.here, PYTHON, "-IS", "-c", clear)
    assert link.knock() == "silence"
    link.run(link.here, "sh", "-c", f"kill -9 $(cat {next(tmp_path.glob('*.pid'))})")
    link.run(link.here, PYTHON, "-IS", "-c", clear)
    assert link.knock() == "silence"
    note = next(tmp_path.glob("*.silent"))
    os.utime(note, (0, 0))
    link.run(link.here, PYTHON, "-IS", "-c", clear)
    assert link.knock() == "reset"
    assert not note.exists()
