"""One PostgreSQL instance: observe it in one statement, start it, stop it, promote it, point it at an upstream.

What "could not find out" looks like here: `Run.SILENT` for a live postmaster that does not answer in time, `lsn=None`
for an end of WAL that could not be read. Neither is ever taken for "dead" or "nothing".
"""

from __future__ import annotations

import os
import pwd
import re
import select
import signal
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pha4pgsql import system, text, wal
from pha4pgsql.words import EnvironmentFailure, Follower, Instance, Lsn, Run, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from psycopg2.extensions import connection as Connection  # noqa: N812  a class in spite of its name

    from pha4pgsql.settings import Settings

POLL = 0.02
"""Seconds between two looks at a process that starts or ends."""
MUTE = 0.4
"""Seconds for which a client may say nothing while the server shuts down."""

OBSERVE = """
select pg_is_in_recovery() as standby,
  (select system_identifier::text from pg_control_system()) as system_identifier,
  c.checkpoint_lsn::text as checkpoint,
  case when pg_is_in_recovery() then greatest(c.timeline_id, r.min_recovery_end_timeline, w.received_tli)
       else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int end as timeline,
  case when pg_is_in_recovery() then pg_last_wal_receive_lsn()::text end as received,
  case when pg_is_in_recovery() then pg_last_wal_replay_lsn()::text else pg_current_wal_flush_lsn()::text end as position,
  exists (select from pg_stat_activity where backend_type = 'walreceiver') as receiving,
  coalesce(w.status = 'streaming', false) as streaming,
  current_setting('synchronous_standby_names') as names,
  current_setting('primary_conninfo') as conninfo,
  current_setting('config_file') as config_file,
  (select setting::bigint from pg_settings where name = 'wal_segment_size') as segment_size,
  array(select array[a.application_name, a.state, a.sync_state, a.flush_lsn::text, s.slot_name, a.sync_priority::text]
        from pg_stat_replication a left join pg_replication_slots s on s.active_pid = a.pid order by a.pid) as followers,
  array(select slot_name::text from pg_replication_slots where slot_type = 'physical') as slots
from pg_control_checkpoint() c, pg_control_recovery() r left join pg_stat_wal_receiver w on true
"""
"""All that the agent wants to know, in one statement, so that it is true of one moment. PostgreSQL 13 to 18."""

_STATUS = {"starting": Run.STARTING, "stopping": Run.STOPPING, "standby": Run.STARTING}
_TARGETS = ("recovery_target", "recovery_target_name", "recovery_target_time", "recovery_target_xid", "recovery_target_lsn")
_OVERRIDING = ("primary_conninfo", "primary_slot_name", "synchronous_standby_names", "restore_command", "recovery_target_timeline", *_TARGETS)


class Postmaster(NamedTuple):
    """What postmaster.pid says of a live postmaster (PostgreSQL source, miscadmin.h, LOCK_FILE_LINE_*)."""

    pid: int
    port: int
    socket: str
    listen: str
    status: str


# -- processes ---------------------------------------------------------------------------------------------------


def postmaster(settings: Settings) -> Postmaster | None:
    """The live postmaster of the data directory, or None. A recycled process number is not taken for it, nor is a single-user server (-PID)."""
    try:
        with open(f"{settings.datadir}/postmaster.pid", encoding="utf-8") as stream:
            lines = [line.strip() for line in stream] + [""] * 8
        pid = int(lines[0])
        if pid < 0 or not os.path.samefile(f"/proc/{pid}/cwd", settings.datadir) or _is_zombie(pid):
            return None
    except (OSError, ValueError):
        return None
    return Postmaster(pid, int(lines[3] or settings.pgport), lines[4], lines[5], lines[7])


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        return stream.read().rpartition(")")[2].split()[0] in "ZX"


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stream:
                    parent = stream.read().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == pid:
                found.append(int(name))
    return found


def remains(settings: Settings) -> list[int]:
    """Server processes that live in the data directory. Those of a killed postmaster may still write WAL and send it."""
    found = []
    for name in os.listdir("/proc"):
        try:
            server = name.isdigit() and os.readlink(f"/proc/{name}/exe").rpartition("/")[2].split()[0] == "postgres"
            if server and os.path.samefile(f"/proc/{name}/cwd", settings.datadir) and not _is_zombie(int(name)):
                found.append(int(name))
        except OSError:
            continue
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        return not _is_zombie(pid)
    except OSError:
        return False


def _import_driver() -> None:
    """Import psycopg2 without Python's own ssl, a third of the cost, which it looks for only to share locks of OpenSSL before 1.1 with it.

    Where there is no such module it leaves them to libpq (its libcrypto_threads_init).
    """
    if "psycopg2" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        import psycopg2  # noqa: F401
    finally:
        del sys.modules["ssl"]


