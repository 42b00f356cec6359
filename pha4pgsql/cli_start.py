"""cls_start, cls_stop and cls_cleanup: the set is started, stopped, tried anew.

Exit codes: 0 done, 1 not reached, 2 the primary side is up but the standby side is not (cls_start), 100 wrong usage,
101 the cluster cannot be asked on this node, 102 no quorum, 130 interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from pha4pgsql import arguments, cli, cli_status, pacemaker, procedure, text, trouble
from pha4pgsql.checks import must
from pha4pgsql.procedure import Plan, Step

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pha4pgsql.checks import Check
    from pha4pgsql.cli import Site
    from pha4pgsql.procedure import Say
    from pha4pgsql.text import Named
    from pha4pgsql.words import Failure

STANDBY_SIDE = 2
"""cls_start's exit code when the primary serves and the standby side does not yet."""


def managed(site: Site) -> list[Check]:
    """What must be so before the set is started or stopped."""
    seen = "the cluster is in maintenance mode: Pacemaker starts and stops nothing"
    return [
        cli.quorum(),
        must("Pacemaker looks after the cluster", not site.cluster.property_is("maintenance-mode", default=False), seen, "cls_unmaintenance"),
    ]


def unheld(site: Site) -> Check:
    """Whether Pacemaker looks after this set: not while a command changes its parameters."""
    seen = "a cls_setup or cls_member is changing the configuration, or was killed in the middle"
    return must(f"Pacemaker looks after {site.named.promotable}", not site.named.held, seen, "wait for its end; if none is at work: cls_setup")


def reach(check: Callable[[Site], list[str]], limit: float, say: Say, code: int = 1) -> None:
    """Wait until nothing is missing; else say how each node stands, and end with this code."""
    left: list[str] = []

    def missing() -> str:
        left[:] = check(cli.look())
        return "; ".join(left)

    if procedure.wait(missing, limit, say):
        raise _with(code, cli.explain(left, limit))


def _with(code: int, failure: Failure) -> Failure:
    failure.code = code
    return failure


# ---------------------------------------------------------------- cls_start


def start(argv: Sequence[str]) -> int:
    """cls_start: enable the set and wait until it serves."""
    parser = arguments.Parser("cls_start", description="Start the replicated PostgreSQL set and its addresses, and wait until it serves.")
    procedure.options(parser, timeout=30.0, waits_for="each side")
    return cli.main(parser, _start, argv)


def _start(options: argparse.Namespace) -> int:
    cli.need_root()
    say = procedure.stopwatch()
    if procedure.perform(starting(cli.look(), options.timeout, say), options, say):
        print("start resource successful")
    return 0


def starting(site: Site, limit: float, say: Say) -> Plan:
    """The set forgets its failures, is enabled, and serves: first who writes, then who reads."""
    writing, reading = cli.missing_for_primary(site), cli.missing_for_standbys(site)
    enabled = "it is meant to run, and goes on by itself"
    steps = [
        Step(f"forget failures of {site.named.promotable}", lambda: forgive(site), not [*writing, *reading], None, "they are in the log"),
        Step(f"enable {site.named.promotable}", lambda: enable(site.named), not site.named.disabled, None, enabled),
        Step(
            f"wait until {site.named.promotable} has a primary with its address",
            lambda: reach(cli.missing_for_primary, limit, say), not writing,
        ),
        Step(
            "wait until the standbys follow, and readers are served",
            lambda: reach(cli.missing_for_standbys, limit, say, STANDBY_SIDE), not [*writing, *reading],
        ),
    ]  # fmt: skip
    return Plan([*managed(site), unheld(site)], steps)


def forgive(site: Site) -> None:
    """Forget the failures of the set and of what goes with it; with a fail count at the limit Pacemaker would not even try."""
    failed = {name for member in site.cluster.members.values() for name in member.failures}
    for name, inside in ((site.named.promotable, site.named.primitive), *((one, one) for one in site.named.companions)):
        if inside in failed or name == site.named.promotable:
            pacemaker.cleanup(name)


