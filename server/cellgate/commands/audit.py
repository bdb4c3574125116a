"""Verify, search and export the audit log of a server, whether it runs or not.

The log has a line for each session, kernel, cell, refusal, file and use of a token, chained by hashes. Whoever can
write its files can write all of it anew; so keep what `verify` prints somewhere else now and then, and give it to a
later `verify --expect`."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from cellgate.audit.chain import Link
from cellgate.audit.lines import KINDS
from cellgate.audit.reading import find, verify
from cellgate.commands.exits import ExitStatus
from cellgate.commands.places import add_place_flags, as_gateway, places_of
from cellgate.errors import StorageFull, UsageError
from cellgate.terminal import one_line

__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "verify, search and export the audit log"
EXITS = """\
exit status:
  0  the log is whole; or the search is done
  1  `verify` found damage; each is a line on standard output
  2  usage: a date or a hash that cannot be
  4  the log cannot be read"""

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]{5,12}Z?)?")
_EXPECTED = re.compile(r"([0-9]{1,16}):([0-9a-f]{64})")
_FIRST = ("at", "what", "principal", "session")  # columns of every export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("verify", help="go through all lines", allow_abbrev=False)
    check.add_argument("--expect", metavar="N:HASH", help="a line as an earlier `verify` printed it")
    query = actions.add_parser("query", help="print lines, for people", allow_abbrev=False)
    export = actions.add_parser("export", help="print lines, for programs", allow_abbrev=False)
    export.add_argument("--format", choices=("jsonl", "csv"), default="jsonl")
    for action in (query, export):
        action.add_argument("--principal", help="whose")
        action.add_argument("--session", metavar="ID", help="in which")
        action.add_argument("--what", choices=sorted(KINDS.values()), metavar="WHAT", help="like cell_finished")
        action.add_argument("--since", metavar="DATE", help="like 2026-11-20 or 2026-11-20T10:15, in UTC")
        action.add_argument("--until", metavar="DATE", help="before that")
    for action in (check, query, export):
        action.add_argument("--json", action="store_true", help="print one object" if action is check else "as export")
        add_place_flags(action)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate audit`. Raises UsageError, StorageFull."""
    directory = places_of(args).gateway / "audit"
    try:
        with as_gateway():
            return _verify(args, directory) if args.action == "verify" else _print(args, directory)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageFull(f"{directory}: {error.strerror}") from error


def _verify(args: argparse.Namespace, directory: Path) -> ExitStatus:
    expected = _EXPECTED.fullmatch(args.expect) if args.expect else None
    if args.expect and expected is None:
        raise UsageError(f"{args.expect[:100]!r} is no line; a number, a colon and 64 hexadecimal digits would pass")
    report = verify(directory, Link(int(expected[1]), expected[2]) if expected else None)
    status = ExitStatus.RAISED if report.damage else ExitStatus.OK
    last = f"{report.last.number}:{report.last.hash}" if report.last else ""
    if args.json:
        damage = [vars(found) for found in report.damage]
        told = {"files": report.files, "lines": report.lines, "first": report.first, "last": last, "damage": damage}
        print(json.dumps({"exit_status": int(status), **told}))
        return status
    for found in report.damage:
        print(f"{found.file}:{found.line}: at byte {found.offset}: {found.problem}")
    whole = f"damaged in {len(report.damage)} places" if report.damage else "whole"
    print(f"{report.lines} lines in {report.files} files, {whole}; the last is {last or 'none'}")
    return status


def _print(args: argparse.Namespace, directory: Path) -> ExitStatus:
    where = {name: value for name in ("principal", "session", "what") if (value := getattr(args, name))}
    found = find(directory, where=where, since=_date(args.since), until=_date(args.until))
    if args.action == "export" and args.format == "csv":
        _write_csv(found)
    elif args.action == "export" or args.json:
        for facts in found:
            print(json.dumps(facts))
    else:
        for facts in found:
            rest = {name: value for name, value in facts.items() if name not in (*_FIRST, "n", "hash")}
            said = " ".join(f"{name}={value}" for name, value in rest.items())
            print(one_line(" ".join([*(str(facts.get(name, "-")) for name in _FIRST), said])))
    return ExitStatus.OK


def _write_csv(found: Iterable[dict[str, object]]) -> None:
    """What all lines have as columns, the rest as JSON in one: different lines say different things."""
    writer = csv.writer(sys.stdout)
    writer.writerow(("n", *_FIRST, "facts", "hash"))
    for facts in found:
        rest = {name: value for name, value in facts.items() if name not in (*_FIRST, "n", "hash")}
        shown = [_plain(facts.get(name, "")) for name in ("n", *_FIRST)]
        writer.writerow((*shown, json.dumps(rest), facts.get("hash", "")))


def _plain(value: object) -> str:
    """What no spreadsheet takes for a formula."""
    text = str(value)
    return "'" + text if text[:1] in "=+-@\t\r" and text else text


def _date(text: str | None) -> str:
    if text and not _DATE.fullmatch(text):
        raise UsageError(f"{text[:80]!r} is no date; 2026-11-20 or 2026-11-20T10:15 would pass")
    return text or ""