# -- sessions ----------------------------------------------------------------------------------------------------


class Silence(EnvironmentFailure):
    """A live PostgreSQL did not answer before the deadline, or refused the session."""


SHUT_OUT = re.compile(
    r"(password|peer|ident|cert|trust) authentication failed|no pg_hba\.conf entry|pg_hba\.conf rejects|no password supplied|not permitted to log in"
    r"|(role|database) \"[^\"]*\" does not exist|not currently accepting connections|permission denied for database"
    r"|too many connections for (role|database)",
    re.IGNORECASE,
)
"""How a server that is well refuses the agent: by its rules of access, which people change."""


@contextmanager
def session(settings: Settings, *, timeout: float, user: str = "") -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """A session with the local instance; yields a function that runs one statement and returns its rows.

    Every wait, the connection's too, ends after `timeout` seconds in `Silence`. As the operating system's user of the
    database (peer authentication), or as `monitor_user` when that is set.
    """
    _import_driver()  # the most expensive import: only where SQL is spoken
    import psycopg2
    import psycopg2.extensions

    server = postmaster(settings)
    if server is None:
        raise Silence("no postmaster runs")
    deadline = time.monotonic() + timeout

    def wait(connection: Connection) -> None:  # psycopg2 offers no deadline of its own
        while True:
            state = connection.poll()
            if state == psycopg2.extensions.POLL_OK:
                return
            left = deadline - time.monotonic()
            reading, writing = ([connection], []) if state == psycopg2.extensions.POLL_READ else ([], [connection])
            if left <= 0 or not any(select.select(reading, writing, [], left)):
                raise Silence(f"PostgreSQL did not answer within {timeout:g} s")

    psycopg2.extensions.set_wait_callback(wait)
    try:
        connection = _connect(
            settings, server, user=user or settings.monitor_user, password=settings.monitor_password or None,
            application_name="pha4pgsql", client_encoding="UTF8",
        )  # fmt: skip
    except psycopg2.Error as refused:
        raise Silence(f"PostgreSQL refused the session: {str(refused).strip()}") from refused
    try:
        connection.autocommit = True

        def query(statement: str) -> list[dict[str, Any]]:
            with connection.cursor() as cursor:
                try:
                    cursor.execute(statement)
                    names = [column.name for column in cursor.description or ()]
                    return [dict(zip(names, row)) for row in cursor.fetchall()] if names else []
                except psycopg2.Error as failed:
                    raise Silence(f"PostgreSQL refused a statement: {str(failed).strip()}") from failed

        yield query
    finally:
        connection.close()


OWN_WAYS = " ".join(
    f"-c {setting}"
    for setting in (
        "statement_timeout=0", "lock_timeout=0", "synchronous_commit=on", "default_transaction_read_only=off",
        r"default_transaction_isolation=read\ committed",  # a hot standby refuses serializable ones
    )
)  # fmt: skip
"""What a role, a database or a file may say otherwise (ALTER ROLE ... SET). What a connection asks for wins over that."""


def _connect(settings: Settings, server: Postmaster, finish: Callable[[Connection], None] = lambda _: None, **given: Any) -> Connection:  # noqa: ANN401
    """Connect to the agent's database, or to another one that is always there when the server says no to that one: it lives, it has answered."""
    import psycopg2

    *others, last = dict.fromkeys((settings.pgdb, "postgres", "template1"))

    def connect(name: str) -> Connection:
        with _as_user(settings.pgdba):
            connection: Connection = psycopg2.connect(**_address(settings, server), dbname=name, options=OWN_WAYS, **given)
            finish(connection)
        return connection

    for name in others:
        try:
            return connect(name)
        except psycopg2.Error as refused:
            if name not in str(refused):
                raise
    return connect(last)


def _address(settings: Settings, server: Postmaster) -> dict[str, Any]:
    host = settings.pghost or settings.socketdir or server.socket or ("127.0.0.1" if server.listen in ("*", "0.0.0.0") else server.listen)  # noqa: S104  read, not bound
    return {"host": host, "port": server.port}


