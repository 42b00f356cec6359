"""One repair of this node: its database becomes a copy of the primary's, by pg_rewind or by pg_basebackup, under the mark in the state file.

Layer 3. docs/safety.md, rule 10. The order is what keeps commits safe, whoever asks (a command, pgwatch) and whenever it is interrupted:
PostgreSQL down and the mark stored; the bytes; the proof that they are the primary's of the term that was stored (it alone has the slot of that
term); the mark taken away. A lock that ends with its holder keeps a second repair off. A clone grows beside the data directory and takes its
place when it is complete, so until then an interruption costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Callable, NamedTuple

from pha4pgsql import copies, copying, pacemaker, paths, postgres, replicas, sight, system, wal
from pha4pgsql.settings import Context, Settings
from pha4pgsql.site import Scope, Site
from pha4pgsql.vote import divergence
from pha4pgsql.words import ClusterRefusal, EnvironmentFailure, Failure, Lsn, State, Vote

if TYPE_CHECKING:
    from pha4pgsql.copies import Progress
    from pha4pgsql.words import Procedure, Scene

    Say = Callable[[str], None]

FUNCTIONS = (
    "pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)",
)  # fmt: skip
"""What a role that is no superuser needs for pg_rewind (its manual page, Notes)."""

CLEAN = ("shut down", "shut down in recovery")
LETTING_IN = 30.0
"""Seconds a primary has to make the slot for a node which shows that it has adopted its terms: its pgwatch looks every second."""
RECOVERY = 6 * 3600.0
"""Seconds a crash recovery may take."""
STEP = 5
"""Per cent between two publications of progress: each is a change of the CIB."""
SHORT = 200
"""Characters of a reason that a node attribute shows."""
A_COPY = "a copy"
"""How the mark of a clone begins, and with it what lies in the tablespaces' places: they were empty before it."""
SIDE, ASIDE = ".copy", ".before-"
"""What stands behind the data directory's name in that of a growing copy, and of one that was moved aside."""

FACTS = f"""
select current_setting('server_version_num')::int / 10000, pg_is_in_recovery(), (select timeline_id from pg_control_checkpoint()),
  (select sum(case when has_database_privilege(datname, 'CONNECT') then pg_database_size(oid) else 0 end) from pg_database)::bigint,
  (select setting::bigint * 1048576 from pg_settings where name = 'wal_keep_size'),
  (select coalesce(string_agg(nullif(pg_tablespace_location(oid), ''), chr(10)), '') from pg_tablespace),
  {" and ".join(f"has_function_privilege('pg_catalog.{name}', 'execute')" for name in FUNCTIONS)}
"""  # noqa: S608  our own words


class Wish(NamedTuple):
    """How the node is repaired. `source`: a standby to copy from, empty for the primary; `rate`: pg_basebackup's --max-rate.

    `discard`: delete the old data, and what earlier repairs have kept, before the copy. `keep`: a directory for the WAL that a rewind throws away.
    """

    rewind: bool
    source: str = ""
    rate: str = ""
    discard: bool = False
    keep: str = ""

    @property
    def kind(self) -> str:
        return "rewind" if self.rewind else "rebuild"


class Facts(NamedTuple):
    """What the primary says of itself, and of the rights of the replication role (`rewinds`)."""

    major: int
    in_recovery: bool
    timeline: int
    size: int
    wal_kept: int
    places: str
    rewinds: bool

    @property
    def tablespaces(self) -> list[str]:
        """Where the tablespaces are, there and on every standby."""
        return self.places.splitlines()


class Busy(ClusterRefusal):
    """Another repair of this node is at work."""


def grants(settings: Settings, major: int) -> list[str]:
    """The statements, on the primary in the database postgres, that make the replication role sufficient for pg_rewind."""
    role = '"' + settings.repuser.replace('"', '""') + '"'
    lines = [f"GRANT EXECUTE ON FUNCTION pg_catalog.{name} TO {role};" for name in FUNCTIONS]
    return lines + ([f"GRANT pg_checkpoint TO {role};"] if major >= 15 else [])


def fresh(settings: Settings, node: str, seconds: float = 60.0) -> Site:
    """The node, for one decision; only what goes wrong is told."""
    return Site(settings, Context("repair", settings.resource, node, timeout=seconds, started=time.monotonic()), lambda *_: None)


