"""AutoGen's executor of code blocks in a Jupyter kernel: asynchronous, over `websockets`."""

import asyncio

from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock
from autogen_ext.code_executors.docker_jupyter import DockerJupyterCodeExecutor
from autogen_ext.code_executors.docker_jupyter._jupyter_server import JupyterConnectionInfo  # nobody exports it

from tests.clients.agents.playing import PICTURE, host_and_port, play_all, scenario


async def run(executor, *codes, cancelled_by=None):
    blocks = [CodeBlock(code=code, language="python") for code in codes]
    return await executor.execute_code_blocks(blocks, cancelled_by or CancellationToken())


@scenario("blocks share a kernel, and give what they print and compute")
async def share(executor):
    result = await run(executor, "x = 20\nprint('out')", "x + 1")
    assert result.exit_code == 0, result
    assert result.output == "out\n\n21", result
    assert (await run(executor, "print(x)")).output == "20\n"


@scenario("an error ends the blocks")
async def error(executor):
    result = await run(executor, "1/0", "print('never')")
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.output
    assert "never" not in (await run(executor, "print('after')")).output


@scenario("pictures and pages become files")
async def pictures(executor):
    result = await run(executor, PICTURE, "display({'text/html': '<b>rich</b>'}, raw=True)")
    assert result.exit_code == 0, result
    assert sorted(path.suffix for path in result.output_files) == [".html", ".png"]


@scenario("a restart forgets")
async def restart(executor):
    await run(executor, "x = 1")
    await executor.restart()
    assert "NameError" in (await run(executor, "x")).output


@scenario("a block that is given up leaves an executor that can be restarted")
async def given_up(executor):
    token = CancellationToken()
    asyncio.get_running_loop().call_later(1, token.cancel)
    try:
        await run(executor, "import time; time.sleep(60)", cancelled_by=token)
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError("was not cancelled")
    await executor.restart()
    assert (await run(executor, "print('after')")).output == "after\n"


@scenario("a kernel that dies fails its block, and the next one runs")
async def death(executor):
    result = await run(executor, "import os; os._exit(3)")
    assert result.exit_code == 1, result
    assert (await run(executor, "print('after')")).output == "after\n"


async def give_executor(play, url, token):
    host, port = host_and_port(url)
    info = JupyterConnectionInfo(host=host, use_https=False, port=port, token=token)
    async with DockerJupyterCodeExecutor(info, timeout=30, output_dir=".") as executor:
        await play(executor)


if __name__ == "__main__":
    play_all(lambda *of: asyncio.run(give_executor(*of)))
