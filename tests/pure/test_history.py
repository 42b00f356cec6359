"""The history of primaries: causes by evidence, outages, records as text, what is shown. No cluster is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from pha4pgsql import chronicle, cli_history, history, text
from pha4pgsql.history import Ended, Evidence, Note, Record
from pha4pgsql.settings import Settings
from pha4pgsql.words import Ballot, Era, Lsn, State, Vote

if TYPE_CHECKING:
    from pathlib import Path

NOTE = Note("7.node2", 1000.0, 1001.0, "node1", "3.node1", online=True, expected=True)
GONE = NOTE._replace(online=False)
DIED, ASKED, SILENT = (Ended("3.node1", 999.5, how) for how in (history.DIED, history.ASKED, history.SILENT))


def seen(note: Note = NOTE, ended: Ended | None = None, **words: object) -> Evidence:
    return Evidence("node2", note, ended, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (seen(NOTE._replace(old="")), "first election"),
        (seen(NOTE._replace(old="", named=True)), "named by an operator"),
        (seen(ended=DIED, failure="monitor failed on node1: not running"), "PostgreSQL on node1 ended by itself"),
        (seen(ended=ASKED, fresh=True), "start of the set, which had been stopped"),
        (seen(NOTE._replace(wished=True), ASKED), "switchover from node1, by cls_online_switch"),
        (seen(NOTE._replace(wished=True), DIED), "PostgreSQL on node1 ended by itself"),
        (seen(NOTE._replace(standby=True), ASKED), "node1 was put in standby"),
        (seen(NOTE, ASKED, banned=True), "the set was banned from node1"),
        (seen(ended=SILENT, failure="monitor failed on node1: it has not answered for 10 s"), "it has not answered for 10 s"),
        (seen(ended=SILENT), "did not answer"),
        (seen(GONE, fenced=True), "node1 was lost, and fenced"),
        (seen(GONE), "node1 was lost"),
        (seen(GONE._replace(expected=False)), "left the cluster in order"),
        (seen(ended=ASKED), "why was not seen"),
        (seen(fresh=True), "start of the set"),
        (seen(), "unknown"),
    ],
)
def test_the_cause_is_what_the_evidence_says(evidence: Evidence, words: str) -> None:
    """And no more: where nothing is known, that is said."""
    assert words in history.cause(evidence)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (seen(NOTE._replace(old="")), (None, None)),
        (seen(NOTE._replace(confirmed=0.0)), (None, None)),
        (seen(ended=DIED), (1.5, 1.5)),
        (seen(ended=DIED._replace(at=1000.9)), (1.0, None)),
        (seen(ended=SILENT, last_commit=990.0), (1.0, 11.0)),
        (seen(GONE, last_commit=997.0), (1.0, 4.0)),
        (seen(GONE, last_commit=1005.0), (1.0, None)),
        (seen(GONE), (1.0, None)),
        (seen(ended=DIED, address=1003.0), (3.5, 3.5)),
        (seen(GONE, last_commit=997.0, address=1000.0), (1.0, 4.0)),
    ],
    ids=[
        "first",
        "not confirmed",
        "the old primary's word",
        "its clock is ahead",
        "silent",
        "last commit",
        "that clock is ahead",
        "no commit ever",
        "the address came later",
        "the address was there before",
    ],
)
def test_the_outage_is_bounded_by_what_is_known(evidence: Evidence, expected: tuple[float | None, float | None]) -> None:
    """At least, at most; a clock that cannot be right is not used."""
    assert history.outage(evidence) == expected


def record(number: int, why: str = "first election") -> Record:
    return Record(f"{number}.node1", 1000.0 + number, "node1", "", number + 1, number, "0/1501398", 1.5, None, why)


def properties(*numbers: int) -> dict[str, str]:
    return {history.record_name("pgsql", one.term): history.record_text(one) for one in map(record, numbers)}


def test_records_are_bounded() -> None:
    """The oldest goes when there would be more than a hundred; anything else among the properties is none."""
    found = history.records({**properties(*range(1, history.MOST + 1)), "pgsql_REPL_INFO": "x", "pgsql_history_x": "broken"}, "pgsql")
    assert [one.timeline for one in found] == list(range(2, history.MOST + 2))
    assert history.surplus(found) == ("1.node1",)
    assert history.surplus(found[1:]) == ()


@pytest.mark.parametrize("why", ["a | b", "line\nbreak", "The master\u2019s timeline <forked> \"off\" & 'on'"])
def test_any_reason_survives(why: str) -> None:
    """Through the record and through XML."""
    one = record(1, why)
    xml = f'<cib><nvpair name="n" value="{text.escape(history.record_text(one))}"/></cib>'
    value = ElementTree.fromstring(xml).find("nvpair").get("value")  # type: ignore[union-attr]  # noqa: S314
    assert history.parse_record(one.term, value or "") == one._replace(cause=" ".join(why.split()))


@pytest.mark.parametrize("text_", ["", "x", "term=1.a\nbegun=soon\n"])
def test_a_note_that_is_not_whole_is_none(text_: str) -> None:
    assert history.parse_note(text_) is None
    assert history.parse_ended(text_) is None


def test_the_end_of_a_reign_is_noted_once(tmp_path: Path) -> None:
    """What is seen first counts: a demotion after a crash must not say that PostgreSQL was asked."""
    settings = Settings(tmpdir=str(tmp_path), datadir=str(tmp_path))
    chronicle.ends(settings, State())
    assert not list(tmp_path.iterdir())
    chronicle.ends(settings, State(reign=Ballot(3, "node1")))
    first = (tmp_path / "pgsql.ended").read_text()
    assert first.startswith("3.node1 ")
    assert first.endswith(" died")
    chronicle.ends(settings, State(reign=Ballot(3, "node1")))
    assert (tmp_path / "pgsql.ended").read_text() == first


def test_a_promotion_that_nobody_recorded_is_told_by_the_timelines() -> None:
    """Without time and cause, but with its node, timeline and switch point."""
    eras = tuple(Era(number + 1, Lsn.parse("0/1501398"), Ballot(number, node)) for number, node in ((1, "node1"), (2, "node2"), (3, "node1")))
    found = cli_history.complete([record(1), record(3)], {"node1": Vote(eras=eras), "node2": Vote(eras=eras[:2]), "node3": Vote()})
    assert [(one.term, one.node, one.old, one.cause == cli_history.NOT_RECORDED) for one in found] == [
        ("1.node1", "node1", "", False),
        ("2.node2", "node2", "node1", True),
        ("3.node1", "node1", "", False),
    ]
    assert [cli_history.as_json(one)["recorded"] for one in found] == [True, False, True]
    assert cli_history.complete([], {}) == []
    assert len(cli_history.lines(found)) == 4


def test_failed_operations_are_read_from_the_history() -> None:
    """With the agent's reason; a probe that finds nothing is no failure."""
    xml = """<cib><status><node_state uname="node1"><lrm><lrm_resources><lrm_resource id="pgsql">
    <lrm_rsc_op operation="monitor" rc-code="7" interval="0" last-rc-change="5"/>
    <lrm_rsc_op operation="start" rc-code="0" interval="0" last-rc-change="6"/>
    <lrm_rsc_op operation="monitor" rc-code="1" interval="3000" exit-reason="it&amp;apos;s gone" last-rc-change="7"/>
    </lrm_resource></lrm_resources></lrm></node_state></status></cib>"""
    found = list(text.failed_operations(ElementTree.fromstring(xml), "pgsql"))  # noqa: S314
    assert found == [("node1", "monitor", "it's gone", 7.0)]


