"""cls_standby_node: who may go, and what a person is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pha4pgsql import cli, cli_standby, pacemaker, text
from pha4pgsql.checks import Answer

if TYPE_CHECKING:
    import pytest

    from pha4pgsql.procedure import Plan

SAMPLES = Path(__file__).parent.parent / "samples"


def silent(_: str) -> None:
    """Say nothing."""


def standby_ground(node: str, *changes: tuple[str, str]) -> cli_standby.Ground:
    """The healthy cluster of the samples, changed."""
    xml = (SAMPLES / "cib-healthy.xml").read_text()
    for old, new in changes:
        assert old in xml
        xml = xml.replace(old, new)
    tree = ElementTree.fromstring(xml)  # noqa: S314
    named = cli.the_set(text.replicated_sets(tree))
    named = named._replace(parameters={**named.parameters, "rep_mode": "sync"})
    return cli_standby.Ground(text.cluster(tree), [named], node, 1, silent)


def test_who_may_go_into_standby(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby, and the primary if another one is ready; with a word about what that means."""
    monkeypatch.setattr(pacemaker, "quorate", lambda: True)

    def refused(plan: Plan) -> bool:
        return any(check.answer is Answer.NO for check in plan.checks)

    assert not refused(cli_standby.standby(standby_ground("node3")))
    assert cli_standby.standby(standby_ground("node3")).risk == ""
    assert not refused(cli_standby.standby(standby_ground("node1")))
    assert "writes pause" in cli_standby.standby(standby_ground("node1")).risk
    assert refused(cli_standby.standby(standby_ground("node1", ('name="master-pgsql" value="100"', 'name="master-pgsql" value="-INFINITY"'))))
    assert refused(cli_standby.standby(standby_ground("node9")))
    last = ('value="HS:sync"', 'value="HS:alone"')
    assert "0 standbys" in cli_standby.standby(standby_ground("node3", last)).risk


def test_nothing_runs_on_a_node_that_is_off() -> None:
    """What its last report says does not count."""
    found = standby_ground("node3")
    assert "pgsql is started" in cli_standby.running(found.cluster, found.sets, "node3")
    off = standby_ground("node3", ('<node_state id="3" uname="node3" in_ccm="true"', '<node_state id="3" uname="node3" in_ccm="false"'))
    assert cli_standby.running(off.cluster, off.sets, "node3") == ""
