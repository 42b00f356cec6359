"""config.ini.sample and docs/config.md, drawn from the table of keys.

/usr/bin/python3 -m pha4pgsql.config_pages sample > config.ini.sample
/usr/bin/python3 -m pha4pgsql.config_pages page > docs/config.md
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from pha4pgsql.config import ALIASES, CHAPTERS, NODE_HELP

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pha4pgsql.config import Chapter, Key

SHOWN = {"pgsql_pgctl", "pgsql_psql", "pgsql_repuser", "pgsql_reppassword", "vip_nic"}
"""Keys that the sample sets although they have a default."""

NODES = ("node1=node1", "node2=node2", "node3=node3", 'othernodes=""')


def sample() -> str:
    """The text of config.ini.sample."""
    lines = [
        "# pha4pgsql: configuration of the cluster. Copy to config.ini, edit, then run install.sh.",
        "# KEY=VALUE, read as a shell would read it (quotes around values with blanks), but never executed: $ is not expanded.",
        "# What stands behind # is an example; everything else that has a default shows it.",
    ]
    for chapter in CHAPTERS:
        lines += ["", "", f"# ---- {chapter.title}"]
        for key in chapter.keys:
            lines += ["", f"# {key.help}", _line(key)]
            if key.name == "reader_vip":
                lines += ["", f"# {NODE_HELP}", *NODES]
    return "\n".join(lines) + "\n"


def _line(key: Key) -> str:
    value = key.example or key.default or ""
    active = key.default is None or key.name in SHOWN or (key.default and not key.example)
    return f"{'' if active else '#'}{key.name}={_quoted(value)}"


def _quoted(value: str) -> str:
    if re.fullmatch(r"[\w./:@%+-]+", value):
        return value
    return f'"{value}"' if not re.search(r'[$`"\\]', value) else f"'{value}'"


INTRODUCTION = (
    """# config.ini

Made from `pha4pgsql/config.py` by `/usr/bin/python3 -m pha4pgsql.config_pages page > docs/config.md`; do not edit.

One file for the whole cluster, the same on every node; `install.sh` copies it there (mode 0600) and makes `config.pcs` of it. After a change run
`install.sh`, then `cls_setup`.

Lines are `KEY=VALUE`, read as a shell would read them: single or double quotes, backslashes, comments behind `#`. Nothing is executed and nothing
is expanded; a `$` or a backquote outside single quotes is an error, since a shell would have done something with it. Blanks around `=` and at the
ends of lines do not matter. All problems of a file are reported at once, by key, with what was expected; an unknown key is a problem too, so a slip
of the pen is never taken for a default. A file of the shell pha4pgsql works as it is.

| key | meaning |
|---|---|
| `node1`, `node2`, ... `othernodes` | """
    + NODE_HELP
    + """. At least two. Names must stay different when all but `a-z`, `0-9` and `_` is replaced by `_`: replication slots are named after nodes |
"""
)


def page() -> str:
    """The text of docs/config.md."""
    return "\n".join([INTRODUCTION, *(line for chapter in CHAPTERS for line in _section(chapter))])


def _section(chapter: Chapter) -> Iterator[str]:
    yield from (f"## {chapter.title}", "", "| key | default | meaning | agent parameter |", "|---|---|---|---|")
    aliases = {name: alias for alias, name in ALIASES.items()}
    for key in chapter.keys:
        name = f"`{key.name}`" + (f", `{aliases[key.name]}`" if key.name in aliases else "")
        default = "required" if key.default is None else f"`{key.default}`" if key.default else ""
        yield f"| {name} | {default} | {key.help}{f', e.g. `{key.example}`' if key.example else ''} | {key.parameter} |"
    yield ""


if __name__ == "__main__":
    sys.stdout.write({"sample": sample, "page": page}[sys.argv[1]]())
