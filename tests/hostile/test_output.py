"""Cells that drown, confuse or starve whoever reads their output."""

from __future__ import annotations

import asyncio
import json

import pytest

from cellgate.wire.jupyter import JupyterMessage
from tests.hostile.arena import LIMITS, MiB, Session


async def test_endless_printing_is_interrupted_and_told_to_the_end(session: Session):
    result = await session.run("while True: print('x')", wall=1)
    assert session.timed_out(result)
    assert [out["msg_type"] for out in result.outputs][-1] == "error"


@pytest.mark.parametrize(("count", "flush"), [(2_000, True), (20_000, True), (200_000, False)])
async def test_every_numbered_line_comes_in_its_order(session: Session, count: int, flush: bool):
    text = await session.text(f"for i in range({count}): print(i, flush={flush})", wall=60)
    assert text == "".join(f"{i}\n" for i in range(count))


async def test_after_a_flood_the_error_and_the_result_still_come(session: Session):
    flood = "for i in range(20000): print('x' * 100)\n"
    result = await session.run(flood + "raise ValueError('seen')", wall=30)
    assert (result.status, result.reply["evalue"]) == ("error", "seen")
    assert result.outputs[-1]["msg_type"] == "error"
    assert await session.value(flood + "42", wall=30) == "42"


async def test_a_display_that_is_too_large_is_told_and_not_sent(session: Session):
    result = await session.run(
        "from IPython.display import display\ndisplay({'text/plain': 'x' * (20 << 20)}, raw=True)\n'after'"
    )
    assert result.value == "'after'"
    assert sum(len(json.dumps(out["content"])) for out in result.outputs) < 100_000
    assert "not shown" in result.text("stderr")


async def test_many_large_displays_are_held_back_and_not_piled_up(session: Session):
    code = (
        "from IPython.display import display\nfor i in range(100): display({'text/plain': 'x' * (1 << 20)}, raw=True)"
    )
    seen = 0

    def count(_message: object) -> None:
        nonlocal seen
        seen += 1

    result = await session.kernel.execute(code, timeout=60, on_output=count)
    assert (result.status, seen) == ("ok", 100)
    usage = await session.sandbox.usage()
    assert usage.memory_peak_bytes is not None
    assert usage.memory_peak_bytes < LIMITS.memory_bytes


async def test_storms_of_updates_and_clearings_end(session: Session):
    result = await session.run(
        """
        from IPython.display import clear_output, display
        handle = display("x", display_id=True)
        for i in range(5000): handle.update(i); clear_output()
        "over"
        """,
        wall=60,
    )
    assert result.value == "'over'"


async def test_storms_of_comms_end_and_unknown_targets_are_nobodys_harm(session: Session):
    result = await session.run(
        """
        from comm import create_comm
        for i in range(2000): create_comm(target_name="nobody", data={"i": i})
        comm = create_comm(target_name="nobody")
        comm.send({}, buffers=[bytes(30 << 20)])
        "over"
        """,
        wall=60,
    )
    assert result.value == "'over'"
    await session.kernel.send("comm_open", {"comm_id": "x", "target_name": "nobody", "data": {}})
    await session.kernel.send("comm_msg", {"comm_id": "unknown", "data": {}})


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("print('x' * (30 << 20))", id="one long line"),
        pytest.param("print('\\r' * 10**6)", id="returns"),
        pytest.param("print('a\\0b')", id="nul"),
        pytest.param("print('\\ud800 lone')", id="surrogate"),
        pytest.param("import os; os.write(1, b'\\xff\\xfe\\x80 end\\n')", id="not utf-8"),
        pytest.param("import subprocess; subprocess.run(['printf', r'\\377\\376 end\\n'])", id="a child, not utf-8"),
        pytest.param("import sys; sys.stdout.write(chr(0x10ffff) * 1000 + '\\u202e\\x1b]0;x\\7')", id="odd characters"),
        pytest.param("raise ValueError('\\ud800' * 100)", id="an error with surrogates"),
        pytest.param("raise type('\\ud800', (Exception,), {'__str__': lambda s: 1 / 0})()", id="an error that fails"),
        pytest.param("class A:\n  def __repr__(self): raise SystemExit\nA()", id="a repr that exits"),
    ],
)
async def test_whatever_is_written_arrives_as_valid_text(session: Session, code: str):
    """Each message was decoded as JSON by the client on its way here."""
    result = await session.run(code, wall=30)
    assert result.status in ("ok", "error")
    for out in result.outputs:
        json.dumps(out["content"]).encode()
    assert await session.text("print('still here')") == "still here\n"


