"""What became of a cell, folded out of its events."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from cellgate.wire.result import Result, fold

FINISHED = {"event": "finished", "cell": "c", "status": "ok", "reason": "ok", "count": 3, "seq": 9}


def bundle(text: str) -> dict[str, object]:
    return {"data": {"text/plain": text}, "metadata": {}}


def test_the_result_of_a_cell_that_says_nothing():
    assert fold([FINISHED]) == Result(cell="c", status="ok", reason="ok", count=3, seq=9)
    assert fold([FINISHED]).is_ok


def test_a_cell_that_has_not_ended_has_no_status():
    assert fold([{"event": "stdout", "text": "a"}]) == Result(stdout="a")


def test_streams_are_joined_and_kept_apart():
    events = [{"event": name, "text": text} for name, text in (("stdout", "a"), ("stderr", "b"), ("stdout", "c"))]
    assert (fold(events).stdout, fold(events).stderr) == ("ac", "b")


def test_what_is_displayed_stands_in_order_and_the_result_is_among_it():
    result = fold([{"event": "display", **bundle("1")}, {"event": "result", "count": 1, **bundle("2")}, FINISHED])
    assert result.outputs == (bundle("1"), bundle("2"))
    assert result.result == {"text/plain": "2"}


def test_an_update_takes_the_place_of_every_display_with_its_id():
    shown = [{"event": "display", "display_id": name, **bundle(name)} for name in ("x", "y", "x")]
    result = fold([*shown, {"event": "update_display", "display_id": "x", **bundle("new")}])
    assert result.outputs == (bundle("new"), bundle("y"), bundle("new"))


def test_an_update_of_nothing_shown_changes_nothing():
    assert fold([{"event": "update_display", "display_id": "x", **bundle("new")}]).outputs == ()


def test_clear_output_takes_away_at_once_or_with_what_comes_next():
    before = [{"event": "stdout", "text": "a"}, {"event": "result", **bundle("1")}]
    assert fold([*before, {"event": "clear_output", "wait": False}]) == Result()
    waiting = [*before, {"event": "clear_output", "wait": True}]
    assert fold(waiting).stdout == "a"
    assert fold([*waiting, {"event": "stderr", "text": "b"}]) == Result(stderr="b")


def test_an_error_a_notice_and_what_was_cut_are_told():
    error = {"name": "ValueError", "value": "x", "traceback": ["t"]}
    notice = {"note": "timeout_wall", "text": "it has run long", "facts": {"limit_seconds": 1}}
    result = fold(
        [
            {"event": "error", **error},
            {"event": "notice", **notice},
            {**FINISHED, "status": "error", "reason": "timeout_wall", "truncated": {"messages": 2, "bytes": 30}},
        ]
    )
    assert (result.error, result.notices, result.truncated) == (error, (notice,), {"messages": 2, "bytes": 30})
    assert (result.is_ok, result.reason) == (False, "timeout_wall")


def test_a_cell_that_was_refused_has_a_result():
    refused = {"event": "error", "re": "c", "code": "queue_full", "message": "5 cells wait", "facts": {"count": 5}}
    assert fold([refused]) == Result(
        cell="c", status="error", reason="queue_full", sentence="5 cells wait", facts={"count": 5}
    )


def test_several_cells_become_one_with_the_end_of_the_last():
    metrics = {"wall": 1.0, "peak_memory": 7, "output_bytes": 2}
    first = {**FINISHED, "cell": "a", "metrics": metrics}
    result = fold([first, {**FINISHED, "status": "error", "reason": "error", "metrics": metrics}])
    assert (result.cell, result.status, result.reason) == ("c", "error", "error")
    assert result.metrics == {"wall": 2.0, "peak_memory": 7, "output_bytes": 4}


TEXTS = st.text(max_size=5)
EVENTS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"event": st.sampled_from(["stdout", "stderr"]), "text": TEXTS}),
        st.fixed_dictionaries(
            {
                "event": st.sampled_from(["display", "update_display", "result"]),
                "data": st.dictionaries(TEXTS, TEXTS, max_size=2),
                "display_id": st.sampled_from([None, "a", "b"]),
            }
        ),
        st.fixed_dictionaries({"event": st.just("clear_output"), "wait": st.booleans()}),
        st.just(FINISHED),
    )
)


@given(EVENTS)
def test_a_result_comes_back_from_json_as_it_was(events):
    result = fold(events)
    assert Result.from_json(json.loads(json.dumps({**result.to_json(), "of a later version": 1}))) == result