@contextmanager
def _as_user(name: str) -> Iterator[None]:
    """Be another user towards the server for the moment of connecting (SO_PEERCRED takes the effective user)."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam(name).pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


# -- observing ---------------------------------------------------------------------------------------------------


def observe(settings: Settings, *, timeout: float = 2.0, disk: bool = True, end: bool = True) -> Instance:
    """What there is to know of the instance now.

    `disk=False` leaves out the end of WAL of an instance that is down, `end=False` that of one that lives and receives nothing.
    """
    server = postmaster(settings)
    if server is None and remains(settings):
        return Instance(Run.STOPPING, upstream=upstream(settings), names=names(settings))
    if server is None:
        return _down(settings) if disk else Instance(upstream=upstream(settings), names=names(settings))
    seen = Instance(_STATUS.get(server.status, Run.SILENT), upstream=upstream(settings), names=names(settings))
    if seen.run is Run.SILENT:
        try:
            with session(settings, timeout=timeout) as query:
                return _from_row(settings, query(OBSERVE)[0], end=end)
        except Silence as silence:
            server = postmaster(settings)
            return seen._replace(unread=silence.message) if server is not None else observe(settings, disk=disk)
    return _from_disk(settings, seen) if disk and end and seen.run is Run.STARTING and seen.upstream is None else seen


def _from_row(settings: Settings, row: dict[str, Any], *, end: bool) -> Instance:
    standby, position = row["standby"], Lsn.parse(row["position"] or "0/0")
    seen = Instance(
        Run.STANDBY if standby else Run.PRIMARY,
        position,
        int(row["timeline"]),
        Lsn.parse(row["checkpoint"]),
        row["system_identifier"],
        receiving=row["receiving"],
        streaming=row["streaming"],
        upstream=upstream(settings),
        names=names(settings),
        names_shown=row["names"],
        followers=tuple(_follower(*fields) for fields in row["followers"]),
        slots=tuple(slot for slot in row["slots"] if slot.startswith(f"{settings.replication_slot_name}_")),
        histories=histories(settings),
        unheld=histories(settings, held=False),
    )
    deaf = seen.names_shown != seen.names or (standby and seen.upstream is not None and not row["conninfo"])
    if deaf and os.path.realpath(row["config_file"]) != os.path.realpath(config_file(settings)):
        seen = seen._replace(unruled=row["config_file"])
    if not standby:
        return seen
    received = Lsn.parse(row["received"] or "0/0")
    if seen.receiving:
        return seen._replace(lsn=max(position, received))
    if not end:
        return seen._replace(lsn=None)
    last = end_of_wal(settings, position, seen.histories, seen.timeline, int(row["segment_size"]))
    return seen._replace(lsn=None, unread=last) if isinstance(last, str) else seen._replace(lsn=max(position, received, last))


def _follower(name: str, state: str, sync_state: str, flush: str | None, slot: str | None, priority: str) -> Follower:
    return Follower(name, state, sync_state, Lsn.parse(flush) if flush else None, slot or "", int(priority))


def _down(settings: Settings) -> Instance:
    return _from_disk(settings, Instance(Run.DOWN, upstream=upstream(settings), names=names(settings)))


def _from_disk(settings: Settings, seen: Instance) -> Instance:
    """The end of valid WAL and what the control file says, for an instance that nobody can ask."""
    control = controldata(settings)
    if control is None:
        return seen._replace(unread=f"the control file of {settings.datadir} cannot be read")
    known = histories(settings)
    end = end_of_wal(settings, control.redo, known, control.timeline, control.wal_segment_size)
    if end == control.redo:
        end = f"no record can be read at {end}, where recovery would begin"
    lsn, unread = (None, end) if isinstance(end, str) else (end, "")
    timeline = max([control.timeline, *(new for new, _, start in known if lsn is not None and start < lsn)])
    seen = seen._replace(lsn=lsn, unread=unread, timeline=timeline, checkpoint=control.checkpoint, histories=known)
    return seen._replace(system_identifier=control.system_identifier)


def controldata(settings: Settings) -> text.ControlData | None:
    """The control file, or None when it cannot be read."""
    done = system.run([settings.program("pg_controldata"), "-D", settings.datadir], user=settings.pgdba, timeout=10)
    try:
        return text.controldata(done.out) if done.ok else None
    except (KeyError, ValueError):
        return None


def histories(settings: Settings, *, held: bool = True) -> tuple[tuple[int, int, Lsn], ...]:
    """(timeline, parent, switch point) of every history file whose timeline the local WAL holds a segment of, or of the others.

    A history file alone proves nothing: a receiver fetches it before the first byte, an archive may bring it.
    """
    folder = f"{settings.datadir}/pg_wal"
    try:
        files = os.listdir(folder)
    except OSError:
        return ()
    segments = {int(name[:8], 16) for name in files if re.fullmatch(r"[0-9A-F]{24}(\.partial)?", name)}
    found = []
    for name in sorted(files):
        if re.fullmatch(r"[0-9A-F]{8}\.history", name) and (int(name[:8], 16) in segments) is held:
            with open(f"{folder}/{name}", encoding="utf-8", errors="replace") as stream:
                switches = text.history(stream.read())
            if switches:
                found.append((int(name[:8], 16), switches[-1].timeline, switches[-1].end))
    return tuple(found)


def end_of_wal(settings: Settings, start: Lsn, known: Sequence[tuple[int, int, Lsn]], timeline: int, segment_size: int) -> Lsn | str:
    """The end of the last valid record on disk from `start` on, over the timelines that the local WAL holds, or why it cannot be read.

    Recovery would stop at the same place: `pg_waldump` reads records as it does. The last checkpoint is not enough,
    what was confirmed after it is WAL too. A newer timeline's segment begins with a copy of the older one's content.
    """
    switches = {timeline: Lsn(0), **{new: begin for new, _, begin in known if new > timeline}}
    end = start
    while True:
        best = end
        for number, switch in switches.items():
            if switch // segment_size <= end // segment_size and _has_segment(settings, number, end, segment_size):
                last = _dump_end(settings, number, end, segment_size)
                if isinstance(last, str):
                    return last
                best = max(best, last)
        if best == end:
            return end
        end = best


def _has_segment(settings: Settings, timeline: int, position: Lsn, segment_size: int) -> bool:
    return os.path.exists(_segment(settings, timeline, position, segment_size))


def _segment(settings: Settings, timeline: int, position: Lsn, segment_size: int) -> str:
    return f"{settings.datadir}/pg_wal/{wal.segment_name(timeline, position, segment_size)}"


def _dump_end(settings: Settings, timeline: int, start: Lsn, segment_size: int) -> Lsn | str:
    """The end of the last valid record of one timeline, looked for in its last segment, and backwards only where no record begins there.

    What is before it is whole: a segment is flushed before a byte of the next one is written (XLogWrite, XLogWalRcvWrite), so reading
    does not take longer the more WAL there is since the checkpoint. Not a byte beyond the last segment is asked for: pg_waldump would
    wait 5 s for a file that is not there (its WALDumpOpenSegment). What it tells of a record may be longer than a page. It is given the
    segment's name, or it takes the size of segments from any file that it finds, also from a new one of zeroes, and gives up (its
    search_directory). Where it ends for another reason than the end of valid records, nothing is known.
    """
    places = [start]
    while _begun(settings, timeline, limit := Lsn((places[-1] // segment_size + 1) * segment_size), segment_size):
        places.append(limit)
    for place in reversed(places):
        done = system.run(
            [
                settings.program("pg_waldump"), "-p", f"{settings.datadir}/pg_wal", "-t", str(timeline), "-s", str(place), "-e", str(limit),
                wal.segment_name(timeline, place, segment_size),
            ],
            user=settings.pgdba, timeout=20, keep=(2000, 400),
        )  # fmt: skip
        if not done.ok and not wal.is_end(done.err):
            return done.err.strip() or f"pg_waldump ended with code {done.code}"
        last = wal.last_record_end(done.out, segment_size)
        if last is not None:
            return last
    return start


def _begun(settings: Settings, timeline: int, position: Lsn, segment_size: int) -> bool:
    """Whether WAL was written into the segment that begins at `position`: a new file is empty, a recycled one tells an older address."""
    try:
        with open(_segment(settings, timeline, position, segment_size), "rb") as stream:
            return wal.page_address(stream.read(wal.PAGE_HEADER)) == position
    except OSError:
        return False


# -- settings files ----------------------------------------------------------------------------------------------


def upstream(settings: Settings) -> Upstream | None:
    """What the settings file makes the standby receive from; nothing of ours while ALTER SYSTEM says otherwise."""
    if overrides(settings) & {"primary_conninfo", "primary_slot_name"}:
        return None
    found = re.search(r"^# upstream (\S+) (\S+)$", read_text(f"{settings.tmpdir}/recovery.conf"), re.MULTILINE)
    return Upstream(*found.groups()) if found else None


def names(settings: Settings) -> str:
    """The synchronous_standby_names in the settings file."""
    found = re.search(r"^synchronous_standby_names = '(.*)'$", read_text(f"{settings.tmpdir}/rep_mode.conf"), re.MULTILINE)
    return found.group(1) if found else ""


def silence_file(settings: Settings) -> str:
    """Where the monitor notes since when a live postmaster has been silent."""
    return f"{settings.tmpdir}/{settings.resource}.silent"


def forget_silence(settings: Settings) -> None:
    """It has answered, or it is another life."""
    with suppress(FileNotFoundError):
        os.unlink(silence_file(settings))


def names_mark(settings: Settings) -> tuple[int, int] | None:
    """What tells one writing of synchronous_standby_names from another: the file is always replaced."""
    try:
        seen = os.stat(f"{settings.tmpdir}/rep_mode.conf")
    except FileNotFoundError:
        return None
    return (seen.st_ino, seen.st_mtime_ns)


def read_text(path: str) -> str:
    """A file's content, empty when there is no such file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def quoted(value: str) -> str:
    """A value for a PostgreSQL configuration file (manual 20.1.2: a quote is doubled)."""
    doubled = value.replace("'", "''")
    return f"'{doubled}'"


