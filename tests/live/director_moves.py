"""The director moves and the primary changes while clients read: not a part of `tests/run` yet, as not all of it holds.

Name the file to run it: `tests/run --live tests/live/director_moves.py`. What is known: reads with new connections go on (pauses of 1 to 2 s
with kernels in processes), and none lands on a primary. A planned move resets held sessions: their packets still reach the former director, which has
the address on `lo` and no table any more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from test_read_balancing import ALL, PLAN, balance, idle, pytestmark

if TYPE_CHECKING:
    from readers import Balance

__all__ = ["PLAN", "balance", "pytestmark"]


def test_the_director_is_moved(balance: Balance) -> None:
    """By an operator: held sessions go on, also those to the former director; it keeps no table, and one that is put there is cleared."""
    old, new = balance.director, idle(balance)
    with balance.reading() as reading:
        before = reading.sessions()
        began = time.monotonic()
        balance.drill.must("node1", "crm_resource", "--ban", "--resource", "lvsdr", "--node", old)
        balance.drill.until(lambda: balance.director == new, f"{new} is the director")
        balance.until_pool(**ALL)
        reading.wait(20)
        print(f"director moved from {old} to {new}: reads paused for {reading.gap(began):.2f} s")
        reading.go_on(before)
        balance.drill.must("node1", "crm_resource", "--clear", "--resource", "lvsdr", "--node", old)
    assert reading.lost == []
    assert reading.on_primary == []
    assert balance.table(old) == {}
    leftover = f"ipvsadm -A -t {balance.lab.reader_vip}:5432 -s rr; ipvsadm -a -t {balance.lab.reader_vip}:5432 -r {balance.lab.address(new)} -g"
    balance.drill.must(old, "sh", "-c", leftover)
    balance.drill.must("node1", "crm_resource", "--refresh", "--resource", "lvsdr", "--node", old)
    balance.drill.until(lambda: balance.table(old) == {}, f"the leftover table of {old} is gone")
    assert balance.director == new
    assert balance.landings(9) == dict.fromkeys(ALL, 3)


def test_power_loss_of_the_director(balance: Balance) -> None:
    """Held sessions to other servers go on: their connections had been told to the others. Reads go on at the other director."""
    old, new = balance.director, idle(balance)
    with balance.reading() as reading:
        others = {number for number, server in reading.sessions().items() if server != old}
        began = time.monotonic()
        balance.lab.crash(old)
        balance.drill.until(lambda: balance.director == new, f"{new} is the director", 90)
        balance.until_pool(**{name: 1 for name in ALL if name != old})
        reading.wait(20)
        print(f"power loss of the director {old}, {new} takes over: reads paused for {reading.gap(began):.2f} s")
        reading.go_on(others)
        balance.whole()
        reading.wait(20)
    assert {read.server for read in reading.lost} <= {old}
    assert reading.on_primary == []
    assert balance.table(old if balance.director == new else new) == {}


# ---------------------------------------------------------------- the primary changes


def test_failover(balance: Balance) -> None:
    """A standby is promoted and leaves the pool, the old primary joins it; cut off, it leaves; booted, it is back. Nobody reads from a primary."""
    old = balance.drill.primary()
    with balance.reading() as reading:
        began = time.monotonic()
        balance.lab.kill_postgres(old)
        new = balance.drill.new_primary(old)
        balance.drill.until(lambda: balance.director not in ("", new), "the director is a standby", 120)
        balance.drill.until(lambda: new not in balance.pool(), f"{new} is not in the pool")
        balance.drill.until(lambda: balance.pool().get(old) == 1, f"{old} is in the pool", 120)
        reading.wait(20)
        print(f"failover from {old} to {new}: reads paused for {reading.gap(began):.2f} s")
        assert reading.on_primary == [], f"{new} became the primary"
        assert balance.table(new) == {}
        stayed = {number for number, server in reading.sessions(after=time.monotonic() - 5).items() if server not in (old, new)}
        assert {read.server for read in reading.lost} <= {old, new}

        balance.lab.cut(old)
        balance.drill.until(lambda: not balance.pool().get(old), f"{old} has left the pool")
        since = time.monotonic()
        reading.wait(20)
        assert old not in {read.server for read in reading.good if read.began > since}
        reading.go_on(stayed)
        balance.whole()
        balance.drill.until(lambda: any(read.server == old for read in reading.good[-30:]), f"{old} is read from")
    assert reading.on_primary == []
