"""AG2's executor of code blocks in a Jupyter kernel: synchronous, over `websocket-client`."""

from autogen.coding import CodeBlock
from autogen.coding.jupyter import JupyterCodeExecutor, JupyterConnectionInfo

from tests.clients.agents.playing import PICTURE, host_and_port, play_all, scenario


def run(executor, *codes):
    return executor.execute_code_blocks([CodeBlock(code=code, language="python") for code in codes])


@scenario("blocks share a kernel, and give what they print and compute")
def share(executor):
    result = run(executor, "x = 20\nprint('out')", "x + 1")
    assert result.exit_code == 0, result
    assert result.output == "out\n\n21", result
    assert run(executor, "print(x)").output == "20\n"


@scenario("an error ends the blocks")
def error(executor):
    result = run(executor, "1/0", "print('never')")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.output
    assert "never" not in run(executor, "print('after')").output


@scenario("pictures become files")
def pictures(executor):
    result = run(executor, PICTURE)
    assert result.exit_code == 0, result
    (path,) = result.output_files
    with open(path, "rb") as picture:
        assert picture.read(4) == b"\x89PNG"


@scenario("a restart forgets")
def restart(executor):
    run(executor, "x = 1")
    executor.restart()
    assert "NameError" in run(executor, "x").output


@scenario("a kernel that dies fails its block, and the next one runs")
def death(executor):
    result = run(executor, "import os; os._exit(3)")
    assert result.exit_code == 1, result
    assert run(executor, "print('after')").output == "after\n"


def give_executor(play, url, token):
    host, port = host_and_port(url)
    info = JupyterConnectionInfo(host=host, use_https=False, port=port, token=token)
    with JupyterCodeExecutor(info, timeout=30) as executor:
        play(executor)


if __name__ == "__main__":
    play_all(give_executor)
