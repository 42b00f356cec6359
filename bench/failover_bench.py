"""Outages as a writer sees them, over repeated failovers of the practice cluster.

A client commits a row every 10 ms through the writer address and reconnects at once; the outage is the longest time between two
acknowledgements. Every acknowledged row has to be in the table afterwards. Every fault hits the primary of a healthy cluster.
Faults: kill-postgres (SIGKILL of postmaster and children), crash (power loss of the node), cut (its link is taken away).
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

    def measure(self, fault: str) -> dict[str, float]:
        """One failover under a writer."""
        primary = self.primary()
        program = os.path.join(ROOT, "pha4pgsql", os.path.basename(demo_writer.__file__))
        command = [LAB, "run", "--name", self.name, "client", "--", "/usr/bin/python3", "-I", program, WRITER_VIP, "60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as writer:
            if writer.stdout is None or writer.stdout.readline().strip() != "writing":
                sys.exit("the client could not write through the writer address")
            self.lab(fault, primary)
            result: dict[str, float] = json.loads(writer.stdout.read())
        return result


def main(argv: Sequence[str]) -> int:
    """Run the benchmark; exit code 1 when a row was lost."""
    parser = argparse.ArgumentParser(prog="bench/failover", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="failovers per fault (10)")
    parser.add_argument("--fault", action="append", choices=FAULTS, help="only this fault; may be repeated")
    parser.add_argument("--name", default="bench", help="name of the lab (bench)")
    arguments, options = parser.parse_known_args(argv)
    bench = Bench(arguments.name, options)
    bench.make()
    lost = 0
    try:
        for fault in arguments.fault or FAULTS:
            lost += _series(bench, fault, arguments.runs)
    finally:
        bench.lab("down", check=False)
    return int(lost > 0)


def _series(bench: Bench, fault: str, runs: int) -> int:
    outages: list[float] = []
    rows = lost = 0
    for _ in range(runs):
        result = bench.measure(fault)
        outages.append(result["outage"])
        rows += int(result["acknowledged"])
        lost += int(result["missing"])
        print(f"{fault}: {result['outage']:.2f} s, {result['acknowledged']} rows acknowledged, {result['missing']} missing", flush=True)
        bench.healthy()
    middle = statistics.median(outages)
    print(f"{fault}: {runs} runs, median {middle:.2f} s ({min(outages):.2f}-{max(outages):.2f}), {rows} rows acknowledged, {lost} lost", flush=True)
    return lost
