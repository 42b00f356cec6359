"""The agents before the judges that users have: ocf-tester, crm_resource, pcs, and Pacemaker itself. In a bare one-node lab."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import lab_uml, ocf
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
        _install(nodes)
        done(nodes, ["install", "-d", "-o", "postgres", HOME])
        initdb = f"{find_programs('', '/usr/bin/pg_ctl', '')}/initdb"
        done(nodes, [initdb, "-D", f"{HOME}/data", "-A", "trust", "--no-sync"], user="postgres")
        done(nodes, ["tee", "-a", f"{HOME}/data/postgresql.conf"], text=f"listen_addresses = '*'\nunix_socket_directories = '{HOME}'\n")
        yield nodes
    finally:
        nodes.down()


@pytest.fixture(scope="module")
def director() -> Iterator[Lab]:
    """One node with Pacemaker, our agents, and a kernel that has IPVS."""
    here = os.path.exists("/proc/net/ip_vs")
    if not here and not os.path.exists(lab_uml.KERNEL):
        pytest.skip("neither has this kernel IPVS (modprobe ip_vs) nor is there a kernel that has it (apt-get install user-mode-linux)")
    nodes = bring_up(Plan(name="agents-ipvs", size=1, ipvs="host" if here else "uml"), say=print, bare=True)
    try:
        _install(nodes)
        yield nodes
    finally:
        nodes.down()


def _install(nodes: Lab) -> None:
    """A copy of what is tested, when Pacemaker is ready."""
    _await(nodes, ["cibadmin", "--query", "--xpath", "//node_state[@crmd!='offline']"])
    done(nodes, ["install", "-d", "/usr/lib/ocf/resource.d/pha4pgsql"])
    done(nodes, ["install", "-d", TREE])
    done(nodes, ["cp", "-r", str(ROOT / "agents"), str(ROOT / "pha4pgsql"), TREE])
    done(nodes, ["chmod", "-R", "go=rX", TREE])
    done(nodes, ["ln", "-s", *(f"{TREE}/agents/{name}" for name in AGENTS), "/usr/lib/ocf/resource.d/pha4pgsql/"])


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


VIP = ["-o", "vip=192.168.0.237"]
BALANCED = ["-o", "port=5432", "-o", "weight_of_realservers=127.0.0.1,3 127.0.0.2", "-o", "realserver_dependent_attribute_name=-"]


def test_ocf_tester_on_the_director(director: Lab) -> None:
    """All steps pass, also while nothing answers; afterwards nothing is left."""
    completed = done(director, ["ocf-tester", "-n", "lvsdr", *VIP, *BALANCED, f"{TREE}/agents/lvsdr"])
    assert completed.out.strip().endswith("passed all tests")
    assert done(director, ["cat", "/proc/net/ip_vs"]).out.count("TCP") == 0


def test_ocf_tester_on_a_real_server(lab: Lab, director: Lab) -> None:
    """With and without IPVS in its kernel, with and without synchronisation; the ARP settings come back."""
    sync = ["-o", "sync_daemon=true", "-o", "sync_interface=eth0"]
    for nodes, more in ((lab, []), (director, []), (director, sync)):
        completed = done(nodes, ["ocf-tester", "-n", "lvsdr-realsvr", *VIP, *more, f"{TREE}/agents/lvsdr-realsvr"])
        assert completed.out.strip().endswith("passed all tests")
        assert done(nodes, ["cat", "/proc/sys/net/ipv4/conf/all/arp_ignore", "/proc/sys/net/ipv4/conf/lo/arp_announce"]).out.split() == ["0", "0"]


class Beside:
    """lvsdr-realsvr and IPaddr2 with one address on one node."""

    def __init__(self, lab: Lab, **options: str) -> None:
        self.lab, self.options = lab, options

    def call(self, agent: str, action: str, *, probe: bool = False) -> int:
        """The agent's exit code."""
        own = {"ip": "192.168.0.237", "cidr_netmask": "24", **self.options} if agent == "IPaddr2" else {"vip": "192.168.0.237"}
        own.update({} if probe else {"CRM_meta_interval": "10000"})
        path = "/usr/lib/ocf/resource.d/heartbeat/IPaddr2" if agent == "IPaddr2" else f"{TREE}/agents/{agent}"
        words = ["env", "OCF_ROOT=/usr/lib/ocf", f"OCF_RESOURCE_INSTANCE={agent}", *(f"OCF_RESKEY_{name}={value}" for name, value in own.items())]
        return self.lab.run("node1", [*words, path, action], timeout=60).code

    def places(self) -> list[str]:
        """The interfaces that have the address."""
        rows = done(self.lab, ["ip", "-o", "-4", "addr", "show"]).out.splitlines()
        return [row.split()[1] for row in rows if " 192.168.0.237/" in row]


def test_a_real_server_beside_ipaddr2(lab: Lab) -> None:
    """Both may come and go in any order; each takes away what is its own only."""
    both = Beside(lab)
    assert both.call("IPaddr2", "start") == 0
    assert both.call("lvsdr-realsvr", "monitor", probe=True) == 7, "the director's address is no real server's"
    assert both.call("lvsdr-realsvr", "start") == 0
    assert sorted(both.places()) == ["eth0", "lo"]
    assert (both.call("IPaddr2", "monitor"), both.call("lvsdr-realsvr", "monitor")) == (0, 0)
    assert both.call("IPaddr2", "stop") == 0
    assert (both.places(), both.call("lvsdr-realsvr", "monitor")) == (["lo"], 0)
    assert both.call("IPaddr2", "start") == 0
    assert both.call("lvsdr-realsvr", "stop") == 0
    assert (both.places(), both.call("lvsdr-realsvr", "monitor")) == (["eth0"], 7)
    assert both.call("IPaddr2", "stop") == 0
    assert both.places() == []


