"""Read servers outside of the cluster: preconditions, what is left to do, how one stands, its settings; no machine is touched."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pha4pgsql import cli_reader, config, errand, reader, reader_node
from pha4pgsql.checks import Answer, Check
from pha4pgsql.lvs_words import Replica
from pha4pgsql.reader import Standing, Told
from pha4pgsql.words import ClusterRefusal, EnvironmentFailure

ROOT = Path(__file__).parents[2]
PARAMETERS = {
    "pgdata": "/pgsql/data",
    "bindir": "/usr/pgsql/bin",
    "repuser": "replication",
    "master_ip": "192.168.0.236",
    "passfile": "/var/lib/pgsql/tmp/pgpass",
    "socketdir": "/var/run/postgresql",
    "restore_command": "cp /archive/%f '%p'",
    "node_list": "node1 node2 node3",
}
REQUEST = {"name": "node4", "address": "192.168.0.234", "vip": "192.168.0.237", "writer": "192.168.0.236", "parameters": PARAMETERS}
PRIMARY = {"major": 15, "system_identifier": "77", "size": 100, "is_primary": True, "tablespaces": [], "busy": [], "wal_kept": 1}
NODE: dict[str, Any] = {
    "root": True,
    "missing": [],
    "user": True,
    "own_address": True,
    "member": False,
    "config": "/pgsql/data/postgresql.conf",
    "free": 1000,
    "major": 15,
    "data": "empty",
    "system_identifier": "",
    "running": False,
    "refused": "",
    "primary": PRIMARY,
}
CLUSTER: dict[str, Any] = {"primary": "node1", "director": "lvsdr", "asks": "host=x", "readers": "", "pool": {}, "eras": []}
EVERYWHERE: dict[str, str | None] = dict.fromkeys(("node1", "node2", "node3"), "192.168.0.234")
SUITS = reader.Ground("node4", "192.168.0.234", ("node1", "node2", "node3"), NODE, CLUSTER, EVERYWHERE, same_network=True)


def node(**changes: Any) -> reader.Ground:  # noqa: ANN401
    return SUITS._replace(node={**NODE, **changes})


def refused(ground: reader.Ground) -> list[Check]:
    return [check for check in reader.checks(ground) if check.answer is Answer.NO]


def test_a_machine_that_suits() -> None:
    """Every check says yes."""
    assert {check.answer for check in reader.checks(SUITS)} == {Answer.YES}


@pytest.mark.parametrize(
    "ground",
    [
        SUITS._replace(name="NODE1"),
        SUITS._replace(same_network=False),
        SUITS._replace(resolved={**EVERYWHERE, "node3": ""}),
        SUITS._replace(resolved={**EVERYWHERE, "node3": "192.168.0.99"}),
        SUITS._replace(cluster={**CLUSTER, "primary": ""}),
        SUITS._replace(cluster={**CLUSTER, "director": ""}),
        SUITS._replace(cluster={**CLUSTER, "asks": ""}),
        node(missing=["pg_basebackup"]),
        node(user=False),
        node(own_address=False),
        node(member=True),
        node(config=""),
        node(refused="no pg_hba.conf entry"),
        node(major=14),
        node(free=50),
        node(data="other"),
        node(data="standby", system_identifier="78"),
        node(data="other", system_identifier="77"),
        node(primary={**PRIMARY, "busy": ["/space"]}),
        node(primary={**PRIMARY, "is_primary": False}),
    ],
)
def test_each_thing_that_is_wrong_is_told_with_a_hint(ground: reader.Ground) -> None:
    """Exactly one check says no."""
    (check,) = refused(ground)
    assert check.hint
    assert str(check).startswith("no ")


def test_a_node_that_cannot_be_asked_stops_nothing() -> None:
    """Unknown is not no: a cluster with a node that is down gets its read servers all the same."""
    ground = SUITS._replace(resolved={**EVERYWHERE, "node3": None})
    assert [check.answer for check in reader.checks(ground) if check.answer is not Answer.YES] == [Answer.UNKNOWN]


@pytest.mark.parametrize(
    ("ground", "is_copied"),
    [
        (node(data="empty"), True),
        (node(data="partial"), True),
        (node(data="standby", system_identifier="77"), False),
        (node(data="standby", system_identifier="77")._replace(again=True), True),
        (node(data="other", system_identifier="77")._replace(again=True), True),
    ],
)
def test_when_a_copy_is_made(ground: reader.Ground, *, is_copied: bool) -> None:
    """Nothing there, half of one, or asked for; a good one is kept."""
    assert reader.copies(ground) is is_copied
    assert refused(ground) == []


def test_another_database_is_never_replaced() -> None:
    """Not even with --again."""
    assert refused(node(data="standby", system_identifier="78")._replace(again=True))


STREAMING = Replica("node4", "192.168.0.234", "streaming", "async", 5, 0.1)
ERAS = [(1, 0), (2, 500), (3, 900)]


@pytest.mark.parametrize(
    ("replica", "told", "oldest", "expected"),
    [
        (STREAMING, None, None, "streaming"),
        (STREAMING._replace(state="catchup"), None, None, "catchup"),
        (STREAMING._replace(lag_bytes=-1), Told(True, 1, 501), None, "diverged"),
        (STREAMING._replace(state="startup", lag_bytes=-1), Told(True, 3, 901), None, "startup"),
        (None, None, None, "down"),
        (None, Told(False, 4, 950), None, "no standby"),
        (None, Told(True, 1, 501), None, "diverged"),
        (None, Told(True, 2, 901), 950, "diverged"),
        (None, Told(True, 1, 500), None, "disconnected"),
        (None, Told(True, 3, 2000), 1000, "disconnected"),
        (None, Told(True, 3, 999), 1000, "left behind"),
    ],
)
def test_how_one_stands(replica: Replica | None, told: Told | None, oldest: int | None, expected: str) -> None:
    """A walsender that has replayed more than it was sent is one that comes again and again; then the server itself tells."""
    state, hint = reader.state(replica, told, ERAS, oldest, "node4")
    assert state == expected
    assert bool(hint) is (expected not in {"streaming", "catchup", "startup"})


def test_the_row_that_lives_counts() -> None:
    """A dead connection's walsender may stand before it; a base backup from the same machine is no server."""
    dead = STREAMING._replace(state="startup", lag_bytes=-1)
    assert reader.replica_of([dead, STREAMING], "node4", "") == STREAMING
    assert reader.replica_of([dead], "node4", "") == dead
    backup = Replica("pg_basebackup", "192.168.0.234", "backup", "async", -1, 0.0)
    assert reader.replica_of([backup], "node4", "192.168.0.234") is None
    unnamed = STREAMING._replace(name="walreceiver")
    assert reader.replica_of([backup, unnamed], "node4", "192.168.0.234") == unnamed


