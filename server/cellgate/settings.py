"""The settings of a server: one table, read from flags, environment and a file.

    flag  ▷  environment (CELLGATE_...)  ▷  file (TOML)  ▷  profile  ▷  default

Whatever names a setting (flags, variables, keys, documents, `cellgate settings`) is made from `SETTINGS`. Decides
what a value may be and which one counts, and remembers where each came from; what a setting does is decided where it
is used.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from cellgate.access.scopes import SCOPES, read_scopes, scopes_as_text
from cellgate.access.vouched import read_networks
from cellgate.errors import LimitError, UsageError
from cellgate.policy.files import DEFAULT_POLICY, is_path
from cellgate.policy.policies import POLICIES
from cellgate.sandbox.drivers import DEFAULT_DRIVER, DRIVERS
from cellgate.sandbox.limits import GiB, KiB, LimitRow, Limits, MiB, size
from cellgate.sessions.limits import DAY, HOUR, ServerLimits, SessionLimits, check_together
from cellgate.wire.local import default_state_dir

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "DEFAULT_PROFILE",
    "PROFILES",
    "SETTINGS",
    "Setting",
    "Settings",
    "Source",
    "SourceKind",
    "add_setting_flags",
    "gather_settings",
    "limits_of_profile",
    "load_file",
    "profiles_as_markdown",
    "read_settings",
    "settings_as_markdown",
]

PREFIX = "CELLGATE_"
CONFIG_VARIABLE = "CELLGATE_CONFIG"
MAX_FILE_BYTES = MiB  # a settings file has some lines; whatever is larger is another file
MIN_TOKEN_CHARS = 16  # what is shorter can be guessed over a network; those we make have 43
MAX_TOKEN_CHARS = 512
MAX_ORIGINS = 100  # each is compared with at every websocket handshake


# -- the table -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One setting. `read` makes a value of what a flag, a variable (text) or a file (any TOML value) says, and raises
    ValueError, with what would pass, for what makes none."""

    name: str
    default: object
    unit: str  # "" for what is no number
    help: str
    read: Callable[[object], object]
    is_secret: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


def _choice(*choices: str) -> Callable[[object], object]:
    def read(value: object) -> object:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return read


def _name(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._-]{0,64}", value):
        raise ValueError("a name of letters, digits and . _ -")
    return value


def _names(value: object) -> object:
    names = value.split(",") if isinstance(value, str) else value
    names = [name.strip() if isinstance(name, str) else "?" for name in names] if isinstance(names, list) else ["?"]
    if not all(re.fullmatch(r"[a-z0-9._-]{1,100}(@sha256:[0-9a-f]{64})?", name) for name in names):
        raise ValueError("names like python or python@sha256:..., with the 64 digits of an image's id,")
    return tuple(names)


def _host(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", value):
        raise ValueError("a host name or an address without brackets")
    return value


def _directory(value: object) -> object:
    if not isinstance(value, str) or "\0" in value or not Path(value).expanduser().is_absolute():
        raise ValueError("an absolute path, or one that begins with ~")
    return Path(value).expanduser()


def _policy(value: object) -> object:
    if not isinstance(value, str) or "\0" in value or not (value in POLICIES or is_path(value)):
        raise ValueError(f"{', '.join(POLICIES)}, or the path of a TOML file, with a dot or a slash in it,")
    return value


def _token(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(rf"[!-~]{{{MIN_TOKEN_CHARS},{MAX_TOKEN_CHARS}}}", value):
        raise ValueError(f"{MIN_TOKEN_CHARS} to {MAX_TOKEN_CHARS} visible ASCII characters")
    return value


_ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:]{2,45}\])(?::[0-9]{1,5})?")


def _origins(value: object) -> object:
    origins = value.split(",") if isinstance(value, str) else value
    if not isinstance(origins, list) or len(origins) > MAX_ORIGINS:
        raise ValueError(f"up to {MAX_ORIGINS} origins")
    origins = [origin.strip() if isinstance(origin, str) else "" for origin in origins]
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ValueError("origins like https://lab.example.org:8443, in small letters, with no path and no *,")
    return tuple(origins)


def _networks(value: object) -> object:
    texts = [text.strip() for text in value.split(",")] if isinstance(value, str) else value
    try:
        return tuple(str(network) for network in read_networks(map(str, texts) if isinstance(texts, list) else [""]))
    except ValueError:
        raise ValueError("addresses and networks like 10.0.0.7 or 10.0.0.0/8") from None


def _scopes(value: object) -> object:
    text = value if isinstance(value, str) else ",".join(map(str, value)) if isinstance(value, list) else ""
    try:
        return tuple(scopes_as_text(read_scopes(text)).split(","))
    except UsageError as error:
        raise ValueError(f"one or more of {', '.join(SCOPES)}") from error


