"""One node as the agents see it: how long its PostgreSQL is given to end, and who takes its end for a death."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pha4pgsql import agent, pacemaker, paths, postgres, system, vote, watch
from pha4pgsql.outage import Meter
from pha4pgsql.settings import Code, Context, Settings
from pha4pgsql.sight import unread
from pha4pgsql.site import MOVING, NOBODY_LEFT, Scope, Site
from pha4pgsql.words import Ballot, Instance, Mode, Name, Run, State, Upstream

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

NODES = ("node1", "node2", "node3")
CONTEXT = Context("demote", "pgsql", "node1", timeout=60.0, started=0.0)


def site(tmp_path: Path, online: tuple[str, ...] = NODES, **changes: Any) -> Site:  # noqa: ANN401
    user = pwd.getpwuid(os.geteuid()).pw_name
    settings = Settings(tmpdir=str(tmp_path), socketdir="", logfile="", pgdba=user, node_list=NODES, **changes)
    made = Site(settings, CONTEXT._replace(started=time.monotonic()), lambda *_: None)
    made._cluster = SimpleNamespace(online=online)  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("online", "run", "lost", "seconds"),
    [
        (NODES, Run.PRIMARY, None, 90.0),
        (("node1", "node2"), Run.PRIMARY, {"node3", "node4"}, 90.0),
        (("node1",), Run.PRIMARY, {"node2", "node3", "node4"}, NOBODY_LEFT),
        (("node1",), Run.STANDBY, None, 90.0),
    ],
    ids=["all there", "one is lost", "cut off", "a standby"],
)
def test_nobody_who_is_lost_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, online: tuple[str, ...], run: Run, lost: set[str] | None, seconds: float
) -> None:
    """PostgreSQL itself would wait for their confirmation of its last record, a minute by default."""
    dismissed: list[Collection[str]] = []
    given: list[float] = []
    monkeypatch.setattr(postgres, "dismiss", lambda _, nodes: dismissed.append(nodes))
    monkeypatch.setattr(postgres, "shutdown", lambda _, escalate, **__: given.append(escalate))
    readers = ("node4",) if lost else ()
    ending = site(tmp_path, online, read_node_list=readers)
    ending._run = run
    ending.shutdown()
    assert dismissed == ([frozenset(lost)] if lost else [])
    assert given == [seconds]


def test_a_set_of_one_has_nobody_to_lose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its primary gets all the time it was given."""
    given: list[float] = []
    monkeypatch.setattr(postgres, "shutdown", lambda _, escalate, **__: given.append(escalate))
    alone = site(tmp_path, ("node1",))
    alone.rules = alone.rules._replace(members=("node1",))
    alone._run = Run.PRIMARY
    alone.shutdown()
    assert given == [90.0]


def test_an_end_that_was_asked_for_is_no_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher resigns for a primary whose postmaster died, not while the agent demotes it."""
    given: list[object] = []
    demoting = site(tmp_path)
    term = Ballot(7, "node1")
    (tmp_path / "pgsql.state").write_text(vote.state_text(State(term, reign=term)))
    monkeypatch.setattr(pacemaker, "set_transient", given.append)
    with demoting.ending() as handle:
        assert handle is not None
        watch.resign(demoting.settings, CONTEXT)
        assert given == []
    watch.resign(demoting.settings, CONTEXT)
    assert given == [{("node1", "master-pgsql"): "-INFINITY"}]


def test_the_first_monitor_of_a_new_primary_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a second after the promotion it believes it, if the reign stands and the postmaster lives; never in a probe."""
    alive: list[object] = [object()]
    monkeypatch.setattr(postgres, "postmaster", lambda _: alive[0])
    fresh, note = site(tmp_path, rep_mode=Mode.SYNC), tmp_path / "pgsql.promotion"
    (tmp_path / "pgsql.state").write_text(vote.state_text(State(Ballot(7, "node1"), reign=Ballot(7, "node1"))))
    assert not agent._just_promoted(fresh)
    note.write_text("")
    assert agent.monitor(fresh.settings, fresh.context) == Code.RUNNING_PROMOTED
    fresh.context = fresh.context._replace(is_probe=True)
    assert not agent._just_promoted(fresh)
    fresh.context = fresh.context._replace(is_probe=False)
    os.utime(note, (time.time() - MOVING, time.time() - MOVING))
    assert not agent._just_promoted(fresh)
    note.write_text("")
    alive[0] = None
    assert not agent._just_promoted(fresh)
    alive[0] = object()
    (tmp_path / "pgsql.state").write_text(vote.state_text(State(Ballot(7, "node1"))))
    assert not agent._just_promoted(fresh)


