"""The agents' interface to Pacemaker: parameters, metadata, settings, validation, exit codes."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import manual, ocf, paths, validation
from pha4pgsql.ocf import Code, Context, Notify, Settings
from pha4pgsql.parameters import AGENTS, PGSQL, PGWATCH, Kind, Parameter, Status
from pha4pgsql.settings import read_boolean, read_context, read_seconds, read_settings, read_value, resource_name
from pha4pgsql.words import ClusterRefusal, ConfigurationError, EnvironmentFailure, Mode, slot_word

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Break = Callable[[Path], dict[str, str]]

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
OWNER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

FORERUNNERS = {
    # parameters of expgsql and ocf:heartbeat:pgsql, with the defaults that users know
    "pgctl": "/usr/bin/pg_ctl", "psql": "/usr/bin/psql", "pgdata": "/var/lib/pgsql/data", "pgdba": "postgres", "pghost": "", "pgport": "5432",
    "pglibs": "/usr/lib", "config": "", "start_opt": "", "ctl_opt": "", "pgdb": "postgres", "logfile": "/dev/null", "socketdir": "",
    "tmpdir": "/var/lib/pgsql/tmp", "monitor_user": "", "monitor_password": "", "monitor_sql": "select now();", "check_wal_receiver": "false",
    "stop_escalate": "90s", "stop_escalate_in_slave": "90s", "crm_attr_timeout": "5s", "rep_mode": "none", "node_list": "",
    "restore_command": "", "archive_cleanup_command": "", "recovery_end_command": "", "master_ip": "", "repuser": "postgres",
    "primary_conninfo_opt": "", "restart_on_promote": "false", "replication_slot_name": "", "xlog_check_count": "3",
    "external_standby_node_list": "", "synchronous_standby_names": "", "enable_distlock": "false", "distlock_lock_cmd": "",
    "distlock_unlock_cmd": "", "distlock_lockservice_deadcheck_nodelist": "",
    # of PAF
    "bindir": "", "datadir": "", "system_user": "", "start_opts": "", "maxlag": "0", "recovery_template": "",
}  # fmt: skip


def environment(**parameters: str) -> dict[str, str]:
    """The environment of an agent with these parameters."""
    return {f"OCF_RESKEY_{name}": value for name, value in parameters.items()}


def settings(**parameters: str) -> Settings:
    """Settings from parameters that can be read."""
    found, problems = read_settings(PGSQL, environment(**parameters))
    assert problems == ()
    return found


# -- the table and what is drawn from it ---------------------------------------------------------------------------


def test_every_parameter_of_the_forerunners_has_a_row() -> None:
    """Whoever comes from an older agent finds each parameter, with its default, or the reason why it is gone."""
    assert {row.name: row.default for row in PGSQL.parameters if row.name in FORERUNNERS} == FORERUNNERS


def test_aliases_name_parameters_and_refusals_give_reasons() -> None:
    """No alias leads nowhere, nothing is ignored or refused without a why."""
    for agent in AGENTS.values():
        names = [row.name for row in agent.parameters]
        assert len(names) == len(set(names))
        for row in agent.parameters:
            assert (row.of in names) == (row.status is Status.ALIASED)
            assert bool(row.why) == (row.status in (Status.IGNORED, Status.REFUSED))


def test_settings_have_a_field_for_every_parameter_that_has_an_effect() -> None:
    """A row that nobody reads, or a field without a row, is a mistake."""
    used = {row.name for row in PGSQL.parameters if row.status in (Status.KEPT, Status.NEW)}
    assert used | {"resource"} == set(Settings._fields)
    assert {row.name for row in PGWATCH.parameters if row.status in (Status.KEPT, Status.NEW)} <= set(Settings._fields)


def test_the_defaults_of_the_fields_are_those_of_the_table() -> None:
    """Settings() and an empty environment are the same."""
    assert read_settings(PGSQL, {}) == (Settings(), ())


@pytest.mark.parametrize("name", AGENTS)
def test_metadata_is_the_golden_one(name: str) -> None:
    """Users' tools read the metadata: every change of it is seen. REWRITE=1 in the environment rewrites the files."""
    golden = GOLDEN / f"{name}.xml"
    if os.environ.get("REWRITE"):
        golden.write_text(ocf.metadata(AGENTS[name]), encoding="utf-8")
    assert ocf.metadata(AGENTS[name]) == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", AGENTS)