def _header(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9-]{1,100}", value):
        raise ValueError("the name of a header")
    return value


def _line(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{1,500}", value):
        raise ValueError("1 to 500 visible ASCII characters")
    return value


def _keys(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(("/", "https://")):
        raise ValueError("an absolute path or an https URL")
    return value


def _number(row: LimitRow) -> Callable[[object], object]:
    def read(value: object) -> object:
        number = row.read(value) if isinstance(value, str) else value
        try:
            row.check(number)
        except LimitError as error:
            raise ValueError(error.accepted) from error
        return number

    return read


_PORT = LimitRow("port", "number", 8890, 0, 65535, "to listen on; 0 takes a free one; beside Jupyter's own 8888")
_POOL = LimitRow(
    "pool_size", "sandboxes", 0, 0, 256,
    "kept ready for sessions of the default kernel with the server's own limits; each takes some 8 MiB",
)  # fmt: skip
DEFAULT_PROFILE = "development"

# What each profile has in place of the defaults, which are those of `development`: one person on their own machine.
# `testing` is tight, so that a test meets each limit soon; `production` is for many users who do not know each other.
PROFILES: dict[str, dict[str, int | float]] = {
    "development": {},
    "testing": {
        "memory_bytes": 256 * MiB,
        "pids": 64,
        "file_bytes": 64 * MiB,
        "workspace_bytes": 64 * MiB,
        "workspace_inodes": 4096,
        "shm_bytes": 32 * MiB,
        "cell_seconds": 10.0,
        "interrupt_grace_seconds": 2.0,
        "idle_seconds": 60.0,
        "lifetime_seconds": 600.0,
        "notice_seconds": 5.0,
        "output_bytes_per_cell": MiB,
        "output_messages_per_cell": 5000,
        "code_bytes": 256 * KiB,
        "queue_cells": 100,
        "journal_bytes_per_session": 8 * MiB,
        "clients_per_session": 8,
        "client_outbox_bytes": 256 * KiB,
        "client_stall_seconds": 10.0,
        "sessions_per_principal": 100,
        "cells_per_principal": 50,
        "memory_bytes_per_principal": 32 * GiB,
        "stored_bytes_per_principal": 256 * MiB,
        "cpu_seconds_per_day": HOUR,
        "wall_seconds_per_day": DAY,
        "sessions_total": 200,
        "journal_bytes_total": 256 * MiB,
    },
    "production": {
        "cell_seconds": HOUR,
        "idle_seconds": 0.5 * HOUR,
        "lifetime_seconds": DAY,
        "output_bytes_per_cell": 16 * MiB,
        "output_messages_per_cell": 100_000,
        "queue_cells": 200,
        "journal_bytes_per_session": 64 * MiB,
        "clients_per_session": 16,
        "client_outbox_bytes": 512 * KiB,
        "sessions_per_principal": 20,
        "cells_per_principal": 8,
        "memory_bytes_per_principal": 8 * GiB,
        "stored_bytes_per_principal": 2 * GiB,
        "cpu_seconds_per_day": DAY,
        "wall_seconds_per_day": 2 * DAY,
    },
}

_TABLES = (Limits, SessionLimits, ServerLimits)
_LIMIT_ROWS: tuple[LimitRow, ...] = tuple(row for table in _TABLES for row in table.rows())

SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("profile", DEFAULT_PROFILE, "", "the numbers to begin with", _choice(*PROFILES)),
        Setting("driver", DEFAULT_DRIVER, "", "what makes the sandboxes", _choice(*DRIVERS)),
        Setting(
            "runtime", "", "",
            "of driver docker: runc, runsc (gVisor) or what else the engine knows; empty is its own choice",
            _name,
        ),
        Setting(
            "images", (), "",
            "of driver docker: which may be used, as `python` or `python@sha256:...`, separated by commas",
            _names,
        ),
        Setting("host", "127.0.0.1", "", "the address to listen on", _host),
        Setting("port", _PORT.default, _PORT.unit, _PORT.reason, _number(_PORT)),
        Setting(
            "state_dir", None, "",
            "where sessions and journals are kept: /var/lib/cellgate for root, else ~/.local/state/cellgate",
            _directory,
        ),
        Setting(
            "token", None, "",
            "what clients must show; without one, one is made at each start. Other users of the host can read flags",
            _token, is_secret=True,
        ),
        Setting(
            "policy", DEFAULT_POLICY, "",
            f"what cells are judged by: {', '.join(POLICIES)}, or a TOML file; a session may ask for a tighter one",
            _policy,
        ),
        Setting("pool_size", _POOL.default, _POOL.unit, _POOL.reason, _number(_POOL)),
        Setting(
            "allowed_origins", (), "",
            "whose pages may open websockets beside the server's own, separated by commas", _origins,
        ),
        Setting(
            "log_format", "text", "", "of the gateway's log: lines of `text`, or an object each, as `json`",
            _choice("text", "json"),
        ),
        Setting(
            "audit", "on", "",
            "the audit log: `off`; `on`, with the hash of each cell's code; `code`, with the code itself",
            _choice("off", "on", "code"),
        ),
        Setting(
            "trusted_proxies", (), "",
            "addresses and networks, separated by commas, of proxies that say who asks; they must strip the header "
            "from what they are sent", _networks,
        ),
        Setting("proxy_header", "X-Forwarded-User", "", "in which they say it", _header),
        Setting(
            "jwt_keys", None, "",
            "a JWK set, as a path or an https URL: whoever shows a token that one of its keys has signed is let in; "
            "needs the extra `oidc`", _keys,
        ),
        Setting("jwt_issuer", None, "", "whom such a token must be from (`iss`)", _line),
        Setting("jwt_audience", None, "", "whom it must be for (`aud`)", _line),
        Setting("jwt_claim", "sub", "", "which of its claims names the principal", _line),
        Setting(
            "vouched_scopes", ("execute", "files"), "",
            "what those may do who come by `trusted_proxies` or `jwt_keys`", _scopes,
        ),
        *(Setting(row.name, row.default, row.unit, row.reason, _number(row)) for row in _LIMIT_ROWS),
    )
}  # fmt: skip