def test_the_end_of_wal_is_read_when_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an answer once the ballot is promised, never before; for a demotion only of what is down."""
    asked: list[bool] = []

    def observe(_: Settings, *, end: bool, **__: object) -> Instance:
        asked.append(end)
        return Instance(Run.STANDBY)

    monkeypatch.setattr(postgres, "observe", observe)
    monkeypatch.setattr(pacemaker, "attributes", lambda _: {})
    monkeypatch.setattr(pacemaker, "property", lambda *_: "8")
    for round_promised, scope, expected in ((7, Scope.BALLOT, False), (8, Scope.BALLOT, True), (7, Scope.VOTES, True)):
        (tmp_path / "pgsql.state").write_text(vote.state_text(State(Ballot(round_promised, "node2"))))
        site(tmp_path).look(scope=scope)
        assert asked.pop() is expected


@pytest.fixture(scope="module")
def stopped() -> Iterator[Settings]:
    """A database that was stopped, with segments of zeroes beside the one that is in use, as a checkpoint makes them in advance."""
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory() as folder:
        shutil.chown(folder, user)
        bindir = paths.find_programs("", paths.DEFAULT_PGCTL, "")
        settings = Settings(pgdata=f"{folder}/data", datadir=f"{folder}/data", tmpdir=folder, bindir=bindir, pgdba=user)
        initdb = [settings.program("initdb"), "-D", settings.datadir, "-A", "trust", "--no-sync"]
        assert system.run(initdb, user=user).ok
        wal = Path(settings.datadir, "pg_wal")
        [used] = [one.name for one in wal.iterdir() if len(one.name) == 24]
        for number in range(2, 200):  # pg_waldump looks at the first that the directory lists
            new = wal / f"{used[:16]}{number:08X}"
            new.touch(0o600)
            shutil.chown(new, user)
            os.truncate(new, 16 << 20)
        yield settings


def test_a_segment_of_zeroes_hides_nothing(stopped: Settings) -> None:
    """The end of WAL is found: the checkpoint of the shutdown is the last record."""
    seen = postgres.observe(stopped)
    assert (seen.run, seen.unread) == (Run.DOWN, "")
    assert seen.lsn is not None
    assert 0 < seen.lsn - seen.checkpoint < 200


@contextlib.contextmanager
def served(stopped: Settings, *, by_hand: str = "") -> Iterator[Settings]:
    """The same database, running; its own file names another port. With `by_hand` it is started with its own file, in which this stands, too."""
    settings = stopped._replace(pgport=5599, socketdir=stopped.tmpdir, config=f"{stopped.tmpdir}/own.conf", logfile=f"{stopped.tmpdir}/log")
    own = f"listen_addresses = ''\nport = 5432\nunix_socket_directories = '/nowhere'\n{by_hand}"
    Path(settings.config).write_text(own, encoding="utf-8")
    deadline = time.monotonic() + 30
    postgres.write_config(settings, replicated=False)
    if by_hand:
        postgres.pg_ctl_start(settings, settings.pgdata, f"-c config_file={settings.config} -p 5599 -c unix_socket_directories={settings.socketdir}")
    else:
        postgres.start_postmaster(settings)
    try:
        while postgres.observe(settings).run is not Run.PRIMARY and time.monotonic() < deadline:
            time.sleep(0.05)
        yield settings
    finally:
        postgres.shutdown(settings, escalate=20.0, deadline=deadline + 60, silent=False)


def test_the_file_says_what_the_command_line_says(stopped: Settings) -> None:
    """Else PostgreSQL logs at every reload that its port cannot be changed, and that the configuration has errors."""
    with served(stopped) as settings, postgres.session(settings, timeout=10.0) as query:
        query("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while "SIGHUP" not in (log := Path(settings.logfile).read_text(encoding="utf-8")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert query("SELECT name FROM pg_file_settings WHERE error IS NOT NULL") == [], log


@pytest.mark.parametrize("included", [False, True])
def test_who_started_the_server(stopped: Settings, *, included: bool) -> None:
    """By hand with its own file: nothing of the agent's reaches it, unless that file includes the agent's."""
    postgres.write_names(stopped, "ANY 1 (node2)")
    with served(stopped, by_hand=f"include '{stopped.tmpdir}/rep_mode.conf'\n" if included else "# mine\n") as settings:
        assert postgres.observe(settings).unruled == ("" if included else settings.config)


def test_nobody_stands_in_the_way_of_a_new_database(stopped: Settings) -> None:
    """CREATE DATABASE waits for sessions in template1, and they for it."""
    with served(stopped) as settings, postgres.session(settings, timeout=10.0), postgres.session(settings, timeout=4.0) as query:
        query("CREATE DATABASE made")
        query("DROP DATABASE made")


def test_settings_of_people_do_not_blind_the_agent(stopped: Settings) -> None:
    """A role's own time limits and ways to commit, a database that is closed: the server has answered, and is asked another way."""
    with served(stopped) as settings:
        with postgres.session(settings, timeout=10.0) as query:
            for given in ("statement_timeout = '1ms'", "synchronous_commit = local", "default_transaction_isolation = serializable"):
                query(f"ALTER ROLE CURRENT_USER SET {given}")
        with postgres.session(settings, timeout=10.0) as query:
            query("SELECT pg_sleep(0.05)")
            assert query("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]
            assert query("SHOW transaction_isolation") == [{"transaction_isolation": "read committed"}]
            query("CREATE TABLE made ()")
        with postgres.session(settings._replace(pgdb="template1"), timeout=10.0) as query:
            query("ALTER DATABASE postgres ALLOW_CONNECTIONS false")
        assert postgres.observe(settings).run is Run.PRIMARY
        with postgres.session(settings, timeout=10.0) as query:
            assert query("SELECT current_database() AS here") == [{"here": "template1"}]
            query("ALTER DATABASE postgres ALLOW_CONNECTIONS true")
            query("ALTER ROLE CURRENT_USER RESET ALL")


def test_alter_system_does_not_switch_off_what_the_agent_sets(stopped: Settings) -> None:
    """Whether commits wait, and from whom a standby receives."""
    said: list[str] = []
    with served(stopped) as settings:
        acting = Site(
            settings._replace(node_list=NODES, rep_mode=Mode.SYNC), CONTEXT._replace(started=time.monotonic()), lambda _, text: said.append(text)
        )
        postgres.write_names(settings, "")
        postgres.write_recovery(settings, "node1", Upstream("node2", "pgsql_1_node2_node1"))
        postgres.write_config(settings, replicated=True)
        with postgres.session(settings, timeout=10.0) as query:
            for given in (
                "recovery_target_time = '2026-01-01'",
                "synchronous_standby_names = 'somebody'",
                "primary_conninfo = 'host=elsewhere'",
                "work_mem = '5MB'",
            ):
                query(f"ALTER SYSTEM SET {given}")
            assert postgres.upstream(settings) is None
            acting.perform([Name("")])
            assert "primary_conninfo recovery_target_time synchronous_standby_names" in said[0]
            assert postgres.upstream(settings) == Upstream("node2", "pgsql_1_node2_node1")
            deadline = time.monotonic() + 30
            while query("SELECT 1 FROM pg_settings WHERE name = 'work_mem' AND setting <> '5120'") and time.monotonic() < deadline:
                time.sleep(0.05)
            shown = {row["name"]: row["setting"] for row in query("SELECT name, setting FROM pg_settings")}
    assert (shown["work_mem"], shown["synchronous_standby_names"]) == ("5120", "")
    assert "elsewhere" not in shown["primary_conninfo"]


def test_a_setting_that_is_overridden_twice_is_taken_out_twice(tmp_path: Path) -> None:
    """pg_basebackup -R appends to what an ALTER SYSTEM has left."""
    path = tmp_path / "postgresql.auto.conf"
    path.write_text("# one\nprimary_conninfo = 'host=a'\nwork_mem = '5MB'\nprimary_conninfo = 'host=b'\n")
    settings = Settings(datadir=str(tmp_path), pgdba=pwd.getpwuid(os.geteuid()).pw_name)
    assert postgres.clear_overrides(settings) == ["primary_conninfo"]
    assert path.read_text() == "# one\nwork_mem = '5MB'\n"


def test_what_cannot_be_read_is_not_taken_for_the_end(stopped: Settings, tmp_path: Path) -> None:
    """An end that is too near could cost what was confirmed beyond it."""
    bindir = tmp_path / "bin"
    bindir.mkdir()
    tmp_path.chmod(0o755)
    for name in ("pg_controldata", "postgres"):
        (bindir / name).symlink_to(stopped.program(name))
    broken = bindir / "pg_waldump"
    broken.write_text(
        "#!/bin/sh\n"
        "echo 'rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/01000028, prev 0/00000000, desc: CHECKPOINT_SHUTDOWN'\n"
        "echo 'pg_waldump: error: could not read file: Input/output error' >&2; exit 1\n"
    )
    broken.chmod(0o755)
    seen = postgres.observe(stopped._replace(bindir=str(bindir), pgdba=pwd.getpwuid(os.geteuid()).pw_name))
    assert seen.lsn is None
    assert unread(seen).endswith("could not be found out: pg_waldump: error: could not read file: Input/output error")


def test_a_meter_rests_until_it_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not longer than asked, and a moment when all is over."""
    meter = Meter("", "")
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    meter.rest(0.01)
    assert slept == []
    meter.stop()
    meter.rest(60.0)
    assert len(slept) == 1