def recovery_conf(settings: Settings, node: str, source: Upstream | None) -> str:
    """The settings of a standby: the upstream's own address first, so that nobody waits for an address to move."""
    lines = [f"# upstream {source.node} {source.slot}"] if source else ["# no upstream"]
    if source is not None:
        conninfo = (
            f"host={','.join(dict.fromkeys((source.node, settings.master_ip)))} port={settings.pgport} "
            f"user={settings.repuser} application_name={node} "
            f"passfile={settings.passfile} connect_timeout=3 keepalives_idle=5 keepalives_interval=2 keepalives_count=3 "
            f"{settings.primary_conninfo_opt}"
        )
        lines += [f"primary_conninfo = {quoted(conninfo.strip())}", f"primary_slot_name = {quoted(source.slot)}"]
    else:
        lines += ["primary_conninfo = ''", "primary_slot_name = ''"]
    if settings.restore_command:
        lines.append(f"restore_command = {quoted(wal.without_histories(settings.restore_command))}")
    for key in ("archive_cleanup_command", "recovery_end_command"):
        if getattr(settings, key):
            lines.append(f"{key} = {quoted(getattr(settings, key))}")
    lines += [f"{name} = ''" for name in _TARGETS]  # what a restore has left in a configuration file would end a standby's recovery
    return "\n".join([*lines, "recovery_target_timeline = 'latest'", "hot_standby = on", ""])