def enable(named: Named) -> None:
    """Take back what cls_stop, or `pcs resource disable`, has set."""
    pacemaker.set_meta(named.promotable, "target-role", None)


# ---------------------------------------------------------------- cls_stop


def stop(argv: Sequence[str]) -> int:
    """cls_stop: disable the set and wait until nothing of it runs."""
    parser = arguments.Parser("cls_stop", description="Stop the replicated PostgreSQL set on all nodes, and its addresses with it.")
    procedure.options(parser, timeout=30.0, waits_for="the end")
    return cli.main(parser, _stop, argv)


def _stop(options: argparse.Namespace) -> int:
    cli.need_root()
    say = procedure.stopwatch()
    if procedure.perform(stopping(cli.look(), options.timeout, say), options, say):
        print("stop resource successful")
    return 0


def stopping(site: Site, limit: float, say: Say) -> Plan:
    """The set is disabled, and ends on all nodes. It is not enabled again when that takes longer: a half stopped set is nobody's wish."""
    name, running = site.named.promotable, cli.still_running(site)
    disabled = f"cls_start enables {name} again"
    steps = [
        Step(f"disable {name}", lambda: pacemaker.set_meta(name, "target-role", "Stopped"), site.named.disabled, None, disabled),
        Step(f"wait until nothing of {name} runs", lambda: reach(cli.still_running, limit, say), not running),
    ]
    return Plan([*managed(site), unheld(site)], steps, f"{name} stops on all nodes: nobody reads or writes until cls_start" if running else "")


# ---------------------------------------------------------------- cls_cleanup


def cleanup(argv: Sequence[str]) -> int:
    """cls_cleanup: forget failures."""
    parser = arguments.Parser("cls_cleanup", description="Forget failed actions and fail counts, so that Pacemaker tries again.")
    parser.add_argument("resource", nargs="?", default="", help="only this resource (default: all)")
    procedure.options(parser, timeout=60.0, waits_for="Pacemaker's answer")
    return cli.main(parser, _cleanup, argv)


def _cleanup(options: argparse.Namespace) -> int:
    cli.need_root()
    view = text.view(cli_status.parse(pacemaker.status()))
    if procedure.perform(cleaning(view, options.resource, options.timeout, told=options.dry_run), options):
        for one in forgotten(view, options.resource):
            print(f"forgotten: {one.told}")
        print(f"Cleaned up {options.resource or 'all resources'} on all nodes")
    return 0


def cleaning(view: text.View, resource: str, limit: float, *, told: bool) -> Plan:
    """Failures are forgotten, of one resource or of all; `told`: the step names them, as nobody else does."""
    names = " ".join(one.id for one in view.resources) or "none"
    known = must(
        f"there is a resource {resource}", _exists(view, resource),
        f"there is no resource {resource}, the cluster has: {names}", "leave the name out to clean up all of them",
    )  # fmt: skip
    what = "".join(f"\n          {one.told}" for one in forgotten(view, resource) if told)
    step = Step(
        f"forget failures of {resource or 'all resources'}{what}", lambda: pacemaker.cleanup(resource or None, limit), undo_what="they are in the log"
    )
    return Plan([cli.quorum(), *([known] if resource else [])], [step])


def forgotten(view: text.View, resource: str) -> list[text.FailedAction]:
    """The failures of a resource, or of what is in a clone of that name; of all without a name."""
    named = [one for one in view.resources if resource in {one.id, *(part.id for part in one.instances)}]
    parts = {part.id.partition(":")[0] for one in named for part in one.instances}
    return [one for one in view.failed if not resource or trouble.operation_of(one)[0] in {resource, *parts}]


def _exists(view: text.View, name: str) -> bool:
    return any(name == one.id or any(name == part.id for part in one.instances) for one in view.resources)
