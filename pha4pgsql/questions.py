"""Questions that may take long, asked in threads: whoever asks never waits, and a question that hangs holds up nothing but itself."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Callable, Generic, TypeVar

from pha4pgsql.lvs_words import NOT_YET, Unknown
from pha4pgsql.words import Failure

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

REST = 2.0
"""A question rests so many times as long as its last answer took: a slow machine is not made slower by asking."""
MOST = 4096
"""Subjects that are remembered."""
LONGEST_PAUSE = 1.0
"""Seconds of such a rest at most."""


class Bell:
    """A pipe that whoever has an answer rings, and that a loop can wait for."""

    def __init__(self) -> None:
        self.read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def ring(self) -> None:
        """From any thread."""
        try:
            os.write(self._write, b"!")
        except BlockingIOError:
            return

    def silence(self) -> None:
        """Take what has been rung."""
        try:
            while os.read(self.read, 4096):
                continue
        except BlockingIOError:
            return


class Question(Generic[T]):
    """One question, asked again and again, with its latest answer; at most one thread at a time."""

    def __init__(self, ask: Callable[[], T], interval: float, bell: Bell) -> None:
        self._ask, self._interval, self._bell = ask, interval, bell
        self._thread: threading.Thread | None = None
        self.answer: T | Unknown = NOT_YET
        self.answered = 0
        """How often it has been answered."""
        self._due = 0.0

    def poke(self, now: float) -> None:
        """Ask if it is time, and nobody waits for an answer."""
        if now >= self._due and (self._thread is None or not self._thread.is_alive()):
            self._due = now + self._interval
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    @property
    def due(self) -> float:
        """When it will be asked next."""
        return self._due

    def _work(self) -> None:
        answer: T | Unknown
        begun = time.monotonic()
        try:
            answer = self._ask()
        except Failure as failure:
            answer = Unknown(failure.message)
        except Exception as bug:  # noqa: BLE001  a question that breaks must not end who asks it
            answer = Unknown(f"internal error: {type(bug).__name__}: {bug}")
        self.answer = answer
        self.answered += 1
        took = time.monotonic() - begun
        self._due = max(self._due, begun + took + min(LONGEST_PAUSE, REST * took))
        self._bell.ring()


class Questions(Generic[T]):
    """The same question about several things, each with a thread of its own."""

    def __init__(self, ask: Callable[[str], T], interval: float, bell: Bell) -> None:
        self._ask, self._interval, self._bell = ask, interval, bell
        self._of: dict[str, Question[T]] = {}

    def poke(self, subjects: tuple[str, ...], now: float) -> None:
        """Ask about these; what was answered about others is remembered."""
        if len(self._of) > MOST:
            self._of.clear()
        for subject in subjects:
            self._of.setdefault(subject, self._about(subject)).poke(now)

    def _about(self, subject: str) -> Question[T]:
        return Question(lambda: self._ask(subject), self._interval, self._bell)

    def answers(self) -> Iterator[tuple[str, T | Unknown]]:
        """What has been answered."""
        for subject, question in tuple(self._of.items()):
            if question.answered:
                yield subject, question.answer
