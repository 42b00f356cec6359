"""Command lines: a parser whose complaints look like all others, and the types of what is typed. Nothing else is imported: tools start often."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

USAGE = 100
"""Wrong usage."""


class Parser(argparse.ArgumentParser):
    """A command line. `wrong` is the exit code of wrong usage."""

    wrong = USAGE

    def error(self, message: str) -> NoReturn:
        """Complain and end."""
        print(f"{self.prog}: {message}\nHINT: `{self.prog} --help` shows the usage", file=sys.stderr)
        raise SystemExit(self.wrong)


def seconds(word: str) -> float:
    """A number of seconds above 0, a trailing `s` allowed.

    >>> seconds("30"), seconds("0.5s")
    (30.0, 0.5)
    """
    try:
        number = float(word.removesuffix("s"))
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of seconds above 0")
    return number
