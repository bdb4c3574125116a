"""Print every setting of a server, its value, and where the value came from: a flag, the environment, a file, the
profile or the default."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from cellgate.commands.exits import ExitStatus
from cellgate.commands.table import columns
from cellgate.sandbox.limits import size
from cellgate.settings import SETTINGS, Settings, add_setting_flags, gather_settings
from cellgate.terminal import one_line

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "print the settings of a server, and where each comes from"
EXITS = """\
exit status:
  0  these settings would pass
  2  they would not; one line on standard error says which and why"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one object instead of the table")
    add_setting_flags(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate settings`. Raises UsageError and LimitError."""
    settings = gather_settings(args, os.environ, is_root=os.geteuid() == 0)
    if args.json:
        print(json.dumps({"exit_status": int(ExitStatus.OK), "settings": to_json(settings)}, default=_plain))
    else:
        print(render(settings), end="")
    return ExitStatus.OK


def to_json(settings: Settings) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "value": value,
            "unit": SETTINGS[name].unit,
            "source": {"kind": settings.sources[name].kind.value, "where": settings.sources[name].where},
            "flag": SETTINGS[name].flag,
            "variable": SETTINGS[name].variable,
            "help": SETTINGS[name].help,
        }
        for name, value in settings.values().items()
    ]


def render(settings: Settings) -> str:
    """A line for each; values as a flag would take them."""
    rows = [("SETTING", "VALUE", "UNIT", "FROM")]
    for name, value in settings.values().items():
        rows.append((name, one_line(_text(value, SETTINGS[name].unit)), SETTINGS[name].unit, _origin(settings, name)))
    return columns(rows)


def _text(value: object, unit: str) -> str:
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, (int, float)):
        return size(value, unit).replace(" ", "")
    return "" if value is None else str(value)


def _origin(settings: Settings, name: str) -> str:
    return one_line(str(settings.sources[name]))


def _plain(value: object) -> str:
    assert isinstance(value, Path)  # the only value that JSON does not take
    return str(value)