def test_when_an_address_came() -> None:
    """The end of its start; nothing while one of them does not run there."""
    xml = """<cib><status><node_state uname="node2"><lrm><lrm_resources><lrm_resource id="vip">
    <lrm_rsc_op operation="start" rc-code="0" call-id="7" last-rc-change="100" exec-time="250"/>
    <lrm_rsc_op operation="monitor" rc-code="0" call-id="8" interval="10000" last-rc-change="101"/>
    </lrm_resource><lrm_resource id="other"><lrm_rsc_op operation="stop" rc-code="0" call-id="9" last-rc-change="120"/></lrm_resource>
    </lrm_resources></lrm></node_state></status></cib>"""
    tree = ElementTree.fromstring(xml)  # noqa: S314
    assert text.started_at(tree, "node2", ["vip"]) == 100.25
    assert text.started_at(tree, "node1", ["vip"]) == 0.0
    assert text.started_at(tree, "node2", ["vip", "other"]) == 0.0


@pytest.mark.parametrize(
    ("when", "epoch"), [("2026-11-30 09:18:09Z", 1796030289.0), ("2026-11-30 10:18:09 +01:00", 1796030289.0), ("yesterday", 0.0), ("", 0.0)]
)
def test_times_of_fencing(when: str, epoch: float) -> None:
    """As the versions of stonith_admin write them."""
    assert chronicle._epoch(when) == epoch