def write_recovery(settings: Settings, node: str, source: Upstream | None) -> None:
    """Write the standby's settings; takes effect with the next start or reload."""
    system.write_file(f"{settings.tmpdir}/recovery.conf", recovery_conf(settings, node, source), owner=settings.pgdba)


def write_names(settings: Settings, value: str) -> None:
    """Write synchronous_standby_names; takes effect with the next start or reload."""
    system.write_file(f"{settings.tmpdir}/rep_mode.conf", f"synchronous_standby_names = {quoted(value)}\n", owner=settings.pgdba)


def config_file(settings: Settings) -> str:
    """The file that PostgreSQL is started with: the user's own first, then ours; the user's is never edited."""
    return f"{settings.tmpdir}/{settings.resource}.conf"


def write_config(settings: Settings, *, replicated: bool) -> None:
    """Write the file that PostgreSQL is started with."""
    ours = [f"include {quoted(f'{settings.tmpdir}/{name}')}" for name in ("rep_mode.conf", "recovery.conf")] if replicated else []
    extra = [f"data_directory = {quoted(settings.datadir)}"] if settings.datadir != settings.pgdata else []
    extra += [f"port = {settings.pgport}"]  # as on the command line, or every reload logs that it cannot be changed
    extra += [f"unix_socket_directories = {quoted(settings.socketdir)}"] if settings.socketdir else []
    lines = ["# written by the pgsql agent at every start", f"include {quoted(settings.config)}", *extra, *ours, ""]
    system.write_file(config_file(settings), "\n".join(lines), owner=settings.pgdba)


def _auto_conf(settings: Settings) -> list[tuple[str, str]]:
    """postgresql.auto.conf, line by line: the setting that it names, and the line. A name may come twice (ALTER SYSTEM, then pg_basebackup -R)."""
    lines = read_text(f"{settings.datadir}/postgresql.auto.conf").splitlines(keepends=True)
    return [(line.split("=")[0].strip().lower(), line) for line in lines]


def overrides(settings: Settings) -> set[str]:
    """Our settings in postgresql.auto.conf, where they win over what we write."""
    return {name for name, _ in _auto_conf(settings)} & set(_OVERRIDING)


def clear_overrides(settings: Settings) -> list[str]:
    """Take our settings out of postgresql.auto.conf; their names. It counts with the next start or reload."""
    lines = _auto_conf(settings)
    found = sorted({name for name, _ in lines if name in _OVERRIDING})
    if found:
        kept = "".join(line for name, line in lines if name not in found)
        system.write_file(f"{settings.datadir}/postgresql.auto.conf", kept, owner=settings.pgdba)
    return found


