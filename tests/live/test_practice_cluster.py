"""The practice cluster itself: nodes, faults, fencing, and that nothing is left of it. Only Pacemaker's own agents run on it here."""

from __future__ import annotations

import json
import os
import subprocess
import time
import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pha4pgsql import lab_health
from pha4pgsql.lab import Lab
from pha4pgsql.lab_up import bring_up, fencing_xml
from pha4pgsql.lab_words import ROOM, Plan
from pha4pgsql.text import view
from pha4pgsql.words import ConfigurationError, EnvironmentFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pha4pgsql.text import View

COMMAND = str(Path(__file__).parent.parent.parent / "bin" / "cls_lab")
NAME = f"t-lab-{os.getpid()}"
VIP = (
    '<configuration><resources><primitive id="vip" class="ocf" provider="heartbeat" type="IPaddr2"><instance_attributes id="vip-attributes">'
    f'<nvpair id="vip-ip" name="ip" value="{Lab.writer_vip}"/><nvpair id="vip-nic" name="nic" value="eth0"/></instance_attributes>'
    '<meta_attributes id="vip-meta"><nvpair id="vip-stickiness" name="resource-stickiness" value="1"/></meta_attributes>'
    "</primitive></resources></configuration>"
)


def until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> float:
    """Wait for a condition; the seconds that it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"not within {timeout:g} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three bare nodes with fencing and one virtual address."""
    plan = Plan(NAME, corosync=(("token", "500"), ("consensus", "600")))
    made = bring_up(plan, say=print, bare=True)
    try:
        lab_health.wait_for_members(made, timeout=20)
        for xml in (fencing_xml(plan), VIP):
            assert made.run("node1", ["cibadmin", "--modify", "--allow-create", "--xml-text", xml]).ok
        yield made
    finally:
        made.down()


@pytest.fixture(autouse=True)
def _whole(lab: Lab) -> None:
    """Every test begins with all nodes on, connected and online, and the address somewhere."""
    lab.heal(*lab.members)
    until(lambda: _complete(lab), "all nodes are on and online", 60)
    until(lambda: holder(lab, "node1") != "", "the address runs")


def _complete(lab: Lab) -> bool:
    """Boot what is off: a node that was back before its loss was noticed is fenced when it is."""
    lab.boot(*lab.members)
    lab_health.wait_for_members(lab, timeout=20)
    return all(states(lab)[name] == ("running", "up") for name in lab.members)


def shown(lab: Lab, witness: str) -> View:
    """The cluster as a node sees it."""
    done = lab.run(witness, ["crm_mon", "--one-shot", "--inactive", "--output-as=xml"])
    assert done.ok, done.err
    return view(ET.fromstring(done.out))  # noqa: S314


def holder(lab: Lab, witness: str) -> str:
    """Where the address is, once that is settled: the node that has it is online and the action is over."""
    seen = shown(lab, witness)
    online = {host.name for host in seen.hosts if host.online and not host.unclean}
    nodes = seen.where("vip", "Started")
    return nodes[0] if len(nodes) == 1 and nodes[0] in online and _has(lab, nodes[0]) else ""


def _has(lab: Lab, node: str) -> bool:
    if states(lab)[node] != ("running", "up"):
        return False
    return f" {Lab.writer_vip}/" in lab.run(node, ["ip", "-o", "-4", "addr", "show", "dev", "eth0"]).out


def states(lab: Lab) -> dict[str, tuple[str, str]]:
    return {row.name: (row.state, row.link) for row in lab.list()}


def moved_from(lab: Lab, old: str) -> None:
    """The address is on another node, and the client reaches it there."""
    witness = next(name for name in lab.members if name != old)
    until(lambda: holder(lab, witness) not in {"", old}, f"the address has left {old}")
    assert lab.run("client", ["arping", "-c", "1", "-w", "2", "-I", "eth0", Lab.writer_vip]).ok


