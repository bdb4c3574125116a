"""Make, list and revoke the tokens by which others than the owner of a server use it.

Each is for one principal, whose sessions nobody else sees. A token is shown once, on standard output, when it is made;
the server knows only its hash. A running server heeds what changes here within two seconds, and closes what was opened
with a token that is revoked."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cellgate.access.scopes import SCOPES, Scope, read_scopes, scopes_as_text
from cellgate.access.tokens import MAX_NOTE_CHARS, Token, TokenStore, make_token, read_principal
from cellgate.commands.exits import ExitStatus
from cellgate.commands.places import add_place_flags, places_of
from cellgate.commands.table import columns
from cellgate.errors import UsageError
from cellgate.serve.places import gateway_account
from cellgate.terminal import one_line

__all__ = ["EXITS", "HELP", "add_arguments", "execute", "read_duration", "state_of"]

HELP = "make, list and revoke tokens of other principals"
EXITS = """\
exit status:
  0  it is done
  2  usage: a principal, a scope or a time that cannot be, a token that is not there
  4  the state directory cannot be written"""

DEFAULT_SCOPES = ",".join((Scope.EXECUTE, Scope.FILES))
MAX_DAYS = 3650  # whatever should last longer than ten years should be looked at within them
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([1-9][0-9]{0,6})([mhd])")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="make one, and print it", allow_abbrev=False)
    create.add_argument("principal", metavar="PRINCIPAL", help="whose sessions it opens: a name or an address")
    create.add_argument("--scopes", default=DEFAULT_SCOPES, help=f"of {', '.join(SCOPES)}; {DEFAULT_SCOPES} without it")
    create.add_argument("--expires", metavar="TIME", help="after so long, like 12h or 90d; never without it")
    create.add_argument("--note", default="", metavar="TEXT", help="what it is for; shown by `ls`")
    ls = actions.add_parser("ls", help="list them", allow_abbrev=False)
    ls.add_argument("--all", action="store_true", help="those too that are revoked or have expired")
    revoke = actions.add_parser("revoke", help="let one open nothing any more", allow_abbrev=False)
    revoke.add_argument("tokens", nargs="+", metavar="ID", help="what `ls` shows, and a token has after its `cg_`")
    for action in (create, ls, revoke):
        action.add_argument("--json", action="store_true", help="print one object")
        add_place_flags(action)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate token`. Raises UsageError, StorageFull."""
    now = time.time()
    with _store(args) as store:
        return _ACTIONS[args.action](args, store, now)


def _create(args: argparse.Namespace, store: TokenStore, now: float) -> ExitStatus:
    note = args.note
    if len(note) > MAX_NOTE_CHARS or not note.isprintable():
        raise UsageError(f"the note cannot be kept; a line of up to {MAX_NOTE_CHARS} printable characters would pass")
    expires = now + read_duration(args.expires) if args.expires is not None else None
    scopes = read_scopes(args.scopes)
    token, text = make_token(read_principal(args.principal), scopes, now=now, expires=expires, note=note)
    store.add(token)
    if args.json:
        print(json.dumps({"exit_status": 0, "text": text, "token": to_json(token, now)}))
    else:
        print(text)
        until = f"until {_date(expires)}" if expires else "until it is revoked"
        said = f"token {token.id} of {token.principal}: {scopes_as_text(scopes)}, {until}; it is not shown again"
        print(f"cellgate: {said}", file=sys.stderr)
    return ExitStatus.OK


def _ls(args: argparse.Namespace, store: TokenStore, now: float) -> ExitStatus:
    tokens = [token for token in store.tokens() if args.all or token.is_good(now)]
    if args.json:
        print(json.dumps({"exit_status": 0, "tokens": [to_json(token, now) for token in tokens]}))
    else:
        heading = ("ID", "PRINCIPAL", "SCOPES", "CREATED", "EXPIRES", "STATE", "NOTE")
        print(columns([heading, *(_row(token, now) for token in tokens)]), end="")
    return ExitStatus.OK


def _revoke(args: argparse.Namespace, store: TokenStore, now: float) -> ExitStatus:
    revoked = [store.revoke(_id_of(name), now) for name in args.tokens]
    if args.json:
        print(json.dumps({"exit_status": 0, "tokens": [to_json(token, now) for token in revoked]}))
    return ExitStatus.OK


_ACTIONS = {"create": _create, "ls": _ls, "revoke": _revoke}


def read_duration(text: str) -> float:
    """Seconds. Raises UsageError."""
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= MAX_DAYS * _UNITS["d"]:
        raise UsageError(f"{text[:80]!r} is no time; 30m, 12h or 90d, up to {MAX_DAYS}d, would pass")
    return float(seconds)


def state_of(token: Token, now: float) -> str:
    if token.revoked is not None:
        return "revoked"
    return "good" if token.is_good(now) else "expired"


def to_json(token: Token, now: float) -> dict[str, object]:
    """All but its hash."""
    return {
        "id": token.id,
        "principal": token.principal,
        "scopes": sorted(scope.value for scope in token.scopes),
        "note": token.note,
        "created": token.created,
        "expires": token.expires,
        "revoked": token.revoked,
        "state": state_of(token, now),
    }


def _row(token: Token, now: float) -> tuple[str, ...]:
    expires = _date(token.expires) if token.expires else ""
    scopes = scopes_as_text(token.scopes)
    dates = _date(token.created), expires
    return token.id, token.principal, scopes, *dates, state_of(token, now), one_line(token.note)


def _date(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))


def _id_of(name: str) -> str:
    """Also of somebody who gives the whole token."""
    return name.removeprefix("cg_").partition("_")[0]


@contextmanager
def _store(args: argparse.Namespace) -> Iterator[TokenStore]:
    account = gateway_account() if os.geteuid() == 0 else None
    store = TokenStore.open(places_of(args).tokens, reader_gid=account.gid if account else None)
    try:
        yield store
    finally:
        store.close()
