"""Outages as a writer sees them, over repeated changes of the primary of the practice cluster.

A client commits a row every 10 ms through the writer address and reconnects at once; the outage is the longest time between two
acknowledgements. Every acknowledged row has to be in the table afterwards. Every fault hits the primary of a healthy cluster.
Faults: kill-postgres (SIGKILL of postmaster and children), crash (power loss of the node), cut (its link is taken away). Changes on purpose: switch
(`cls_online_switch`), standby (the primary's node is emptied by Pacemaker alone). Several of them take turns, so that all are measured on the same
machine at the same time; each is compared with the first.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING

from pha4pgsql import demo_writer
from pha4pgsql.lab_words import WRITER_VIP

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
LAB = os.path.join(ROOT, "bin", "cls_lab")
FAULTS = ("kill-postgres", "crash", "cut")
PLANNED = {"switch": "cls_online_switch", "standby": "crm_attribute --node {} --name standby --update on"}


class Bench:
    """One lab, made anew whenever it does not become healthy by itself (an old primary that diverged waits for a hand)."""

    def __init__(self, name: str, options: Sequence[str]) -> None:
        self.name = name
        self.options = options
        self.made = 0

    def lab(self, verb: str, *words: str, check: bool = True, quiet: bool = True) -> str:
        """Run `cls_lab VERB --name NAME WORDS` and return what it prints."""
        done = subprocess.run([LAB, verb, "--name", self.name, *words], capture_output=True, encoding="utf-8", check=False)
        if check and done.returncode:
            sys.exit(f"cls_lab {verb} {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout if done.returncode == 0 or not quiet else ""

    def make(self) -> None:
        """A new lab."""
        self.lab("down", check=False)
        self.lab("up", *self.options)
        self.made += 1

    def healthy(self) -> None:
        """Switch on what is off, mend what is cut, and wait; a lab that stays unhealthy is replaced."""
        nodes = json.loads(self.lab("list", "--json"))
        for node in nodes:
            if node["link"] == "cut":
                self.lab("heal", node["name"])
            if node["state"] == "off":
                self.lab("boot", node["name"])
        done = subprocess.run([LAB, "wait", "--name", self.name, "--timeout", "40"], capture_output=True, check=False)
        if done.returncode:
            self.make()

    def primary(self) -> str:
        """The name of the primary, asked on any node that answers."""
        answers = [self.lab("run", node["name"], "--", "cls_master", check=False).strip() for node in json.loads(self.lab("list", "--json"))[:3]]
        return next(answer for answer in answers if answer)

    def change(self, fault: str, primary: str) -> None:
        """Let another node become primary."""
        if fault in PLANNED:
            self.lab("run", primary, "--", *PLANNED[fault].format(primary).split())
        else:
            self.lab(fault, primary)

    def measure(self, fault: str) -> dict[str, float]:
        """One change of the primary under a writer."""
        primary = self.primary()
        program = os.path.join(ROOT, "pha4pgsql", os.path.basename(demo_writer.__file__))
        command = [LAB, "run", "--name", self.name, "client", "--", "/usr/bin/python3", "-I", program, WRITER_VIP, "60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as writer:
            if writer.stdout is None or writer.stdout.readline().strip() != "writing":
                sys.exit("the client could not write through the writer address")
            self.change(fault, primary)
            result: dict[str, float] = json.loads(writer.stdout.read())
        if fault == "standby":
            self.lab("run", primary, "--", "cls_unstandby_node", primary)
        return result


class Series:
    """All measurements of one fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.outages: list[float] = []
        self.rows = 0
        self.lost = 0

    @property
    def median(self) -> float:
        return statistics.median(self.outages)

    def add(self, result: dict[str, float]) -> None:
        """One measurement more, and its line."""
        self.outages.append(result["outage"])
        self.rows += int(result["acknowledged"])
        self.lost += int(result["missing"])
        said = f"{result['acknowledged']} rows acknowledged, {result['missing']} missing"
        print(f"{self.fault}: {result['outage']:.2f} s, {said}; load {os.getloadavg()[0]:.1f}", flush=True)

    def told(self, first: Series) -> str:
        """The result, compared with that of another fault."""
        ratio = f"; {self.median / first.median:.2f} times {first.fault}" if first is not self else ""
        least, most = min(self.outages), max(self.outages)
        outage = f"median {self.median:.2f} s ({least:.2f}-{most:.2f}){ratio}"
        return f"{self.fault}: {len(self.outages)} runs, {outage}, {self.rows} rows acknowledged, {self.lost} lost"


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; exit code 1 when a row was lost."""
    parser = argparse.ArgumentParser(prog="bench/failover", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="changes per fault (10)")
    parser.add_argument("--fault", action="append", choices=(*FAULTS, *PLANNED), help="only this one; may be repeated (default: the three faults)")
    parser.add_argument("--name", default="bench", help="name of the lab (bench)")
    arguments, options = parser.parse_known_args(argv)
    bench = Bench(arguments.name, options)
    bench.make()
    series = [Series(fault) for fault in arguments.fault or FAULTS]
    try:
        for _ in range(arguments.runs):
            for one in series:
                one.add(bench.measure(one.fault))
                bench.healthy()
    finally:
        bench.lab("down", check=False)
    for one in series:
        print(one.told(series[0]), flush=True)
    return int(any(one.lost for one in series))
