"""config.ini: what is read, and that every problem is told at once, by key, with what was expected."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pha4pgsql import config, config_pages
from pha4pgsql.config import KEYS, Config
from pha4pgsql.parameters import AGENTS, LVSDR, LVSDR_REALSVR, PGSQL, PGWATCH, Status
from pha4pgsql.words import ConfigurationError, Mode

ROOT = Path(__file__).parent.parent.parent
LEAST = {
    "writer_vip": "192.168.0.236",
    "reader_vip": "192.168.0.237",
    "node1": "node1",
    "node2": "node2",
    "node3": "node3",
    "pgsql_bindir": "/usr/lib/postgresql/15/bin",
    "pgsql_pgdata": "/pgsql/data",
    "pgsql_reppassword": "secret",
}


LOCK = {"pgsql_distlock_psql_cmd": "'psql \"host=lock dbname=postgres user=distlock\"'", "pgsql_distlock_lockname": "pgcluster1"}


def text(**changes: str | None) -> str:
    """The shortest good file, with keys changed, added or (None) left out."""
    return "".join(f"{key}={value}\n" for key, value in {**LEAST, **changes}.items() if value is not None)


def problems(content: str) -> dict[str, str]:
    """What is wrong with a file, by key."""
    with pytest.raises(ConfigurationError) as caught:
        config.parse(content)
    lines = caught.value.message.splitlines()[1:]
    assert caught.value.hint
    return dict(line.strip().split(": ", 1) for line in lines)


def test_the_shortest_file() -> None:
    """What has a default need not be written."""
    parsed = config.parse(text())
    assert parsed.nodes == ("node1", "node2", "node3")
    assert (parsed.pgsql_rep_mode, parsed.pgsql_pgport, parsed.pgsql_sync_strict) == (Mode.SYNC, 5432, False)
    assert parsed.pgsql_pgctl == "/usr/lib/postgresql/15/bin/pg_ctl"
    assert parsed.pgsql_passfile == "/var/lib/pgsql/tmp/pgpass"
    assert (parsed.resource_set, parsed.writer, parsed.reader) == ("msPostgresql", "vip-master", "vip-slave")


def test_distributed_lock() -> None:
    """An old file's psql command becomes a connection string without its password, which goes into the passfile of the members only."""
    old = r"""'/usr/bin/psql \"host=node9 port=5439 dbname=postgres user=lock password=s:x connect_timeout=5\"'"""
    parsed = config.parse(
        text(node3=None, pcs_template="dual.pcs.template", **{**LOCK, "pgsql_enable_distlock": "true", "pgsql_distlock_psql_cmd": old})
    )
    given = {name: value for name, value in parsed.agent_parameters.items() if "distlock" in name}
    assert given == {
        "enable_distlock": "true", "distlock_lockname": "pgcluster1",
        "distlock_conninfo": "connect_timeout=5 dbname=postgres host=node9 port=5439 user=lock",
    }  # fmt: skip
    assert given.items() <= parsed.watch_parameters.items()
    assert config.lock_passfile(parsed) == "node9:5439:postgres:lock:s\\:x\n"
    assert parsed.no_quorum_policy == "ignore"
    off = config.parse(text(pgsql_enable_distlock="false", pgsql_distlock_psql_cmd="'whatever it was'"))
    assert (off.lock, "distlock_conninfo" in off.agent_parameters, off.no_quorum_policy) == (None, False, "stop")


OLD = """\
pcs_template=muti.pcs.template
OCF_ROOT=/usr/lib/ocf
RESOURCE_LIST="msPostgresql vip-master vip-slave"
pha4pgsql_dir=/opt/pha4pgsql
writer_vip=192.168.0.236
reader_vip=192.168.0.237
node1=node1
node2=node2
node3=node3
othernodes=""
vip_nic=ens37
vip_cidr_netmask=24
pgsql_pgctl=/usr/pgsql/bin/pg_ctl
pgsql_psql=/usr/pgsql/bin/psql
pgsql_pgdata=/pgsql/data
pgsql_pgport=5432
pgsql_restore_command=""
pgsql_rep_mode=sync
pgsql_repuser=replication
pgsql_reppassord=replication
"""


