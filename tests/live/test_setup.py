"""cls_setup on a running set: what may change does so without a restart, what may not is refused, and other people's things stay."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

    from pha4pgsql.system import Completed

PLAN = Plan("live-setup")
CONFIG = "/opt/pha4pgsql/config.ini"
CALM = 1.5
"""No client may notice more than this; the machine may be busy."""

pytestmark = pytest.mark.timeout(300)


def configure(drill: Drill, key: str, value: str) -> None:
    """Change one key of config.ini everywhere and let install.sh make config.pcs of it."""
    for node in drill.lab.members:
        drill.must(node, "sed", "-i", f"/^{key}=/d; $a{key}={value}", CONFIG)
        drill.must(node, "/opt/pha4pgsql/install.sh", "--local")


def cls_setup(drill: Drill, *arguments: str) -> Completed:
    return drill.lab.run(drill.lab.members[0], ["cls_setup", *arguments], timeout=120)


def postmasters(drill: Drill) -> list[str]:
    """Process number and start time of each node's server."""
    return [drill.must(node, "sed", "-n", "1p;3p", "/pgsql/data/postmaster.pid").out for node in drill.lab.members]


def cib(drill: Drill) -> str:
    """The configuration without the history, which the primary writes some seconds after it was promoted."""
    found = drill.must(drill.lab.members[0], "cibadmin", "--query", "--scope=configuration").out
    return re.sub(r'\s*<cluster_property_set id="\w+_history">.*?</cluster_property_set>', "", found, flags=re.DOTALL)


def test_a_second_setup_changes_nothing(drill: Drill) -> None:
    """Run on a healthy cluster, by mistake or in a script."""
    before = cib(drill)
    assert cls_setup(drill).out == "nothing to change\n"
    assert cls_setup(drill, drill.primary()).out == "nothing to change\n"
    assert cib(drill) == before


def test_a_new_parameter_restarts_nothing(drill: Drill) -> None:
    """Servers, roles and addresses stay, and a client that writes all the while does not notice; afterwards all is watched again.

    Meanwhile the cluster is degraded, not down, though Pacemaker does not know for a moment what runs.
    """
    before, primary = postmasters(drill), drill.primary()
    configure(drill, "pgsql_stop_escalate", "77")
    with drill.writing() as writing:
        began = time.monotonic()
        running, seen = drill.lab.popen(drill.lab.members[0], ["cls_setup"]), []
        while running.poll() is None:
            seen.append(drill.lab.run(drill.lab.members[1], ["cls_status"], timeout=20))
        assert "stop_escalate" in running.communicate(timeout=20)[0]
        assert {one.code for one in seen} <= {0, 1}, [one.out for one in seen if one.code == 2]
        assert any("is being changed" in one.out for one in seen), f"{len(seen)} looks"
        writing.wait(200)
        assert writing.outage(began) < CALM
    assert (postmasters(drill), drill.primary()) == (before, primary)
    assert 'value="77"' in (now := cib(drill))
    assert "maintenance" not in now
    assert cls_setup(drill).out == "nothing to change\n"
    drill.lab.act("kill-postgres", primary)
    assert drill.new_primary(primary) != primary


@pytest.mark.parametrize(("key", "value", "old"), [("pgsql_rep_mode", "quorum", "sync"), ("pgsql_tmpdir", "/srv/other", "/var/lib/pgsql/tmp")])
def test_what_all_must_agree_on_waits_for_a_stop(drill: Drill, key: str, value: str, old: str) -> None:
    """Nodes that count differently could both be right."""
    before = cib(drill)
    configure(drill, key, value)
    done = cls_setup(drill)
    configure(drill, key, old)
    assert (done.code, "cls_stop" in done.err, key.removeprefix("pgsql_") in done.err) == (1, True, True)
    assert cib(drill) == before


def test_another_primary_is_not_named_over_a_running_one(drill: Drill) -> None:
    """The operator's word is for the first election, not for a switch of roles."""
    before = cib(drill)
    other = next(node for node in drill.lab.members if node != drill.primary())
    done = cls_setup(drill, other)
    assert (done.code, drill.primary() in done.err) == (1, True)
    assert cib(drill) == before
