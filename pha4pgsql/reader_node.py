"""The work on a read server itself, outside of the cluster: look, clone, configure, start, carry the reader address, and all of it back.

House rules. It runs on that server, by `errand`, as root, with nothing but Python and PostgreSQL there. The server becomes a plain standby:
what makes it one stands in its own data directory (postgresql.auto.conf, standby.signal), so that anything may start it. What is ours
on the machine is noted in one file, and only what is noted there is ever stopped or deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import shutil
import socket
import tempfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from pha4pgsql import address, copies, paths, postgres, system, wal
from pha4pgsql.settings import Settings, of_parameters
from pha4pgsql.words import ClusterRefusal, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pha4pgsql.errand import Say, Verb

PROGRAMS = ("postgres", "pg_ctl", "pg_basebackup", "pg_controldata", "psql")
SERVICE = "pha4pgsql-reader.service"
UNIT = f"/etc/systemd/system/{SERVICE}"
SYSCTL_FILE = "/etc/sysctl.d/60-pha4pgsql-reader.conf"
SYSTEMD = "/run/systemd/system"
OVERRIDING = (
    "primary_conninfo", "primary_slot_name", "recovery_target_timeline", "restore_command", "archive_cleanup_command", "recovery_end_command",
    "synchronous_standby_names", "hot_standby", "cluster_name", "port", "unix_socket_directories",
)  # fmt: skip
"""What a copy of a member may carry in postgresql.auto.conf and must not keep."""

ARP = {f"net.ipv4.conf.{interface}.{name}": value for interface in address.ARP_INTERFACES for name, value in address.ARP}
"""A machine with the reader address on lo must neither answer ARP requests for it nor announce it: the director alone does."""

USER = "cls_reader"
"""Who asks for these settings, beside whoever else may."""

LEFTOVER = re.compile(r"""^\s*include(_if_exists)?\s*=?\s*'[^']*/(rep_mode|recovery)\.conf'""")
"""The lines that the older agents add to postgresql.conf; the files they name are the agents', and not on this machine."""


class Wish(NamedTuple):
    """What the read server is to be. `secret` is the text of its passfile, empty where the operator has laid one."""

    name: str
    address: str
    vip: str
    writer: str
    settings: Settings
    secret: str = ""

    @property
    def note(self) -> str:
        """The file that tells what is ours on this machine."""
        return f"{self.settings.tmpdir}/reader.json"

    @property
    def mark(self) -> str:
        """The file that says that a copy has begun and not ended."""
        return f"{self.settings.tmpdir}/reader.clone"

    @property
    def arp(self) -> str:
        """The file that remembers the ARP settings of before."""
        return f"{self.settings.tmpdir}/reader.arp"


def wish(request: Mapping[str, Any]) -> Wish:
    """Read a request. `parameters` are those of the pgsql agent, with this machine's paths."""
    settings = of_parameters(request["parameters"])
    bindir = paths.find_programs(settings.bindir, settings.pgctl, settings.datadir)
    return Wish(request["name"], request["address"], request["vip"], request["writer"], settings._replace(bindir=bindir), request.get("secret", ""))


# ---------------------------------------------------------------- looking


