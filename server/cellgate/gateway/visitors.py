"""Who is being served, and by which token: shows out whoever may be here no longer, and tells who came.

A token is looked at when a request begins. What lasts longer than a request, a websocket or an answer that streams,
is ended here when its token is revoked or expires.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol
from weakref import WeakSet

from cellgate.access.tokens import Token, TokenWatch
from cellgate.errors import CellgateError
from cellgate.gateway.auth import Guard, Principal, Refusal
from cellgate.live.happenings import Happening, TokenMade, TokenRefused, TokenRevoked, TokenUsed

__all__ = ["Visitor", "Visitors", "watch_tokens"]

log = logging.getLogger("cellgate.gateway")

LOOK_SECONDS = 1.0  # between two looks at the tokens: whoever revokes one expects it to be so at once
TELL_SECONDS = 3600.0  # until a token's use from the same address is told again
MAX_TOLD = 4096  # uses remembered, some 200 bytes each; beyond it one is told oftener


class Visitor(Protocol):
    """A request, as long as it is being answered."""

    caller: Principal

    def show_out(self) -> None:
        """Its token is no longer good: end it."""
        ...


class Visitors:
    """One for each server."""

    def __init__(self, guard: Guard, tell: Callable[[Happening], object]) -> None:
        self._guard = guard
        self._tell = tell
        self._here: WeakSet[Visitor] = WeakSet()
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()

    def enter(self, visitor: Visitor, remote: str, now: float) -> None:
        """Somebody was let in."""
        self._here.add(visitor)
        use = visitor.caller.token, remote
        if now - self._told.get(use, 0.0) >= TELL_SECONDS:
            self._told[use] = now
            self._told.move_to_end(use)
            if len(self._told) > MAX_TOLD:
                self._told.popitem(last=False)
            self._tell(TokenUsed(visitor.caller.name, visitor.caller.token, remote))

    def refuse(self, refusal: Refusal, remote: str) -> None:
        """Somebody was not."""
        if refusal.code != "unauthorized":  # who shows nothing, tries nothing
            self._tell(TokenRefused(refusal.code, remote))

    def look(self, now: float) -> None:
        """Show out whoever may be here no longer."""
        for visitor in list(self._here):
            if not self._guard.still_admits(visitor.caller, now):
                self._here.discard(visitor)
                visitor.show_out()

    def compare(self, known: Mapping[str, Token], tokens: Iterable[Token]) -> None:
        """Tell what the operator has made and revoked since."""
        for token in tokens:
            former = known.get(token.id)
            if former is None:
                self._tell(TokenMade(token.principal, token.id, tuple(sorted(token.scopes))))
            if token.revoked is not None and (former is None or former.revoked is None):
                self._tell(TokenRevoked(token.principal, token.id))


async def watch_tokens(watch: TokenWatch, guard: Guard, visitors: Visitors) -> None:
    """Until cancelled: what the operator changes counts within LOOK_SECONDS."""
    known: dict[str, Token] | None = None
    trouble = ""
    while True:
        now = time.time()
        try:
            tokens = watch.look(now)
            if tokens is not None:
                guard.take(tokens)
                if known is not None:  # else they were made and told of before
                    visitors.compare(known, tokens)
                known = {token.id: token for token in tokens}
            trouble = ""
        except CellgateError as error:  # those that were known count on
            if str(error) != trouble:
                trouble = str(error)
                log.error("the tokens cannot be read, and stay as they were: %s", trouble)
        visitors.look(now)
        await asyncio.sleep(LOOK_SECONDS)