def test_an_old_file_works() -> None:
    """The walkthrough's config.ini, misspelt password key and old template name included."""
    parsed = config.parse(OLD)
    assert parsed.pcs_template == "muti.pcs.j2"
    assert config.parse(OLD.replace("=muti.", "=muti_with_lvs.")).pcs_template == "muti_with_lvs.pcs.j2"
    assert parsed.pgsql_reppassword == "replication"
    assert parsed.pgsql_bindir == "/usr/pgsql/bin"
    assert parsed.vip_nic == "ens37"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("word", "word"),
        ("'a b'", "a b"),
        ('"a b"   # comment', "a b"),
        ("a#b", "a#b"),
        ("a #b", "a"),
        ('""', ""),
        ("", ""),
        (r'"a\"b\\c\d"', r'a"b\c\d'),
        (r"a\ b", "a b"),
        ("'$HOME `x`'", "$HOME `x`"),
        ("\"one\"'two'three", "onetwothree"),
    ],
)
def test_values_are_read_as_a_shell_reads_them(raw: str, value: str) -> None:
    """The file of a shell program stays readable."""
    assert config.read_value(raw) == value


@pytest.mark.parametrize("raw", ['"open', "'open", "a b", "$HOME", '"$(date)"', "`date`", "a 'b"])
def test_what_a_shell_would_execute_or_refuse_is_a_problem(raw: str) -> None:
    """Nothing is expanded, so nothing that a shell would expand is taken literally either."""
    with pytest.raises(ValueError, match=r"."):
        config.read_value(raw)


def test_blanks_and_export_are_tolerated() -> None:
    """Trailing blanks, Windows line ends and blanks around the equals sign are no reason to fail."""
    assert config.parse(text(pgsql_pgport=None) + "  export pgsql_pgport = 5433 \t\r\n\n# end\n").pgsql_pgport == 5433


def test_nodes_are_counted_up() -> None:
    """More than three nodes, the last ones in othernodes."""
    assert config.parse(text(node4="d", othernodes="'e f'")).nodes == ("node1", "node2", "node3", "d", "e", "f")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"writer_vip": None}, "writer_vip"),
        ({"writer_vip": "192.168.0"}, "writer_vip"),
        ({"reader_vip": "192.168.0.236"}, "reader_vip"),
        ({"vip_cidr_netmask": "33"}, "vip_cidr_netmask"),
        ({"vip_cidr_netmask": "x"}, "vip_cidr_netmask"),
        ({"node2": None}, "node2"),
        ({"node2": None, "node3": None}, "node2"),
        ({"node2": "NODE1"}, "nodes"),
        ({"node2": "node-1", "node3": "node_1"}, "nodes"),
        ({"node2": "node1"}, "nodes"),
        ({"node3": "-n"}, "node3"),
        ({"othernodes": "'a;b'"}, "othernodes"),
        ({"node3": "n" * 40, "pgsql_replication_slot_name": "x" * 20}, "nodes"),
        ({"pgsql_bindir": None}, "pgsql_bindir"),
        ({"pgsql_pgdata": "data"}, "pgsql_pgdata"),
        ({"pgsql_tmpdir": "/pgsql/data/tmp"}, "pgsql_tmpdir"),
        ({"pgsql_tmpdir": "/srv/data", "pgsql_datadir": "/srv/data"}, "pgsql_tmpdir"),
        ({"pgsql_pgport": "0"}, "pgsql_pgport"),
        ({"pgsql_rep_mode": "none"}, "pgsql_rep_mode"),
        ({"pgsql_sync_count": "2"}, "pgsql_sync_count"),
        ({"pgsql_sync_strict": "maybe"}, "pgsql_sync_strict"),
        ({"pgsql_reppassword": None}, "pgsql_reppassword"),
        ({"pgsql_primary_conninfo_opt": "'password=x'"}, "pgsql_primary_conninfo_opt"),
        ({"pgsql_primary_conninfo_opt": "'user'"}, "pgsql_primary_conninfo_opt"),
        ({"pgsql_monitor_interval": "3s"}, "pgsql_monitor_interval_promoted"),
        ({"pgsql_monitor_interval": "soon"}, "pgsql_monitor_interval"),
        ({"pgsql_replication_slot_name": "Slot"}, "pgsql_replication_slot_name"),
        ({"RESOURCE_LIST": "msPostgresql"}, "RESOURCE_LIST"),
        ({"stonith_enabled": "perhaps"}, "stonith_enabled"),
        ({"cluster_properties": "x"}, "cluster_properties"),
        ({"pcs_template": "../x"}, "pcs_template"),
        ({"pgsql_enable_distlock": "true", **LOCK, "pgsql_rep_mode": "async"}, "pgsql_enable_distlock"),
        ({"pgsql_enable_distlock": "true", "pgsql_distlock_lockname": "a"}, "pgsql_distlock_psql_cmd"),
        ({"pcs_template": "dual.pcs.j2"}, "pcs_template"),
        ({"pgsql_enable_distlock": "true", **LOCK, "pgsql_distlock_lockname": "'a b'"}, "pgsql_distlock_lockname"),
        ({"pgsql_enable_distlock": "true", **LOCK, "pgsql_distlock_psql_cmd": "'psql -h node1'"}, "pgsql_distlock_psql_cmd"),
        ({"pgsql_enable_distlock": "true", **LOCK, "pgsql_distlock_psql_cmd": "'psql -h lock,node9'"}, "pgsql_distlock_psql_cmd"),
        ({"pgsql_pgdat": "/x"}, "pgsql_pgdat"),
        ({"pgsql_pgdba": "'a b'"}, "pgsql_pgdba"),
        ({"lvs_readers": "'node4,heavy'"}, "lvs_readers"),
        ({"lvs_readers": "'node4 ,3'"}, "lvs_readers"),
        ({"lvs_weight_of_realservers": "node1,70000"}, "lvs_weight_of_realservers"),
        ({"lvs_get_real_servers_script": "'psql password=x'"}, "lvs_get_real_servers_script"),
        ({"lvs_sync_daemon": "true"}, "lvs_sync_interface"),
        ({"lvs_sync_threshold": "3"}, "lvs_sync_threshold"),
        ({"lvs_sync_id": "256"}, "lvs_sync_id"),
        ({"lvs_fwmark": "0"}, "lvs_fwmark"),
        ({"lvs_fwmark_ports": "5432"}, "lvs_fwmark"),
        ({"lvs_fwmark_ports": "'5432 x'", "lvs_fwmark": "1"}, "lvs_fwmark_ports"),
        ({"lvsdr_resource": "vip-slave"}, "lvsdr_resource"),
    ],
)
def test_every_problem_has_its_key(changes: dict[str, str | None], key: str) -> None:
    """One fault, one problem, under the key to be corrected."""
    assert list(problems(text(**changes))) == [key]


