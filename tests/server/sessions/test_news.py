"""A session tells of each cell what became of it: once when it is accepted, and once when it has ended."""

from __future__ import annotations

from cellgate.sessions.news import Accepted, Finished, Refused
from cellgate.sessions.states import CellReason
from tests.support.stage import Stage, cell, reply, status, stream, whole, with_limits


def test_a_cell_is_told_of_when_it_is_accepted_and_when_it_has_ended():
    stage = Stage().started()
    stage.ask(cell("c1", "print(1)"))
    key = stage.session.running.key
    assert stage.session.take_news() == [Accepted(key, "print(1)")]
    line = stream("c1")
    stage.hear(status("busy", "c1"), line, line)
    assert stage.session.take_news() == []
    stage.hear(reply("c1"), status("idle", "c1"))
    assert stage.session.take_news() == [Finished(key, CellReason.OK, stage.now, 2, 2 * len(line[1]))]


def test_what_is_dropped_of_its_output_counts():
    stage = Stage(with_limits(output_messages_per_cell=10)).started()
    stage.ask(cell("c1"))
    lines = [stream("c1") for _ in range(50)]
    stage.hear(status("busy", "c1"), *lines, *whole("c1")[1:])
    told = stage.session.take_news()[-1]
    assert (told.output_messages, told.output_bytes) == (50, sum(len(v1) for _, v1 in lines))


def test_a_cell_that_never_ran_has_no_beginning():
    stage = Stage().started()
    stage.ask(cell("c1"), cell("c2"))
    stage.session.take_news()
    stage.hear(*whole("c1", "error"))
    second, first = stage.session.take_news()  # at the first one's reply, and at its idle
    assert (first.reason, second.reason) == (CellReason.ERROR, CellReason.CANCELLED)
    assert second.sent_at is None


def test_a_refused_cell_is_told_of_once():
    stage = Stage(with_limits(code_bytes=16)).started()
    stage.ask(cell("c1", "x" * 17))
    assert stage.session.take_news() == [Refused(CellReason.POLICY_DENIED, "x" * 17)]
