"""A verb of ours carried out on this machine or on another: JSON in, JSON out, one line for each thing said on the way.

The other machine needs Python and ssh, nothing of ours: the library is unpacked there for the time of the command. What goes there goes
through standard input, so no secret is on a command line.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Callable

from pha4pgsql.words import ClusterRefusal, ConfigurationError, EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pha4pgsql import remote

    Say = Callable[[str], None]
    Verb = Callable[[Mapping[str, Any], Say], Mapping[str, Any]]
    Errand = Callable[..., Mapping[str, Any]]

PYTHON = ("/usr/bin/python3", "-IS")
"""What carries out an errand on another machine."""

KINDS = {kind.__name__: kind for kind in (ConfigurationError, EnvironmentFailure, ClusterRefusal)}


def here(verbs: Mapping[str, Verb], say: Say) -> Errand:
    """Errands on this machine."""

    def go(verb: str, **request: Any) -> Mapping[str, Any]:  # noqa: ANN401  whatever JSON can hold
        return _do(verbs, verb, request, say)

    return go


def there(shell: remote.Ssh, machine: str, command: Sequence[str], say: Say) -> Errand:
    """Errands on another machine, where `command VERB` ends up in `serve`."""

    def go(verb: str, **request: Any) -> Mapping[str, Any]:  # noqa: ANN401
        answers: list[Mapping[str, Any]] = []
        noise: list[str] = []

        def hear(line: str) -> None:
            told = _told(line)
            if told is None:
                noise.append(line)
            elif "say" in told:
                say(told["say"])
            else:
                answers.append(told)

        code = shell.lines(machine, [*command, verb], json.dumps(request).encode(), hear)
        if not answers:
            said = " / ".join(line for line in noise[-3:] if line) or f"exit code {code}"
            raise EnvironmentFailure(f"{machine}: {said}", f"try ssh root@{machine} true")
        if "failed" in answers[-1]:
            kind, message, hint = answers[-1]["failed"]
            raise KINDS.get(kind, EnvironmentFailure)(f"{machine}: {message}", hint)
        done: Mapping[str, Any] = answers[-1]["done"]
        return done

    return go


def _do(verbs: Mapping[str, Verb], verb: str, request: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
    """What the system refuses is the machine's fault."""
    try:
        return verbs[verb](request, say)
    except BrokenPipeError:
        raise
    except OSError as wrong:
        raise EnvironmentFailure(f"{verb}: {wrong}") from wrong


def _told(line: str) -> dict[str, Any] | None:
    """What a line of `serve` says; None for anything else, such as a warning of ssh."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() & {"say", "done", "failed"} else None


def serve(verbs: Mapping[str, Verb], verb: str) -> int:
    """Be the other machine: read the request from standard input, answer on standard output."""

    def tell(**what: Any) -> None:  # noqa: ANN401
        print(json.dumps(what), flush=True)

    try:
        tell(done=_do(verbs, verb, json.load(sys.stdin), lambda text: tell(say=text)))
    except Failure as failure:
        tell(failed=[type(failure).__name__ if type(failure).__name__ in KINDS else _kind(failure), failure.message, failure.hint])
        return 1
    except BrokenPipeError:  # nobody listens any more: the operator has interrupted it
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return 0


def _kind(failure: Failure) -> str:
    return next((name for name, kind in KINDS.items() if isinstance(failure, kind)), "EnvironmentFailure")