def test_all_problems_come_at_once() -> None:
    """Nobody corrects a file in ten rounds."""
    bad = 'node1=a\nnode3=b c\npgsql_pgdat=x\nfoo bar\nwriter_vip=1.2.3\npgsql_pgport="5\npgsql_rep_mode=sink\nwriter_vip=1.2.3.4\n'
    found = problems(bad)
    assert {"node3", "line 4", "pgsql_pgport", "pgsql_pgdat", "writer_vip", "reader_vip", "pgsql_pgdata", "pgsql_bindir", "pgsql_reppassword"} <= set(
        found
    )
    assert "pgsql_pgdata" in found["pgsql_pgdat"]


@pytest.mark.parametrize("option", ["sslcert=/x", "'sslmode=verify-full passfile=/x'", "service=ha"])
def test_a_certificate_or_passfile_stands_in_for_the_password(option: str) -> None:
    """Who authenticates otherwise needs no password here, and gets no passfile."""
    parsed = config.parse(text(pgsql_reppassword=None, pgsql_primary_conninfo_opt=option))
    assert parsed.pgsql_passfile == ""


def test_agents_get_no_secret_and_no_empty_value() -> None:
    """The CIB is readable by many; pcs refuses empty values. Every name is one that the agent knows."""
    parsed = config.parse(text(pgsql_reppassword="hush", pgsql_monitor_user="watcher"))
    for given, agent in (
        (parsed.agent_parameters, PGSQL),
        (parsed.watch_parameters, PGWATCH),
        (parsed.director_parameters, LVSDR),
        (parsed.real_server_parameters, LVSDR_REALSVR),
    ):
        assert "" not in given.values()
        assert "hush" not in str(given)
        assert set(given) <= {row.name for row in agent.parameters if row.status is not Status.REFUSED}
    assert parsed.agent_parameters["node_list"] == "node1 node2 node3"
    assert parsed.agent_parameters["master_ip"] == "192.168.0.236"
    assert parsed.watch_parameters["resource"] == "pgsql"
    assert "bindir" not in parsed.agent_parameters


