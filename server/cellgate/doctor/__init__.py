"""Look around in sandboxes on this host, and tell which layers of the isolation hold, which are weaker than they
could be, and which are missing."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence

from cellgate.commands.exits import ExitStatus
from cellgate.commands.places import add_place_flags, settings_of
from cellgate.commands.signals import Signals
from cellgate.doctor.report import MAX_WIDTH, Report, Standing, render, to_json, worst
from cellgate.errors import DriverUnavailable, SandboxStartFailed
from cellgate.sandbox.drivers import DEFAULT_DRIVER, DRIVERS, open_driver

# This is the command; for whoever else wants the report there is `cellgate.doctor.examine.examine(driver)`.
__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "tell which layers of the isolation hold on this host"
ALL = [("native", ""), ("docker", "runc"), ("docker", "runsc"), ("process", "")]  # driver and runtime: a column
_STATUS = {
    Standing.OK: ExitStatus.OK,
    Standing.MISSING: ExitStatus.ENDED,
    Standing.UNMEASURED: ExitStatus.FAILED,
}
EXITS = """\
exit status:
  0  all that the driver promises holds
  2  usage
  3  a promised layer is missing
  4  a promised layer could not be measured, the driver cannot run here, or the installation is not in order"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--driver", choices=(*DRIVERS, "all"), default=DEFAULT_DRIVER, help=f"(default: {DEFAULT_DRIVER})"
    )
    parser.add_argument("--runtime", default="", help="of driver docker: runc, runsc, ... (default: the engine's)")
    parser.add_argument(
        "--installation",
        action="store_true",
        help="look over what `cellgate serve` needs instead: state directory, port, clock, kernel, page, judge, unit",
    )
    add_place_flags(parser)
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate doctor`. Raises EndedBySignal; UsageError, LimitError for settings that cannot be."""
    if args.installation:
        return _look_over(args)
    wanted = ALL if args.driver == "all" else [(args.driver, args.runtime)]
    reports = asyncio.run(_examine_all(wanted))
    status = _STATUS[worst(reports)]
    if args.json:
        print(json.dumps({"exit_status": int(status), **to_json(reports)}))
    else:
        width = shutil.get_terminal_size((MAX_WIDTH, 24)).columns
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print(render(reports, width=width, colour=colour), end="")
    return status


def _look_over(args: argparse.Namespace) -> ExitStatus:
    from cellgate.doctor.installation import State, checks_to_json, look_over, render_checks, worst_state

    checks = look_over(settings_of(args))
    status = ExitStatus.FAILED if worst_state(list(checks.values())) is State.FAIL else ExitStatus.OK
    if args.json:
        print(json.dumps({"exit_status": int(status), "checks": checks_to_json(checks)}))
    else:
        print(render_checks(checks), end="")
    return status


async def _examine_all(wanted: Sequence[tuple[str, str]]) -> list[Report]:
    async with Signals(asyncio.get_running_loop().create_future()):
        return [await _examine(name, runtime) for name, runtime in wanted]


async def _examine(name: str, runtime: str) -> Report:
    from cellgate.doctor.examine import examine, report_unavailable  # as late as the drivers

    try:
        driver = await open_driver(name, runtime=runtime)
        try:
            return await examine(driver)
        finally:
            await driver.close()
    except (DriverUnavailable, SandboxStartFailed) as error:
        return report_unavailable(name, error, runtime)