def test_nodes_are_machines_of_their_own(lab: Lab) -> None:
    """A name, an address and processes of its own, and all nodes know each other."""
    for name in lab.members:
        assert lab.run(name, ["uname", "-n"]).out.strip() == name
        assert f" {lab.address(name)}/24 " in lab.run(name, ["ip", "-o", "addr", "show", "dev", "eth0"]).out
        assert lab.run(name, ["pgrep", "-c", "-x", "corosync"]).out.strip() == "1"
        assert lab.run(name, ["getent", "hosts", "node3"]).out.split()[0] == "192.168.0.233"


def test_run_passes_streams_user_and_exit_code(lab: Lab) -> None:
    """Standard input goes in, both outputs come out, and the code is the command's."""
    done = lab.run("client", ["sh", "-c", "cat; echo no >&2; exit 7"], text="hello")
    assert (done.code, done.out, done.err) == (7, "hello", "no\n")
    assert lab.run("node1", ["id", "-un"], user="nobody").out == "nobody\n"
    assert lab.run("node1", ["no-such-program"]).code == 127
    assert lab.run("node1", ["sleep", "60"], timeout=0.2).code == 124
    command = [COMMAND, "run", "--name", NAME, "client", "--", "sh", "-c", "cat; exit 9"]
    typed = subprocess.run(command, input="x", capture_output=True, text=True, check=False)
    assert (typed.returncode, typed.stdout) == (9, "x")


def test_list_as_json(lab: Lab) -> None:
    """One object per node with exactly the promised fields."""
    rows = json.loads(subprocess.run([COMMAND, "list", "--name", NAME, "--json"], capture_output=True, check=True).stdout)
    assert [row["name"] for row in rows] == [*lab.members, "client"]
    assert all(set(row) == {"name", "address", "state", "link"} for row in rows)


def test_wrong_names_are_refused(lab: Lab) -> None:
    """A node that does not exist, and a node that is off, are told apart."""
    for act in (lab.crash, lab.boot, lab.cut):
        with pytest.raises((ConfigurationError, EnvironmentFailure)):
            act("node9")
    lab.crash("node3")
    with pytest.raises(EnvironmentFailure):
        lab.run("node3", ["true"])
    until(lambda: any(host.name == "node3" and not host.online and not host.unclean for host in shown(lab, "node1").hosts), "its loss is noticed")


def test_power_loss(lab: Lab) -> None:
    """The node is gone at once with all that ran on it, the address moves, the disk is still there after the boot."""
    old = holder(lab, "node1")
    lab.run(old, ["sh", "-c", "echo kept > /root/kept"])
    running = lab.popen(old, ["sh", "-c", "echo runs; sleep 60"])
    assert running.stdout
    running.stdout.readline()
    lab.crash(old)
    running.communicate()
    assert running.returncode == 137
    assert states(lab)[old] == ("off", "up")
    assert (Path(lab.disk(old)) / "root/kept").read_text() == "kept\n"
    moved_from(lab, old)
    lab.boot(old)
    assert lab.run(old, ["cat", "/root/kept"]).out == "kept\n"


def test_a_cut_node_is_fenced_and_stays_off(lab: Lab) -> None:
    """The majority has it switched off, then takes the address; nobody switches it on but us."""
    old = holder(lab, "node1")
    lab.cut(old)
    assert states(lab)[old][1] == "cut"
    moved_from(lab, old)
    assert states(lab)[old] == ("off", "cut")


def test_a_frozen_node_is_fenced(lab: Lab) -> None:
    """A node that does nothing any more is as good as lost."""
    old = holder(lab, "node1")
    lab.freeze(old)
    assert states(lab)[old][0] == "frozen"
    moved_from(lab, old)
    assert states(lab)[old][0] == "off"


def test_thaw_in_time(lab: Lab) -> None:
    """Frozen for less than the token's time, the node stays a member, and a command that ran on it goes on."""
    running = lab.popen("node2", ["sh", "-c", "read line; echo $line"], stdin=subprocess.PIPE)
    lab.freeze("node2")
    lab.thaw("node2")
    assert running.communicate("on", timeout=10)[0] == "on\n"
    assert states(lab)["node2"] == ("running", "up")


