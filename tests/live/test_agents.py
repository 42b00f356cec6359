"""The agents before the judges that users have: ocf-tester, crm_resource, pcs, and Pacemaker itself. In a bare one-node lab."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import ocf
from pha4pgsql.lab_up import bring_up
from pha4pgsql.lab_words import Plan
from pha4pgsql.parameters import AGENTS
from pha4pgsql.paths import find_programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pha4pgsql.lab import Lab
    from pha4pgsql.system import Completed

ROOT = Path(__file__).parents[2]
TREE = "/srv/pha4pgsql"
"""A copy of what is tested, on the node: ocf-tester calls the agents as nobody too, who may not enter every checkout (/root)."""

HOME = "/srv/ocf"
"""Where the node under test has its PostgreSQL."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.skipif(not shutil.which("pacemakerd", path="/usr/sbin:/sbin"), reason="Pacemaker is not installed"),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One node with Pacemaker, its own PostgreSQL data directory, and our agents in its OCF_ROOT."""
    nodes = bring_up(Plan(name="agents", size=1), say=print, bare=True)
    try:
        _await(nodes, ["cibadmin", "--query", "--xpath", "//node_state[@crmd!='offline']"])
        done(nodes, ["install", "-d", "/usr/lib/ocf/resource.d/pha4pgsql"])
        done(nodes, ["install", "-d", TREE])
        done(nodes, ["cp", "-r", str(ROOT / "agents"), str(ROOT / "pha4pgsql"), TREE])
        done(nodes, ["chmod", "-R", "go=rX", TREE])
        done(nodes, ["ln", "-s", *(f"{TREE}/agents/{name}" for name in AGENTS), "/usr/lib/ocf/resource.d/pha4pgsql/"])
        done(nodes, ["install", "-d", "-o", "postgres", HOME])
        initdb = f"{find_programs('', '/usr/bin/pg_ctl', '')}/initdb"
        done(nodes, [initdb, "-D", f"{HOME}/data", "-A", "trust", "--no-sync"], user="postgres")
        done(nodes, ["tee", "-a", f"{HOME}/data/postgresql.conf"], text=f"listen_addresses = '*'\nunix_socket_directories = '{HOME}'\n")
        yield nodes
    finally:
        nodes.down()


def done(lab: Lab, argv: Sequence[str], *, user: str | None = None, text: str | None = None, timeout: float = 120.0) -> Completed:
    """Run a command on the node and show what it said if it fails."""
    completed = lab.run("node1", list(argv), user=user, text=text, timeout=timeout)
    assert completed.ok, f"{' '.join(argv)}: {completed.code}\n{completed.out}\n{completed.err}"
    return completed


def _await(lab: Lab, argv: Sequence[str], *, word: str = "", timeout: float = 30.0) -> str:
    """Wait until a command on the node succeeds and its output holds a word; returns the output."""
    deadline = time.monotonic() + timeout
    completed = lab.run("node1", list(argv), timeout=10)
    while not (completed.ok and word in completed.out):
        assert time.monotonic() < deadline, f"{' '.join(argv)}: {completed}"
        time.sleep(0.1)
        completed = lab.run("node1", list(argv), timeout=10)
    return completed.out


LOCATION = {"pgdata": f"{HOME}/data", "tmpdir": f"{HOME}/tmp", "socketdir": f"{HOME}/run", "logfile": f"{HOME}/log"}
REPLICATED = {"node_list": "node1", "master_ip": "192.168.0.236"}


@pytest.mark.parametrize(
    ("agent", "parameters"),
    [
        ("pgsql", {}),
        ("pgsql", {"rep_mode": "sync", **REPLICATED}),
        ("pgsql", {"rep_mode": "quorum", **REPLICATED}),
        ("pgsql", {"rep_mode": "async", **REPLICATED}),
        ("pgwatch", {"rep_mode": "sync", **REPLICATED}),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("rep_mode", "none"),
)
def test_ocf_tester(lab: Lab, agent: str, parameters: dict[str, str]) -> None:
    """All steps of ocf-tester pass, without replication and in each mode with it."""
    options = [word for name, value in {**LOCATION, **parameters}.items() for word in ("-o", f"{name}={value}")]
    completed = done(lab, ["ocf-tester", "-n", agent, *options, f"{TREE}/agents/{agent}"])
    assert completed.out.strip().endswith("passed all tests")


@pytest.mark.parametrize("agent", AGENTS)
def test_pacemaker_and_pcs_read_the_metadata(lab: Lab, agent: str) -> None:
    """What the tools show comes from the table."""
    shown = done(lab, ["crm_resource", "--show-metadata", f"ocf:pha4pgsql:{agent}"]).out
    assert shown.strip() == ocf.metadata(AGENTS[agent]).strip()
    assert "rep_mode" in done(lab, ["pcs", "resource", "describe", f"ocf:pha4pgsql:{agent}"]).out


def test_pacemaker_shows_why(lab: Lab) -> None:
    """A start that fails has its reason in crm_mon, and the broken resource stops and is probed all the same."""
    done(lab, ["pcs", "property", "set", "stonith-enabled=false"])
    done(lab, ["pcs", "resource", "create", "broken", "ocf:pha4pgsql:pgsql", "rep_mode=sync", "master_ip=192.168.0.236", f"pgdata={HOME}/data"])
    shown = _await(lab, ["crm_mon", "--one-shot", "--output-as=xml"], word="node_list is empty")
    assert 'exitstatus="not configured"' in shown
    assert 'op_key="broken_stop' not in shown
    assert 'op_key="broken_monitor' not in shown
    done(lab, ["pcs", "resource", "delete", "broken"])
