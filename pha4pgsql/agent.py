"""The actions of the pgsql agent: look, let the pure core decide, act, and turn the outcome into an OCF exit code."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Callable

from pha4pgsql import pacemaker, pgsql, postgres, sight, system
from pha4pgsql.ocf import Code, exit_reason, log
from pha4pgsql.rejoin import refusal_file
from pha4pgsql.settings import Settings
from pha4pgsql.site import MOVING, Scope, Site
from pha4pgsql.words import NEVER, Ballot, EnvironmentFailure, Mode, Outcome, Run, Upstream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pha4pgsql.settings import Context

SILENCE_LIMIT = 10.0
"""Seconds for which a live postmaster may stay silent before a monitor calls it failed: slow is not dead."""
STANDBY_SILENCE_LIMIT = 30.0
"""The same for a standby: the primary and the director do without it at once, and a restart ends its readers' sessions."""

UNDER_REPAIR = "a rewind or a copy of this node is at work: PostgreSQL does not run here"


def start(settings: Settings, context: Context) -> int:
    """Start PostgreSQL; in a replicated set always as a standby."""
    site = Site(settings, context, log)
    try:
        return _start(site)
    except EnvironmentFailure as failure:  # an error of this attempt, not a missing installation
        return _code(Outcome(False, str(failure)))


def _start(site: Site) -> int:
    settings, context = site.settings, site.context
    if settings.replicated:
        outcome = Outcome(False, UNDER_REPAIR) if site.under_repair() else _with_its_log(site, site.drive(pgsql.start))
        if not outcome.ok:  # pgwatch repairs only what Pacemaker wants to run
            system.write_file(refusal_file(settings), f"{outcome.reason}\n")
        return _code(outcome)
    run = site.instance(disk=False).run
    if run is Run.DOWN:
        with site.lock():
            if settings.rep_mode is Mode.SLAVE:
                postgres.launch(settings, context.node, Upstream(settings.master_ip, ""), "")
            else:
                postgres.launch_plain(settings)
    while (run := site.instance(disk=False).run) not in (Run.PRIMARY, Run.STANDBY):
        if run is Run.DOWN or site.left < 1:
            return _code(_with_its_log(site, Outcome(False, f"PostgreSQL did not start (it is {run.value}){pgsql.LOG_TELLS}")))
        time.sleep(postgres.POLL)
    return Code.SUCCESS


def _with_its_log(site: Site, outcome: Outcome) -> Outcome:
    """A start that failed after the postmaster was there: with what PostgreSQL said last."""
    reason, known, _ = outcome.reason.partition(pgsql.LOG_TELLS)
    said = postgres.complaint(site.settings) if known else ""
    return outcome._replace(reason=f"{reason}: {said}") if said else outcome


def stop(settings: Settings, context: Context) -> int:
    """End PostgreSQL. What is missing (the server, Pacemaker, a directory) is no failure; a living postmaster is."""
    site = Site(settings, context, log)
    if settings.replicated and site.under_repair():
        log("INFO", UNDER_REPAIR)
        return Code.SUCCESS
    if settings.replicated:
        try:
            return _code(site.drive(pgsql.stop))
        except EnvironmentFailure as failure:
            log("WARNING", f"stop goes on without telling the cluster: {failure.message}")
    if postgres.postmaster(settings) is not None:
        site.shutdown()
    return Code.SUCCESS if postgres.postmaster(settings) is None else _code(Outcome(False, "PostgreSQL did not end"))


