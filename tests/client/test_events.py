"""Events as values."""

from __future__ import annotations

from cellgate.client.events import EVENTS, Display, Event, Failed, Started, UpdateDisplay, read_event


def test_each_kind_has_its_class():
    for name, kind in EVENTS.items():
        assert type(read_event({"event": name})) is kind


def test_what_is_absent_or_null_has_its_default():
    event = read_event({"event": "started", "seq": 4, "time": 1.5, "cell": "a", "count": None})
    assert event == Started(raw=event.raw, seq=4, time=1.5, cell="a", code="", count=None)


def test_a_kind_of_the_future_is_an_event_all_the_same():
    event = read_event({"event": "dream", "seq": 9, "vivid": True})
    assert type(event) is Event and event.name == "dream" and event.raw["vivid"]


def test_a_program_can_match_on_them():
    match read_event({"event": "error", "name": "ZeroDivisionError", "value": "division by zero", "traceback": ["t"]}):
        case Failed(type="ZeroDivisionError", value=value):
            assert value == "division by zero"
        case other:
            raise AssertionError(other)
    assert isinstance(read_event({"event": "update_display", "data": {"text/plain": "2"}}), Display)
    assert issubclass(UpdateDisplay, Display)
