"""Watch how a server fares: sessions, cells, what they use and how they end, with the last hour.

It asks the server for its statistics every other second; the token needs the scope `admin`. Ctrl-C ends it."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cellgate.commands.exits import ExitStatus
from cellgate.commands.remote import add_server_flag, reached
from cellgate.errors import UsageError
from cellgate.sandbox.limits import size

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["EXITS", "HELP", "add_arguments", "execute", "rows_of", "sparkline"]

HELP = "watch how a server fares"
EXITS = """\
exit status:
  0  it was told to end, or has said it once
  2  usage: no such server, or a token without the scope `admin`
  4  the server failed, or did not answer"""

PAUSE_SECONDS = 2.0
WIDTH = 48  # of a line that stands for the last hour
_BLOCKS = "▁▂▃▄▅▆▇█"

# Each line: its name, the column of the history, and the unit of what it shows.
LINES: tuple[tuple[str, str, str], ...] = (
    ("sessions", "sessions", ""),
    ("clients", "clients", ""),
    ("cells running", "cells_running", ""),
    ("cells waiting", "cells_waiting", ""),
    ("cells", "cells_per_second", "/s"),
    ("failures", "failures_per_second", "/s"),
    ("kernel starts", "starts_per_second", "/s"),
    ("output", "output_bytes_per_second", "bytes/s"),
    ("CPU", "cpu_cores", "cores"),
    ("memory", "memory_bytes", "bytes"),
    ("journals", "journal_bytes", "bytes"),
    ("loop lag", "loop_lag_seconds", "ms"),
)
# Each table: its title, the counter, and the label that tells its rows apart.
TABLES: tuple[tuple[str, str, str], ...] = (
    ("cells, by how they ended", "cells_finished", "reason"),
    ("cells refused", "cells_refused", "reason"),
    ("kernels, by how they ended", "kernels_ended", "reason"),
    ("denials, by rule", "denials", "rule"),
    ("limits hit", "limits_hit", "limit"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--once", action="store_true", help="say it once, and end")
    parser.add_argument("--json", action="store_true", help="print the server's statistics as one object, and end")
    add_server_flag(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate top`. Raises UsageError, the SDK's errors."""
    try:
        import rich  # noqa: F401
    except ImportError as error:
        if not args.json:
            raise UsageError("this needs rich; `pip install 'cellgate[top]'`, or --json, would pass") from error
    try:
        asyncio.run(_watch(args))
    except KeyboardInterrupt:
        pass
    return ExitStatus.OK


async def _watch(args: argparse.Namespace) -> None:
    async with reached(args) as client:
        stats = await client.ask("GET", "/v1/stats")
        if args.json:
            print(json.dumps(stats))
            return
        from rich.console import Console
        from rich.live import Live

        console = Console()
        if args.once or not sys.stdout.isatty():
            console.print(view(client.url, stats))
            return
        with Live(view(client.url, stats), console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(view(client.url, stats), refresh=True)
                await asyncio.sleep(PAUSE_SECONDS)
                stats = await client.ask("GET", "/v1/stats")


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """The values in so many blocks, the newest at the right; each block is the largest of those it stands for."""
    if not values:
        return ""
    per_block = -(-len(values) // width)
    first = len(values) % per_block
    groups = ([values[:first]] if first else []) + [
        values[at : at + per_block] for at in range(first, len(values), per_block)
    ]
    tops = [max(group) for group in groups]
    most = max(tops)
    return "".join(_BLOCKS[round(top / most * (len(_BLOCKS) - 1)) if most > 0 else 0] for top in tops)


def rows_of(stats: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """For each line its name, what is now, and the last hour."""
    history = stats["history"]
    return [
        (name, shown(history[column][-1], unit) if history[column] else "", sparkline(history[column]))
        for name, column, unit in LINES
    ]


def shown(value: float, unit: str) -> str:
    if unit.startswith("bytes"):
        return size(int(value), "bytes") + unit.removeprefix("bytes")
    if unit == "ms":
        return f"{1000 * value:.1f} ms"
    return f"{value:.1f} {unit}".replace(" /", "/") if unit else f"{value:g}"


def view(url: str, stats: Mapping[str, Any]) -> RenderableType:
    """All of it, for a terminal."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = Table.grid(padding=(0, 2))
    for name, now, hour in rows_of(stats):
        lines.add_row(Text(name, style="bold"), Text(now, justify="right"), Text(hour, style="cyan"))
    sessions = Table(title="sessions", title_justify="left", box=None)
    for heading in ("state", "kernel", "count"):
        sessions.add_column(heading, justify="right" if heading == "count" else "left")
    for row in stats["now"]["sessions"]:
        sessions.add_row(row["state"], row["kernel"], str(row["count"]))
    tables = [sessions]
    for title, counter, label in TABLES:
        if found := sorted(stats["counts"].get(counter, ()), key=lambda row: -row["count"]):
            table = Table(title=title, title_justify="left", box=None, show_header=False)
            for row in found[:10]:
                table.add_row(Text(str(row[label])), Text(f"{row['count']:g}", justify="right"))
            tables.append(table)
    at = time.strftime("%H:%M:%S", time.localtime(stats["at"]))
    return Group(Text(f"{url}  {at}", style="dim"), Text(), lines, Text(), Columns(tables, padding=(0, 4)))
