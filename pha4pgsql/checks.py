"""A precondition and what a look at it showed. Layer 1: data only."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Answer(Enum):
    """Of a check. What could not be found out is neither yes nor no, and stops nothing by itself."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Check(NamedTuple):
    """Something that must be so: what, whether it is, what was seen, what to do, and the exit code of a command that is refused because of it."""

    what: str
    answer: Answer
    seen: str = ""
    hint: str = ""
    code: int = 1

    def __str__(self) -> str:
        return f"{self.answer.value:<8}{self.what}{f': {self.seen}' if self.seen and self.answer is not Answer.YES else ''}"


def must(what: str, is_so: bool | None, seen: str = "", hint: str = "", code: int = 1) -> Check:  # noqa: FBT001
    """A check from a plain answer; None: it could not be found out."""
    return Check(what, Answer.UNKNOWN if is_so is None else Answer.YES if is_so else Answer.NO, seen, hint, code)
