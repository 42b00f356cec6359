"""Data that no election made: a standby that somebody promoted by hand, and a backup that was restored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from switching import PATIENT, follows, run

from pha4pgsql.lab_words import Plan

if TYPE_CHECKING:
    from drill import Drill

PLAN = Plan("live-restore")
REFUSED = 10
RESTORE = """set -e
mv /pgsql/data /pgsql/data.before && mv /pgsql/backup /pgsql/data && touch /pgsql/data/recovery.signal
echo "recovery_target = 'immediate'" >> /pgsql/data/postgresql.conf
pg_ctl start -w -D /pgsql/data -l /tmp/restore.log -o "-c restore_command=false -c recovery_target_action=promote"
until [ "$(psql -XAtqc 'select pg_is_in_recovery()')" = f ]; do sleep 0.1; done
pg_ctl stop -w -D /pgsql/data
"""


def test_a_standby_that_was_promoted_by_hand_comes_back(drill: Drill) -> None:
    """What it wrote is of no term: it has left the history, says so, and repairs itself. The primary serves all the time."""
    primary, [other] = drill.primary(), drill.standbys("HS:async")
    with drill.writing() as writing:
        writing.wait(20)
        drill.must(other, "pg_ctl", "promote", "-D", "/pgsql/data", user="postgres")
        drill.until(lambda: follows(drill, other), f"{other} streams again")
        drill.healthy()
        writing.wait(20)
    assert drill.primary() == primary
    assert drill.lost(writing) == []


def test_a_backup_is_restored(drill: Drill) -> None:
    """On one member; it becomes primary with the data of the backup, and the others become copies of it, though they hold more."""
    primary = drill.primary()
    drill.must(primary, "pg_basebackup", "-U", "postgres", "-D", "/pgsql/backup", "-c", "fast", user="postgres", timeout=PATIENT)
    drill.sql(primary, "create table later as select 1")
    drill.must(primary, "cls_stop", timeout=PATIENT)
    refused = run(drill, primary, "cls_reset_master", "--restored", "--yes")
    assert refused.code == REFUSED
    assert "a timeline of their own" in refused.err
    assert "recovery_target_action" in refused.err
    drill.must(primary, "sh", "-c", RESTORE, user="postgres", timeout=PATIENT)
    shown = run(drill, primary, "cls_reset_master", "--restored", "--dry-run")
    assert shown.ok
    assert "LOST FOR EVER: what" in shown.out
    drill.must(primary, "cls_reset_master", "--restored", "--yes", timeout=PATIENT)
    assert drill.primary() == primary
    assert drill.sql(primary, "select to_regclass('later') is null") == "t"
    drill.healthy()
    for node in drill.lab.members:
        assert drill.sql(node, "select to_regclass('later') is null") == "t", node