# -- acting ------------------------------------------------------------------------------------------------------


def prepare(settings: Settings) -> None:
    """Make the directories and files that a start needs: tmpdir 0700, socketdir 2775, the log file, all the database user's."""
    entry = pwd.getpwnam(settings.pgdba)
    for folder, mode in ((settings.tmpdir, 0o700), (settings.socketdir, 0o2775)):
        if folder and not os.path.isdir(folder):
            os.makedirs(folder, mode=0o755)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
            os.chmod(folder, mode)
    if settings.logfile not in ("", "/dev/null") and not os.path.exists(settings.logfile):
        system.write_file(settings.logfile, "", mode=0o600, owner=settings.pgdba)


def launch(settings: Settings, node: str, source: Upstream | None, value: str) -> None:
    """Start as a standby; slots of earlier terms go first, while nobody can use them. Does not wait for connections."""
    import shutil  # not needed by a monitor

    prepare(settings)
    for slot in _slot_folders(settings):
        shutil.rmtree(slot, ignore_errors=True)
    _put_away_strays(settings)
    clear_overrides(settings)
    write_recovery(settings, node, source)
    write_names(settings, value)
    write_config(settings, replicated=True)
    system.write_file(f"{settings.datadir}/standby.signal", "", owner=settings.pgdba)
    start_postmaster(settings)


def _put_away_strays(settings: Settings) -> None:
    """Rename history files of timelines that the local WAL never entered.

    A receiver fetches them before it knows whether it can follow; with recovery_target_timeline=latest PostgreSQL
    then refuses to start ("requested timeline is not a child of this server's history").
    """
    folder = f"{settings.datadir}/pg_wal"
    found = {int(name[:8], 16): name for name in os.listdir(folder) if re.fullmatch(r"[0-9A-F]{8}\.history", name)}
    control = controldata(settings) if found else None
    if control is None or max(found) <= control.timeline:
        return
    seen = _down(settings)
    for timeline, name in found.items():
        if seen.lsn is not None and timeline > seen.timeline:
            os.replace(f"{folder}/{name}", f"{folder}/{name}.stray")


def launch_plain(settings: Settings) -> None:
    """Start without replication: whatever the data directory is."""
    prepare(settings)
    write_config(settings, replicated=False)
    start_postmaster(settings)


def _slot_folders(settings: Settings) -> list[str]:
    folder = f"{settings.datadir}/pg_replslot"
    ours = re.compile(rf"{re.escape(settings.replication_slot_name)}_(\d+|outside)_")
    return [f"{folder}/{name}" for name in os.listdir(folder) if ours.match(name)] if os.path.isdir(folder) else []


def start_postmaster(settings: Settings) -> None:
    """Start with the agent's own configuration file until a postmaster lives."""
    options = f"-c config_file={config_file(settings)} -p {settings.pgport}"
    options += f" -c unix_socket_directories={settings.socketdir}" if settings.socketdir else ""
    options += f" {settings.start_opt}" if settings.start_opt else ""
    pg_ctl_start(settings, settings.pgdata, options)


def pg_ctl_start(settings: Settings, folder: str, options: str, *, hint: str = "", timeout: float = 10.0) -> None:
    """Run `pg_ctl start` until a postmaster lives; tried again while processes of a killed one are still ending."""
    argv = [settings.program("pg_ctl"), "start", "-W", "-s", "-D", folder, "-l", settings.logfile or "/dev/null"]
    argv += [*(["-o", options] if options else []), *settings.ctl_opt.split()]
    deadline, before = time.monotonic() + timeout, _size(settings.logfile)
    while True:
        done = system.run(argv, user=settings.pgdba, timeout=timeout, environment=libraries(settings))
        while _is_starting(folder) and time.monotonic() < deadline:
            server = postmaster(settings)
            if server is not None and server.status:
                return
            time.sleep(POLL)
        if time.monotonic() > deadline or not remains(settings):
            grown = _size(settings.logfile) - before
            fresh = _errors(_tail(settings.logfile, grown)) if grown > 0 else ""
            why = fresh or done.err.strip() or complaint(settings) or "the postmaster ended at once"
            raise EnvironmentFailure(f"PostgreSQL did not start: {why}", hint or f"look into the log, {settings.logfile}")
        time.sleep(POLL)


def _is_starting(folder: str) -> bool:
    """Whether a server, or the shell that becomes one, lives with this directory: it has no pid file yet in its first moments."""
    mark = f"postgres -D {folder}".encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as stream:
                    if mark in stream.read().replace(b"\0", b" ").replace(b'"', b""):
                        return True
            except OSError:
                continue
    return False