def monitor(settings: Settings, context: Context) -> int:
    """Tell the role, and in a replicated set do what has to be done regularly in it."""
    site = Site(settings, context, log)
    if settings.replicated and site.under_repair():
        return Code.NOT_RUNNING
    if _just_promoted(site):
        return Code.RUNNING_PROMOTED
    instance = site.instance(disk=False, patient=True)
    if instance.run is not Run.SILENT:
        postgres.forget_silence(settings)
    if instance.run is Run.DOWN or postgres.postmaster(settings) is None:
        return Code.NOT_RUNNING
    if instance.run is Run.SILENT:
        return silent(site, instance.unread)
    if instance.run in (Run.STARTING, Run.STOPPING):
        return Code.SUCCESS
    if not settings.replicated:
        return _plain(site)
    role = Code.RUNNING_PROMOTED if instance.run is Run.PRIMARY else Code.SUCCESS
    if context.is_probe or not context.in_cluster:
        return role
    if instance.run is Run.PRIMARY and settings.monitor_sql != Settings().monitor_sql and _plain(site) != Code.SUCCESS:
        return Code.ERROR
    try:
        code = _code(site.reign() if instance.run is Run.PRIMARY else _follow(site))
        if code == Code.SUCCESS:
            _chronicle(site)
    except pacemaker.Unreachable as unknown:
        log("WARNING", f"the cluster could not be asked, only the role is reported: {unknown.message}")
        return role
    if settings.check_wal_receiver:
        _receiver_status(site)
    return code or role


def _just_promoted(site: Site) -> bool:
    """Whether `promote` saw this primary a moment ago: its first monitor must not be in the way of the address.

    What there is to tell of it is told a second later, by pgwatch or the next monitor.
    """
    fresh = not site.context.is_probe and site.settings.replicated and site.promoted_since() < MOVING
    return fresh and site.state().reign != NEVER and postgres.postmaster(site.settings) is not None


def _chronicle(site: Site) -> None:
    """Write this node's last promotion into the history, if that is still to be done."""
    if os.path.exists(f"{site.settings.tmpdir}/{site.settings.resource}.promotion"):
        _remember(lambda chronicle: chronicle.record(site))


def _remember(what: Callable[[Any], None]) -> None:
    """Do something for the history, which is for people only: whatever goes wrong with it, no action fails for it."""
    from pha4pgsql import chronicle  # milliseconds that only a change of primary costs

    try:
        what(chronicle)
    except Exception as trouble:  # noqa: BLE001
        log("WARNING", f"the history was not kept: {trouble}")


def _follow(site: Site) -> Outcome:
    """Follow the visible primary by a narrow look; only without one, or to tell why not, the whole cluster is looked at."""
    outcome = site.drive(pgsql.follow_visible, scope=Scope.VOTES)
    return outcome if outcome.ok else site.drive(pgsql.follow)


def _plain(site: Site) -> int:
    """The monitor of an instance without replication by us: the query has to succeed."""
    try:
        with postgres.session(site.settings, timeout=max(1.0, site.left)) as query:
            query(site.settings.monitor_sql)
    except postgres.Silence as failure:
        return _code(Outcome(False, failure.message))
    return Code.SUCCESS


def silent(site: Site, why: str) -> int:
    """A postmaster that lives and does not answer: its role is what it was, until it has been silent for too long.

    One that answers, but does not let the agent in, works for its clients; it would not be better on another node, and is not restarted.
    """
    promoted = site.settings.replicated and bool(site.state().reign.round)
    role = Code.RUNNING_PROMOTED if promoted else Code.SUCCESS
    if postgres.SHUT_OUT.search(why):
        exit_reason(f"not watched any more: {why}")
        if site.context.is_probe:
            return role
        return Code.DEGRADED_PROMOTED if promoted else Code.DEGRADED
    path = postgres.silence_file(site.settings)
    now = time.time()
    try:
        with open(path, encoding="utf-8") as stream:
            since = float(stream.read())
    except (FileNotFoundError, ValueError):
        since = now
        if os.path.isdir(site.settings.tmpdir):
            system.write_file(path, f"{now}\n")
    limit = STANDBY_SILENCE_LIMIT if site.settings.replicated and not promoted else SILENCE_LIMIT
    if now - since >= limit:
        cause = why if "FATAL" in why else "frozen, out of connections, or its disk is full"
        return _code(Outcome(False, f"the postmaster lives but has not answered for {now - since:.0f} s ({cause})"))
    log("WARNING", f"the postmaster lives but does not answer since {now - since:.1f} s; not restarted before {limit:g} s")
    return role


