"""What tests of two nodes do to the server of the distributed lock, and between the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pha4pgsql.lab_postgres import LOCK_DATA
from pha4pgsql.lab_words import LOCK_ADDRESS, NIC

if TYPE_CHECKING:
    from drill import Drill

NOBODY = "02:de:ad:00:00:01"
"""A hardware address that nobody has: what is sent there is lost, and the sender hears nothing."""
ROW = "select alone, promised_round || '.' || promised_node, identity from distlock where lockname = 'practice'"


def row(drill: Drill) -> tuple[str, str, str]:
    """Who is alone, what is promised, and the identity, as the lock's server has it."""
    argv = ["psql", "-XAtq", "-F", " ", "-h", "/var/run/postgresql", "-U", "postgres", "-d", "distlock", "-c", ROW]
    alone, promised, identity = drill.must("client", *argv).out.rstrip("\n").split(" ")
    return alone, promised, identity


def lock_down(drill: Drill) -> None:
    """Its server is killed, as by a power loss."""
    drill.lab.kill_postgres("client")


def lock_up(drill: Drill) -> None:
    """It is started again, unless it runs."""
    bindir = drill.lab.plan.bindir
    drill.lab.run("client", [f"{bindir}/pg_ctl", "-w", "-s", "-D", LOCK_DATA, "-l", f"{LOCK_DATA}/log", "start"], user="postgres")
    drill.until(
        lambda: drill.lab.run("client", ["psql", "-XAtqc", "select 1", "-h", "/var/run/postgresql", "-U", "postgres"]).ok, "the lock's server runs"
    )


def lose(drill: Drill, node: str, *addresses: str) -> None:
    """What the node sends to these addresses is lost."""
    for address in addresses or (LOCK_ADDRESS,):
        drill.must(node, "ip", "neigh", "replace", address, "lladdr", NOBODY, "dev", NIC, "nud", "permanent")


def find(drill: Drill) -> None:
    """Everybody reaches everybody again."""
    addresses = [LOCK_ADDRESS, *(drill.lab.address(name) for name in drill.lab.members)]
    for node in drill.up:
        for address in addresses:
            drill.lab.run(node, ["ip", "neigh", "del", address, "dev", NIC])


def part(drill: Drill) -> None:
    """The nodes lose each other; each still reaches the lock's server and the client."""
    one, other = drill.lab.members
    lose(drill, one, drill.lab.address(other))
    lose(drill, other, drill.lab.address(one))


def other_than(drill: Drill, node: str) -> str:
    return next(name for name in drill.lab.members if name != node)