def test_bindir_is_given_when_pg_ctl_is_elsewhere() -> None:
    """Otherwise the agent takes the directory of pg_ctl."""
    parsed = config.parse(text(pgsql_pgctl="/usr/local/bin/pg_ctl"))
    assert parsed.agent_parameters["bindir"] == "/usr/lib/postgresql/15/bin"


def test_a_director_gets_what_differs_from_its_own_defaults() -> None:
    """The cluster's configuration stays readable. Weights are looked at unless somebody wants otherwise."""
    parsed = config.parse(text(lvs_default_weight="1", lvs_drain_time="30s", lvs_max_lag_bytes="0", lvs_sync_interface="eth1"))
    assert parsed.director_parameters == {
        "vip": "192.168.0.237",
        "port": "5432",
        "realserver_dependent_resource": "lvsdr-realsvr-clone",
        "realserver_dependent_attribute_name": "pgsql-status",
        "realserver_dependent_attribute_value": "HS:sync|HS:quorum|HS:potential|HS:async",
        "conninfo": "host=192.168.0.236 port=5432 user=postgres dbname=postgres",
        "passfile": "/var/lib/pgsql/tmp/pgpass",
        "virtual_service_options": "-s wrr",
    }
    assert parsed.real_server_parameters == {"vip": "192.168.0.237"}


@pytest.mark.parametrize(
    ("address", "fallback", "serves"), [("true", None, True), ("true", "false", False), ("false", "true", True), ("false", None, False)]
)
def test_the_primary_serves_readers_where_the_reader_address_may_be_there(address: str, fallback: str | None, *, serves: bool) -> None:
    """One word for both, unless the director is there for the sake of servers outside of the cluster."""
    parsed = config.parse(text(reader_vip_on_primary=address, lvs_fallback_to_primary=fallback))
    assert parsed.director_parameters.get("fallback_to_primary") == ("true" if serves else None)


def test_connections_are_told_by_director_and_real_servers_alike() -> None:
    """On the addresses' interface if no other is named."""
    parsed = config.parse(text(vip_nic="ens37", lvs_sync_daemon="true", lvs_sync_id="7"))
    assert parsed.real_server_parameters == {"vip": "192.168.0.237", "sync_daemon": "true", "sync_interface": "ens37", "sync_id": "7"}
    assert parsed.real_server_parameters.items() <= parsed.director_parameters.items()


def test_every_key_sets_a_parameter_of_its_agent() -> None:
    """A slip in the table would be told by pcs only, on the user's machine."""
    for key in KEYS.values():
        assert not key.parameter or key.parameter in {row.name for row in AGENTS[key.agent].parameters}


def test_passfile_escapes_what_libpq_splits_at() -> None:
    r"""PostgreSQL manual, The Password File: a `:` or `\` in a value is escaped with `\`."""
    parsed = config.parse(text(pgsql_reppassword=r"'a:b\c'", pgsql_repuser="rep", pgsql_pgport="5433"))
    assert config.passfile(parsed) == "*:5433:*:rep:a\\:b\\\\c\n"


@pytest.mark.parametrize(("mode", "status"), [("sync", "HS:sync"), ("quorum", "HS:quorum"), ("async", "HS:async")])
def test_readers_prefer_the_best_standby_of_the_mode(mode: str, status: str) -> None:
    """A rule on a status that the mode never publishes would never hold."""
    assert config.parse(text(pgsql_rep_mode=mode)).best_status == status


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """A newcomer's first mistake."""
    with pytest.raises(ConfigurationError) as caught:
        config.load(str(tmp_path / "config.ini"))
    assert f"cp {tmp_path}/config.ini.sample" in caught.value.hint


def test_config_lies_above_the_command_through_links(tmp_path: Path) -> None:
    """Commands work from any directory, through symbolic links."""
    (tmp_path / "opt" / "bin").mkdir(parents=True)
    (tmp_path / "opt" / "bin" / "cls").touch()
    (tmp_path / "link").symlink_to(tmp_path / "opt" / "bin" / "cls")
    assert config.beside(str(tmp_path / "link")) == str(tmp_path / "opt" / "config.ini")


def test_table_and_tuple_have_the_same_fields() -> None:
    """Every key has a typed field, except those without effect."""
    gone = {"use_ssh"}
    assert {key.field for key in KEYS.values()} - gone == set(Config._fields) - {"nodes", "read_nodes"}