def _receiver_status(site: Site) -> None:
    """Publish `<res>-receiver-status` (parameter check_wal_receiver)."""
    instance = site.instance(disk=False)
    value = "normal (master)" if instance.run is Run.PRIMARY else "normal" if instance.streaming else "ERROR"
    name = f"{site.settings.resource}-receiver-status"
    if pacemaker.attributes(name).get(site.context.node) != value:
        pacemaker.publish(name, value)


def promote(settings: Settings, context: Context) -> int:
    """Become primary, if the election is won."""
    site = Site(settings, context, log)
    with site.reigning():
        outcome = site.drive(pgsql.promote)
    if outcome.ok:
        _remember(lambda chronicle: chronicle.promoted(site, outcome.reason))
    return _code(outcome)


def demote(settings: Settings, context: Context) -> int:
    """Become a standby."""
    site = Site(settings, context, log)
    _remember(lambda chronicle: chronicle.ends(settings, site.state()))
    try:
        with site.ending():
            return _code(site.drive(pgsql.demote, scope=Scope.ALONE))
    except EnvironmentFailure as failure:
        if postgres.postmaster(settings) is not None or site.state().reign != NEVER:
            raise
        log("WARNING", f"demoted, but not running as a standby: {failure}")
        return Code.SUCCESS  # the reign is put away; that PostgreSQL is down is for the next monitor to say


def notify(settings: Settings, context: Context) -> int:
    """What a node does when another one starts, stops, is promoted or demoted. A notification's exit code is ignored by Pacemaker.

    Every notification is waited for by the whole cluster, so each does only what cannot wait for the next monitor.
    """
    told, site = context.notify, Site(settings, context, log)
    if told.event == "pre-promote" and told.promote:
        candidate = told.promote[0]
        if site.context.node not in (*settings.members, *site.state().roster.elects.members):  # who is to leave still answers
            return Code.SUCCESS
        outcome = site.drive(lambda scene: pgsql.answer(scene, Ballot(scene.round, candidate)), scope=Scope.BALLOT)
    else:
        outcome = _hear(site, told.event, getattr(told, told.operation, ()))  # ocf-tester names no operation
    if outcome.reason:
        log("INFO" if outcome.ok else "WARNING", outcome.reason)
    return Code.SUCCESS


def _hear(site: Site, event: str, nodes: tuple[str, ...]) -> Outcome:
    """A standby follows a new primary, or stands when nobody else does; a primary looks after a standby that came or went.

    Files tell most of what has to be known; a session with the server costs as much as all the rest.
    """
    if event in ("post-start", "post-stop") and site.state().reign != NEVER:
        return site.reign() if site.instance(disk=False).run is Run.PRIMARY else Outcome(True)
    source = postgres.upstream(site.settings)
    followed = event == "post-promote" and source is not None and source.node == nodes[0]
    own = site.context.node in nodes
    awaited = event in ("post-demote", "post-stop") and not own and _somebody_stands(site, nodes)
    if event == "post-start" or followed or awaited or own:
        return Outcome(True)
    return site.drive(pgsql.follow) if site.instance(disk=False).run is Run.STANDBY else Outcome(True)


def _somebody_stands(site: Site, gone: tuple[str, ...]) -> bool:
    """Whether a member other than those that just went has a promotion score above 0."""
    scores = pacemaker.attributes(f"master-{site.settings.resource}")
    return any(node not in gone and sight.positive(value) for node, value in scores.items())


def _code(outcome: Outcome) -> int:
    """The exit code of an outcome, with its reason where a person looks for it."""
    if outcome.ok:
        if outcome.reason:
            log("INFO", outcome.reason)
        return Code.SUCCESS
    exit_reason(outcome.reason)
    return Code.ERROR


ACTIONS: Mapping[str, Callable[[Settings, Context], int]] = {
    "start": start,
    "stop": stop,
    "monitor": monitor,
    "promote": promote,
    "demote": demote,
    "notify": notify,
}