def conninfo(settings: Settings, host: str) -> str:
    """How one node is reached as the replication role: by its own address, never by one that moves. No password is in it."""
    base = f"host={host} port={settings.pgport} user={settings.repuser} dbname=postgres connect_timeout=5"
    return f"{base} keepalives_idle=5 keepalives_interval=2 keepalives_count=3 {settings.primary_conninfo_opt}".strip()


def facts(settings: Settings, primary: str, timeout: float = 10.0) -> Facts:
    """Ask the primary; `replicas.Unanswered` when it says nothing, or no."""
    return Facts(*replicas.ask(conninfo(settings, primary), FACTS, passfile=settings.passfile, timeout=timeout)[0])


def tell(settings: Settings, failure: str) -> None:
    """Say in the attribute that shows progress why a repair failed, or nothing any more."""
    with contextlib.suppress(Failure):
        pacemaker.publish(f"{settings.resource}-repair", f"failed - {failure}"[:SHORT] if failure else None)


def abandoned(settings: Settings, node: str) -> None:
    """Correct what is shown of a repair that ended without a word (SIGKILL): it is not at work any more, and nobody else would say so."""
    shown = pacemaker.attributes(f"{settings.resource}-repair").get(node, "")
    if shown and not shown.startswith("failed"):
        tell(settings, "it was killed, and left half a copy")


