"""Make and look after the images that the driver docker starts containers of: each has a kernel host in it, and its
packages are written down. Unpacked, the driver native runs what they hold."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cellgate.commands.exits import ExitStatus
from cellgate.commands.places import add_place_flags, places_of
from cellgate.commands.table import columns
from cellgate.errors import DriverUnavailable, UsageError
from cellgate.sandbox.drivers import load_docker

if TYPE_CHECKING:
    from cellgate.sandbox.docker.engine import Engine
    from cellgate.sandbox.docker.images import Template

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "make the images of containers, and unpack them for the driver native"
EXITS = """\
exit status:
  0  it is as it was asked for
  2  usage: a name, a file, a recipe that is not there
  3  an image did not pass its check
  4  there is no engine, or a build failed; standard error says why"""

CELL_SECONDS = 60.0
# Imports what the image was made for, and works with it.
CHECKS = {
    "python": "sum(range(10)) == 45",
    "python-data": "import matplotlib.pyplot, numpy, openpyxl, pandas, PIL, polars, scipy, sklearn.linear_model\n"
    "bool(pandas.DataFrame({'a': numpy.arange(3)}).a.sum() == 3)",
}

Result = TypeVar("Result")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="make those that come with Cellgate, where something has changed")
    build.add_argument("names", nargs="*", metavar="NAME", help="python, python-data, service (default: all)")
    build.add_argument("--fresh", action="store_true", help="fetch the newest packages, whatever there is")
    listing = actions.add_parser("ls", help="list what there is")
    listing.add_argument("--json", action="store_true", help="print one object, with the packages of each")
    check = actions.add_parser("check", help="run a cell in each, in a sandbox")
    check.add_argument("names", nargs="*", metavar="NAME", help="(default: all that there are)")
    check.add_argument("--runtime", default="", help="runc, runsc, ... (default: the engine's)")
    unpack = actions.add_parser("unpack", help="write out what the driver native is to run, without an engine")
    unpack.add_argument(
        "names", nargs="+", metavar="NAME", help="of `cellgate images ls`; its template is called so too"
    )
    add_place_flags(unpack)
    add = actions.add_parser("add", help="make one of your own")
    add.add_argument("name", metavar="NAME", help="what its template is called")
    add.add_argument("--base", default="python", help="one of ours, or any image with Python 3.10 and glibc")
    add.add_argument("--requirements", required=True, metavar="FILE", help="what pip is to install in it")


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate images`. Raises CellgateError."""
    load_docker()
    actions: dict[str, Callable[[argparse.Namespace], ExitStatus]] = {
        "build": _build,
        "ls": _list,
        "check": _check,
        "add": _add,
        "unpack": _unpack,
    }
    return actions[args.action](args)


def _build(args: argparse.Namespace) -> ExitStatus:
    from cellgate.sandbox.docker.build import RECIPES, SERVICE, build, build_service, recipe_of

    names = args.names or [*RECIPES, SERVICE]
    recipes = [recipe_of(name) for name in names if name != SERVICE]
    _tell(_with_engine(lambda engine: [build(engine, recipe, _say, fresh=args.fresh) for recipe in recipes]))
    if SERVICE in names:
        print(_with_engine(lambda engine: build_service(engine, _say, fresh=args.fresh)))
    return ExitStatus.OK


def _add(args: argparse.Namespace) -> ExitStatus:
    from cellgate.sandbox.docker.build import build, recipe_from

    def make(engine: Engine) -> Template:
        return build(engine, recipe_from(args.name, args.base, Path(args.requirements), engine), _say)

    _tell([_with_engine(make)])
    return ExitStatus.OK


def _unpack(args: argparse.Namespace) -> ExitStatus:
    from cellgate.sandbox.docker.unpack import unpack

    images = places_of(args).images
    try:
        images.mkdir(exist_ok=True)
        images.chmod(0o755)
        for image in _with_engine(lambda engine: [unpack(engine, name, images, _say) for name in args.names]):
            print(image.directory(images))
    except OSError as error:
        raise UsageError(f"{images} cannot hold it: {error}; a --state-dir with room for it would pass") from error
    _say("a server knows it when its warden starts anew: `cellgate serve --end-sessions` ends one with its sessions")
    return ExitStatus.OK


def _list(args: argparse.Namespace) -> ExitStatus:
    from cellgate.sandbox.docker.images import find_templates

    found = _with_engine(find_templates)
    if args.json:
        print(json.dumps({name: vars(template) for name, template in found.items()}))
    else:
        _tell(found.values())
        if not found:
            _say("there is none; `cellgate images build` makes some")
    return ExitStatus.OK


def _check(args: argparse.Namespace) -> ExitStatus:
    passed = asyncio.run(_check_each(args.names, args.runtime))
    return ExitStatus.OK if passed else ExitStatus.ENDED


async def _check_each(names: list[str], runtime: str) -> bool:
    from cellgate.sandbox.base import SandboxSpec
    from cellgate.sandbox.client import KernelClient
    from cellgate.sandbox.docker.driver import DockerDriver

    driver = await DockerDriver.start(runtime=runtime)
    passed = True
    try:
        for name in names or driver.templates:
            sandbox = await driver.create(SandboxSpec(template=name))
            try:
                async with KernelClient(sandbox) as kernel:
                    code = CHECKS.get(name, CHECKS["python"])
                    result = await kernel.execute(code, timeout=CELL_SECONDS)
            finally:
                await sandbox.destroy()
            holds = result.value == "True"
            passed = passed and holds
            print(f"{name}: {'ok' if holds else f'FAILED: {result.reply or result.certificate}'}")
    finally:
        await driver.close()
    return passed


def _with_engine(work: Callable[[Engine], Result]) -> Result:
    """Raises DriverUnavailable."""
    from cellgate.sandbox.docker.build import BuildFailed
    from cellgate.sandbox.docker.engine import Engine, EngineFailed

    try:
        engine = Engine.open()
        try:
            return work(engine)
        finally:
            engine.close()
    except BuildFailed as error:
        raise DriverUnavailable("docker", str(error), "mend that and build again") from error
    except EngineFailed as error:
        raise DriverUnavailable("docker", str(error), "start an engine, or name it in DOCKER_HOST") from error


def _tell(templates: Iterable[Template]) -> None:
    rows = [(one.name, f"Python {one.python}", f"{one.size_bytes / 1e6:.0f} MB", one.image) for one in templates]
    print(columns(rows), end="")


def _say(text: str) -> None:
    print(f"cellgate: {text}", file=sys.stderr, flush=True)
