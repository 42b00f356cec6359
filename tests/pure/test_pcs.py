"""config.pcs: what the template makes of config.ini, how a hand-edited file is told from a made one, and which lines are accepted."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import config, config_pages, pcs
from pha4pgsql.words import ConfigurationError

if TYPE_CHECKING:
    from pha4pgsql.config import Config

GOLDEN = Path(__file__).parent / "golden"
OLD, NEW = (0, 11, 5), (0, 12, 0)
READING = {
    "pcs_template": "three_plus_x.pcs.j2",
    "othernodes": "node4 node5",
    "nofailover": "node3",
    "nosync": "node3",
    "noloadbalance": "node1 node4",
    "priority": "node2,20 node1,10",
}
DUAL = {
    "pcs_template": "dual.pcs.j2",
    "node3": "",
    "pgsql_enable_distlock": "true",
    "pgsql_distlock_psql_cmd": 'psql "host=192.168.0.234 port=5439 dbname=postgres user=distlock password=hush"',
    "pgsql_distlock_lockname": "pgcluster1",
}
LVS = {"pcs_template": "muti_with_lvs.pcs.j2"}


def settings(**changes: str) -> Config:
    """The sample file with keys changed."""
    lines = [line for line in config_pages.sample().splitlines() if line.partition("=")[0] not in changes]
    return config.parse("\n".join([*lines, *(f"{key}={shlex.quote(value)}" for key, value in changes.items())]))


def rendered(version: tuple[int, ...] = OLD, **changes: str) -> str:
    return pcs.render(settings(**changes), pcs.TEMPLATES, version)


def lines(text: str) -> list[str]:
    """The commands as one would type them, with single blanks."""
    return [shlex.join(words) for words in pcs.commands(text, "config.pcs")]


@pytest.mark.parametrize(
    ("name", "version", "changes"),
    [
        ("muti-pcs-0.11.pcs", OLD, {}),
        ("muti-pcs-0.12.pcs", NEW, {}),
        (
            "muti-everything.pcs",
            OLD,
            {
                "node4": "node4",
                "othernodes": "node5",
                "reader_vip_on_primary": "true",
                "stonith_enabled": "true",
                "cluster_properties": "load-threshold=200% dc-deadtime=5s",
                "pgsql_rep_mode": "quorum",
                "pgsql_sync_strict": "true",
                "RESOURCE_LIST": "pgset writer reader",
                "pgsql_resource": "pg",
                "pgsql_restore_command": "cp '/archive/$x/%f' \"%p\"",
                "pgsql_config": "/etc/postgresql/15/main/postgresql.conf",
            },
        ),
        ("three_plus_x-pcs-0.11.pcs", OLD, READING),
        ("three_plus_x-pcs-0.12.pcs", NEW, READING),
        ("three_plus_x-without-lvs.pcs", OLD, {**READING, "enable_lvs": "false", "pgsql_rep_mode": "quorum"}),
        ("dual-pcs-0.11.pcs", OLD, DUAL),
        ("dual-pcs-0.12.pcs", NEW, DUAL),
        ("muti_with_lvs-pcs-0.11.pcs", OLD, LVS),
        ("muti_with_lvs-pcs-0.12.pcs", NEW, LVS),
        (
            "muti_with_lvs-everything.pcs",
            OLD,
            {
                **LVS,
                "reader_vip": "2001:db8::237",
                "reader_vip_on_primary": "true",
                "RESOURCE_LIST": "pgset writer reader",
                "pgsql_resource": "pg",
                "pgsql_rep_mode": "quorum",
                "pgsql_primary_conninfo_opt": "sslmode=verify-full",
                "lvsdr_resource": "director",
                "lvsdr_realsvr_resource": "server",
                "lvs_virtual_service_options": "-s rr",
                "lvs_default_weight": "0",
                "lvs_weight_of_realservers": "node1,1  node2,3",
                "lvs_readers": "192.168.0.234,2 node5",
                "lvs_max_lag_bytes": "1000000",
                "lvs_max_lag_seconds": "30",
                "lvs_lag_weight": "1",
                "lvs_drain_time": "5min",
                "lvs_check_interval": "500ms",
                "lvs_check_timeout": "2s",
                "lvs_script_timeout": "10s",
                "lvs_get_real_servers_script": 'get_active_slaves psql "host=192.168.0.236"',
                "lvs_check_active_real_server_script": "check_active_slave -h",
                "lvs_heartbeat_file": "/run/lvsdr",
                "lvs_sync_daemon": "true",
                "lvs_sync_id": "7",
                "lvs_sync_threshold": "0 3",
                "lvs_fwmark": "1",
                "lvs_fwmark_ports": "5432 6432",
            },
        ),
    ],
)
def test_rendering_is_the_golden_one(name: str, version: tuple[int, ...], changes: dict[str, str]) -> None:
    """Database administrators review this file. REWRITE=1 in the environment rewrites the golden ones."""
    text = rendered(version, **changes)
    if os.environ.get("REWRITE"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_no_secret_and_no_empty_value() -> None:
    """Everybody may read the CIB; pcs refuses empty values."""
    text = rendered(pgsql_reppassword="hush", vip_nic="")
    assert "hush" not in text
    assert not [word for command in pcs.commands(text, "") for word in command if word.endswith("=")]


def test_values_reach_pcs_as_they_are() -> None:
    """Quotes, dollars and blanks of a command survive the shell."""
    command = "cp '/a/$x/%f' \"%p\""
    words = [word for line in pcs.commands(rendered(pgsql_restore_command=command), "") for word in line]
    assert f"restore_command={command}" in words


def test_the_file_is_a_shell_script(tmp_path: Path) -> None:
    """Who prefers to run it by hand may: the shell gives pcs the same words as cls_setup does."""
    (tmp_path / "pcs").write_text('#!/bin/sh\nfor word; do printf "%s\\0" "$word"; done\nprintf "\\n"\n')
    (tmp_path / "pcs").chmod(0o755)
    text = rendered(pgsql_restore_command="cp '/a/$x/%f' \"%p\"")
    (tmp_path / "config.pcs").write_text(text)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "config.pcs", "file"], cwd=tmp_path, env=environment, capture_output=True, check=True, text=True)
    assert [line.split("\0")[:-1] for line in done.stdout.splitlines()] == [["-f", "file", *words] for words in pcs.commands(text, "")]


@pytest.mark.parametrize("changes", [{}, LVS], ids=["muti", "muti_with_lvs"])
def test_order_constraints_have_kinds_and_roles_have_new_names(changes: dict[str, str]) -> None:
    """`score` in an order makes crm_verify complain; pcs 0.12 and Pacemaker 3 know no Master and Slave."""
    orders = [line for line in lines(rendered(OLD, **changes)) if line.startswith("constraint order")]
    assert orders
    assert all("kind=" in line and "score=" not in line for line in orders)
    assert not {"Master", "Slave", "master", "--master"} & {word for line in lines(rendered(OLD, **changes)) for word in line.split()}


def test_with_balancing_all_else_stays() -> None:
    """One template extends the other: what differs is how the reader address is placed."""
    plain, balanced = (lines(rendered(OLD, **changes)) for changes in ({}, LVS))
    placed = ("reader-with-standby", "reader-choice-rule", "noloadbalance-rule", "promote-then-reader", "stop-then-reader")
    left_out = [line.partition("id=pha4pgsql-pgsql-")[2].split()[0] for line in plain if line not in balanced]
    assert left_out == [*placed]


def test_rules_are_one_word_for_a_new_pcs() -> None:
    """A rule: pcs 0.12 takes one string only, 0.11.5 as several only."""
    rules = [words[-1] for words in pcs.commands(rendered(NEW, **LVS), "") if "rule" in words]
    assert rules == ["pgsql-status eq HS:async or pgsql-status eq HS:potential"]
    excluded = "pgsql-noloadbalance eq true"
    assert [words[-1] for words in pcs.commands(rendered(NEW), "") if "rule" in words] == ["pgsql-status eq HS:sync", excluded]
    assert [words[-3:] for words in pcs.commands(rendered(OLD), "") if "rule" in words] == [["pgsql-status", "eq", "HS:sync"], excluded.split()]


def test_a_name_that_begins_a_comment_is_quoted() -> None:
    """`#uname` unquoted would end the line, for a shell and for cls_setup."""
    everywhere = "#uname ne node1 and #uname ne node2 and #uname ne node3"
    for version in (OLD, NEW):
        rules = [" ".join(words) for words in pcs.commands(rendered(version, **READING), "") if "rule" in words]
        assert [rule.partition(everywhere)[2] for rule in rules if everywhere in rule] == ["", "", " and #uname ne node4 and #uname ne node5"]


def test_fencing_by_device_is_not_in_the_file() -> None:
    """For auto it is decided by what the cluster has when cls_setup runs."""
    assert "stonith-enabled=" not in rendered(stonith_enabled="auto")
    assert "stonith-enabled=true" in rendered(stonith_enabled="true")


def test_an_edited_file_is_told_from_a_made_one() -> None:
    """install.sh must not overwrite what somebody tuned."""
    text = rendered()
    assert pcs.is_untouched(text)
    assert not pcs.is_untouched(text.replace("timeout=60s", "timeout=90s"))
    assert not pcs.is_untouched("")


@pytest.mark.parametrize(
    "line", ["rm -rf /", "pcs resource create x", 'pcs -f "$CIB"', 'pcs -f "$CIB" resource "', 'x=1; pcs -f "$CIB" resource', "if true; then"]
)
def test_what_only_a_shell_could_do_is_refused(line: str) -> None:
    """cls_setup runs no shell; a line that it would not run must not be passed over in silence."""
    with pytest.raises(ConfigurationError, match="line 2"):
        pcs.commands(f"set -e\n{line}\n", "config.pcs")


def test_lines_continue_and_end_with_comments() -> None:
    """The usual layout of a long command."""
    text = '# pcs \\\npcs -f "$CIB" resource create a \\\n  b=c # why\n\npcs -f $CIB property set x=y\n'
    assert pcs.commands(text, "") == [["resource", "create", "a", "b=c"], ["property", "set", "x=y"]]


def test_an_unknown_template_names_the_known_ones() -> None:
    """A wrong name is corrected without a look into the directory."""
    with pytest.raises(ConfigurationError, match=r"muti\.pcs\.j2"):
        rendered(pcs_template="mutti.pcs.j2")
