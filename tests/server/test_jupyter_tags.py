"""Whatever an honest kernel says, its tag is true: what takes tags for lies passes all of it."""

from __future__ import annotations

import asyncio

import msgpack
import pytest

from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.connection import KernelConnection, each
from cellgate.sandbox.process import ProcessDriver
from cellgate.wire import jupyter, strict
from cellgate.wire.jupyter import execute_content, make_message, tag_is_true
from cellgate_kernel.message import CHANNELS, Channel, Status, Tag, join_v1

CODE = """
import sys
print("out"); print("err", file=sys.stderr)
display("shown")
from ipywidgets import IntSlider
display(IntSlider())
get_ipython().kernel.session.send(get_ipython().kernel.iopub_socket, "of_our_own", {"a": 1})
1 + 1
"""
REQUESTS = [
    ("kernel_info_request", {}),
    ("execute_request", execute_content(CODE, user_expressions={"x": "1"}, stop_on_error=False)),
    ("execute_request", execute_content("1/0")),
    ("execute_request", execute_content("'aborted'")),
    ("complete_request", {"code": "im", "cursor_pos": 2}),
    ("inspect_request", {"code": "int", "cursor_pos": 2, "detail_level": 0}),
    ("is_complete_request", {"code": "for"}),
    ("history_request", {"hist_access_type": "tail", "n": 1, "output": False, "raw": True}),
    ("comm_info_request", {}),
    ("of_no_type_there_is", {}),
    ("execute_request", execute_content("'last'")),
]


@pytest.mark.parametrize("kernel", ["python", "python3"], ids=["in-process", "bridged"])
@pytest.mark.filterwarnings("ignore:.*contains nothing")
async def test_no_tag_of_an_honest_kernel_is_taken_for_a_lie(kernel):
    done = asyncio.get_running_loop().create_future()
    said, lies = set(), []

    def on_message(number, tag, v1):
        said.add(tag.message_type)
        if not tag_is_true(tag, v1):
            lies.append((tag, bytes(v1)))
        if tag.parent_id == b"%d" % (len(REQUESTS) - 1) and tag.status is Status.IDLE and not done.done():
            done.set_result(None)

    driver = ProcessDriver()
    sandbox = await driver.create(SandboxSpec())
    connection = await KernelConnection.open(
        sandbox, setup=msgpack.packb({"kernel": kernel}), on_messages=each(on_message)
    )
    try:
        for number, (msg_type, content) in enumerate(REQUESTS):
            connection.post(
                *make_message(msg_type, content, channel=Channel.SHELL, msg_id=str(number), session="s", date="now")
            )
        await asyncio.wait_for(done, 60)
    finally:
        connection.close()
        await sandbox.destroy()
        await driver.close()
    assert lies == []
    assert said >= {"status", "stream", "display_data", "comm_open", "execute_result", "error", "execute_reply"}
    assert "" in said, "a type that has no code"


def test_no_kernel_has_the_gateway_read_large_json(monkeypatch: pytest.MonkeyPatch):
    """A reply of 15 MiB of brackets held up everybody for a second, and took half a gigabyte; and then the next."""
    read: list[int] = []
    load = strict.load

    def load_and_note(data: memoryview, name: str) -> dict[str, object]:
        read.append(len(data))
        return load(data, name)

    monkeypatch.setattr(jupyter, "load", load_and_note)
    brackets = b'{"a":[' + b"[]," * 50_000 + b'[]],"status":"ok"}'
    header = b'{"msg_id":"k","msg_type":"%s","username":"","session":"s","version":"5.3","date":"2026"}'

    def is_true(channel: Channel, msg_type: str, status: Status, content: bytes, head: bytes = header) -> bool:
        parts = [head.replace(b"%s", msg_type.encode()), b'{"msg_id":"c1"}', b"{}", content]
        v1 = memoryview(b"".join(join_v1(CHANNELS[channel], parts)))
        return tag_is_true(Tag(channel, msg_type, status, b"c1"), v1)

    assert is_true(Channel.SHELL, "execute_reply", Status.OK, brackets), "as an honest kernel may have much to say"
    assert not is_true(Channel.SHELL, "execute_reply", Status.IDLE, brackets)
    assert not is_true(Channel.IOPUB, "status", Status.IDLE, brackets)
    assert not is_true(Channel.IOPUB, "stream", Status.NONE, b"{}", brackets)
    assert max(read) < 100
