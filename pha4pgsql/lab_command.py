"""The command line of the practice cluster."""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from typing import TYPE_CHECKING, NoReturn

from pha4pgsql.lab_words import IPVS_KINDS
from pha4pgsql.words import ConfigurationError, EnvironmentFailure, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WRONG_USAGE = 100
NOT_FOUND_OUT = 111

PLAY = {
    "crash": "power loss of a node, at once",
    "boot": "switch a node on",
    "cut": "take a node's link away",
    "heal": "give the link back",
    "freeze": "stop all processes of a node (SIGSTOP)",
    "thaw": "let them go on",
    "kill-postgres": "SIGKILL for the postmaster and its children",
    "freeze-postgres": "stop all postgres processes of a node",
    "thaw-postgres": "let them go on",
}


HUB, GUEST = "hub", "guest"
LOGS = (
    "/var/log/boot.log", "/var/log/corosync/corosync.log", "/var/log/pacemaker/pacemaker.log", "/var/log/postgresql/start.log",
    "/var/log/postgresql/postgresql.log",
)  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{self.prog}: {message}", f"{self.prog} --help")


def main(argv: Sequence[str]) -> int:
    """Run one command line; the only place where a failure becomes text and an exit code."""
    try:
        if argv[:1] == [HUB]:
            return _hub(argv[1])
        if argv[:1] == [GUEST]:
            return _guest(*argv[1:])
        arguments = _parser().parse_args(argv)
        task: Callable[[argparse.Namespace], int] = arguments.task
        return task(arguments)
    except ConfigurationError as failure:
        print(failure, file=sys.stderr)
        return WRONG_USAGE
    except EnvironmentFailure as failure:
        print(failure, file=sys.stderr)
        return NOT_FOUND_OUT
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> _Parser:
    parser = _Parser(prog="cls_lab", description="A practice cluster on this machine: real nodes in namespaces, real Pacemaker and PostgreSQL.")
    verbs = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    _add_up(verbs.add_parser("up", help="build a cluster and wait until it is healthy"))
    run = _add(verbs, "run", "run a command on a node or on the client", _run)
    run.add_argument("node", metavar="NODE|client")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD...")
    for verb, meaning in PLAY.items():
        _add(verbs, verb, meaning, _play).add_argument("nodes", nargs="+", metavar="NODE")
    wait = _add(verbs, "wait", "wait until the nodes that are on make a healthy cluster", _wait)
    wait.add_argument("--timeout", type=float, default=60.0, metavar="S")
    logs = _add(verbs, "logs", "show a node's logs, also of one that is off", _logs)
    logs.add_argument("node", metavar="NODE")
    logs.add_argument("--lines", type=int, default=40, metavar="N", help="how many lines of each (default: 40)")
    _add(verbs, "list", "show the nodes", _list).add_argument("--json", action="store_true")
    _add(verbs, "down", "end the lab; leaves nothing", _down)
    return parser


def _add(verbs: argparse._SubParsersAction[_Parser], verb: str, meaning: str, task: Callable[[argparse.Namespace], int]) -> _Parser:
    parser = verbs.add_parser(verb, help=meaning, description=meaning)
    parser.add_argument("--name", default="lab", help="which lab (default: lab)")
    parser.set_defaults(task=task, verb=verb)
    return parser


def _add_up(parser: _Parser) -> None:
    parser.set_defaults(task=_up)
    parser.add_argument("--name", default="lab", help="the lab's name (default: lab)")
    parser.add_argument("--nodes", type=int, default=3, metavar="N", help="how many nodes, 1 to 5 (default: 3)")
    parser.add_argument("--template", metavar="NAME", help="which template config.ini names (default: muti, with IPVS muti_with_lvs)")
    parser.add_argument("--pg", default="/usr/lib/postgresql/15/bin", metavar="BINDIR", help="PostgreSQL's programs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of config.ini")
    parser.add_argument("--corosync", action="append", default=[], metavar="KEY=VALUE", help="a key of corosync.conf's totem section")
    parser.add_argument("--fencing", action=argparse.BooleanOptionalAction, default=True, help="fence lost nodes with fence_lab (default: yes)")
    parser.add_argument("--disk", default="", metavar="DIRECTORY", help="keep the nodes' disks there instead of in memory")
    parser.add_argument("--ipvs", choices=IPVS_KINDS, help="read load balancing by this kernel (host), by kernels of some nodes' own (uml), "
        "by what is there (auto), or not (none; the default unless --readers or a template with LVS is given)")  # fmt: skip
    parser.add_argument("--readers", type=int, default=0, metavar="N", help="extra read servers outside Pacemaker (default: 0)")
    parser.add_argument("--directors", type=int, default=2, metavar="N", help="how many nodes have kernels of their own with uml (default: 2)")
    parser.add_argument("--bare", action="store_true", help="only nodes with Corosync and Pacemaker, nothing installed")
    parser.add_argument("--timeout", type=float, default=300.0, metavar="S", help="how long to wait for a healthy cluster (default: 300)")


