"""What all tests share: a live test may take minutes, and where everything was installed nothing may be skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

LIVE_LIMIT = 600
"""Seconds for one live test, with the lab that it builds."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--no-skips`, which tests/run gives after it has installed everything, and `--drills`, which a person gives who has time."""
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed")
    parser.addoption("--drills", action="store_true", help="also the tests that are marked as drills: long, one fault after the other")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the live tests their own limit; without `--drills` leave those out, counted as deselected."""
    drills = [] if config.getoption("--drills") else [item for item in items if item.get_closest_marker("drill")]
    config.hook.pytest_deselected(items=drills)
    items[:] = [item for item in items if item not in drills]
    for item in items:
        if item.path.parent.name == "live" and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LIVE_LIMIT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure, if so wanted: a missing package must not look like a passed test."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though tests/run has installed what the tests need: {report.longrepr}"
    return report