def test_pool() -> None:
    """By name, else by address."""
    published = {"at": 1, "servers": [["node2", "192.168.0.232", 1, 0, 0], ["192.168.0.234", "192.168.0.234", 2, 3, 4]]}
    assert reader.pooled(published, "node2", "") == reader.Pooled("node2", "192.168.0.232", 1, 0, 0)
    assert reader.pooled(published, "node4", "192.168.0.234") == reader.Pooled("192.168.0.234", "192.168.0.234", 2, 3, 4)
    assert reader.pooled({}, "node4", "192.168.0.234") is None


# ---------------------------------------------------------------- its settings


def test_the_copy_becomes_a_standby_of_its_own_name() -> None:
    """What the member's copy brought along goes where it would win; what is the user's stays; twice is once."""
    brought = "work_mem = '8MB'\nprimary_conninfo = 'host=old password=secret'\nprimary_slot_name = 'pgsql_3_node1_node2'\n"
    text = reader_node.auto_conf(brought, reader_node.wish(REQUEST))
    lines = dict(line.split(" = ", 1) for line in text.splitlines())
    assert lines["work_mem"] == "'8MB'"
    assert "host=192.168.0.236" in lines["primary_conninfo"]
    assert "application_name=node4" in lines["primary_conninfo"]
    assert "passfile=/var/lib/pgsql/tmp/pgpass" in lines["primary_conninfo"]
    assert "password=" not in text
    assert lines["primary_slot_name"] == lines["synchronous_standby_names"] == "''"
    assert lines["restore_command"] == "'case %f in *.history) exit 1;; esac; cp /archive/%f ''%p'''"
    assert lines["cluster_name"] == "'node4'"
    assert reader_node.auto_conf(text, reader_node.wish(REQUEST)) == text


def test_the_unit_answers_no_arp_before_it_carries_the_address() -> None:
    """Otherwise readers' packets would come past the director for a moment."""
    lines = reader_node.unit(reader_node.wish(REQUEST)).splitlines()
    sysctl, address, server = (
        next(number for number, line in enumerate(lines) if word in line) for word in ("arp_ignore=1", "192.168.0.237/32", "ExecStart=")
    )
    assert sysctl < address < server
    assert "ExecStart=/usr/pgsql/bin/postgres -D /pgsql/data" in lines
    assert "User=postgres" in lines


