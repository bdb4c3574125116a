"""The command `cellgate`: reads the command line, hands over to a command, and turns errors into exit statuses.

A command is a module with `HELP`, `EXITS`, `add_arguments(parser)` and `execute(args)`; what it does is decided there.
Only the one that is named is imported: most of the time that a short command takes would go into the others.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from cellgate.commands.exits import EndedBySignal, ExitStatus, exits_as_text, is_known, status_of_error
from cellgate.errors import CellgateError, UsageError
from cellgate.terminal import one_line

__all__ = ["COMMANDS", "main"]

COMMANDS = {  # each with its module
    "serve": "cellgate.serve",
    "run": "cellgate.commands.run",
    "repl": "cellgate.commands.repl",
    "exec": "cellgate.commands.exec",
    "sessions": "cellgate.commands.sessions",
    "batch": "cellgate.commands.batch",
    "scripts": "cellgate.commands.scripts",
    "cp": "cellgate.commands.cp",
    "mcp": "cellgate.commands.mcp",
    "validate": "cellgate.commands.validate",
    "doctor": "cellgate.doctor",
    "settings": "cellgate.commands.show_settings",
    "completion": "cellgate.commands.completion",
    "token": "cellgate.commands.token",
    "audit": "cellgate.commands.audit",
    "top": "cellgate.commands.top",
    "drain": "cellgate.commands.drain",
    "backup": "cellgate.commands.backup",
    "restore": "cellgate.commands.restore",
    "images": "cellgate.commands.images",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong like every other error does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` tells what would pass")


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """For all commands, or only the one that is named, if there is such a one."""
    parser = _Parser(
        prog="cellgate",
        description="Sandboxed Jupyter kernels.",
        epilog=exits_as_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=parser.prog)
    for name in [command] if command in COMMANDS else COMMANDS:
        module = import_module(COMMANDS[name])
        module.add_arguments(
            commands.add_parser(
                name,
                help=module.HELP,
                description=module.__doc__,
                epilog=module.EXITS,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit status. A signal or a closed pipe that ends the command ends
    this process as it would any other, once everything is cleaned up."""
    words = sys.argv[1:] if argv is None else argv
    wants_json = "--json" in words
    try:
        args = make_parser(words[0] if words else None).parse_args(words)
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say(f"warning: {message}")
            status = import_module(COMMANDS[args.command]).execute(args)
        sys.stdout.flush()
        return int(status)
    except EndedBySignal as ended:
        _die_by(ended.number)
    except KeyboardInterrupt:  # before anything was begun
        _die_by(signal.SIGINT)
    except BrokenPipeError:
        _die_by(signal.SIGPIPE)
    except Exception as error:
        return int(_tell(error, wants_json))


def _tell(error: Exception, wants_json: bool) -> ExitStatus:
    """One line for people on standard error; for programs an object on standard output too."""
    status = status_of_error(error)
    code = getattr(error, "code", CellgateError.code) if is_known(error) else CellgateError.code
    if not is_known(error):
        traceback.print_exception(error)
    text = str(getattr(error, "message", "") or error) or type(error).__name__
    _say(f"error[{code}]: {text}")
    if wants_json:
        print(json.dumps({"status": "failed", "exit_status": status, "error": {"code": code, "text": text}}))
    return status


def _say(text: str) -> None:
    print(f"cellgate: {one_line(text)}", file=sys.stderr)


def _die_by(number: int) -> NoReturn:
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered has no reader
    except (OSError, ValueError):
        pass
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # only when the signal is blocked