def test_postgres_alone_is_frozen_and_killed(lab: Lab) -> None:
    """Only processes of that program are meant, all of them, and where there is none to freeze it is said."""
    with pytest.raises(EnvironmentFailure):
        lab.freeze_postgres("node1")
    assert lab.run("node1", ["cp", "/bin/sleep", "/root/postgres"]).ok
    running = [lab.popen("node1", ["/root/postgres", "60"]) for _ in range(3)]
    until(lambda: lab.run("node1", ["pgrep", "-c", "-x", "postgres"]).out.strip() == "3", "three are running")
    for act, state in ((lab.freeze_postgres, "T"), (lab.thaw_postgres, "S")):
        act("node1")
        until(partial(_postgres_is, lab, state), f"state {state}")
    lab.freeze_postgres("node1")
    lab.kill_postgres("node1")
    for process in running:
        process.communicate()
    assert [process.returncode for process in running] == [137, 137, 137]
    assert states(lab)["node1"] == ("running", "up")


def _postgres_is(lab: Lab, state: str) -> bool:
    return set(lab.run("node1", ["ps", "-o", "state=", "-C", "postgres"]).out.split()) == {state}


def test_reboot_by_fencing(lab: Lab) -> None:
    """Off at once, and on again by itself, not before others would have settled. (A member would be fenced, and stay off)."""
    assert lab.run("node1", ["fence_lab", "-o", "reboot", "-n", "client"]).ok
    assert lab.run("node1", ["fence_lab", "-o", "status", "-n", "client"]).code == 2
    assert until(lambda: states(lab)["client"][0] == "running", "it is on again") > 8


def test_fencing_by_hand(lab: Lab) -> None:
    """Pacemaker's own tool drives the agent."""
    assert lab.run("node1", ["stonith_admin", "--fence", "node3", "--timeout", "20"]).ok
    assert states(lab)["node3"][0] == "off"


def test_power_loss_of_all(lab: Lab) -> None:
    """Everything comes back after everything was off."""
    lab.crash(*lab.members)
    lab.boot(*lab.members)
    lab_health.wait_for_members(lab, timeout=20)


def test_two_labs_know_nothing_of_each_other_and_leave_nothing(lab: Lab) -> None:
    """The same addresses twice on one machine; after `down` no process, file or mount of the second is there, the first still is."""
    other = bring_up(Plan(f"{NAME}-b", size=1), say=print, bare=True)
    inside = other.run("node1", ["readlink", "/proc/self/ns/pid"]).out
    other.down()
    assert not Path(f"{ROOM}/{other.name}").exists()
    assert inside not in {os.readlink(path) + "\n" for path in _pid_namespaces()}
    assert other.name not in Path("/proc/mounts").read_text()
    assert lab.run("node1", ["true"]).ok
    other.down()


CHROOT = """
set -e
mount -t tmpfs tmpfs "$1"; mkdir "$1/root"; mount --bind / "$1/root"  # an overlay would be one too many in a container
mount -t proc proc "$1/root/proc"; mount --rbind /dev "$1/root/dev"; mount --rbind /sys "$1/root/sys"; mount -t tmpfs tmpfs "$1/root/run"
exec chroot "$1/root" sh -ec '
    cd /
    "$1" up --name c --nodes 1 --bare >&2
    "$1" run --name c node1 -- touch "$2"
    "$1" run --name c node1 -- ls "$2"
    ! test -e "$2"
    "$1" down --name c
' - "$2" "$3"
"""


def test_in_a_chroot_too_what_runs_on_a_node_writes_to_its_disk_only(tmp_path: Path) -> None:
    """A mount namespace whose root is not the root that the lab was started in: neither of them is ever taken for a node's."""
    written = f"/etc/{NAME}-written"
    fresh = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    done = subprocess.run([*fresh, "sh", "-c", CHROOT, "-", str(tmp_path), COMMAND, written], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{written}\n"), done.stderr
    assert not Path(written).exists()


def _pid_namespaces() -> Iterator[Path]:
    return (path for path in Path("/proc").glob("[0-9]*/ns/pid") if path.exists())