async def test_what_is_written_below_python_is_output_too(session: Session):
    text = await session.text(
        "import os, subprocess\nos.write(1, b'by descriptor\\n'); subprocess.run(['echo', 'by a child'])"
    )
    assert text == "by descriptor\nby a child\n"
    result = await session.run("import subprocess; subprocess.run(['sh', '-c', 'yes | head -c 3000000 >&2'])")
    assert len(result.text("stderr")) == 3_000_000


async def test_a_child_that_never_stops_writing_does_not_hold_the_reply(session: Session):
    result = await session.run("import subprocess; child = subprocess.Popen(['yes']); 'replied'")
    assert result.value == "'replied'"
    await session.run("child.kill(); child.wait()")


@pytest.mark.parametrize(
    "data",
    [
        "nested",
        "{'application/json': float('nan'), 'text/plain': 'x'}",
        "{'application/json': [float('inf')], 'text/plain': 'x'}",
        "{'application/json': 10**5000, 'text/plain': 'x'}",
        "{'text/plain': b'bytes'}",
        "{'application/json': {1: 2, (3, 4): 5}, 'text/plain': 'x'}",
        "{'application/json': {'\\ud800': '\\udfff'}, 'text/plain': 'x'}",
        "loop",
    ],
)
async def test_display_data_that_json_cannot_say_is_an_error_or_made_sayable(session: Session, data: str):
    setup = """
        import sys
        sys.setrecursionlimit(10**6)
        from IPython.display import display
        nested = "x"
        for _ in range(10**5): nested = [nested]
        nested = {"application/json": nested, "text/plain": "x"}
        sys.setrecursionlimit(3000)
        loop = {"text/plain": "x"}; loop["application/json"] = loop
        """
    await session.run(setup)
    result = await session.run(f"display({data}, raw=True)\n'after'")
    assert result.status in ("ok", "error")
    for out in result.outputs:  # what came is JSON that everybody reads
        json.dumps(out["content"], allow_nan=False)


async def test_questions_that_nobody_answers_end_with_their_time(session: Session):
    assert (await session.run("input('?')")).reply["ename"] == "StdinNotImplementedError"
    never: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def silent(_prompt: str, _is_password: bool) -> str:
        return await never

    result = await session.kernel.execute("input('?')", timeout=0.5, on_input=silent)
    assert session.timed_out(result)
    many = await session.kernel.execute(
        "for i in range(1000): input(str(i))", timeout=30, on_input=lambda prompt, _: prompt
    )
    assert many.status == "ok"


async def test_a_reader_that_stops_costs_the_sandbox_no_more_than_its_window(session: Session):
    """And it then reads on where it stopped: every line, once."""
    count = 100_000
    expected = sum(len(f"{i}: ") + 101 for i in range(count))
    received = 0
    first: list[str] = []

    def take(message: JupyterMessage) -> None:
        nonlocal received
        text = message["content"].get("text", "")
        received += len(text)
        if len(first) < 10:
            first.append(text)

    cell = asyncio.create_task(
        session.kernel.execute(f"for i in range({count}): print(f'{{i}}: ' + 'x' * 100)", on_output=take)
    )
    await asyncio.sleep(0.2)
    session.kernel.connection.pause()
    await asyncio.sleep(1.5)
    held = (await session.sandbox.usage()).memory_bytes
    session.kernel.connection.resume()
    assert (await asyncio.wait_for(cell, 60)).status == "ok"
    assert received == expected
    assert held is not None
    assert held < 100 * MiB
