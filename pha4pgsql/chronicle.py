"""Who was primary when and why, written down by the nodes themselves: how a reign ended, what a promotion saw, and the record in the cluster.

Layer 3. All of it is for people: no decision reads a word of it, and whatever goes wrong here is logged and changes nothing. Nothing is written while
nothing changes. What is on the way of a failover costs the writing of one small file; the rest waits until the new primary has its address.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from pha4pgsql import history, pacemaker, postgres, sight, system, text
from pha4pgsql.history import Ended, Evidence, Note, Record
from pha4pgsql.words import NEVER, Lsn, Run, Wish

if TYPE_CHECKING:
    from pha4pgsql.settings import Settings
    from pha4pgsql.site import Site
    from pha4pgsql.words import Era, State

HEAR = 3.0
"""Seconds after a promotion for which Pacemaker is left in peace."""
HEAR_AT_MOST = 12.0
"""The same while the old primary's word, a confirmation or the writer address has not come yet."""
LIMIT = 3.0
"""Seconds for one question."""
FENCED_ABOUT = 120.0
"""Seconds between a promotion and a fencing that belong together."""
FRESH_FAILURE = 60.0
"""Seconds before a promotion in which a failed action may be its cause."""


def _path(settings: Settings, what: str) -> str:
    return f"{settings.tmpdir}/{settings.resource}.{what}"


def _write(path: str, content: str) -> None:
    """Replace a file, not durably: a disk's flush would make a failover longer for the sake of a memory."""
    with open(f"{path}.new", "w", encoding="utf-8") as stream:
        stream.write(content)
    os.replace(f"{path}.new", path)


# ---------------------------------------------------------------- the old primary


def ends(settings: Settings, state: State) -> None:
    """Note how this node's reign ends, before anything is done about it. Nothing where none is, or where it is noted already."""
    if state.reign == NEVER or postgres.read_text(_path(settings, "ended")).startswith(f"{state.reign} "):
        return
    gone = postgres.postmaster(settings) is None
    how = history.DIED if gone else history.SILENT if os.path.exists(postgres.silence_file(settings)) else history.ASKED
    with suppress(OSError):
        _write(_path(settings, "ended"), history.ended_text(Ended(str(state.reign), time.time(), how)))


def tell_end(settings: Settings) -> None:
    """Show the others what `ends` noted, once."""
    path, told = _path(settings, "ended"), _path(settings, "ended.told")
    if not os.path.exists(path):
        return
    said = postgres.read_text(path)
    if said != postgres.read_text(told):
        pacemaker.publish(f"{settings.resource}-ended", said.strip(), private=True)
        _write(told, said)


# ---------------------------------------------------------------- the new one


def promoted(site: Site, outcome: str) -> None:
    """Note what the promotion saw, once for each. `outcome` is its note: commits that wait are not confirmed."""
    state, path = site.state(), _path(site.settings, "promotion")
    term = str(state.reign)
    noted = [postgres.read_text(file).partition("\n")[0] for file in (path, f"{path}.recorded")]
    if state.reign == NEVER or not state.eras or f"term={term}" in noted:
        return
    past = [era for era in state.eras if era.term not in {NEVER, state.reign}]
    old, named = past[-1].term if past else NEVER, site.cluster.properties.get(f"{site.settings.resource}_REPL_INFO", "|") if site.cluster else "|"
    member = site.cluster.members.get(old.node) if site.cluster else None
    wish = Wish.parse(member.attributes.get(f"{site.settings.resource}-switch", "")) if member else None
    note = Note(
        term,
        time.time() - site.elapsed,
        0.0 if "commits wait" in outcome else time.time(),
        old.node,
        str(old) if past else "",
        member is not None and member.online,
        member is None or member.expected,
        member is not None and member.standby,
        "|" not in named,
        wish is not None and (wish.target, wish.term) == (site.context.node, old),
        " ".join(ban.resource for ban in site.cluster.bans if ban.node == old.node) if site.cluster else "",
    )
    with suppress(OSError):
        _write(path, history.note_text(note))


def record(site: Site) -> None:
    """Write the record of this node's last promotion, once, when what is known of it has arrived: by its reign, or after that has ended."""
    from xml.etree import ElementTree

    settings, path = site.settings, _path(site.settings, "promotion")
    note = history.parse_note(postgres.read_text(path)) if os.path.exists(path) else None
    if note is None or time.time() - (note.confirmed or note.begun) < HEAR:
        return
    state = site.state()
    reigns = note.term == str(state.reign)
    if reigns and not note.confirmed:
        note = _now_confirmed(site, note)
    ended = history.parse_ended(pacemaker.attributes(f"{settings.resource}-ended", LIMIT).get(note.old, "")) if note.old else None
    ended = ended if ended and ended.term == note.old_term else None
    tree = ElementTree.fromstring(pacemaker.cib(LIMIT))  # noqa: S314
    writers = next((one.writers for one in text.replicated_sets(tree) if one.primitive == settings.resource), {})
    address = text.started_at(tree, site.context.node, writers) if reigns else 0.0
    heard = bool(ended) or not note.online or note.old in {"", site.context.node}
    if reigns and not (heard and note.confirmed and (address or not writers)) and time.time() - note.begun < HEAR_AT_MOST:
        return
    era = next((era for era in state.eras if str(era.term) == note.term), None)
    if era is not None:  # else its timeline did not survive: nobody was promoted
        _record(site, tree, era, Evidence(site.context.node, note, ended, address=address))
    os.replace(path, f"{path}.recorded")


