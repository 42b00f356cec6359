"""Calls of an agent that need nothing: told apart before anything is imported, because the whole cluster waits for each of them.

A failover has six rounds of notifications on every node; on a busy machine their imports would be most of its time.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # the real one costs an import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def leave_if_idle(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """End the process with success if the call is idle."""
    if idle(argv, environment):
        sys.exit(0)


def idle(argv: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether this call is a notification that the agent has no use for: only pre-promote and post-anything matter.

    >>> idle(["agent", "notify"], {"OCF_RESKEY_CRM_meta_notify_type": "pre", "OCF_RESKEY_CRM_meta_notify_operation": "demote"})
    True
    >>> idle(["agent", "monitor"], {})
    False
    """
    kind, operation = (environment.get(f"OCF_RESKEY_CRM_meta_notify_{name}", "") for name in ("type", "operation"))
    return argv[1:] == ["notify"] and kind == "pre" and operation != "promote"