def test_other_nodes_only_read_with_their_template() -> None:
    """`othernodes` are members as ever, but with three_plus_x."""
    more = {"othernodes": '"node4 node5"'}
    plain, reading = config.parse(text(**more)), config.parse(text(**more, pcs_template="three_plus_x.pcs.template"))
    assert (plain.members, plain.read_nodes) == (plain.nodes, ())
    assert (reading.members, reading.read_nodes) == (("node1", "node2", "node3"), ("node4", "node5"))
    assert reading.agent_parameters["node_list"] == "node1 node2 node3"
    assert reading.agent_parameters["read_node_list"] == reading.watch_parameters["read_node_list"] == "node4 node5"
    assert "read_node_list" not in plain.agent_parameters
    assert problems(text(**more, pcs_template="three_plus_x.pcs.j2", pgsql_sync_count="2")).keys() == {"pgsql_sync_count"}


def test_standbys_outside() -> None:
    """Names of none of the nodes; the agents get them with blanks between, and nothing where there is none."""
    given = config.parse(text(pgsql_external_standby_node_list='"dr1 dr2"')).agent_parameters
    assert given["external_standby_node_list"] == "dr1 dr2"
    assert "external_standby_node_list" not in config.parse(text()).agent_parameters


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"nofailover": "node2", "nosync": "node2", "noloadbalance": "node1", "priority": '"node1,5 node3,100"'}, set()),
        ({"nofailover": '"node1 node2"'}, set()),
        ({"nofailover": '"node1 node2 node3"'}, {"nofailover"}),
        (
            {"nofailover": "node9", "nosync": "node8", "noloadbalance": "node7", "priority": "node6,1"},
            {"nofailover", "nosync", "noloadbalance", "priority"},
        ),
        ({"priority": "node1"}, {"priority"}),
        ({"priority": "node1,101"}, {"priority"}),
        ({"nosync": '"node2 node3"'}, {"nosync"}),  # nobody would confirm what node1 commits
        ({"nosync": '"node2 node3"', "nofailover": "node1"}, set()),
        ({"nosync": '"node2 node3"', "pgsql_rep_mode": "async"}, set()),
        ({"nosync": "node3", "pgsql_rep_mode": "quorum", "node4": "node4", "pgsql_sync_count": "2"}, set()),
        ({"nosync": '"node3 node4"', "pgsql_rep_mode": "quorum", "node4": "node4", "pgsql_sync_count": "2"}, {"nosync"}),
        ({"noloadbalance": "node4", "nosync": "node4", "othernodes": "node4", "pcs_template": "three_plus_x.pcs.j2"}, {"nosync"}),
    ],
)
def test_wishes_that_cannot_be_fulfilled(changes: dict[str, str], keys: set[str]) -> None:
    """Tags name nodes that they concern, and leave enough nodes to confirm whoever is primary."""
    if keys:
        assert set(problems(text(**changes))) == keys
    else:
        config.parse(text(**changes))


def test_wishes_become_node_attributes() -> None:
    """Under the resource's name, as an operator would set them."""
    parsed = config.parse(text(nofailover="node3", nosync="node3", priority="node1,7", pgsql_resource="pg"))
    assert parsed.node_attributes == {"node3": [("pg-nofailover", "true"), ("pg-nosync", "true")], "node1": [("pg-priority", "7")]}


def test_every_default_is_legal() -> None:
    """A default that its own parser refuses would fail on every machine."""
    for key in KEYS.values():
        for value in (key.default, key.example):
            if value:
                key.parse(value)


@pytest.mark.parametrize(("name", "made"), [("config.ini.sample", config_pages.sample), ("docs/config.md", config_pages.page)])
def test_sample_and_page_are_of_the_table(name: str, made: object) -> None:
    """What people read is what the program does. REWRITE=1 in the environment rewrites the files."""
    assert callable(made)
    if os.environ.get("REWRITE"):
        (ROOT / name).write_text(made(), encoding="utf-8")
    assert made() == (ROOT / name).read_text(encoding="utf-8")


def test_sample_is_a_good_file_and_documents_every_key() -> None:
    """Copying it is the first step of the walkthrough."""
    sample = config_pages.sample()
    parsed = config.parse(sample)
    assert parsed.nodes == ("node1", "node2", "node3")
    written = set(re.findall(r"^#?(\w+)=", sample, re.MULTILINE))
    assert set(KEYS) <= written
    everything = re.sub(r"^#(\w+=)", r"\1", sample, flags=re.MULTILINE)
    config.parse(everything)