def test_an_address_that_ipaddr2_has_moved_is_still_there(lab: Lab) -> None:
    """With lvs_support it takes the address off lo while it has it: no failure of the real server, nor for a probe."""
    both = Beside(lab, lvs_support="true")
    assert both.call("lvsdr-realsvr", "start") == 0
    assert both.call("IPaddr2", "start") == 0
    assert (both.places(), both.call("lvsdr-realsvr", "monitor"), both.call("lvsdr-realsvr", "monitor", probe=True)) == (["eth0"], 0, 0)
    assert both.call("IPaddr2", "stop") == 0
    assert both.places() == ["lo"]
    assert both.call("lvsdr-realsvr", "stop") == 0
    assert both.places() == []


@pytest.mark.skipif(os.path.exists("/proc/net/ip_vs"), reason="this kernel has IPVS")
def test_a_director_without_ipvs_says_so(lab: Lab) -> None:
    """Probe 7, start 5 with the module's name, stop 0."""
    options = {"vip": "192.168.0.237", "port": "5432", "CRM_meta_interval": "0"}
    words = ["env", "OCF_RESOURCE_INSTANCE=lvsdr", *(f"OCF_RESKEY_{name}={value}" for name, value in options.items()), f"{TREE}/agents/lvsdr"]
    codes = {action: lab.run("node1", [*words, action], timeout=30) for action in ("monitor", "start", "stop")}
    assert {action: completed.code for action, completed in codes.items()} == {"monitor": 7, "start": 5, "stop": 0}
    assert "modprobe ip_vs" in codes["start"].err


def test_parameters_are_changed_without_a_restart(director: Lab) -> None:
    """`pcs resource update` reloads: the service, its real servers and whoever depends on the director stay."""
    done(director, ["pcs", "property", "set", "stonith-enabled=false"])
    words = [word for word in [*VIP, *BALANCED] if word != "-o"]
    done(director, ["pcs", "resource", "create", "lvsdr", "ocf:pha4pgsql:lvsdr", *words])
    done(director, ["pcs", "resource", "create", "after", "ocf:heartbeat:Dummy"])
    done(director, ["pcs", "constraint", "order", "lvsdr", "then", "after"])
    _await(director, ["crm_mon", "--one-shot", "--output-as=xml"], word='id="after" resource_agent="ocf:heartbeat:Dummy" role="Started"')
    before = _interruptions(director)
    done(director, ["pcs", "resource", "update", "lvsdr", "virtual_service_options=-s wrr"])
    _await(director, ["cat", "/proc/net/ip_vs"], word="wrr")
    done(director, ["pcs", "resource", "update", "lvsdr", "weight_of_realservers=127.0.0.1,nonsense"])
    _await(director, ["grep", "-h", "are not taken over", "/var/log/pacemaker/pacemaker.log"])
    assert "wrr" in done(director, ["cat", "/proc/net/ip_vs"]).out
    assert _interruptions(director) == before
    for name in ("after", "lvsdr"):
        done(director, ["pcs", "resource", "delete", name])


def _interruptions(director: Lab) -> list[str]:
    """What Pacemaker has stopped, and what it has started behind the director. A reload takes the place of a start in the history."""
    where = "//lrm_rsc_op[@operation='stop']|//lrm_resource[@id='after']/lrm_rsc_op[@operation='start']"
    completed = director.run("node1", ["cibadmin", "--query", "--xpath", where], timeout=30)
    return [piece.partition('"')[0] for piece in completed.out.split('call-id="')[1:]]


@pytest.mark.parametrize("agent", AGENTS)
def test_pacemaker_and_pcs_read_the_metadata(lab: Lab, agent: str) -> None:
    """What the tools show comes from the table."""
    shown = done(lab, ["crm_resource", "--show-metadata", f"ocf:pha4pgsql:{agent}"]).out
    assert shown.strip() == ocf.metadata(AGENTS[agent]).strip()
    assert AGENTS[agent].parameters[0].name in done(lab, ["pcs", "resource", "describe", f"ocf:pha4pgsql:{agent}"]).out


def test_pacemaker_shows_why(lab: Lab) -> None:
    """A start that fails has its reason in crm_mon, and the broken resource stops and is probed all the same."""
    done(lab, ["pcs", "property", "set", "stonith-enabled=false"])
    done(lab, ["pcs", "resource", "create", "broken", "ocf:pha4pgsql:pgsql", "rep_mode=sync", "master_ip=192.168.0.236", f"pgdata={HOME}/data"])
    shown = _await(lab, ["crm_mon", "--one-shot", "--output-as=xml"], word="node_list is empty")
    assert 'exitstatus="not configured"' in shown
    assert 'op_key="broken_stop' not in shown
    assert 'op_key="broken_monitor' not in shown
    done(lab, ["pcs", "resource", "delete", "broken"])
