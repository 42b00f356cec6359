"""The page docs/parameters.md, drawn from the parameter table.

Layer 4. `/usr/bin/python3 -m pha4pgsql.manual > docs/parameters.md` rewrites it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pha4pgsql.parameters import AGENTS, Agent, Kind, Parameter, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COMMAND = "/usr/bin/python3 -m pha4pgsql.manual > docs/parameters.md"

KINDS = {
    Kind.STRING: "string", Kind.BOOLEAN: "boolean", Kind.INTEGER: "integer", Kind.SECONDS: "time",
    Kind.PATH: "path", Kind.WORDS: "names", Kind.MODE: "mode", Kind.REJOIN: "choice",
}  # fmt: skip

INTRODUCTION = f"""# Parameters of the resource agents

Made from `pha4pgsql/parameters.py` by `{COMMAND}`; do not edit.

An empty value means the default. Booleans are `true`, `yes`, `on`, `1` and `false`, `no`, `off`, `0`; another word is an error.
Times take a unit (`500ms`, `90s`, `2min`); without one they are seconds. Paths are absolute. Numbers are not negative.
The column "from" tells which older agent has the parameter: E is `expgsql` of the shell pha4pgsql, S is `ocf:heartbeat:pgsql`,
P is PAF, D and R are the shell agents `lvsdr` and `lvsdr-realsvr`; an empty one means that it is ours.

A wrong parameter gives the exit code 6, a machine that does not fit 2 (paths, node name), 4 (rights) or 5 (programs, versions), each with a
reason that `crm_mon` shows. A stop returns 0 and a probe 7 all the same as long as no PostgreSQL runs in the data directory. Parameters of
`lvsdr` that become wrong while it runs are named and not taken over.
"""


def page(agents: Iterable[Agent]) -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(line for agent in agents for line in _section(agent))]) + "\n"


def _section(agent: Agent) -> Iterator[str]:
    """One agent."""
    rows = {status: [row for row in agent.parameters if row.status is status] for status in Status}
    yield from (f"## {agent.name}: {agent.short}", "", agent.long, "")
    used = [row for row in agent.parameters if row.status in (Status.KEPT, Status.NEW)]
    yield from _table(("parameter", "type", "default", "meaning", "from"), (_described(row) for row in used))
    if rows[Status.ALIASED]:
        yield from ("### Other names", "")
        yield from _table(("name", "means", "from"), ((f"`{row.name}`", f"`{row.of}`", row.since) for row in rows[Status.ALIASED]))
    for status, title in ((Status.IGNORED, "Accepted without effect"), (Status.REFUSED, "Refused when set to more than its default")):
        if rows[status]:
            yield from (f"### {title}", "")
            yield from _table(("parameter", "reason", "from"), ((f"`{row.name}`", row.why, row.since) for row in rows[status]))
    yield from ("### Actions", "")
    yield from _table(("action", "timeout", "interval", "role"), agent.actions)


def _described(row: Parameter) -> tuple[str, ...]:
    return (f"`{row.name}`", KINDS[row.kind], f"`{row.default}`" if row.default else "", row.long, row.since)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """A Markdown table and an empty line."""
    for cells in (head, ("---",) * len(head), *rows):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page(AGENTS.values()))