def test_metadata_tells_what_the_table_tells(name: str) -> None:
    """Refused parameters are left out; types and actions are in the vocabulary of ra-api-1.dtd."""
    agent = AGENTS[name]
    tree = ET.fromstring(ocf.metadata(agent))  # noqa: S314  our own text
    shown = {row.get("name"): row for row in tree.iter("parameter")}
    assert set(shown) == {row.name for row in agent.parameters if row.status is not Status.REFUSED}
    for row in shown.values():
        assert [child.tag for child in row] == ["longdesc", "shortdesc", "content"]
        assert row[2].get("type") in {"string", "integer", "boolean", "time"}
    assert [(row.get("name"), row.get("timeout"), row.get("role", "")) for row in tree.iter("action")] == [
        (row.name, row.timeout, row.role) for row in agent.actions
    ]
    assert tree.findtext("version") == "1.0"


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.skipif(not shutil.which("xmllint") or not Path("/usr/share/resource-agents/ra-api-1.dtd").exists(), reason="no xmllint or no DTD")
def test_metadata_is_valid(name: str) -> None:
    """The check that ocf-tester makes."""
    done = subprocess.run(
        [shutil.which("xmllint") or "", "--noout", "--valid", "-"], input=ocf.metadata(AGENTS[name]), cwd="/usr/share/resource-agents",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_metadata_is_escaped() -> None:
    """A parameter text with the characters of XML stays well-formed and comes back as it was."""
    text = """a < b & "c" > 'd'"""
    agent = PGSQL._replace(long=text, short=text, parameters=(Parameter("x", Kind.STRING, text, text, text),))
    tree = ET.fromstring(ocf.metadata(agent))  # noqa: S314  our own text
    content = tree.find("parameters/parameter/content")
    assert content is not None
    assert content.get("default") == tree.findtext("shortdesc") == tree.findtext("parameters/parameter/longdesc", "").strip() == text


def test_the_page_of_parameters_is_up_to_date() -> None:
    """docs/parameters.md says what the table says."""
    assert (ROOT / "docs/parameters.md").read_text(encoding="utf-8") == manual.page(AGENTS.values()), f"type: {manual.COMMAND}"


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["yes", "true", "1", "YES", "TRUE", "True", "ja", "on", "ON", "On", " true "])
def test_words_for_yes(text: str) -> None:
    """All that the shell function ocf_is_true takes for true, and the same in any case."""
    assert read_boolean(text) is True