class Repair:
    """One repair, from the lock to the end of the mark."""

    def __init__(self, settings: Settings, node: str, wish: Wish, say: Say, hear: Callable[[Progress], None] = lambda _: None) -> None:
        self.settings, self.node, self.wish, self.say, self.hear = settings, node, wish, say, hear
        self.primary = ""
        self._vote = Vote()
        self._before = State()
        self._mark = ""
        self._told = -STEP
        self._needed = True
        self._lock = contextlib.ExitStack()
        self._handle: list[int] = []

    # -- the lock ------------------------------------------------------------------------------------------------

    def acquire(self) -> None:
        """Take the lock. It is asked for a moment: whoever looks whether it is taken takes it, too."""
        deadline = time.monotonic() + 1.0
        while not self._handle:
            handle = self._lock.enter_context(fresh(self.settings, self.node).repairing())
            if handle is not None:
                self._handle = [handle]
            elif time.monotonic() > deadline:
                text = self.progress() or "no progress is published yet"
                raise Busy(f"another repair of {self.node} is at work ({text})", "wait until it has ended; cls_status shows how far it is")
            else:
                self._lock.close()
                time.sleep(postgres.POLL)

    def release(self) -> None:
        """Give the lock back: from now on processes of PostgreSQL here are a server again."""
        self._handle = []
        self._lock.close()

    # -- progress ------------------------------------------------------------------------------------------------

    def progress(self) -> str:
        """What is published of a repair of this node."""
        with contextlib.suppress(pacemaker.Unreachable):
            return pacemaker.attributes(f"{self.settings.resource}-repair").get(self.node, "")
        return ""

    def publish(self, percent: int, detail: str) -> None:
        """KIND PERCENT DETAIL, for people; whether it gets through is of no importance to the repair."""
        with contextlib.suppress(Failure):
            pacemaker.publish(f"{self.settings.resource}-repair", f"{self.wish.kind} {percent} {detail}")

    def settle(self, failure: str = "") -> None:
        """The end: no progress any more, or why it failed."""
        tell(self.settings, f"{self.wish.kind}: {failure}" if failure else "")

    def _line(self, line: str) -> None:
        found = copies.progress(line)
        if found is None:
            if line:
                self.say(line)
            return
        self.hear(found)
        if found.percent >= self._told + STEP:
            self._told = found.percent
            self.publish(found.percent, f"from {self.wish.source or self.primary}")

    # -- before the first byte -----------------------------------------------------------------------------------

    def _decide(self, make: Callable[[Scene], Procedure], *, copy: bool = False, seconds: float = 60.0) -> None:
        outcome = fresh(self.settings, self.node, seconds).drive(make, scope=Scope.VOTES, copy=copy)
        if not outcome.ok:
            raise ClusterRefusal(outcome.reason)

    def recover(self) -> None:
        """Bring a database that was not shut down cleanly to a clean end: as a standby of nobody, which writes no WAL of its own."""
        control = postgres.controldata(self.settings)
        if control is not None and control.state in CLEAN:
            return
        self.publish(0, "crash recovery")
        self.say("crash recovery first: the database was not shut down cleanly")
        self._decide(copying.recover, seconds=RECOVERY)

    def try_rewind(self) -> None:
        """Let pg_rewind say whether it can, before anything is changed."""
        self._catch_up()
        try:
            self._needed = self._rewind(dry=True)
        except EnvironmentFailure as failure:
            raise ClusterRefusal(f"{failure.message}; nothing was changed", "cls_rebuild_slave copies the primary anew") from failure

    def _catch_up(self) -> None:
        """See that the primary's control file shows its own timeline: that of one promoted a moment ago does not, before a checkpoint."""
        here = fresh(self.settings, self.node)
        scene = here.look(here.instance(disk=False), scope=Scope.VOTES)
        self.primary = sight.reigning(scene) or self.primary
        wanted = max((era.timeline for era in scene.vote(self.primary).eras), default=0)
        deadline = time.monotonic() + LETTING_IN
        while (seen := facts(self.settings, self.primary)).timeline < wanted:
            with contextlib.suppress(replicas.Unanswered):
                replicas.ask(conninfo(self.settings, self.primary), "checkpoint", passfile=self.settings.passfile, timeout=LETTING_IN)
            if time.monotonic() > deadline:
                raise ClusterRefusal(
                    f"the last checkpoint of {self.primary} is on timeline {seen.timeline}, expected {wanted}: pg_rewind would not see where it is",
                    f"on {self.primary}: psql -c checkpoint; or let the role do it: {grants(self.settings, seen.major)[-1]}",
                )
            time.sleep(postgres.POLL)

    def _rewind(self, *, dry: bool) -> bool:
        settings = self.settings
        restore = bool(settings.restore_command) and (paths.data_version(settings.datadir) or 0) >= 15
        if restore:
            postgres.write_recovery(settings, self.node, None)
            postgres.write_config(settings, replicated=True)
        source = f"{conninfo(settings, self.primary)} passfile={settings.passfile} application_name=pg_rewind"
        hear = self._line if not dry else (lambda _: None)
        return copies.rewind(settings, source, hear, dry=dry, restore=restore, keep=self._handle)

    def begin(self) -> None:
        """Store the mark, with PostgreSQL down: from here on this node is no member that holds anything."""
        kind, when = "pg_rewind" if self.wish.rewind else A_COPY, time.strftime("%Y-%m-%d %H:%M:%S")

        def make(scene: Scene) -> Procedure:
            self.primary = sight.reigning(scene)
            self._vote, self._before = scene.vote(self.primary), scene.state
            self._mark = f"{kind} of {self.primary} began at {when} and has not ended"
            return copying.begin_copy(scene, self._mark, rewind=self.wish.rewind)

        self._decide(make, seconds=self.settings.stop_escalate_in_slave + 30.0)
        self.publish(0, f"from {self.wish.source or self.primary}")

    def undo(self) -> None:
        """Nothing was copied: the mark goes, and the terms of before are back."""
        self._decide(lambda scene: copying.undo_copy(scene, self._mark, self._before))

    # -- whose copy it is ----------------------------------------------------------------------------------------

    @property
    def slot(self) -> str:
        return sight.slot_name(self.settings.replication_slot_name, self._vote.reign, self.node)

    def prove(self, limit: float = LETTING_IN) -> None:
        """The primary has the slot of the stored term for this node: it reigns by that term now, and so it did since the mark was stored.

        A node drops such slots when it is demoted or starts, and no ballot is won twice.
        """
        deadline, why = time.monotonic() + limit, f"it made no slot {self.slot} for this node"
        statement = f"select pg_is_in_recovery(), exists (select from pg_replication_slots where slot_name = '{self.slot}')"  # noqa: S608
        while True:
            try:
                [(standby, there)] = replicas.ask(conninfo(self.settings, self.primary), statement, passfile=self.settings.passfile, timeout=5.0)
                if there and not standby:
                    return
            except replicas.Unanswered as silent:
                why = silent.message
            if time.monotonic() > deadline:
                raise ClusterRefusal(f"{self.primary} did not show within {limit:g} s that it reigns by term {self._vote.reign}: {why}")
            time.sleep(0.1)

    def check_source(self) -> None:
        """A standby may be the source while it streams from this primary, and holds WAL of its term: what comes later is seen in the copy."""
        if not self.wish.source or self.wish.source == self.primary:
            return
        slot = sight.slot_name(self.settings.replication_slot_name, self._vote.reign, self.wish.source)
        statement = f"select active, restart_lsn::text from pg_replication_slots where slot_name = '{slot}'"  # noqa: S608
        rows = replicas.ask(conninfo(self.settings, self.primary), statement, passfile=self.settings.passfile)
        start = self._vote.eras[-1].start if self._vote.eras else Lsn(0)
        if not rows or not rows[0][0] or not rows[0][1] or Lsn.parse(rows[0][1]) <= start:
            raise ClusterRefusal(
                f"{self.wish.source} does not stream from {self.primary}, or has nothing of its term {self._vote.reign} yet: not a source",
                "choose another node for --from, or leave it out",
            )

    # -- the bytes -----------------------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Rewind, under the mark. What fails after the first byte leaves a directory that only a clone makes whole (manual, pg_rewind, Warning)."""
        files = copies.own_files(self.settings.datadir)
        self._keep()
        self.begin()
        try:
            if not self._needed:
                self.say("no page was changed after the histories parted: the rest of the WAL goes by a rewind all the same")
                copies.recover_alone(self.settings, keep=self._handle)
            self._rewind(dry=False)
            copies.lay_own_files(self.settings.datadir, self.settings.pgdba, files)
            self._drop_slots()
            copies.drop_later(self.settings.datadir, max((era.timeline for era in self._vote.eras), default=1))
            self.prove()
            self._end()
            self.say("pg_rewind complete!")
        except Failure as failure:
            raise ClusterRefusal(
                failure.message, failure.hint or "cls_rebuild_slave copies the primary anew: half a rewind cannot be used"
            ) from failure

    def _keep(self) -> None:
        """Copy the WAL from the point where the histories parted on to where the operator wants it, with a list of its records."""
        if not self.wish.keep:
            return
        here = fresh(self.settings, self.node)
        scene = here.look(scope=Scope.VOTES)
        fork = divergence(scene.state.eras, scene.instance.lsn or Lsn(0), scene.vote(sight.reigning(scene)).eras)
        control = postgres.controldata(self.settings)
        if fork is None or control is None:
            return
        os.makedirs(self.wish.keep, mode=0o700, exist_ok=True)
        first = wal.segment_name(scene.instance.timeline, fork.at, control.wal_segment_size)
        folder = f"{self.settings.datadir}/pg_wal"
        names = sorted(name for name in os.listdir(folder) if len(name) == len(first) and name[8:] >= first[8:])
        for name in names:
            shutil.copy2(f"{folder}/{name}", self.wish.keep)
        span = ["-s", str(fork.at), "-e", str(scene.instance.lsn), first]
        argv = [self.settings.program("pg_waldump"), "-p", folder, "-t", str(scene.instance.timeline), *span]
        listing = system.run(argv, user=self.settings.pgdba, timeout=60, keep=(1 << 20, 0))
        system.write_file(f"{self.wish.keep}/records.txt", listing.out)
        self.say(f"kept in {self.wish.keep}: {len(names)} WAL segments from {fork.at} on, and records.txt, what pg_waldump tells of them")

    def _drop_slots(self) -> None:
        """No slot of the former primary outlives it: on a standby it would hold back WAL for ever."""
        folder = f"{self.settings.datadir}/pg_replslot"
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            shutil.rmtree(f"{folder}/{name}", ignore_errors=True)

    def clone(self) -> None:
        """Copy anew, under the mark, beside what is there; then the copy takes its place."""
        place = os.path.realpath(self.settings.datadir)
        mounted = os.path.ismount(place)
        side = place if mounted else f"{place}{SIDE}"
        untouched, files = True, copies.own_files(place)
        spaces: list[str] = []
        self.begin()
        try:
            self.check_source()
            self.prove()
            spaces = self._free_tablespaces()
            if self.wish.discard:
                untouched = False
                self._discard(place)
            copies.empty(side, self.settings.pgdba)
            self._base_backup(side)
            copies.lay_own_files(side, self.settings.pgdba, files)
            self.prove(5.0)
        except BaseException:
            if untouched:
                shutil.rmtree(side, ignore_errors=True)
                for folder in spaces:
                    copies.clear_tablespace(folder)
                self.undo()
            raise
        if not mounted:
            self._replace(place, side)
        self._end()

    def _free_tablespaces(self) -> list[str]:
        """The tablespaces' places that the copy may fill, emptied of what it may delete there."""
        found = facts(self.settings, self.primary)
        taken = occupied(self.settings, found, self._before, discard=self.wish.discard)
        free = [folder for folder in found.tablespaces if folder not in taken]
        for folder in free:
            copies.clear_tablespace(folder)
        return free

    def _discard(self, place: str) -> None:
        for folder in moved_aside(place):
            self.say(f"deleting {folder}")
            shutil.rmtree(folder)
        copies.empty(place, self.settings.pgdba)

    def _base_backup(self, side: str) -> None:
        source = self.wish.source or self.primary
        slot = ["-S", self.slot] if source == self.primary else []  # on a standby a temporary one
        rate = ["--max-rate", self.wish.rate] if self.wish.rate else []
        copies.base_backup(
            self.settings, f"{conninfo(self.settings, source)} passfile={self.settings.passfile} application_name=pg_basebackup", side,
            [*slot, *rate], self._line, keep=self._handle,
        )  # fmt: skip

    def _replace(self, place: str, side: str) -> None:
        """The old directory goes aside, the copy takes its name."""
        if os.path.isdir(place) and os.listdir(place):
            aside = f"{place}{ASIDE}{time.strftime('%Y%m%d-%H%M%S')}"
            os.rename(place, aside)
            self.say(f"what was in {place} is now {aside}; delete it when nobody needs it")
        elif os.path.isdir(place):
            os.rmdir(place)
        os.rename(side, place)
        copies.sync(os.path.dirname(place))

    def _end(self) -> None:
        self._decide(lambda scene: copying.end_copy(scene, self._mark, self._vote.system_identifier), copy=True)
        self.settle()

    # -- the whole -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """What pgwatch does in the background."""
        if self.wish.rewind:
            self.recover()
            self.try_rewind()
            self.rewind()
        else:
            self.clone()


