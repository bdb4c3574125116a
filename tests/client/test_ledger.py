"""What a client says again after its connection broke: everything that has no answer, and nothing that would be done
twice."""

from __future__ import annotations

import pytest

from cellgate.client.errors import CellgateError, ConnectionLost, InvalidRequest, OutcomeLost
from cellgate.client.ledger import Ledger, Request


class Sink:
    def __init__(self) -> None:
        self.events: list[str] = []
        self.error: CellgateError | None = None

    def take(self, event):
        self.events.append(event["event"])

    def fail(self, error):
        self.error = error


class Asked(Sink):
    """What became of a request."""

    def __init__(self, op: str, **said) -> None:
        super().__init__()
        self.answers: list = []
        self.message = {"op": op, "id": f"{op}-1", **said}
        self.request = Request(self.message, self.answers.append, self.fail)


def execute(name: str):
    return {"op": "execute", "id": name, "code": "1"}


def attached(incarnation: int = 1, **pending: str):
    """`pending`: cells and their phases."""
    told = [{"cell": cell, "client": "me", "phase": phase} for cell, phase in pending.items()]
    return {"event": "attached", "state": "ready", "incarnation": incarnation, "since": 0, "pending": told}


def come(ledger: Ledger, events=(), incarnation: int = 1, **pending: str):
    """A connection, up to where its history was sent; what the client said on it."""
    ledger.connected()
    said = ledger.take(attached(incarnation, **pending))
    for event in events:
        said += ledger.take(event)
    return said + ledger.take({"event": "caught_up", "seq": 0})


@pytest.fixture
def seen():
    return []


@pytest.fixture
def ledger(seen):
    return Ledger(seen.append)


def test_what_is_asked_before_there_is_a_connection_is_said_once_there_is_one(ledger):
    assert ledger.execute(execute("a"), Sink()) == []
    assert come(ledger) == [execute("a")]
    assert ledger.execute(execute("b"), Sink()) == [execute("b")]


def test_a_cell_of_which_nothing_was_seen_is_said_again_and_one_that_was_accepted_is_not(ledger):
    come(ledger)
    ledger.execute(execute("a"), Sink())
    ledger.execute(execute("b"), Sink())
    ledger.take({"event": "accepted", "seq": 1, "cell": "a"})
    assert come(ledger, a="running") == [execute("b")]


def test_a_cell_whose_events_come_with_the_history_is_not_said_again(ledger):
    come(ledger)
    ledger.execute(execute("a"), sink := Sink())
    history = [{"event": name, "seq": seq, "cell": "a"} for seq, name in enumerate(("accepted", "finished"), 1)]
    assert come(ledger, history) == []
    assert sink.events == ["accepted", "finished"] and ledger.is_idle


def test_no_event_is_told_twice(ledger, seen):
    event = {"event": "stdout", "seq": 7, "cell": "a", "text": "x"}
    come(ledger, [event])
    come(ledger, [event, {**event, "seq": 9}])
    assert [one["seq"] for one in seen] == [7, 9] and ledger.seen == 9


def test_a_cell_whose_end_is_not_kept_any_more_fails_and_does_not_wait_for_ever(ledger):
    come(ledger)
    ledger.execute(execute("a"), sink := Sink())
    ledger.take({"event": "accepted", "seq": 1, "cell": "a"})
    assert come(ledger, [{"event": "gap", "first": 2, "last": 90, "count": 89}]) == []
    assert isinstance(sink.error, OutcomeLost)


def test_a_cell_that_began_before_what_is_read_is_recalled(seen):
    recalled = []
    ledger = Ledger(seen.append, lambda *said: recalled.append(said), since=50)
    come(ledger)
    ledger.execute(execute("a"), early := Sink())
    ledger.execute(execute("b"), Sink())
    for name, accepted in (("a", 7), ("b", 51)):
        ledger.take({"event": "reply", "re": name, "ok": True, "was": "finished", "accepted": accepted})
    assert recalled == [("a", 7, early)]
    ledger.take({"event": "accepted", "seq": 51, "cell": "b"})
    assert come(ledger, b="running") == []


def test_an_answer_to_a_question_is_said_again_until_anything_shows_that_it_came(ledger):
    come(ledger)
    ledger.execute(execute("a"), Sink())
    ledger.take({"event": "input_request", "seq": 1, "cell": "a"})
    answer = {"op": "input", "cell": "a", "value": "42"}
    assert ledger.answer_input("a", "42") == [answer]
    assert come(ledger, a="running") == [answer]
    ledger.take({"event": "stdout", "seq": 2, "cell": "a", "text": "42"})
    assert come(ledger, a="running") == []


@pytest.mark.parametrize("op", ["complete", "variables", "touch", "cancel"])
def test_a_request_that_may_be_done_twice_is_said_until_it_is_answered(ledger, op):
    come(ledger)
    asked = Asked(op)
    assert ledger.ask(asked.request) == [asked.message]
    assert come(ledger) == [asked.message]
    reply = {"event": "reply", "re": f"{op}-1", "ok": True}
    ledger.take(reply)
    assert asked.answers == [reply] and come(ledger) == []


def test_a_restart_that_has_come_about_is_not_asked_for_again(ledger):
    come(ledger)
    asked = Asked("restart")
    ledger.ask(asked.request)
    assert come(ledger, incarnation=2) == []
    assert asked.answers[0]["ok"]


def test_a_restart_that_was_lost_with_the_connection_is_asked_for_again(ledger):
    come(ledger)
    asked = Asked("restart")
    ledger.ask(asked.request)
    assert come(ledger) == [asked.message] and asked.answers == []


@pytest.mark.parametrize(("runs_now", "is_said_again"), [("a", True), ("b", False)])
def test_an_interrupt_strikes_no_cell_that_came_after_the_one_that_was_meant(ledger, runs_now, is_said_again):
    come(ledger)
    ledger.take({"event": "started", "seq": 1, "cell": "a"})
    asked = Asked("interrupt")
    ledger.ask(asked.request)
    assert come(ledger, **{runs_now: "running"}) == ([asked.message] if is_said_again else [])
    assert bool(asked.answers) is not is_said_again


def test_an_interrupt_does_not_wait_for_the_history(ledger):
    ledger.connected()
    ledger.take(attached(a="running"))
    assert ledger.ask(Asked("interrupt").request)
    assert not ledger.ask(Asked("complete").request)


def test_a_refusal_reaches_whoever_asked(ledger):
    come(ledger)
    ledger.execute(execute("a"), sink := Sink())
    asked = Asked("complete")
    ledger.ask(asked.request)
    for name in ("a", "complete-1"):
        ledger.take({"event": "error", "re": name, "code": "usage", "message": "no", "facts": {"field": "code"}})
    for one in (sink, asked):
        assert isinstance(one.error, InvalidRequest) and one.error.facts == {"field": "code"}
    assert ledger.is_idle


def test_the_end_of_the_attachment_reaches_everybody_who_waits(ledger):
    ledger.execute(execute("a"), sink := Sink())
    asked = Asked("complete")
    ledger.ask(asked.request)
    ledger.fail(ConnectionLost("no server"))
    assert isinstance(sink.error, ConnectionLost) and isinstance(asked.error, ConnectionLost) and ledger.is_idle
