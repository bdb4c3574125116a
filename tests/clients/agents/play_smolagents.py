"""smolagents' executor of an agent's steps. It is made to start a container with a Jupyter gateway in it and to talk to
that; here "the container" is the server under test, which is there already and knows the token."""

from types import SimpleNamespace
from unittest import mock

import requests
from smolagents.default_tools import FinalAnswerTool
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import DockerExecutor
from smolagents.utils import AgentError

from tests.clients.agents.playing import host_and_port, play_all, scenario


@scenario("steps share a kernel, and give what they print and compute")
def share(executor):
    assert executor("x = 20\nprint('out')").logs == "out\n"
    assert executor("x + 1").output == "21"


@scenario("state that is sent arrives")
def state(executor):
    executor.send_variables({"seen": {"a": [1, 2.5, "ü"]}})
    assert executor("seen['a'][2]").output == "'ü'"


@scenario("a final answer ends the run, with its value")
def answer(executor):
    executor.send_tools({"final_answer": FinalAnswerTool()})
    result = executor("final_answer({'n': 42})")
    assert result.is_final_answer
    assert result.output == {"n": 42}, result


@scenario("an error is told with its traceback, and the next step runs")
def error(executor):
    try:
        executor("1/0")
    except AgentError as told:
        assert "ZeroDivisionError" in str(told)
    else:
        raise AssertionError("no error")
    assert executor("print('after')").logs == "after\n"


@scenario("a kernel that dies fails its step, and the next one runs")
def death(executor):
    try:
        executor("import os; os._exit(3)")
    except AgentError:
        pass
    else:
        raise AssertionError("no error")
    assert executor("print('after')").logs == "after\n"


def give_executor(play, url, token):
    host, port = host_and_port(url)
    container = SimpleNamespace(status="running", short_id="none", stop=lambda: None, remove=lambda: None)
    containers = SimpleNamespace(run=lambda *_, **__: container)
    engine = SimpleNamespace(containers=containers, images=SimpleNamespace(get=lambda name: name))
    with (
        mock.patch("docker.from_env", return_value=engine),
        mock.patch("smolagents.remote_executors.secrets.token_urlsafe", return_value=token),
    ):
        executor = DockerExecutor([], AgentLogger(LogLevel.ERROR), host=host, port=port, build_new_image=False)
    try:
        play(executor)
    finally:  # it leaves that to the container's end
        requests.delete(
            f"{url}/api/kernels/{executor.kernel_id}", params={"token": token}, timeout=30
        ).raise_for_status()


if __name__ == "__main__":
    play_all(give_executor)
