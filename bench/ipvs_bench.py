"""The kernel's IPVS by netlink and by ipvsadm, side by side, for a service with many real servers.

Runs on a node of the practice cluster that has IPVS, or with --here on this machine's own kernel (in a network namespace of its own).
The factor is ipvsadm's time by ours: medians of the same work in the same kernel, one after the other in each run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql import system
from pha4pgsql.ipvs import Ipvs
from pha4pgsql.lvs_words import AddServer, AddService, DeleteServer, RealServer, Service, SetServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
LAB = os.path.join(ROOT, "bin", "cls_lab")
SERVICE = Service("192.168.0.237", 5432, scheduler="wrr")
AT = f"-t {SERVICE}"
FORKS = 20
"""Changes by one ipvsadm each that are really made; the time of all is reckoned from them."""


class Row(NamedTuple):
    """One comparison: what is done, by netlink and by ipvsadm, and for how many parts of it ipvsadm's time stands."""

    name: str
    ours: Callable[[], object]
    theirs: Callable[[], object]
    part: float = 1.0


def main(argv: Sequence[str]) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="bench/ipvs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=1000, help="real servers of the service (1000)")
    parser.add_argument("--runs", type=int, default=5, help="of each comparison (5)")
    parser.add_argument("--here", action="store_true", help="use this machine's kernel")
    parser.add_argument("--name", default="bench-ipvs", help="name of the lab (bench-ipvs)")
    arguments = parser.parse_args(argv)
    if arguments.here:
        return _isolated(arguments.servers, arguments.runs)
    up = [LAB, "up", "--name", arguments.name, "--bare", "--nodes", "1", "--ipvs", "auto"]
    program = ["/usr/bin/python3", "-IS", os.path.join(ROOT, "bench", "ipvs"), "--here"]
    options = ["--servers", str(arguments.servers), "--runs", str(arguments.runs)]
    try:
        subprocess.run(up, check=True, stdout=subprocess.DEVNULL)
        return subprocess.run([LAB, "run", "--name", arguments.name, "node1", "--", *program, *options], check=False).returncode
    finally:
        subprocess.run([LAB, "down", "--name", arguments.name], check=False, stdout=subprocess.DEVNULL)


def _isolated(servers: int, runs: int) -> int:
    """Where no table of anybody else is touched."""
    if os.environ.get("BENCH_IPVS") != "isolated":
        command = ["unshare", "--net", *sys.orig_argv] if hasattr(sys, "orig_argv") else ["unshare", "--net", sys.executable, *sys.argv]
        return subprocess.run(command, env={**os.environ, "BENCH_IPVS": "isolated"}, check=False).returncode
    system.run(["ip", "link", "set", "lo", "up"])  # without any address the kernel takes every other for a broadcast
    with Ipvs() as table:
        _compare(table, tuple(RealServer(f"10.1.{number >> 8}.{number & 255}", 5432) for number in range(1, servers + 1)), runs)
    return 0


def _compare(table: Ipvs, pool: Sequence[RealServer], runs: int) -> None:
    table.apply([AddService(SERVICE), *(AddServer(SERVICE, server) for server in pool)])
    one, count = RealServer("10.9.9.9", 5432), len(pool)
    weights = iter(range(2, 1 << 16))
    rows = (
        Row(f"list {count} servers", lambda: table.servers(SERVICE), lambda: _admin("-L", "-n")),
        Row(
            "add, reweigh, delete one",
            lambda: table.apply([AddServer(SERVICE, one), SetServer(SERVICE, one._replace(weight=9)), DeleteServer(SERVICE, one)]),
            lambda: _one_by_one(f"-{how} {AT} -r {one}{more}" for how, more in (("a", ""), ("e", " -g -w 9"), ("d", ""))),
        ),
        Row(
            f"reweigh {count}, ipvsadm --restore",
            lambda: _reweigh(table, pool, next(weights)),
            lambda: _admin("--restore", text="".join(f"-e {AT} -r {server} -g -w {next(weights)}\n" for server in pool)),
        ),
        Row(
            f"reweigh {count}, one ipvsadm each (from {FORKS})",
            lambda: _reweigh(table, pool, next(weights)),
            lambda: _one_by_one(f"-e {AT} -r {server} -g -w {next(weights)}" for server in pool[:FORKS]),
            FORKS / count,
        ),
    )
    print(f"{'':44}{'netlink':>12}{'ipvsadm':>12}{'factor':>9}   ({os.uname().release}, {runs} runs, medians)")
    for row in rows:
        times = [(_time(row.ours), _time(row.theirs) / row.part) for _ in range(runs)]
        ours, theirs = statistics.median(time[0] for time in times), statistics.median(time[1] for time in times)
        print(f"{row.name:44}{ours * 1000:9.1f} ms{theirs * 1000:9.1f} ms{theirs / ours:9.1f}", flush=True)


def _reweigh(table: Ipvs, pool: Sequence[RealServer], weight: int) -> None:
    table.apply([SetServer(SERVICE, server._replace(weight=weight)) for server in pool])


def _admin(*words: str, text: str | None = None) -> None:
    done = system.run(["ipvsadm", *words], timeout=60, text=text)
    if not done.ok:
        sys.exit(f"ipvsadm {' '.join(words)}: {done.err}")


def _one_by_one(rules: Iterable[str]) -> None:
    for rule in rules:
        _admin(*rule.split())


def _time(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
