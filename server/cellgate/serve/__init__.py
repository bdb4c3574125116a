"""Serve Jupyter kernels to remote clients, each session in a sandbox of its own.

It prints where it serves, with the token that clients must show. SIGTERM or Ctrl-C ends it, and keeps the sandboxes for
the next start, unless --end-sessions says otherwise; a second one ends it at once."""

from __future__ import annotations

import argparse
import os
import secrets
import stat
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from cellgate.commands.exits import ExitStatus
from cellgate.errors import UsageError
from cellgate.policy.files import load_policy
from cellgate.settings import Settings, add_setting_flags, gather_settings
from cellgate.wire.local import LocalServer

if TYPE_CHECKING:
    from cellgate.serve.child import GatewayProcess

# This is the command; `keeper.py` is the process that stays, `child.py` the one that serves.
__all__ = ["EXITS", "HELP", "add_arguments", "execute"]

HELP = "serve kernels to remote clients"
EXITS = """\
exit status:
  0  it was told to end, and did
  2  usage: a setting that cannot be, a port that is taken, a state directory in use
  4  the gateway could not serve, or did not end in order; standard error says why"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--end-sessions", action="store_true", help="end the sandboxes when this server is told to end")
    parser.add_argument(
        "--end-with-stdin", action="store_true", help="end when standard input does: when whoever started it is gone"
    )
    add_setting_flags(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate serve`. Raises UsageError, LimitError, EndedBySignal."""
    from cellgate.access.keys import open_issuer
    from cellgate.metrics.traces import prepare_traces
    from cellgate.serve.child import GatewayProcess, load_everything  # they bring a whole server with them
    from cellgate.serve.keeper import Keeper, WardenStarter
    from cellgate.serve.listening import address_url, addresses_of, check_exposure, listen
    from cellgate.serve.places import engine_group, gateway_account, prepare

    settings = gather_settings(args, os.environ, is_root=os.geteuid() == 0)
    policy = load_policy(settings.policy)
    addresses = addresses_of(settings.host, settings.port)
    check_exposure(settings.host, addresses, has_token=settings.token is not None)
    account = gateway_account() if os.geteuid() == 0 else None
    places = prepare(settings.state_dir, account)
    with ExitStack() as stack:
        sockets = listen(settings.host, addresses)
        for sock in sockets:
            stack.callback(sock.close)
        token = settings.token or secrets.token_urlsafe(32)
        shown = None if settings.token else token  # one that was given is known
        url = address_url(settings.host, sockets[0].getsockname()[1], shown)
        gateway = GatewayProcess(
            settings,
            policy,
            token,
            places,
            account,
            list(sockets),
            partial(
                load_everything(settings.driver),
                issuer=open_issuer(settings),
                make_traces=prepare_traces(os.environ),
            ),
            end_sessions=args.end_sessions,
            engine=engine_group(os.environ) if settings.driver == "docker" else None,
        )
        local = LocalServer.of_this_process(address_url(settings.host, sockets[0].getsockname()[1]), token)
        stack.callback(local.remove, places.top)

        def on_serving(pid: int, about: str) -> None:
            local.write(places.top)
            print(greeting(settings, url, pid, about, args.end_sessions), flush=True)

        keeper = Keeper(
            gateway,
            warden=WardenStarter(str(places.warden), account.uid if account else None, places.images),
            sockets=sockets,
            on_serving=on_serving,
            ends_with=_pipe() if args.end_with_stdin else None,
            renew=None if _has_terminal() else partial(renewed, gateway, args),
            ends_sessions=args.end_sessions,
        )
        return keeper.run()


# What the process that stays has done already by its settings, and does once.
_LASTING = ("driver", "host", "port", "state_dir", "token")


def renewed(gateway: GatewayProcess, args: argparse.Namespace) -> GatewayProcess:
    """The same with the settings, the policy and the keys as they are now. Raises UsageError, LimitError."""
    from cellgate.access.keys import open_issuer

    before, now = gateway.settings, gather_settings(args, os.environ, is_root=os.geteuid() == 0)
    if now.driver == "process":
        raise UsageError("the process driver keeps no kernels for another gateway; a restart would pass")
    if changed := [name for name in _LASTING if getattr(before, name) != getattr(now, name)]:
        raise UsageError(f"{', '.join(changed)} cannot be changed while the server runs; a restart would pass")
    run_gateway = partial(gateway.run_gateway, issuer=open_issuer(now))
    return replace(gateway, settings=now, policy=load_policy(now.policy), run_gateway=run_gateway)


def _has_terminal() -> bool:
    """Whose end is told by SIGHUP, too."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
        return True
    except OSError:
        return False


def _pipe() -> int:
    """Standard input, as something that ends. Raises UsageError."""
    mode = os.fstat(0).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(0)):
        raise UsageError("standard input is no pipe, so it says nothing of who started this; a pipe would pass")
    return 0


def greeting(settings: Settings, url: str, pid: int, about: str, end_sessions: bool) -> str:
    """What the operator needs to know, in one block."""
    kept = not end_sessions and settings.driver != "process"
    return f"""\
Cellgate serves at

    {url}

  driver   {about}
  state    {settings.state_dir}
  profile  {settings.profile}; `cellgate settings` lists all limits
  gateway  process {pid}

Ctrl-C ends it, and {"keeps the sandboxes for the next start" if kept else "every session with it"}."""