def complaint(settings: Settings) -> str:
    """The last errors in the server's own log, wherever it writes it."""
    logs = [settings.logfile]
    with suppress(IndexError):
        current = read_text(f"{settings.datadir}/current_logfiles").split()[1]
        logs.append(os.path.join(settings.datadir, current))
    return _errors([line for log in logs if log != "/dev/null" for line in _tail(log)])


def _errors(lines: Sequence[str]) -> str:
    """The last three different ones.

    >>> _errors(['12:01 LOG:  x', '12:01 FATAL:  configuration file "c" contains errors'])
    'FATAL:  configuration file "c" contains errors'
    """
    found = [line.strip() for line in lines if _COMPLAINT.search(line)]
    return " / ".join(dict.fromkeys(line[match.start() :] for line in found[-3:] if (match := _COMPLAINT.search(line))))


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


_COMPLAINT = re.compile(r"(FATAL|PANIC|ERROR):|syntax error in file")


def _tail(path: str, size: int = 8000) -> list[str]:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
            return stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def libraries(settings: Settings) -> dict[str, str]:
    """The environment that PostgreSQL's programs need."""
    return {"LD_LIBRARY_PATH": ":".join(filter(None, (os.environ.get("LD_LIBRARY_PATH", ""), settings.pglibs)))}


def reload(settings: Settings) -> None:
    """Ask the postmaster to read its configuration again (SIGHUP); its processes obey when each gets round to it."""
    server = postmaster(settings)
    if server is None:
        return
    os.kill(server.pid, signal.SIGHUP)


