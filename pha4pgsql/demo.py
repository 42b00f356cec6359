"""install.sh --demo: a practice cluster on this machine, who serves its readers, one failover, and the outage that a writer measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import demo_writer, packages, paths
from pha4pgsql.packages import Need
from pha4pgsql.words import ClusterRefusal, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS = 30
LONGEST = 90.0
"""Seconds that the writer waits for the outage to begin and end."""


class Measured(NamedTuple):
    """What the writer prints in the end."""

    acknowledged: int
    missing: int
    outage: float


def run(source: str) -> int:
    """Do the demonstration; the cluster is left running."""
    if os.geteuid() != 0:
        raise EnvironmentFailure("not root, expected to be run as root: it installs packages and makes namespaces", "sudo ./install.sh --demo")
    begin = time.monotonic()
    bindir = _needed()
    lab = os.path.join(source, "bin", "cls_lab")
    _show([lab, "up", "--pg", bindir, "--ipvs", "auto", "--directors", "1"])
    _show([lab, "run", "node1", "--", "cls_status"])
    _read(lab)
    measured = _failover(lab, source)
    _show([lab, "run", "node1", "--", "cls_status"])
    print(
        f"\nWrites stopped for {measured.outage:.2f} s while the primary moved; {measured.acknowledged} rows were acknowledged, "
        f"{measured.missing} of them are missing. All this took {time.monotonic() - begin:.0f} s.\n"
        f"The cluster is left running. Look:  {lab} run node2 -- cls_status     play: {lab} --help     end it: {lab} down"
    )
    return int(measured.missing > 0)


def _needed() -> str:
    """Install what is missing, and return the directory of PostgreSQL's programs."""
    from pha4pgsql.lab_up import ipvs_here

    missing = packages.missing("/usr/lib/ocf", (*packages.NEEDS, *(packages.KERNEL if ipvs_here() == "uml" else ())))
    bindir = paths.find_programs("", paths.DEFAULT_PGCTL, "")
    if not bindir:
        missing.append(packages.name_of(Need("program", "postgres", "postgresql", "postgresql-server")))
    if missing:
        packages.install(missing)
        bindir = bindir or paths.find_programs("", paths.DEFAULT_PGCTL, "")
    paths.use_packages()
    if not bindir:
        raise EnvironmentFailure("no PostgreSQL server was found after its installation", "install a PostgreSQL server, 13 or newer, then try again")
    return bindir


def _show(command: Sequence[str]) -> None:
    """Run a command as a person would, in sight. A status that says degraded is an answer, too."""
    print(f"\n# {' '.join(command)}", flush=True)
    code = subprocess.run(command, check=False).returncode
    if code and not (command[-1] == "cls_status" and code in {1, 2}):
        raise ClusterRefusal(f"{' '.join(command)} ended with exit code {code}", f"{command[0]} down   ends the practice cluster")


def _read(lab: str) -> None:
    """Connect thirty times through the reader address, each time anew, and show which servers answered."""
    from pha4pgsql.lab_words import READER_VIP

    question = f'psql -XAtq "host={READER_VIP} dbname=postgres user=postgres connect_timeout=10" -c "show cluster_name"'
    print(f"\na client connects {CONNECTIONS} times through the reader address: {question}", flush=True)
    loop = f"for i in $(seq {CONNECTIONS}); do {question}; done"
    done = subprocess.run(
        [lab, "run", "client", "--", "sh", "-c", loop], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding="utf-8", check=False
    )
    for name, count in sorted(Counter(done.stdout.split()).items()):
        print(f"{count:4} x {name}", flush=True)
    if done.returncode or len(done.stdout.split()) != CONNECTIONS:
        raise ClusterRefusal(f"{len(done.stdout.split())} of {CONNECTIONS} connections were answered", f"{lab} run node1 -- cls_status")


def _failover(lab: str, source: str) -> Measured:
    """Kill the primary's PostgreSQL under a writer, and return what the writer saw."""
    from pha4pgsql.lab_words import WRITER_VIP

    primary = subprocess.run([lab, "run", "node1", "--", "cls_master"], stdout=subprocess.PIPE, encoding="utf-8", check=False).stdout.strip()
    program = os.path.join(source, "pha4pgsql", os.path.basename(demo_writer.__file__))
    print("\na client writes a row every 10 ms through the writer address; the primary's PostgreSQL is killed under it", flush=True)
    writer = subprocess.Popen(
        [lab, "run", "client", "--", sys.executable, "-I", program, WRITER_VIP, str(LONGEST)], stdout=subprocess.PIPE, encoding="utf-8"
    )
    with writer:
        if writer.stdout is None or writer.stdout.readline().strip() != "writing":
            raise ClusterRefusal("the client could not write through the writer address", f"{lab} run client -- psql -h {WRITER_VIP} -U postgres")
        _show([lab, "kill-postgres", primary])
        result = writer.stdout.read()
    if writer.returncode:
        raise ClusterRefusal("the writer failed", "see its messages above")
    _show([lab, "wait"])
    return Measured(**json.loads(result))
