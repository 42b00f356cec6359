"""IPVS of a real kernel: what we write ipvsadm shows, what ipvsadm writes we read, refusals by name, a thousand servers.

The cases are in ipvs_guest.py, which runs once on a node that has IPVS: this machine's kernel or one of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ipvs_guest import CASES

from pha4pgsql import lab_uml
from pha4pgsql.ipvs import Ipvs, NoIpvs
from pha4pgsql.lab_up import bring_up, ipvs_here
from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

GUEST = str(Path(__file__).parent / "ipvs_guest.py")
LONGEST_LOOK, LONGEST_CHANGES = 0.05, 1.0
"""Seconds for 1,000 servers: a look that finds nothing to change, and 1,000 changes of a weight."""


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, dict[str, Any]]]:
    """By case: the problem or nothing, and figures."""
    if os.geteuid() != 0 or not shutil.which("pacemakerd", path="/usr/sbin:/sbin"):
        pytest.skip("the lab needs root, and Pacemaker installed")
    if ipvs_here() == "uml" and not os.path.exists(lab_uml.KERNEL):
        pytest.skip("neither has this kernel IPVS (modprobe ip_vs) nor is there a kernel that has it (apt-get install user-mode-linux)")
    if not shutil.which("ipvsadm", path="/usr/sbin:/sbin"):
        pytest.skip("there is no witness: ipvsadm is not installed")
    lab = bring_up(Plan(name=f"t-ipvs-{os.getpid()}", size=1, ipvs=ipvs_here()), say=print, bare=True)
    try:
        done = lab.run("node1", ["/usr/bin/python3", "-IS", GUEST], timeout=120)
        assert done.ok, done
        yield json.loads(done.out)
    finally:
        lab.down()


@pytest.mark.parametrize("case", CASES)
def test_on_a_real_kernel(results: dict[str, dict[str, Any]], case: str) -> None:
    """What ipvs_guest.py promises under this name."""
    problem = results[case]["problem"]
    assert not problem, problem


def test_a_look_without_change_is_cheap(results: dict[str, dict[str, Any]]) -> None:
    """Reading and comparing 1,000 servers."""
    assert results["thousand"]["figures"]["look"] < LONGEST_LOOK


def test_a_thousand_changes_within_a_second(results: dict[str, dict[str, Any]]) -> None:
    assert results["thousand"]["figures"]["changes"] < LONGEST_CHANGES


@pytest.mark.skipif(ipvs_here() == "host", reason="this kernel has IPVS")
def test_a_kernel_without_it() -> None:
    """The failure names the module, and says what to do."""
    with pytest.raises(NoIpvs) as caught:
        Ipvs()
    assert "IPVS" in caught.value.message
    assert "modprobe ip_vs" in caught.value.hint
