"""The fence agent of the practice cluster: the fence agent API (ClusterLabs, FenceAgentAPI.md) spoken to the hub's power switch.

A node that was fenced `off` stays off until somebody boots it. `reboot` is off at once and on ten seconds later, so that the survivors
have settled before it is back: the agent answers as soon as the node is off, as Pacemaker only waits for that.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from pha4pgsql.lab import ask
from pha4pgsql.lab_words import ROOM, SWITCH
from pha4pgsql.words import ConfigurationError, EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

IS_OFF = 2
"""Exit code of `status` for a node that is off; `monitor` and everything else know 0 and 1 only."""

ACTIONS = ("metadata", "monitor", "list", "status", "on", "off", "reboot", "validate-all")
_VERBS = {"on": "boot", "off": "crash", "reboot": "reboot"}
_OPTIONS = {"-o": "action", "--action": "action", "-n": "port", "--plug": "port", "--port": "port"}


class Order(NamedTuple):
    """What Pacemaker wants; `node` is empty where the action is about the switch."""

    action: str
    node: str
    switch: str


def main(argv: Sequence[str], stdin: Iterable[str]) -> int:
    """Carry out one order, given by options or, as Pacemaker does, by lines on standard input."""
    try:
        order = _order(_from_options(argv) if argv else _from_lines(stdin))
        return _WITHOUT_SWITCH[order.action]() if order.action in _WITHOUT_SWITCH else _perform(order)
    except Failure as failure:
        print(f"fence_lab: {failure}", file=sys.stderr)
        return 1


def _from_options(argv: Sequence[str]) -> dict[str, str]:
    """`-o off -n node1`, `--action=off --plug=node1`."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    if len(words) % 2 or any(word not in _OPTIONS for word in words[::2]):
        raise ConfigurationError(f"options are {' '.join(argv)!r}, expected -o ACTION [-n NODE]")
    return {_OPTIONS[word]: value for word, value in zip(words[::2], words[1::2])}


def _from_lines(lines: Iterable[str]) -> dict[str, str]:
    """`key=value` lines; others and comments mean nothing."""
    pairs = (line.strip().partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


def _order(given: Mapping[str, str]) -> Order:
    action = given.get("action") or given.get("option") or "reboot"
    node = next((given[key] for key in ("port", "plug", "nodename") if given.get(key)), "")
    if action not in ACTIONS:
        raise ConfigurationError(f"action is {action!r}, expected one of: {' '.join(ACTIONS)}")
    if not node and action in {*_VERBS, "status"}:
        raise ConfigurationError(f"no port given, expected a node for action {action}")
    return Order(action, node, given.get("switch") or f"{ROOM}/{SWITCH}")


def _perform(order: Order) -> int:
    if order.action in _VERBS:
        _asked(order, _VERBS[order.action])
        return 0
    rows = _asked(order, "list")
    assert isinstance(rows, list)  # noqa: S101
    states = {str(row["name"]): str(row["state"]) for row in rows}
    if order.action == "status":
        return _status(states, order.node)
    if order.action == "list":
        print("\n".join(f"{name}," for name in states))
    return 0


def _status(states: Mapping[str, str], node: str) -> int:
    if node not in states:
        raise ConfigurationError(f"no node {node}, expected one of: {' '.join(states)}")
    print(f"Status: {'OFF' if states[node] == 'off' else 'ON'}")
    return IS_OFF if states[node] == "off" else 0


def _asked(order: Order, verb: str) -> object:
    absent = EnvironmentFailure(f"the power switch {order.switch} does not answer, expected the hub of a practice cluster", "cls_lab list")
    return ask(order.switch, verb, [order.node] if order.node and verb != "list" else [], absent).value


def _metadata() -> int:
    rows = "".join(f'  <action name="{action}" automatic="0"/>\n' if action == "on" else f'  <action name="{action}"/>\n' for action in ACTIONS)
    print(_METADATA.format(actions=rows, switch=f"{ROOM}/{SWITCH}"), end="")
    return 0


def _valid() -> int:
    return 0


_WITHOUT_SWITCH = {"metadata": _metadata, "validate-all": _valid}

_METADATA = """<?xml version="1.0" ?>
<resource-agent name="fence_lab" shortdesc="Power switch of the pha4pgsql practice cluster">
<longdesc>Switches nodes of a practice cluster (cls_lab) off and on. A node that was switched off stays off until it is booted;
reboot switches it on again ten seconds later.</longdesc>
<vendor-url></vendor-url>
<parameters>
  <parameter name="action" unique="0" required="1">
    <getopt mixed="-o, --action=[action]"/>
    <content type="string" default="reboot"/>
    <shortdesc lang="en">Fencing action</shortdesc>
  </parameter>
  <parameter name="plug" unique="0" required="1" obsoletes="port">
    <getopt mixed="-n, --plug=[node]"/>
    <content type="string"/>
    <shortdesc lang="en">Name of the node</shortdesc>
  </parameter>
  <parameter name="port" unique="0" required="1" deprecated="1">
    <getopt mixed="-n, --plug=[node]"/>
    <content type="string"/>
    <shortdesc lang="en">Name of the node</shortdesc>
  </parameter>
  <parameter name="switch" unique="0" required="0">
    <content type="string" default="{switch}"/>
    <shortdesc lang="en">Socket of the power switch</shortdesc>
  </parameter>
</parameters>
<actions>
{actions}</actions>
</resource-agent>
"""
