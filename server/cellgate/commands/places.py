"""Where the server lies that a command is about: the two flags for it, and its state directory.

Named as for `cellgate serve`: by flags, environment or file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cellgate.serve.places import Places, gateway_account, prepare
from cellgate.settings import CONFIG_VARIABLE, SETTINGS, Settings, gather_settings

__all__ = ["add_place_flags", "as_gateway", "places_of", "settings_of"]


def add_place_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", help=f"the server's settings in TOML (or {CONFIG_VARIABLE})")
    setting = SETTINGS["state_dir"]
    parser.add_argument(setting.flag, dest=setting.name, metavar="DIRECTORY", help=setting.help)


def settings_of(args: argparse.Namespace) -> Settings:
    """The server's, as far as the flags here tell. Raises UsageError, LimitError."""
    flags = argparse.Namespace(**{**dict.fromkeys(SETTINGS), "state_dir": args.state_dir, "config": args.config})
    return gather_settings(flags, os.environ, is_root=os.geteuid() == 0)


def places_of(args: argparse.Namespace) -> Places:
    """The state directory, made as `cellgate serve` makes it if it is not there. Raises UsageError, LimitError."""
    return prepare(settings_of(args).state_dir, gateway_account() if os.geteuid() == 0 else None)


@contextmanager
def as_gateway() -> Iterator[None]:
    """With the rights of the gateway and no more, for what lies in its directory: root follows no name where somebody
    else may write."""
    if os.geteuid() != 0:
        yield
        return
    account, groups = gateway_account(), os.getgroups()
    os.setgroups([])
    os.setegid(account.gid)
    os.seteuid(account.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
