"""Whoever came in by a token that is good no longer is shown out; who comes is told once in a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cellgate.access.scopes import Scope
from cellgate.access.tokens import make_token
from cellgate.gateway import visitors as module
from cellgate.gateway.app import ROUTES
from cellgate.gateway.auth import Asked, Guard, Principal, Refusal
from cellgate.gateway.base import Handler
from cellgate.gateway.visitors import Visitors
from cellgate.live.happenings import TokenRefused, TokenUsed

NOW = 1_800_000_000.0


@dataclass(eq=False)
class Visitor:
    caller: Principal
    is_here: bool = True

    def show_out(self):
        self.is_here = False


class House:
    def __init__(self):
        self.told = []
        self.guard = Guard("a-token-of-many-characters")
        self.visitors = Visitors(self.guard, self.told.append)
        self.token, self.text = make_token("ada", {Scope.OBSERVE}, now=NOW, expires=NOW + 100)
        self.guard.take([self.token])

    def visit(self, text: str, remote: str = "192.0.2.7", now: float = NOW) -> Visitor:
        caller = self.guard.admit(Asked(authorization=f"token {text}"), now)
        assert isinstance(caller, Principal)
        visitor = Visitor(caller)
        self.visitors.enter(visitor, remote, now)
        return visitor


def test_who_came_by_a_revoked_token_is_shown_out_and_nobody_else():
    house = House()
    ada, owner = house.visit(house.text), house.visit("a-token-of-many-characters")
    house.visitors.look(NOW)
    assert (ada.is_here, owner.is_here) == (True, True)
    house.guard.take([replace(house.token, revoked=NOW)])
    house.visitors.look(NOW)
    assert (ada.is_here, owner.is_here) == (False, True)


def test_who_came_by_a_token_that_expires_or_is_gone_is_shown_out():
    house = House()
    expired = house.visit(house.text)
    house.visitors.look(NOW + 99)
    assert expired.is_here
    house.visitors.look(NOW + 100)
    assert not expired.is_here
    gone = house.visit(house.text)
    house.guard.take([])
    house.visitors.look(NOW)
    assert not gone.is_here


def test_a_use_is_told_once_an_hour_for_each_address():
    house = House()
    for now in (0, 1, module.TELL_SECONDS - 1, module.TELL_SECONDS):
        house.visit("a-token-of-many-characters", now=NOW + now)
    house.visit(house.text, remote="192.0.2.8")
    used, ada = TokenUsed("owner", "", "192.0.2.7"), TokenUsed("ada", house.token.id, "192.0.2.8")
    assert house.told == [used, used, ada]


def test_what_is_remembered_of_uses_is_bounded():
    house = House()
    for n in range(module.MAX_TOLD + 10):
        house.visit(house.text, remote=f"10.0.{n >> 8}.{n & 255}")
    assert len(house.visitors._told) == module.MAX_TOLD


def test_a_wrong_token_is_told_and_showing_none_is_not():
    house = House()
    house.visitors.refuse(Refusal("unauthorized"), "192.0.2.7")
    house.visitors.refuse(Refusal("wrong_token"), "192.0.2.7")
    assert house.told == [TokenRefused("wrong_token", "192.0.2.7")]


def test_every_websocket_knows_how_to_show_its_client_out():
    """What tornado has given away cannot be closed as an answer is."""
    sockets = {route.handler for route in ROUTES for row in route.operations.values() if 101 in row.answers}
    assert sockets
    assert all(handler.show_out is not Handler.show_out for handler in sockets)