# -- which value counts --------------------------------------------------------------------------------


class SourceKind(str, Enum):
    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    PROFILE = "profile"
    DEFAULT = "default"

    def __str__(self) -> str:
        return self.value


class Source(NamedTuple):
    """Where a value came from; `where` is the flag, the variable, the file or the profile."""

    kind: SourceKind
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.kind.value


@dataclass(frozen=True)
class Settings:
    """All settings of one server, each checked, and where each came from."""

    profile: str
    driver: str
    runtime: str
    images: tuple[str, ...]
    host: str
    port: int
    state_dir: Path
    token: str | None = field(repr=False)
    policy: str
    pool_size: int
    allowed_origins: tuple[str, ...]
    log_format: str
    audit: str
    trusted_proxies: tuple[str, ...]
    proxy_header: str
    jwt_keys: str | None
    jwt_issuer: str | None
    jwt_audience: str | None
    jwt_claim: str
    vouched_scopes: tuple[str, ...]
    sandbox: Limits
    session: SessionLimits
    server: ServerLimits
    sources: Mapping[str, Source] = field(repr=False)

    def values(self) -> dict[str, object]:
        """By name, in the order of the table; the token is not among them, but whether there is one."""
        limits: dict[str, object] = {}
        for table in (self.sandbox, self.session, self.server):
            limits |= table.to_mapping()
        values = {name: limits[name] if name in limits else getattr(self, name) for name in SETTINGS}
        return values | {name: "(set)" for name, row in SETTINGS.items() if row.is_secret and values[name] is not None}


def read_settings(
    *,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    file: Mapping[str, object],
    file_name: str = "the file",
    is_root: bool = False,
) -> Settings:
    """The settings that count. Flags that are None and variables that are empty say nothing.
    Raises UsageError for an unknown name, LimitError for a value that cannot be."""
    found: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for name, text in flags.items():
        if text is not None and name in SETTINGS:
            _take(name, text, Source(SourceKind.FLAG, SETTINGS[name].flag), found, sources)
    for name in _names_in(environ):
        variable = SETTINGS[name].variable
        _take(name, environ[variable], Source(SourceKind.ENVIRONMENT, variable), found, sources)
    for name, value in file.items():
        if name not in SETTINGS:
            raise UsageError(f"{file_name} has {name[:80]!r}, which is no setting; {_suggestion(name, SETTINGS)}")
        _take(name, value, Source(SourceKind.FILE, file_name), found, sources)
    profile = found.get("profile", DEFAULT_PROFILE)
    for name, value in PROFILES[profile].items():
        _take(name, value, Source(SourceKind.PROFILE, profile), found, sources)
    for name, setting in SETTINGS.items():
        if name not in found:
            found[name], sources[name] = setting.default, Source(SourceKind.DEFAULT)
    if found["state_dir"] is None:
        found["state_dir"] = default_state_dir(environ, is_root=is_root)
    check_together(found)
    sandbox, session, server = (table(**{row.name: found.pop(row.name) for row in table.rows()}) for table in _TABLES)
    return Settings(**found, sandbox=sandbox, session=session, server=server, sources=sources)  # type: ignore[arg-type]


