"""`jupyter-kernel-client`: the legacy websocket protocol, and `Authorization: Bearer`.

Its version 1.0.2 can be told to speak v1, and then fails at each message that it receives, from whatever server.
"""

from __future__ import annotations

import threading

import pytest
from jupyter_kernel_client import JupyterKernelClient

OPTIONS = {"timeout": 3.0}  # it waits so long for the end of a thread that does not end; else ten seconds


@pytest.fixture
def client(server):
    with JupyterKernelClient(server_url=server.url, token=server.token, client_kwargs=OPTIONS) as client:
        yield client


def printed(reply) -> str:
    return "".join(output["text"] for output in reply["outputs"] if output["output_type"] == "stream")


def test_cells_share_a_kernel(client):
    assert client.kernel_info["language_info"]["name"] == "python"
    assert client.execute("x = 20")["status"] == "ok"
    reply = client.execute("print('out'); x + 1")
    assert printed(reply) == "out\n"
    assert reply["outputs"][-1]["data"]["text/plain"] == "21"
    assert reply["execution_count"] == 2


def test_an_error_is_told(client):
    reply = client.execute("1/0")
    assert reply["status"] == "error"
    assert reply["outputs"][0]["ename"] == "ZeroDivisionError"
    assert client.execute("1")["status"] == "ok"


def test_variables_go_there_and_back(client):
    client.set_variable("x", {"a": [1, 2, "ü"]})
    assert client.get_variable("x") == {"a": [1, 2, "ü"]}
    assert "x" in [variable["name"] for variable in client.list_variables()]


def test_input_is_answered(client):
    def answer(message):
        client._manager.client.input("of course")

    reply = client.execute("print(input('?'))", allow_stdin=True, stdin_hook=answer)
    assert printed(reply) == "of course\n"


def test_an_interrupt_ends_a_cell(client):
    begun = threading.Event()
    replies = []

    def run() -> None:
        reply = client.execute_interactive(
            "print('begun', flush=True)\nwhile True: pass",
            output_hook=lambda message: begun.set() if message["header"]["msg_type"] == "stream" else None,
        )
        replies.append(reply["content"])

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(30)
    client.interrupt()
    thread.join(30)
    assert not thread.is_alive()
    assert replies[0]["ename"] == "KeyboardInterrupt"


def test_a_restart_forgets(client, server):
    client.execute("x = 1")
    kernel = client.id
    client.restart()
    assert client.execute("x")["outputs"][0]["ename"] == "NameError"
    assert client.id == kernel


def test_a_second_client_shares_the_kernel_of_the_first_and_leaves_it(client, server):
    client.execute("x = 1")
    options = {"client_kwargs": OPTIONS, "kernel_id": client.id}
    with JupyterKernelClient(server_url=server.url, token=server.token, **options) as other:
        assert other.execute("x")["outputs"][0]["data"]["text/plain"] == "1"
    assert client.execute("x")["status"] == "ok"
    assert [kernel["id"] for kernel in client.list_kernels()] == [client.id]


def test_a_kernel_ends_with_its_client(server):
    with JupyterKernelClient(server_url=server.url, token=server.token, client_kwargs=OPTIONS) as client:
        assert client.execute("1")["status"] == "ok"
    assert server.ask("/api/kernels") == []


def test_a_thousand_lines_come_whole(client):
    reply = client.execute("for i in range(1000): print(i, flush=True)")
    assert printed(reply) == "".join(f"{i}\n" for i in range(1000))