def _up(arguments: argparse.Namespace) -> int:
    from pha4pgsql.lab_up import bring_up, ipvs_here
    from pha4pgsql.lab_words import WITH_LVS, WITHOUT_LVS, Plan, pair

    asked = arguments.ipvs or ("auto" if arguments.readers or (arguments.template or "").startswith(WITH_LVS) else "none")
    ipvs = ipvs_here() if asked == "auto" else asked
    plan = Plan(
        name=arguments.name, size=arguments.nodes, bindir=arguments.pg, fencing=arguments.fencing,
        template=arguments.template or (WITHOUT_LVS if ipvs == "none" else WITH_LVS),
        corosync=tuple(pair(text, "--corosync") for text in arguments.corosync),
        settings=tuple(pair(text, "--set") for text in arguments.set), disk=arguments.disk,
        ipvs=ipvs, readers=arguments.readers, directors=arguments.directors,
    )  # fmt: skip
    bring_up(plan, say=lambda text: print(text, flush=True), bare=arguments.bare, timeout=arguments.timeout)
    return 0


def _run(arguments: argparse.Namespace) -> int:
    from pha4pgsql.lab import Lab

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise ConfigurationError("cls_lab run: no command, expected: cls_lab run NODE -- CMD...", "cls_lab run node1 -- cls_status")
    return Lab(arguments.name).run_here(arguments.node, command)


def _play(arguments: argparse.Namespace) -> int:
    from pha4pgsql.lab import Lab

    Lab(arguments.name).act(arguments.verb, *arguments.nodes)
    return 0


def _wait(arguments: argparse.Namespace) -> int:
    from pha4pgsql.lab import Lab
    from pha4pgsql.lab_health import wait

    wait(Lab(arguments.name), timeout=arguments.timeout)
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    from pha4pgsql.lab import Lab

    lab = Lab(arguments.name)
    if lab.plan.node(arguments.node).uml:
        return lab.run_here(arguments.node, ["tail", "-q", "-v", "-n", str(arguments.lines), *LOGS])
    disk = lab.disk(arguments.node)
    shown = 0
    for path in LOGS:
        try:
            with open(disk + path, encoding="utf-8", errors="replace") as stream:
                lines = deque(stream, maxlen=arguments.lines)
        except FileNotFoundError:
            continue
        shown += 1
        print(f"==> {path} <==", *(line.rstrip("\n") for line in lines), "", sep="\n")
    return 0 if shown else 1


def _list(arguments: argparse.Namespace) -> int:
    from pha4pgsql.lab import Lab

    rows = Lab(arguments.name).list()
    if arguments.json:
        print(json.dumps([row._asdict() for row in rows]))
        return 0
    for row in (("NAME", "ADDRESS", "STATE", "LINK"), *rows):
        print(f"{row[0]:<10}{row[1]:<16}{row[2]:<10}{row[3]}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from pha4pgsql.lab import Lab

    Lab(arguments.name).down()
    return 0


def _guest(name: str, node: str) -> int:
    """What a kernel of its own starts as process 1; not for people."""
    from pha4pgsql.lab_guest import live

    live(name, node)
    return 0


def _hub(name: str) -> int:
    """What `up` starts in namespaces of its own; not for people."""
    from pha4pgsql.lab_switch import serve

    serve(name)
    return 0