# ---------------------------------------------------------------- errands


VERBS: dict[str, errand.Verb] = {
    "add": lambda request, say: (say("adding"), {"sum": request["a"] + request["b"]})[1],  # type: ignore[func-returns-value]
    "no": lambda _request, _say: (_ for _ in ()).throw(ClusterRefusal("no", "later")),
    "broken": lambda _request, _say: (_ for _ in ()).throw(OSError("disk")),
}


class Shell:
    """ssh's twin: the other machine is this process."""

    def lines(self, _machine: str, command: list[str], data: bytes, say: errand.Say) -> int:
        real, sys.stdin = sys.stdin, io.StringIO(data.decode())
        out, sys.stdout = sys.stdout, io.StringIO()
        try:
            code = errand.serve(VERBS, command[-1])
        finally:
            said, sys.stdin, sys.stdout = sys.stdout.getvalue(), real, out
        for line in ["Warning: Permanently added", *said.splitlines()]:
            say(line)
        return code


def errands() -> tuple[errand.Errand, errand.Errand, list[str]]:
    """The same verbs here and there."""
    said: list[str] = []
    shell: Any = Shell()
    return errand.here(VERBS, said.append), errand.there(shell, "node4", ["x"], said.append), said


def test_an_errand_is_the_same_here_and_there() -> None:
    """Answer, words on the way, and failures of the same kind."""
    here, there, said = errands()
    assert here("add", a=1, b=2) == there("add", a=1, b=2) == {"sum": 3}
    assert said == ["adding", "adding"]
    for go in (here, there):
        with pytest.raises(ClusterRefusal) as refusal:
            go("no")
        assert refusal.value.hint == "later"
        with pytest.raises(EnvironmentFailure):
            go("broken")


def test_a_machine_that_says_nothing_of_ours() -> None:
    """ssh's own complaint becomes the reason."""

    class Lost:
        def lines(self, _machine: str, _command: list[str], _data: bytes, say: errand.Say) -> int:
            say("ssh: connect to host node4 port 22: Connection refused")
            return 255

    shell: Any = Lost()
    with pytest.raises(EnvironmentFailure) as lost:
        errand.there(shell, "node4", ["x"], print)("look")
    assert "refused" in lost.value.message


# ---------------------------------------------------------------- the command


def test_list_for_people_and_programs() -> None:
    """A dash where nothing is known; what is to be done stands under the line."""
    rows = [Standing("node4", "192.168.0.234", "streaming", "", 0, 0.0, 1, 2, 3, None), Standing("node5", "192.168.0.235", "diverged", "do it")]
    lines = cli_reader.table(rows).splitlines()
    assert lines[0].split()[:3] == ["NAME", "ADDRESS", "STATE"]
    assert lines[1].split() == ["node4", "192.168.0.234", "streaming", "0", "0.0", "1", "2", "3", "-"]
    assert lines[3].strip() == "HINT: do it"
    assert json.loads(json.dumps([one._asdict() for one in rows]))[0]["weight"] == 1
    assert cli_reader.table([]) == "there are no read servers outside of the cluster"


@pytest.mark.parametrize(("chosen", "meant"), [("", "msPostgresql"), ("shop", "shop")])
def test_another_machine_is_told_which_set_is_meant(monkeypatch: pytest.MonkeyPatch, chosen: str, meant: str) -> None:
    """By --set, or by config.ini, which is only here."""
    monkeypatch.setenv("PHA4PGSQL_SET", chosen)
    command = cli_reader.sent(config.load(str(ROOT / "config.ini.sample")), "/tmp/x/bin/cls_reader", "cluster")
    assert command == ["env", f"PHA4PGSQL_SET={meant}", *errand.PYTHON, "/tmp/x/bin/cls_reader", "errand", "cluster"]


@pytest.mark.parametrize("words", [[], ["add"], ["add", "node4", "--timeout", "soon"], ["list", "node4"], ["errand", "node"]])
def test_wrong_usage(words: list[str]) -> None:
    """Code 100, and a hint."""
    done = subprocess.run([sys.executable, "-IS", ROOT / "bin" / "cls_reader", *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (100, "")
    assert "HINT:" in done.stderr