def moved_aside(datadir: str) -> list[str]:
    """What earlier repairs have kept of this data directory, oldest first."""
    place = os.path.realpath(datadir)
    folder, name = os.path.split(place)
    return sorted(f"{folder}/{found}" for found in os.listdir(folder) if found.startswith(f"{name}{ASIDE}")) if os.path.isdir(folder) else []


def occupied(settings: Settings, found: Facts, state: State, *, discard: bool) -> list[str]:
    """The tablespaces' places in which something is that a clone may not delete; pg_basebackup wants them empty.

    It may delete what half a clone has left there, and with `discard` what belongs to the data that are deleted, too.
    """
    half = state.mark.startswith(A_COPY)
    own = copies.tablespaces_of(settings.datadir) if discard else []
    return [
        folder for folder in found.tablespaces
        if any(not ((half or os.path.realpath(folder) in own) and copies.is_tablespace(item.name)) for item in copies.entries(folder))
    ]  # fmt: skip


def room(settings: Settings, *, discard: bool) -> int:
    """The bytes that a clone may fill."""
    place = os.path.realpath(settings.datadir)
    return copies.free(place) + copies.used([f"{place}{SIDE}", *([place, *moved_aside(place)] if discard else [])])


def unsuited(settings: Settings) -> str:
    """Why pg_rewind cannot work on this database, by its control file, or empty."""
    control = postgres.controldata(settings)
    if control is None:
        return f"{settings.datadir} cannot be read as a database"
    if not control.wal_log_hints and not control.checksums:
        return "neither wal_log_hints nor data checksums were on here, and pg_rewind needs one of them"
    return ""