def limits_of_profile(name: str) -> dict[str, int | float]:
    """Every limit in that profile. Raises UsageError."""
    if name not in PROFILES:
        raise UsageError(f"profile is {name[:80]!r}; one of {', '.join(PROFILES)} would pass")
    return {row.name: PROFILES[name].get(row.name, row.default) for row in _LIMIT_ROWS}


def _take(name: str, value: object, source: Source, found: dict[str, Any], sources: dict[str, Source]) -> None:
    """What an earlier source said stays; what this one says must make sense all the same."""
    try:
        read = SETTINGS[name].read(value)
    except ValueError as error:
        shown = "(not shown)" if SETTINGS[name].is_secret else value
        said_by = source.where if source.kind is not SourceKind.FILE else f"{name} in {source.where}"
        raise LimitError(said_by, shown, str(error)) from error
    if name not in found:
        found[name], sources[name] = read, source


def _names_in(environ: Mapping[str, str]) -> list[str]:
    """Settings that have a variable. One that is nearly a setting is taken for a typing error, and any other for
    somebody else's."""
    by_variable = {setting.variable: name for name, setting in SETTINGS.items()}
    names = []
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or not text or variable == CONFIG_VARIABLE:
            continue
        if variable in by_variable:
            names.append(by_variable[variable])
        elif difflib.get_close_matches(variable.removeprefix(PREFIX).lower(), SETTINGS, n=1, cutoff=0.8):
            raise UsageError(f"{variable[:80]} is in the environment; {_suggestion(variable, by_variable)}")
    return names


def _suggestion(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"{near[0]} would pass" if near else "`cellgate settings` lists those that would pass"


# -- the edges -----------------------------------------------------------------------------------------


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting, and one for the file."""
    parser.add_argument("--config", metavar="FILE", help=f"settings in TOML (or {CONFIG_VARIABLE})")
    said = f"Each is also {PREFIX}NAME in the environment, and a key of FILE. Sizes may be written 512M."
    group = parser.add_argument_group("settings", said)
    for setting in SETTINGS.values():
        help_text = f"{setting.help}{f' ({setting.unit})' if setting.unit else ''}"
        group.add_argument(setting.flag, dest=setting.name, metavar="VALUE", help=help_text.replace("%", "%%"))


def gather_settings(args: argparse.Namespace, environ: Mapping[str, str], *, is_root: bool) -> Settings:
    """From parsed flags, an environment, and the file that either names. Raises UsageError, LimitError."""
    path = args.config or environ.get(CONFIG_VARIABLE)
    return read_settings(
        flags={name: getattr(args, name) for name in SETTINGS},
        environ=environ,
        file=load_file(Path(path)) if path else {},
        file_name=path or "",
        is_root=is_root,
    )


def load_file(path: Path) -> dict[str, object]:
    """The keys of a TOML file. Raises UsageError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"{path} is longer than {MAX_FILE_BYTES} bytes; a file of settings would pass")
        keys: dict[str, object] = tomllib.loads(data.decode())
        return keys
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}; a file of settings would pass") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {error}; lines like `cell_seconds = 60` would pass") from error


# -- for people ----------------------------------------------------------------------------------------


def readable(value: object, unit: str) -> str:
    """A value as documents show it."""
    if isinstance(value, (int, float)) and unit.startswith("seconds"):
        for scale, name in ((DAY, "d"), (HOUR, "h"), (60.0, "min")):
            if value % scale == 0:
                return f"{value / scale:g} {name}"
        return f"{value:g} s"
    return size(value, unit) if isinstance(value, (int, float)) else str(value)


def settings_as_markdown() -> str:
    """The settings that are no limits."""
    limits = {row.name for row in _LIMIT_ROWS}
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for setting in SETTINGS.values():
        if setting.name not in limits:
            default = ",".join(setting.default) if isinstance(setting.default, tuple) else setting.default
            shown = f"`{default}`" if default not in (None, "") else ""
            lines.append(f"| `{setting.name}` | {shown} | {setting.help} |")
    return "\n".join(lines) + "\n"


def profiles_as_markdown() -> str:
    """Every limit in every profile."""
    lines = [f"| limit | {' | '.join(PROFILES)} | unit | why |", "|---" * (len(PROFILES) + 3) + "|"]
    for row in _LIMIT_ROWS:
        numbers = " | ".join(readable(profile.get(row.name, row.default), row.unit) for profile in PROFILES.values())
        lines.append(f"| `{row.name}` | {numbers} | {row.unit} | {row.reason} |")
    return "\n".join(lines) + "\n"
