"""One practice cluster per module of failover tests, whole again before each test; a failed test says what the cluster looked like."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from drill import Drill

from pha4pgsql.lab import Lab
from pha4pgsql.lab_up import bring_up
from pha4pgsql.words import Failure

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Drill]:
    """The cluster of the module's PLAN, brought up once.

    A developer may name one that is up already, `LAB=name tests/run --live ...`, or another PostgreSQL, `PG=/usr/lib/postgresql/17/bin`.
    """
    if os.geteuid() != 0 or not shutil.which("pacemakerd", path="/usr/sbin:/sbin"):
        pytest.skip("the lab needs root, and Pacemaker installed")
    plan = request.module.PLAN
    if os.environ.get("LAB"):
        yield Drill(Lab(os.environ["LAB"]))
        return
    lab = bring_up(plan._replace(name=f"{plan.name}-{os.getpid()}", bindir=os.environ.get("PG", plan.bindir)), say=print)
    try:
        yield Drill(lab)
    finally:
        lab.down()


@pytest.fixture
def drill(cluster: Drill) -> Drill:
    """The module's cluster, healthy."""
    cluster.writings.clear()
    cluster.restore()
    return cluster


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """On failure, the cluster as it is now."""
    outcome = yield
    report = outcome.get_result()
    found = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and report.when != "teardown" and isinstance(found, Drill):
        try:
            report.sections.append(("the cluster", found.scene()))
        except (Failure, OSError) as gone:
            report.sections.append(("the cluster", f"cannot be looked at: {gone}"))