def _now_confirmed(site: Site, note: Note) -> Note:
    """Commits waited at the end of the promotion; they have been confirmed since when enough standbys have flushed records of this reign."""
    scene = site.look(site.instance(disk=False))
    if scene.instance.run is not Run.PRIMARY or not scene.state.eras:
        return note
    begin = scene.state.eras[-1].start
    enough = sum(one.flush is not None and one.flush > begin for one in sight.followers_of(scene)) >= scene.rules.confirming.k
    return note._replace(confirmed=time.time()) if enough or not scene.instance.names else note


def _record(site: Site, tree: text.Tree, era: Era, seen: Evidence) -> None:
    """Gather the rest, judge, and write: one property comes, those beyond the bound go."""
    settings, note = site.settings, seen.note
    known = history.records(text.cluster(tree).properties, settings.resource)
    last_commit, fresh = _past(site, note)
    failure, banned = _failure(tree, settings.resource, note), _banned(tree, settings.resource, note)
    seen = seen._replace(fenced=_fenced(note), failure=failure, fresh=fresh, last_commit=last_commit, banned=banned)
    parent = next((parent for timeline, parent, _ in postgres.histories(settings) if timeline == era.timeline), era.timeline - 1)
    least, most = history.outage(seen)
    at, why = note.confirmed or note.begun, history.cause(seen)
    made = Record(note.term, at, seen.node, note.old, era.timeline, parent, str(Lsn(era.start)), least, most, why)
    changes: dict[str, str | None] = {history.record_name(settings.resource, term): None for term in history.surplus(known)}
    changes[history.record_name(settings.resource, made.term)] = history.record_text(made)
    pacemaker.set_permanent({}, changes, set_id=history.set_id(settings.resource), timeout=LIMIT)
    site.log("INFO", f"recorded: {made.node} is primary of term {made.term} since timeline {made.timeline}: {made.cause}")


def _past(site: Site, note: Note) -> tuple[float, bool]:
    """When the last transaction before the promotion was committed (0: not known), and whether this server had received nothing since its start.

    Only the server that was promoted knows: one that was started since then remembers its own recovery.
    """
    if note.term != str(site.state().reign):
        return 0.0, False
    with postgres.session(site.settings, timeout=LIMIT) as query:
        row = query(PAST)[0]
    return float(row["last_commit"] or 0), bool(row["fresh"])


PAST = """
select extract(epoch from pg_last_xact_replay_timestamp())::float8 as last_commit, pg_last_wal_receive_lsn() is null as fresh
"""
"""Both stay what they were when recovery ended (PostgreSQL manual, 9.28.4 Recovery Information Functions)."""


def _fenced(note: Note) -> bool:
    """Whether the old primary's node was fenced about then."""
    if not note.old or note.online:
        return False
    done = system.run(["stonith_admin", "--history", note.old, "--output-as=xml"], timeout=LIMIT)
    events = (one for one in text.elements(done.out, "fence_event") if one.get("status") == "success" and one.get("target") == note.old)
    return any(abs(_epoch(one.get("completed", "")) - note.begun) < FENCED_ABOUT for one in events)


def _epoch(when: str) -> float:
    """A time as stonith_admin writes it (`2026-11-30 09:18:09Z`, or with an offset) in seconds since 1970; 0 for anything else."""
    from datetime import datetime, timezone

    try:
        found = datetime.fromisoformat(when.replace("Z", "+00:00").replace(" +", "+").replace(" -", "-"))
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def _banned(tree: text.Tree, resource: str, note: Note) -> bool:
    """Whether what was banned was the set, by whatever name it has, and no address of it."""
    names = {name for one in text.replicated_sets(tree) if one.primitive == resource for name in (one.promotable, one.primitive)}
    return bool(names & set(note.banned.split()))


def _failure(tree: text.Tree, resource: str, note: Note) -> str:
    """What failed of the resource on the old primary's node shortly before the promotion began, with the agent's reason."""
    for node, operation, reason, at in text.failed_operations(tree, resource):
        if node == note.old and note.begun - FRESH_FAILURE <= at <= note.begun + 1:
            return f"{operation} failed on {node}: {reason or 'no reason was given'}"
    return ""
