"""Calls of an agent that need nothing: told apart before anything is imported, because the whole cluster waits for each of them.

A failover has six rounds of notifications on every node; on a busy machine their imports would be most of its time.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # the real one costs an import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn


TMPDIR = "/var/lib/pgsql/tmp"
"""The default of the parameter tmpdir."""


def leave_if_idle(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """End the process with success if the call is idle."""
    if idle(argv, environment):
        leave(0)


def leave(code: int) -> NoReturn:
    """End the process without clearing up in its memory, which takes longer than many a call."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def idle(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether this call is a notification that the agent has no use for.

    Before an event only pre-promote matters. After a demotion nobody has to stand for election if a promotion is planned already. After a promotion
    there is nothing to do for the promoted node, nor for one that has followed it since its answer.

    >>> idle(["agent", "notify"], {"OCF_RESKEY_CRM_meta_notify_type": "pre", "OCF_RESKEY_CRM_meta_notify_operation": "demote"})
    True
    >>> idle(["agent", "monitor"], {})
    False
    """
    if argv[1:] != ["notify"]:
        return False
    names = ("notify_type", "notify_operation", "notify_promote_uname", "on_node")
    kind, operation, promoted, here = (environment.get(f"OCF_RESKEY_CRM_meta_{name}", "") for name in names)
    if kind == "pre":
        return operation != "promote"
    if operation == "demote":
        return bool(promoted.strip())
    return operation == "promote" and promoted.strip() in (here, _followed(environment))


def _followed(environment: Mapping[str, str]) -> str:
    """The node from which PostgreSQL here is told to receive (`postgres.recovery_conf`), or empty."""
    try:
        with open(f"{environment.get('OCF_RESKEY_tmpdir') or TMPDIR}/recovery.conf", encoding="utf-8") as stream:
            words = stream.readline().split()
    except OSError:
        return ""
    return words[2] if words[:2] == ["#", "upstream"] and len(words) > 2 else ""