def look(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """All that has to be known of the machine before anything is done; changes nothing."""
    wanted = wish(request)
    settings = wanted.settings
    missing = [name for name in PROGRAMS if not os.access(settings.program(name), os.X_OK)] if settings.bindir else list(PROGRAMS)
    found: dict[str, Any] = {
        "root": os.geteuid() == 0,
        "missing": missing,
        "bindir": settings.bindir,
        "user": _has_user(settings.pgdba),
        "own_address": wanted.address in own_addresses(),
        "member": os.path.exists(f"{settings.tmpdir}/{settings.resource}.state"),
        "config": settings.config if settings.config.startswith(f"{settings.datadir}/") or os.path.exists(settings.config) else "",
        "free": copies.free(settings.datadir),
        "carries": bool(_places(wanted.vip)) and address.uses(wanted.arp, USER) and os.path.exists(SYSCTL_FILE),
        "major": None if missing else major_of(settings),
    }
    if found["root"] and found["user"] and not missing:
        found.update(_database(wanted), **_primary(wanted))
    return found


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def major_of(settings: Settings) -> int | None:
    """The major version of the programs that are here."""
    said = re.search(r"(\d+)", system.run([settings.program("postgres"), "--version"], timeout=10).out)
    return int(said[1]) if said else None


def own_addresses() -> set[str]:
    """Every address of this machine's interfaces."""
    return {place.address for ipv6 in (False, True) for place in address.places(ipv6=ipv6)}


def _database(wanted: Wish) -> dict[str, Any]:
    """The data directory: `empty`, `partial` (a copy that did not end), `standby`, `other` (no standby), and whose it is."""
    settings = wanted.settings
    control = postgres.controldata(settings) if os.path.exists(f"{settings.datadir}/PG_VERSION") else None
    return {
        "data": _kind(wanted, known=control is not None),
        "system_identifier": control.system_identifier if control else "",
        "running": postgres.postmaster(settings) is not None,
        "settled": postgres.postmaster(settings) is not None and (not os.path.isdir(SYSTEMD) or postgres.read_text(UNIT) == unit(wanted)),
        "prepared": _is_prepared(wanted),
        "configured": _is_configured(wanted),
    }


def _is_prepared(wanted: Wish) -> bool:
    """Whether our directory is the database's user's, and the passfile right."""
    settings = wanted.settings
    return (
        bool(_note(wanted))
        and os.stat(settings.tmpdir).st_uid == pwd.getpwnam(settings.pgdba).pw_uid
        and (not wanted.secret or postgres.read_text(settings.passfile) == wanted.secret)
    )


def _kind(wanted: Wish, *, known: bool) -> str:
    folder = wanted.settings.datadir
    if os.path.exists(wanted.mark):
        return "partial"
    if not copies.entries(folder):
        return "empty"
    return "standby" if known and os.path.exists(f"{folder}/standby.signal") else "other"


PRIMARY = """
select current_setting('server_version_num')::int / 10000, (select system_identifier from pg_control_system()),
       (select sum(pg_database_size(oid)) from pg_database)::bigint, pg_is_in_recovery(),
       (select coalesce(string_agg(nullif(pg_tablespace_location(oid), ''), ':'), '') from pg_tablespace),
       (select setting::bigint * 1048576 from pg_settings where name = 'wal_keep_size')
"""


def _primary(wanted: Wish) -> dict[str, Any]:
    """What the primary says to this machine, through the writer address, for a query and for replication; `refused` when it says no."""
    with _passfile_for_now(wanted) as passfile:
        answer = _psql(wanted, passfile, PRIMARY, "dbname=postgres")
        stream = _psql(wanted, passfile, "IDENTIFY_SYSTEM", "dbname=postgres replication=true") if answer.ok else answer
    if not stream.ok:
        return {"refused": " ".join(stream.err.split()) or f"psql ended with {stream.code}"}
    major, identifier, size, standby, places, kept = answer.out.strip().split("|")
    spaces = places.split(":") if places else []
    busy = [place for place in spaces if copies.entries(place)]
    return {
        "refused": "",
        "primary": {
            "major": int(major), "system_identifier": identifier, "size": int(size), "is_primary": standby == "f",
            "tablespaces": spaces, "busy": busy, "wal_kept": int(kept),
        },
    }  # fmt: skip


@contextlib.contextmanager
def _passfile_for_now(wanted: Wish) -> Iterator[str]:
    """A passfile that is gone afterwards: looking leaves nothing behind."""
    if not wanted.secret:
        yield wanted.settings.passfile
        return
    with tempfile.NamedTemporaryFile("w", prefix="pha4pgsql.", encoding="utf-8") as stream:
        stream.write(wanted.secret)
        stream.flush()
        yield stream.name


def _psql(wanted: Wish, passfile: str, statement: str, extra: str) -> system.Completed:
    conninfo = f"{connection(wanted, passfile)} {extra} connect_timeout=5"
    argv = [wanted.settings.program("psql"), "-X", "-A", "-t", "-q", "-w", "-F", "|", "-d", conninfo, "-c", statement]
    return system.run(argv, timeout=15)


def connection(wanted: Wish, passfile: str) -> str:
    """How the primary is reached: by the address that goes with it, so that a failover is followed. No password is in it."""
    given = wanted.settings
    parts = [f"host={wanted.writer} port={given.pgport} user={given.repuser}", f"passfile={passfile}" if passfile else "", given.primary_conninfo_opt]
    return " ".join(part for part in parts if part)


# ---------------------------------------------------------------- the copy


def secret(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Note that this machine is ours, and lay the passfile, for the database's user only."""
    wanted = wish(request)
    settings = wanted.settings
    _prepare(settings)
    system.write_file(wanted.note, json.dumps({"name": wanted.name, "vip": wanted.vip}) + "\n", owner=settings.pgdba)
    if wanted.secret:
        system.write_file(settings.passfile, wanted.secret, mode=0o600, owner=settings.pgdba)
    return {}


def _prepare(settings: Settings) -> None:
    """Make the directories that a start needs, that of the log file too."""
    folder = os.path.dirname(settings.logfile)
    if settings.logfile not in {"", "/dev/null"} and not os.path.isdir(folder):
        os.makedirs(folder)
        shutil.chown(folder, settings.pgdba)
    postgres.prepare(settings)
    entry = pwd.getpwnam(settings.pgdba)
    os.chown(settings.tmpdir, entry.pw_uid, entry.pw_gid)
    os.chmod(settings.tmpdir, 0o700)


def clone(request: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Copy the primary into the data directory. `replace`: what is in it goes first. A copy that does not end leaves its mark."""
    wanted = wish(request)
    settings = wanted.settings
    with _alone(wanted):
        if postgres.postmaster(settings) is not None or postgres.remains(settings):
            raise ClusterRefusal(f"PostgreSQL runs in {settings.datadir}", "cls_reader add --again stops it first")
        kind = _kind(wanted, known=False)
        if kind == "other" and not request.get("replace"):
            raise ClusterRefusal(
                f"{settings.datadir} is not empty, expected nothing in it", "nothing was changed; empty it, or cls_reader add --again"
            )
        half = _primary(wanted).get("primary", {}).get("tablespaces", []) if kind == "partial" else []  # they were empty before that copy
        system.write_file(wanted.mark, f"{wanted.name}\n", owner=settings.pgdba)
        for folder in half:
            copies.clear_tablespace(folder)
        copies.empty_data(settings.datadir, settings.pgdba)
        _base_backup(wanted, request["slot"], say)
        os.unlink(wanted.mark)
    return {}


@contextlib.contextmanager
def _alone(wanted: Wish) -> Iterator[None]:
    """One copy at a time: a second one would delete the data under the first."""
    with open(f"{wanted.settings.tmpdir}/reader.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterRefusal("another cls_reader is at work on this machine", "wait until it has ended") from None
        yield


def _base_backup(wanted: Wish, slot: str, say: Say) -> None:
    """Run pg_basebackup; the slot that it makes keeps the WAL until the copy streams."""
    settings, told = wanted.settings, [0.0]

    def hear(line: str) -> None:
        if time.monotonic() - told[0] > 1.0:
            say(line)
            told[0] = time.monotonic()

    conninfo = f"{connection(wanted, settings.passfile)} application_name=pg_basebackup"
    copies.base_backup(settings, conninfo, settings.datadir, ["-C", "-S", slot], hear)


# ---------------------------------------------------------------- the standby's settings


def configure(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Make the copy a standby of the writer address; a running one reads it anew."""
    wanted = wish(request)
    settings = wanted.settings
    if not _is_configured(wanted):
        system.write_file(f"{settings.datadir}/postgresql.auto.conf", auto_conf(_read_auto(settings), wanted), owner=settings.pgdba)
        system.write_file(f"{settings.datadir}/standby.signal", "", owner=settings.pgdba)
        if os.path.exists(settings.config) and settings.config.startswith(f"{settings.datadir}/"):
            before = postgres.read_text(settings.config)
            after = without_leftovers(before)
            if after != before:
                system.write_file(settings.config, after, owner=settings.pgdba)
        postgres.reload(settings)
    return {}


def _is_configured(wanted: Wish) -> bool:
    settings = wanted.settings
    text = _read_auto(settings)
    return os.path.exists(f"{settings.datadir}/standby.signal") and bool(text) and auto_conf(text, wanted) == text


def _read_auto(settings: Settings) -> str:
    return postgres.read_text(f"{settings.datadir}/postgresql.auto.conf")


def auto_conf(text: str, wanted: Wish) -> str:
    """postgresql.auto.conf of the read server: what the copy brought along, and last what makes it a standby of its own name.

    No slot: it follows whoever is primary, and a primary elected a moment ago has none. Its name is no member's, so no commit ever waits for it.
    """
    settings = wanted.settings
    kept = [line for line in text.splitlines() if line.split("=")[0].strip().lower() not in OVERRIDING]
    conninfo = (
        f"{connection(wanted, settings.passfile)} application_name={wanted.name} "
        "connect_timeout=3 keepalives_idle=5 keepalives_interval=2 keepalives_count=3"
    )
    values = {
        "primary_conninfo": conninfo,
        "primary_slot_name": "",
        "recovery_target_timeline": "latest",
        "synchronous_standby_names": "",
        "hot_standby": "on",
        "cluster_name": wanted.name,
        "port": str(settings.pgport),
        **({"unix_socket_directories": settings.socketdir} if settings.socketdir else {}),
        **({"restore_command": wal.without_histories(settings.restore_command)} if settings.restore_command else {}),
        **({"archive_cleanup_command": settings.archive_cleanup_command} if settings.archive_cleanup_command else {}),
    }
    return "\n".join([*kept, *(f"{name} = {postgres.quoted(value)}" for name, value in values.items()), ""])


def without_leftovers(text: str) -> str:
    r"""postgresql.conf without the older agents' include lines.

    >>> without_leftovers("a = 1\ninclude '/var/lib/pgsql/tmp/rep_mode.conf' # added by pgsql RA\ninclude 'mine.conf'\n")
    "a = 1\ninclude 'mine.conf'\n"
    """
    return "".join(line for line in text.splitlines(keepends=True) if not LEFTOVER.match(line))


def _note(wanted: Wish) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(postgres.read_text(wanted.note) or "{}")
    except ValueError:
        return {}
    return found


# ---------------------------------------------------------------- the server


def start(request: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """Start PostgreSQL, at every boot too where systemd runs the machine. Does not wait until it streams."""
    wanted = wish(request)
    settings = wanted.settings
    _prepare(settings)
    if os.path.isdir(SYSTEMD):
        _write_if_new(UNIT, unit(wanted))
        _systemctl("daemon-reload")
        _systemctl("enable", SERVICE)
    if postgres.postmaster(settings) is None:
        _systemctl("start", SERVICE) if os.path.isdir(SYSTEMD) else _start_by_hand(settings)
    if not os.path.isdir(SYSTEMD):
        say(f"no systemd here: let this machine's own init do at boot what `cls_reader add {wanted.name}` does, or run that again after a boot")
    return {}


def _systemctl(*words: str) -> None:
    done = system.run(["systemctl", *words], timeout=120)
    if not done.ok:
        raise EnvironmentFailure(f"systemctl {' '.join(words)} failed: {(done.err or done.out).strip()}", f"journalctl -u {SERVICE}")


def _write_if_new(path: str, text: str) -> None:
    if postgres.read_text(path) != text:
        system.write_file(path, text, mode=0o644)


def server_options(settings: Settings) -> list[str]:
    """What the postgres program is told beside the data directory: only where its configuration lies elsewhere."""
    if settings.config == f"{settings.datadir}/postgresql.conf":
        return []
    return ["-c", f"config_file={settings.config}"]


def _start_by_hand(settings: Settings) -> None:
    hint = f"look into its log, and into {settings.logfile}; cls_reader add --again copies the primary anew"
    postgres.pg_ctl_start(settings, settings.datadir, " ".join(server_options(settings)), hint=hint)


def condition(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Whether the server runs, and what it complains of: for one that does not stream."""
    wanted = wish(request)
    return {"running": postgres.postmaster(wanted.settings) is not None, "complaint": postgres.complaint(wanted.settings)}


def unit(wanted: Wish) -> str:
    """The systemd unit: answer no ARP for the reader address, carry it, then serve (PostgreSQL manual, 19.3 Starting the Database Server)."""
    settings = wanted.settings
    command = " ".join([settings.program("postgres"), "-D", settings.datadir, *server_options(settings)])
    sysctl, ip, install = (shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin") or f"/usr/sbin/{name}" for name in ("sysctl", "ip", "install"))
    settled = [f"ExecStartPre=+{sysctl} -q -w {name}={value}" for name, value in ARP.items()]
    sockets = [f"ExecStartPre=+{install} -d -m 2775 -o {settings.pgdba} {settings.socketdir}"] if settings.socketdir else []
    return "\n".join([
        f"# written by cls_reader; `cls_reader remove {wanted.name}` takes it away",
        "[Unit]",
        f"Description=PostgreSQL read server {wanted.name} of pha4pgsql",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        f"User={settings.pgdba}",
        *([f"Environment=LD_LIBRARY_PATH={settings.pglibs}"] if settings.pglibs != "/usr/lib" else []),
        *settled,
        f"ExecStartPre=+{ip} address replace {prefixed(wanted.vip)} dev lo",
        *sockets,
        f"ExecStart={command}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "KillMode=mixed",
        "KillSignal=SIGINT",
        "TimeoutSec=infinity",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ])  # fmt: skip


def stop(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Stop PostgreSQL if it is the one that is noted; nothing starts it at boot any more, unless it is to be copied anew (`keep`)."""
    wanted = wish(request)
    settings = wanted.settings
    if not _note(wanted):
        return {"noted": False}
    if os.path.exists(UNIT):
        _systemctl("stop", SERVICE)
        if not request.get("keep"):
            _systemctl("disable", SERVICE)
            os.unlink(UNIT)
            _systemctl("daemon-reload")
    limit = time.monotonic() + settings.stop_escalate_in_slave + 10.0
    postgres.shutdown(settings, escalate=settings.stop_escalate_in_slave, deadline=limit, silent=False)
    return {"noted": True}


# ---------------------------------------------------------------- the reader address


def prefixed(vip: str) -> str:
    """The address as one of its own network.

    >>> prefixed("192.168.0.237"), prefixed("fd00::37")
    ('192.168.0.237/32', 'fd00::37/128')
    """
    return f"{vip}/128" if ":" in vip else f"{vip}/32"


def _places(vip: str) -> list[address.Place]:
    """Where this machine has the address on lo."""
    return [place for place in address.places(ipv6=":" in vip) if (place.address, place.interface) == (vip, "lo")]


def attach(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Carry the reader address on lo, after the machine answers no ARP for it; then PostgreSQL must be heard there."""
    wanted = wish(request)
    _write_if_new(SYSCTL_FILE, sysctl_conf(wanted.name))
    address.quiet(wanted.arp, USER)
    address.add(wanted.vip)
    with contextlib.suppress(OSError), socket.create_connection((wanted.vip, wanted.settings.pgport), timeout=3.0):
        return {}
    raise ClusterRefusal(
        f"PostgreSQL does not answer at {wanted.vip} port {wanted.settings.pgport} on this machine itself",
        "listen_addresses must be * or 0.0.0.0, or name the reader address; correct it and run the command again",
    )


def sysctl_conf(name: str) -> str:
    """The same at every boot, before any address is there."""
    lines = [f"{key} = {value}" for key, value in ARP.items()]
    return "\n".join([f"# written by cls_reader; `cls_reader remove {name}` takes it away", *lines, ""])


def detach(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """Give the reader address up, and the sysctls their values of before."""
    wanted = wish(request)
    noted = _note(wanted)
    if not noted:
        return {"noted": False}
    vip = noted.get("vip", wanted.vip)
    for place in _places(vip):
        address.remove(place.address, place.prefix)
    address.speak(wanted.arp, USER)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(SYSCTL_FILE)
    return {"noted": True}


def forget(request: Mapping[str, Any], _: Say) -> dict[str, Any]:
    """The end: nothing here is ours any more. `delete` takes the data, too."""
    wanted = wish(request)
    settings = wanted.settings
    if not _note(wanted):
        return {"noted": False}
    if request.get("delete"):
        if postgres.postmaster(settings) is not None:
            raise ClusterRefusal(f"PostgreSQL runs in {settings.datadir}", "stop it first")
        copies.empty_data(settings.datadir, settings.pgdba)
    for path in (settings.passfile if wanted.secret else "", wanted.mark, wanted.note):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    return {"noted": True}


VERBS: dict[str, Verb] = {
    function.__name__: function for function in (look, secret, clone, configure, start, condition, stop, attach, detach, forget)
}