@pytest.mark.parametrize("text", ["no", "false", "0", "off", "False", ""])
def test_words_for_no(text: str) -> None:
    """What people write for false."""
    assert read_boolean(text) is False


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("500ms", 0.5), ("2min", 120.0), ("2 m", 120.0), ("1h", 3600.0), ("0", 0.0), ("1.5s", 1.5), ("250000us", 0.25)],
)
def test_times(text: str, seconds: float) -> None:
    """Times as Pacemaker writes them."""
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.BOOLEAN, "ture"), (Kind.BOOLEAN, "2"), (Kind.SECONDS, "-1"), (Kind.SECONDS, "9 parsecs"), (Kind.SECONDS, "s"), (Kind.SECONDS, "1.2.3"),
        (Kind.SECONDS, "\u0661"), (Kind.INTEGER, "-1"), (Kind.INTEGER, "1e3"), (Kind.INTEGER, "\u00b2"), (Kind.INTEGER, "0x10"),
        (Kind.PATH, "relative/path"), (Kind.PATH, "/with\nnewline"), (Kind.STRING, "two\nlines"), (Kind.MODE, "SYNC"), (Kind.MODE, "fast"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_problem_and_takes_the_default(kind: Kind, text: str) -> None:
    """A typing mistake is reported, never taken for a no or a zero."""
    row = next(row for row in PGSQL.parameters if row.kind is kind)
    value, problems = read_value(row, text)
    assert value == read_value(row, row.default)[0]
    assert [problem.code for problem in problems] == [Code.CONFIGURED]


def test_settings_are_typed() -> None:
    """Each kind of parameter arrives as a value of its type."""
    found = settings(
        rep_mode="quorum", node_list="  Node1 node-2\tnode3 ", pgport="5433", sync_strict="yes", stop_escalate="2min", maxlag="1048576",
        pgdata="/srv/pg/", restore_command="cp '/arch/%f' \"%p\"", master_ip="192.168.0.236",
    )  # fmt: skip
    assert found.rep_mode is Mode.QUORUM
    assert found.members == ("Node1", "node-2", "node3")
    assert (found.pgport, found.sync_strict, found.stop_escalate, found.maxlag) == (5433, True, 120.0, 1048576)
    assert (found.pgdata, found.datadir, found.config) == ("/srv/pg", "/srv/pg", "/srv/pg/postgresql.conf")
    assert found.restore_command == "cp '/arch/%f' \"%p\""


def test_defaults_that_follow_other_parameters() -> None:
    """Datadir, config, monitor_user, passfile and the slots' prefix."""
    found = read_settings(PGSQL, {**environment(pgdata="/etc/pg", datadir="/data", pgdba="pg", tmpdir="/t"), "OCF_RESOURCE_INSTANCE": "My-DB:0"})[0]
    assert (found.resource, found.datadir, found.config, found.monitor_user, found.passfile, found.replication_slot_name) == (
        "My-DB", "/data", "/etc/pg/postgresql.conf", "pg", "/t/pgpass", "my_db",
    )  # fmt: skip


def test_an_empty_value_is_the_default() -> None:
    """As pcs refuses empty values, old configurations have them only to say nothing."""
    assert settings(pgdba="", pgctl=" ", socketdir="") == Settings()


def test_aliases() -> None:
    """PAF's names work; two names with two values do not."""
    assert settings(system_user="pg", start_opts="-c x=1")[5:6] == ("pg",)
    assert settings(system_user="pg", pgdba="pg").pgdba == "pg"
    assert [problem.code for problem in read_settings(PGSQL, environment(system_user="a", pgdba="b"))[1]] == [Code.CONFIGURED]


@pytest.mark.parametrize("row", [row for row in PGSQL.parameters if row.status is Status.REFUSED], ids=lambda row: row.name)
def test_refused_parameters(row: Parameter) -> None:
    """Set to something they are an error with the reason; set to their default they do no harm."""
    text = "true" if row.kind is Kind.BOOLEAN else "something"
    problem = read_settings(PGSQL, environment(**{row.name: text}))[1][0]
    assert problem.code is Code.CONFIGURED
    assert row.why in problem.message
    assert read_settings(PGSQL, environment(**{row.name: row.default}))[1] == ()


def test_pgwatch_speaks_for_the_named_resource() -> None:
    """Its own instance name is not the resource's."""
    found = read_settings(PGWATCH, {**environment(resource="db", tmpdir="/t"), "OCF_RESOURCE_INSTANCE": "pgwatch"})[0]
    assert (found.resource, found.tmpdir, found.replication_slot_name) == ("db", "/t", "db")
    assert read_settings(PGWATCH, {"OCF_RESOURCE_INSTANCE": "pgwatch:3"})[0].resource == "pgsql"


@pytest.mark.parametrize(("instance", "name"), [("pgsql", "pgsql"), ("pgsql:0", "pgsql"), ("pgsql:12", "pgsql"), ("a:b", "a:b"), ("", "")])
def test_resource_name(instance: str, name: str) -> None:
    """Only the number of a clone instance is cut off."""
    assert resource_name({"OCF_RESOURCE_INSTANCE": instance}) == name


def test_a_password_needs_its_role() -> None:
    """A monitor_password alone is a mistake, with the role's name it is none, even if that is the default's."""
    assert [problem.code for problem in read_settings(PGSQL, environment(monitor_password="x"))[1]] == [Code.CONFIGURED]  # noqa: S106
    assert settings(monitor_password="x", monitor_user="postgres").monitor_password == "x"  # noqa: S105, S106


def test_a_monitor_of_the_promoted_role() -> None:
    """What Pacemaker tells a recurring monitor, in the old and in the new words for roles."""
    for role, seen in (("Promoted", "promoted"), ("Master", "promoted"), ("Slave", "unpromoted"), ("Started", ""), ("", "")):
        meta = environment(CRM_meta_on_node="node1", CRM_meta_timeout="60000", CRM_meta_interval="3000", CRM_meta_role=role, CRM_meta_notify="true")
        found = read_context("monitor", {**meta, "OCF_CHECK_LEVEL": "10"}, 7.0, _nobody_asks)
        assert (found.node, found.timeout, found.interval, found.role, found.is_probe) == ("node1", 60.0, 3.0, seen, False)
        assert (found.check_level, found.in_cluster, found.notifications, found.promoted_max) == (10, True, True, None)
        assert found.deadline == 7.0 + 60 - 5


def _nobody_asks() -> str:
    pytest.fail("the node's name was in the environment")


def test_a_probe() -> None:
    """A monitor with the interval 0, or with none: Pacemaker 2.1 gives a probe no interval."""
    assert read_context("monitor", environment(CRM_meta_interval="0"), 0.0, lambda: "n").is_probe
    assert not read_context("start", environment(CRM_meta_interval="0"), 0.0, lambda: "n").is_probe
    assert read_context("monitor", {}, 0.0, lambda: "n").is_probe
    assert not read_context("monitor", environment(CRM_meta_interval="5000"), 0.0, lambda: "n").is_probe


def test_a_call_by_hand() -> None:
    """Outside of Pacemaker the name is asked for and the default timeout holds."""
    found = read_context("start", {}, 1.0, lambda: "node9")
    assert (found.node, found.timeout, found.deadline, found.in_cluster, found.notify) == ("node9", 20.0, 19.0, False, Notify())


def test_a_notification() -> None:
    """Lists of names; a list without names is one blank; the new words for roles come before the old ones."""
    meta = environment(
        CRM_meta_notify_type="pre", CRM_meta_notify_operation="promote", CRM_meta_notify_promote_uname="node2", CRM_meta_notify_start_uname=" ",
        CRM_meta_notify_active_uname="node2 node3 ", CRM_meta_notify_promoted_uname=" ", CRM_meta_notify_master_uname="node1",
        CRM_meta_notify_slave_uname="node2 node3",
    )  # fmt: skip
    found = read_context("notify", meta, 0.0, lambda: "n").notify
    assert found == Notify("pre", "promote", promote=("node2",), active=("node2", "node3"), promoted=(), unpromoted=("node2", "node3"))
    assert found.event == "pre-promote"


def test_k() -> None:
    """Half of the members, or less when configured so."""
    assert [Settings(node_list=("a", "b", "c", "d", "e")[:size]).k for size in range(6)] == [0, 0, 1, 1, 2, 2]
    assert Settings(node_list=("a", "b", "c", "d", "e"), sync_count=1).k == 1


# -- validation ----------------------------------------------------------------------------------------------------

REPLICATED = {"rep_mode": "sync", "node_list": "node1 node2 node3", "master_ip": "192.168.0.236"}
CONTEXT = Context("start", "pgsql", "node1")


def codes(problems: tuple[ocf.Problem, ...]) -> list[int]:
    """The exit codes of problems."""
    return [int(problem.code) for problem in problems]


@pytest.mark.parametrize(
    "change",
    [
        {"master_ip": ""}, {"node_list": ""}, {"master_ip": "a b"}, {"master_ip": "x' host=y"}, {"pgport": "0"}, {"pgport": "65536"},
        {"replication_slot_name": "Slot"}, {"replication_slot_name": "a-b"}, {"replication_slot_name": "x" * 50},
        {"node_list": "node1 node2 node1"}, {"node_list": "node1 node-2 node.2"}, {"node_list": "node1 Node1"}, {"node_list": 'node1 "'},
        {"node_list": "node1 n\u00f6de2"}, {"node_list": f"node1 {'x' * 60}"}, {"sync_count": "2"}, {"tmpdir": "/var/lib/pgsql/data/tmp"},
        {"tmpdir": "/var/lib/pgsql/data"}, {"tmpdir": "/run/pgsql"}, {"primary_conninfo_opt": "application_name=me"},
        {"primary_conninfo_opt": "sslmode=require host = elsewhere"}, {"rep_mode": "slave", "master_ip": ""},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_are_wrong_in_themselves(change: dict[str, str]) -> None:
    """Each is found, and is the configuration's fault wherever it runs."""
    assert codes(tuple(validation.check_values(settings(**{**REPLICATED, **change})))) == [Code.CONFIGURED]


@pytest.mark.parametrize(
    "change",
    [
        {}, {"rep_mode": "none", "node_list": "", "master_ip": ""}, {"rep_mode": "async"}, {"rep_mode": "quorum", "sync_count": "1"},
        {"rep_mode": "slave", "node_list": ""}, {"master_ip": "2001:db8::1"},
        {"node_list": "node1 db-2.example.com NODE3"}, {"primary_conninfo_opt": "user=replication password='a host=b' keepalives_idle=60"},
        {"tmpdir": "/var/lib/pgsql/data2"}, {"rep_mode": "none", "tmpdir": "/run/pgsql"}, {"node_list": "node1"},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_are_right(change: dict[str, str]) -> None:
    """No false alarm, an old template's conninfo included."""
    assert list(validation.check_values(settings(**{**REPLICATED, **change}))) == []


def test_the_node_and_the_clone() -> None:
    """A node outside of the list is this node's fault only; a clone without notify is the configuration's."""
    known = settings(**REPLICATED)
    assert codes(tuple(validation.check_cluster(PGSQL, known, CONTEXT))) == []
    assert codes(tuple(validation.check_cluster(PGSQL, known, CONTEXT._replace(node="Node1")))) == [Code.ARGS]
    assert codes(tuple(validation.check_cluster(PGSQL, known, CONTEXT._replace(notifications=False)))) == [Code.CONFIGURED]
    assert codes(tuple(validation.check_cluster(PGSQL, known, CONTEXT._replace(promoted_max=2)))) == [Code.CONFIGURED]
    assert codes(tuple(validation.check_cluster(PGSQL, settings(), CONTEXT._replace(node="x", notifications=False)))) == []
    assert codes(tuple(validation.check_cluster(PGWATCH, known, CONTEXT._replace(notifications=False)))) == []
    assert codes(tuple(validation.check_cluster(PGWATCH, known, CONTEXT._replace(node="x", notifications=False)))) == [Code.ARGS]


@pytest.mark.parametrize(
    ("text", "keywords"),
    [
        ("", []), ("a=b", ["a"]), (" a = b  c='d e=f' g=h", ["a", "c", "g"]), (r"a='it\'s x=y' b=1", ["a", "b"]), (r"a=1\ 2 b=1", ["a", "b"]),
        ("a='' b=c", ["a", "b"]), ("a='never closed b=c", ["a"]), ("a=", ["a"]),
    ],
)  # fmt: skip
def test_keywords_of_a_connection_string(text: str, keywords: list[str]) -> None:
    """Values are skipped, whatever they hold."""
    assert validation.conninfo_keywords(text) == keywords


def test_advice() -> None:
    """A misspelt parameter and a password in the CIB are worth a word."""
    secrets = {"monitor_password": "x", "primary_conninfo_opt": "password=x"}
    variables = environment(sync_strit="true", CRM_meta_timeout="1", crm_feature_set="3", **secrets)
    assert len(list(validation.advice(PGSQL, variables))) == 3
    assert list(validation.advice(PGSQL, environment(**REPLICATED))) == []


# -- a machine with PostgreSQL on it -------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Parameters that fit this machine: a data directory as far as a validation looks, and programs that know their version."""
    data, programs = tmp_path / "data", tmp_path / "bin"
    data.mkdir(mode=0o700)
    programs.mkdir()
    (data / "PG_VERSION").write_text("15\n")
    (data / "postgresql.conf").write_text("")
    for name in validation.PROGRAMS:
        (programs / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)'\n")
        (programs / name).chmod(0o755)
    if os.geteuid() == 0:
        shutil.chown(data, OWNER)
    return {"pgdata": str(data), "bindir": str(programs), "pgdba": OWNER, "tmpdir": str(tmp_path / "tmp")}


def given(**parameters: str) -> Break:
    """Nothing is broken, but these parameters are given."""
    return lambda _data: parameters


def file(path: str, text: str) -> Break:
    """The file at this path, seen from the data directory, has this text."""

    def write(data: Path) -> dict[str, str]:
        (data / path).write_text(text)
        return {}

    return write


def mode(path: str, bits: int) -> Break:
    """The file at this path has this mode."""

    def change(data: Path) -> dict[str, str]:
        (data / path).chmod(bits)
        return {}

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (given(), 0), (file("PG_VERSION", "12\n"), 5), (file("PG_VERSION", "hello\n"), 2), (file("PG_VERSION", "16\n"), 5),
        (mode(".", 0o755), 4), (mode(".", 0o750), 0), (file("recovery.conf", ""), 2), (mode("../bin/pg_controldata", 0o644), 5),
        (file("../bin/postgres", "#!/bin/false\n"), 5), (file("../tmp", ""), 4), (given(pgdata="/nonexistent"), 2), (given(pgdba="no-such-user"), 5),
        (given(pgdba="root"), 6), (given(config="/nonexistent/x.conf"), 5), (given(logfile="/nonexistent/log"), 4), (given(bindir="/nonexistent"), 5),
        (given(bindir="", pgctl="/nonexistent/pg_ctl"), 5), (given(rep_mode="bad"), 6),
        (given(enable_distlock="true"), 6), (given(distlock_lock_cmd="distlock"), 6),
        (given(**REPLICATED, tmpdir="/var/lib/pgsql/tmp"), 2), (given(pgdata="/nonexistent", rep_mode="bad"), 6),
    ],
)  # fmt: skip
def test_validate_all(machine: dict[str, str], change: Break, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Each thing that is broken gives its code, with a reason in one line; no action is loaded for it."""
    changed = {**machine, **change(Path(machine["pgdata"])), "CRM_meta_on_node": "elsewhere"}
    assert ocf.main("pgsql", _nothing_loads, ["validate-all"], environment(**changed)) == code
    assert capsys.readouterr().err.count("ocf-exit-reason:") == bool(code)


def _nothing_loads() -> ocf.Actions:
    pytest.fail("the agent's actions were loaded")


class Recorder:
    """Actions that note their calls and return what they are told to, or raise it."""

    def __init__(self, outcome: int | Exception) -> None:
        self.outcome = outcome
        self.called: list[str] = []

    def load(self) -> Mapping[str, Callable[[Settings, Context], int]]:
        """What the agent's module would offer."""
        return dict.fromkeys(("start", "stop", "monitor", "promote", "demote", "notify"), self)

    def __call__(self, _settings: Settings, context: Context) -> int:
        """One action."""
        self.called.append(context.action)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture(autouse=True)
def unchanged_path() -> Iterator[None]:
    """The import path as it was: an agent's call adds to it."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.mark.parametrize("action", ["start", "stop", "monitor", "status", "notify"])
def test_a_call_on_a_healthy_machine(machine: dict[str, str], action: str) -> None:
    """The action is called with typed settings and its code returned; status is monitor."""
    recorder = Recorder(Code.RUNNING_PROMOTED)
    assert ocf.main("pgsql", recorder.load, [action], environment(**machine, CRM_meta_on_node="node1")) == Code.RUNNING_PROMOTED
    assert recorder.called == [action]


def test_promotion_without_replication_is_not_implemented(machine: dict[str, str]) -> None:
    """An instance without replication has no roles: ocf-tester then asks for none."""
    recorder = Recorder(0)
    for action in ("promote", "demote"):
        assert ocf.main("pgsql", recorder.load, [action], environment(**machine, CRM_meta_on_node="node1")) == Code.UNIMPLEMENTED
    assert recorder.called == []


ACTIONS = ("start", "stop", "monitor", "status", "promote", "demote", "notify", "validate-all")


@pytest.mark.parametrize(
    ("broken", "code"), [({"pgdata": "/nonexistent", "bindir": "/nonexistent"}, 5), ({"rep_mode": "bad"}, 6), ({"pgdba": "no-such-user"}, 5)]
)
@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_runs_and_something_is_broken(machine: dict[str, str], broken: dict[str, str], code: int, action: str) -> None:
    """A stop succeeds, a probe says not running, all else says what is wrong."""
    expected = {"stop": Code.SUCCESS, "monitor": Code.NOT_RUNNING, "status": Code.NOT_RUNNING}.get(action, code)
    assert ocf.main("pgsql", _nothing_loads, [action], environment(**{**machine, **broken}, CRM_meta_on_node="node1")) == expected


@pytest.fixture
def running(machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The same machine with a process that looks like its postmaster: ours."""
    monkeypatch.chdir(machine["pgdata"])
    Path(machine["pgdata"], "postmaster.pid").write_text(f"{os.getpid()}\n{machine['pgdata']}\n")
    return machine


@pytest.mark.parametrize(
    ("action", "broken", "code", "called"),
    [
        ("stop", {"bindir": "/nonexistent"}, 42, ["stop"]),
        ("stop", {"rep_mode": "bad"}, 42, ["stop"]),
        ("monitor", {"bindir": "/nonexistent"}, 42, ["monitor"]),
        ("monitor", {"rep_mode": "bad"}, 1, []),
        ("demote", {"bindir": "/nonexistent"}, 42, ["demote"]),
        ("start", {"bindir": "/nonexistent"}, 5, []),
        ("promote", {"bindir": "/nonexistent"}, 5, []),
    ],
)
def test_postgresql_runs_and_something_is_broken(running: dict[str, str], action: str, broken: dict[str, str], code: int, called: list[str]) -> None:
    """A running postmaster is never called stopped: it is stopped, or asked, in spite of what is broken."""
    recorder = Recorder(42)
    assert ocf.main("pgsql", recorder.load, [action], environment(**{**running, **broken}, CRM_meta_on_node="node1")) == code
    assert recorder.called == called


def test_a_stale_pid_is_no_postmaster(machine: dict[str, str]) -> None:
    """A number that belongs to another process, to none, or is no number."""
    file = Path(machine["pgdata"], "postmaster.pid")
    for text in (f"{os.getpid()}\n", "4194305\n", "x\n", ""):
        file.write_text(text)
        assert not validation.postmaster_lives(machine["pgdata"])


ERRORS = (ConfigurationError("x", "y"), EnvironmentFailure("x"), ClusterRefusal("x"), ZeroDivisionError("x\ny"), KeyError("x"))


@pytest.mark.parametrize(("error", "code"), [*zip(ERRORS, (6, 5, 1, 1, 1))], ids=repr)
def test_a_start_that_raises(machine: dict[str, str], error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Every failure has a code and a reason."""
    assert ocf.main("pgsql", Recorder(error).load, ["start"], environment(**machine, CRM_meta_on_node="node1")) == code
    assert capsys.readouterr().err.count("ocf-exit-reason:") == 1


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize(("action", "code"), [("stop", 1), ("monitor", 1), ("status", 1), ("notify", 1)])
def test_an_action_that_raises_while_postgresql_runs(running: dict[str, str], error: Exception, action: str, code: int) -> None:
    """A bug never makes a running postmaster look stopped."""
    assert ocf.main("pgsql", Recorder(error).load, [action], environment(**running, CRM_meta_on_node="node1")) == code


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize(("action", "code"), [("stop", 0), ("monitor", 7), ("status", 7), ("notify", 1)])
def test_an_action_that_raises_while_nothing_runs(machine: dict[str, str], error: Exception, action: str, code: int) -> None:
    """Nor does one get a node fenced on which nothing is left to stop."""
    assert ocf.main("pgsql", Recorder(error).load, [action], environment(**machine, CRM_meta_on_node="node1")) == code


@pytest.mark.parametrize("action", ["stop", "monitor"])
def test_pgwatch_is_stopped_and_asked_whatever_is_broken(action: str) -> None:
    """It runs beside PostgreSQL, so only itself can tell whether it runs."""
    recorder = Recorder(42)
    assert ocf.main("pgwatch", recorder.load, [action], environment(rep_mode="bad", CRM_meta_on_node="x")) == 42
    assert ocf.main("pgwatch", recorder.load, ["start"], environment(rep_mode="bad", CRM_meta_on_node="x")) == Code.CONFIGURED
    assert recorder.called == [action]


def test_pgwatch_needs_no_postgresql() -> None:
    """It starts where the data directory and the programs are gone."""
    recorder = Recorder(0)
    variables = environment(**REPLICATED, pgdata="/nonexistent", bindir="/nonexistent", pgdba="no-such-user", CRM_meta_on_node="node1")
    assert ocf.main("pgwatch", recorder.load, ["start"], variables) == 0


# -- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["usage"], 0), (["help"], 0), (["methods"], 0), (["meta-data"], 0), (["reload-agent"], 3), (["migrate_to"], 3), (["bogus"], 3),
        ([], 1), (["a", "b"], 1),
    ],
)  # fmt: skip
def test_calls_that_need_no_configuration(name: str, arguments: list[str], code: int) -> None:
    """An unknown action is unknown even if the configuration is broken, and documentation never fails."""
    assert ocf.main(name, _nothing_loads, arguments, environment(rep_mode="bad")) == code


@pytest.mark.parametrize("name", AGENTS)
def test_the_executables(name: str) -> None:
    """They can be run by anybody, without a site directory, and hold no logic."""
    path = ROOT / "agents" / name
    assert path.stat().st_mode & 0o111 == 0o111
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/python3 -IS\n")
    done = subprocess.run([path, "meta-data"], capture_output=True, text=True, check=False, env={"PATH": "/nonexistent"})
    assert (done.returncode, done.stdout, done.stderr) == (0, ocf.metadata(AGENTS[name]), "")


def test_a_call_imports_nothing_heavy() -> None:
    """A monitor every three seconds pays for every import: these cost more than the agent itself."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pha4pgsql.ocf; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"argparse", "logging", "xml", "subprocess", "tempfile", "json", "dataclasses", "inspect", "psycopg2", "lxml", "traceback", "pathlib"}
    assert heavy & set(done.stdout.split()) == set()


# -- where things are ----------------------------------------------------------------------------------------------


def _install(directory: Path) -> str:
    directory.mkdir(parents=True)
    for name in validation.PROGRAMS:
        (directory / name).write_text("")
    return str(directory)


def test_programs_are_found(tmp_path: Path) -> None:
    """An explicit directory, pg_ctl's, the one it is a link to, the one of the data's version, the newest."""
    old, new, rpm = (_install(tmp_path / path) for path in ("debian/14/bin", "debian/15/bin", "usr/pgsql-9/bin"))
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(f"{old}/pg_ctl")
    places = ((f"{tmp_path}/debian", "", "/bin"), (f"{tmp_path}/usr", "pgsql-", "/bin"), ("/nonexistent", "", ""))

    def found(bindir: str, pgctl: str = paths.DEFAULT_PGCTL) -> str:
        return paths.find_programs(bindir, pgctl, str(data), places)

    assert found("/some/where") == "/some/where"
    assert found("", f"{old}/pg_ctl") == old
    assert found("", f"{tmp_path}/link") == old
    assert found("", "/nonexistent/pg_ctl") == ""
    for version, directory in (("14", old), ("9.6", rpm)):
        (data / "PG_VERSION").write_text(f"{version}\n")
        assert found("") == directory
        assert found("", "/nonexistent/pg_ctl") == ""
        assert found("", f"{new}/pg_ctl") == new


@pytest.mark.skipif(Path(paths.DEFAULT_PGCTL).exists(), reason="this machine has a pg_ctl in /usr/bin")
def test_programs_without_a_data_directory(tmp_path: Path) -> None:
    """The newest; but for data of a version that is not there, none."""
    _install(tmp_path / "14/bin")
    new = _install(tmp_path / "15/bin")
    places = ((str(tmp_path), "", "/bin"),)
    assert paths.find_programs("", paths.DEFAULT_PGCTL, str(tmp_path), places) == new
    (tmp_path / "PG_VERSION").write_text("16\n")
    assert paths.find_programs("", paths.DEFAULT_PGCTL, str(tmp_path), places) == ""


def test_slot_words() -> None:
    """Only what a slot's name may hold."""
    assert [slot_word(name) for name in ("node1", "Node-1.example", "n\u00f6de", "a_b")] == ["node1", "node_1_example", "n_de", "a_b"]