def cut_off(settings: Settings, *, timeout: float) -> None:
    """See to it that no WAL receiver runs or comes back, after the settings file names no upstream any more.

    The postmaster has read the file when a new session shows it. The startup process has when it confirms a pause of
    replay, because it handles its signals before that (PostgreSQL 14 on); if it cannot, it is busy with a record, and
    then it handles them before it looks for more WAL. Without that a receiver could be started once more by the old setting.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        with session(settings, timeout=max(0.1, deadline - time.monotonic()), user=settings.pgdba) as query:
            row = query(
                "select pg_is_in_recovery() as standby, current_setting('primary_conninfo') as conninfo, "
                "current_setting('server_version_num')::int as version"
            )[0]
            if not row["standby"]:
                return
            if not row["conninfo"]:
                _pause_once(query, row["version"], deadline)
                return
        time.sleep(0.005)


def _pause_once(query: Callable[[str], list[dict[str, Any]]], version: int, deadline: float) -> None:
    receivers = "select pid from pg_stat_activity where backend_type = 'walreceiver'"
    if version < 140000:
        time.sleep(0.1)
    else:
        query("select pg_wal_replay_pause()")
        for row in query("select pid from pg_stat_activity where backend_type = 'startup'"):
            with suppress(ProcessLookupError):
                os.kill(row["pid"], signal.SIGHUP)  # wakes it, when it sleeps until the next attempt to receive
        patience = min(deadline, time.monotonic() + 0.5)
        while time.monotonic() < patience and not query("select 1 where pg_get_wal_replay_pause_state() = 'paused'"):
            time.sleep(0.005)
        query("select pg_wal_replay_resume()")
    for row in query(receivers):
        try:
            os.kill(row["pid"], signal.SIGTERM)
        except ProcessLookupError:
            continue


def promote(settings: Settings, *, timeout: float) -> None:
    """Ask the standby to become primary. Does not wait: pg_promote(true) looks only every 100 ms."""
    with session(settings, timeout=timeout, user=settings.pgdba) as query:
        query("select pg_promote(false)")


def make_slots(settings: Settings, slots: Sequence[str], *, timeout: float) -> None:
    """Create physical slots that are not there yet; a standby can have them too."""
    if not slots:
        return
    with session(settings, timeout=timeout, user=settings.pgdba) as query:
        for slot in slots:
            query(
                f"select pg_create_physical_replication_slot('{slot}') where not exists "  # noqa: S608
                f"(select from pg_replication_slots where slot_name = '{slot}')"
            )


def shutdown(settings: Settings, *, escalate: float, deadline: float, silent: bool) -> None:
    """End the postmaster: fast, after `escalate` seconds immediate, then by force; a frozen one is not asked for long.

    `deadline` is monotonic: by then force is used, because a postmaster that stays is worse than crash recovery.
    """
    server = postmaster(settings)
    if server is None:
        kill(remains(settings))
        return
    now = time.monotonic()
    fast = min(now + (0.5 if silent else escalate), deadline - 3.0)
    for number, until in ((signal.SIGINT, fast), (signal.SIGQUIT, min(fast + (0.5 if silent else 2.0), deadline - 1.0))):
        if (number is signal.SIGINT and escalate <= 0) or not alive(server.pid):
            continue
        os.kill(server.pid, number)
        _await_end(server.pid, until)
    if alive(server.pid):
        kill([server.pid, *children(server.pid)])
    kill(remains(settings))


def dismiss(settings: Settings, nodes: Collection[str]) -> None:
    """End what sends WAL to these nodes: a shutdown would wait for their confirmation until wal_sender_timeout has passed."""
    names = ", ".join(quoted(node) for node in sorted(nodes))
    with suppress(Silence), session(settings, timeout=1.0, user=settings.pgdba) as query:
        query(f"select pg_terminate_backend(pid) from pg_stat_replication where application_name in ({names})")  # noqa: S608


def _await_end(pid: int, until: float) -> None:
    """Wait for a postmaster's end, at most until then, and do not let it wait for clients that say nothing.

    A connection accepted while it shuts down gets a process that waits for a first packet until authentication_timeout
    (a minute), and before PostgreSQL 18 the postmaster waits for that: one half-open connection would delay a demotion so long.
    """
    mute: set[int] = set()
    looked = time.monotonic()
    while alive(pid) and time.monotonic() < until:
        time.sleep(POLL)
        if time.monotonic() - looked > MUTE:
            looked = time.monotonic()
            seen = _mute(pid)
            for child in seen & mute:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)
            mute = seen


def _mute(pid: int) -> set[int]:
    """The children of a postmaster that still show its own command line: clients that have not said who they are."""
    own = _command_line(pid)
    return {child for child in children(pid) if own and _command_line(child) == own}


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def kill(processes: Sequence[int]) -> None:
    """SIGKILL processes and see them end: frozen ones, and those that outlive their postmaster, obey nothing else."""
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    while any(alive(process) for process in processes):
        time.sleep(POLL)


def nudge(settings: Settings, *, timeout: float) -> None:
    """Write a record whose commit waits for no standby. A walsender releases waiting commits only when a reply arrives."""
    with session(settings, timeout=timeout, user=settings.pgdba) as query:
        query("set synchronous_commit = local")
        query("select pg_logical_emit_message(true, 'pha4pgsql', 'nudge')")


def checkpoint(settings: Settings, *, timeout: float = 3600.0) -> None:
    """Write out what is dirty, now; it may take minutes, and ends the sooner the next shutdown."""
    with session(settings, timeout=timeout, user=settings.pgdba) as query:
        query("checkpoint")


class Proof:
    """A commit of our own that has to be seen waiting for synchronous replication: the only sign that commits really wait.

    Neither SHOW nor pg_stat_replication proves it: backends obey a shared flag that the checkpointer sets when it gets
    round to the reload. The session stays open until this object goes; its commit ends when the standby confirms it.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: Any = None

    def waiting(self, *, timeout: float) -> bool:
        """Commit, if none is on its way, and tell whether it is seen to wait within `timeout` seconds."""
        import psycopg2
        import psycopg2.extensions

        if self._connection is None or self._finished():
            server = postmaster(self._settings)
            if server is None:
                return False
            psycopg2.extensions.set_wait_callback(None)
            self._connection = _connect(
                self._settings, server, lambda new: _finish(new, timeout),
                user=self._settings.pgdba, application_name="pha4pgsql proof", connect_timeout=2, async_=True,
            )  # fmt: skip
            self._connection.cursor().execute("select pg_logical_emit_message(true, 'pha4pgsql', 'do commits wait?')")
        pid = self._connection.info.backend_pid
        deadline = time.monotonic() + timeout
        with session(self._settings, timeout=timeout + 1.0) as query:
            while time.monotonic() < deadline and not self._finished():
                if query(f"select 1 from pg_stat_activity where pid = {pid} and wait_event = 'SyncRep'"):  # noqa: S608
                    return True
                time.sleep(POLL)
        return False

    def _finished(self) -> bool:
        import psycopg2
        import psycopg2.extensions

        try:
            return bool(self._connection.poll() == psycopg2.extensions.POLL_OK)
        except psycopg2.Error:
            return True


def _finish(connection: Connection, timeout: float) -> None:
    """Wait until an asynchronous connection is ready."""
    import psycopg2.extensions

    deadline = time.monotonic() + timeout
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        reading, writing = ([connection], []) if state == psycopg2.extensions.POLL_READ else ([], [connection])
        if time.monotonic() > deadline or not any(select.select(reading, writing, [], timeout)):
            raise Silence(f"PostgreSQL did not answer within {timeout:g} s")
