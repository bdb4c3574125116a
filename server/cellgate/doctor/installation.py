"""Looks over an installation: whether `cellgate serve` would find here what it needs, and what to do where not.

A check is a function of the settings and the state directory that returns what it saw; `CHECKS` names them in the order
in which they are told. Changes nothing, and starts nothing that it does not end. What sandboxes hold is for `examine`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from cellgate.commands.places import as_gateway
from cellgate.doctor.host import look_at_host
from cellgate.errors import CellgateError, DriverUnavailable, PolicyError
from cellgate.policy.policies import STANDARD
from cellgate.serve.listening import addresses_of, listen
from cellgate.serve.places import Places, engine_group
from cellgate.settings import Settings
from cellgate.wire.local import LocalServer

__all__ = ["CHECKS", "Check", "State", "checks_to_json", "look_over", "render_checks", "worst_state"]

LEAST_BYTES = 256 << 20  # of disk: some sessions' journals, and what SQLite needs to write at all
ADJTIMEX_BYTES = 512  # struct timex has 208; left empty it asks for nothing to be changed
CLOCK_IS_FREE = 5  # TIME_ERROR: nothing keeps this clock right
FIRST_YEAR = 2025  # before that a clock stands where its battery left it
UNIT = Path("/etc/systemd/system/cellgate.service")
JUDGE_SECONDS = 30.0  # a verdict takes milliseconds; a worker's start a second on a busy host


class State(str, Enum):
    """How it is with one thing."""

    OK = "ok"
    WARN = "warn"  # it serves, and less well than it could
    FAIL = "fail"  # it would not serve, or not as it is told to


@dataclass(frozen=True)
class Check:
    """What was seen of one thing; `remedy` says what to do where it is not in order."""

    state: State
    seen: str
    remedy: str = ""


def ok(seen: str) -> Check:
    return Check(State.OK, seen)


def warn(seen: str, remedy: str) -> Check:
    return Check(State.WARN, seen, remedy)


def fail(seen: str, remedy: str) -> Check:
    return Check(State.FAIL, seen, remedy)


# -- the state directory -------------------------------------------------------------------------------


def check_state_directory(settings: Settings, places: Places) -> Check:
    try:
        found = places.top.stat()
    except FileNotFoundError:
        return ok(f"{places.top} is not there yet; the first start makes it")
    except OSError as error:
        return fail(f"{places.top}: {error.strerror}", "run this as the user who runs the server")
    if not stat.S_ISDIR(found.st_mode):
        return fail(f"{places.top} is no directory", "name another with --state-dir")
    if found.st_uid != os.geteuid():
        return fail(
            f"{places.top} belongs to uid {found.st_uid}", f"use one of uid {os.geteuid()}, or run as its owner"
        )
    if found.st_mode & 0o022:
        return fail(f"others may write {places.top} ({found.st_mode & 0o777:o})", f"chmod go-w {places.top}")
    return ok(f"{places.top}, {found.st_mode & 0o777:o}")


def check_room(settings: Settings, places: Places) -> Check:
    there = next(path for path in (places.top, *places.top.parents) if path.exists())
    free = shutil.disk_usage(there).free
    wanted = settings.server.journal_bytes_total + settings.server.audit_bytes_total
    seen = f"{free >> 20} MiB free; journals and the audit log may take {wanted >> 20} MiB"
    if free < LEAST_BYTES:
        return fail(seen, f"make room on the disk of {there}, or name another with --state-dir")
    return ok(seen) if free >= wanted else warn(seen, "make room, or lower journal_bytes_total and audit_bytes_total")


def check_tokens(settings: Settings, places: Places) -> Check:
    for path, open_to in ((places.tokens, 0o027), (places.top / "server.json", 0o077)):
        with suppress(FileNotFoundError):
            mode = path.stat().st_mode & 0o777
            if mode & open_to:
                return fail(f"{path} is open to others ({mode:o})", f"chmod {0o666 & ~open_to:o} {path}")
    return ok("what keeps tokens is closed to others")


def check_registry(settings: Settings, places: Places) -> Check:
    from cellgate.live.scripts import SCHEMA as SCRIPTS
    from cellgate.sessions.registry import SCHEMA as SESSIONS

    seen = []
    for name, schema in (("sessions.sqlite", SESSIONS), ("scripts.sqlite", SCRIPTS)):
        path = places.gateway / name
        try:
            with as_gateway():
                if not path.exists():
                    continue
                with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                    (version,) = connection.execute("PRAGMA user_version").fetchone()
                    (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.Error as error:
            if "unable to open" in str(error):
                return fail(f"{path}: {error}", "give it to the user as whom the gateway runs, or restore a backup")
            return fail(f"{path}: {error}", "restore a backup; a start puts it aside and begins anew")
        if said != "ok":
            return fail(f"{path} is damaged: {said}", "restore a backup; a start puts it aside and begins anew")
        if version > schema.version:
            return fail(f"{path} is of version {version}", f"use what wrote it; this one knows {schema.version}")
        seen.append(f"{name} whole, version {version}")
    return ok("; ".join(seen) or "nothing is kept yet")


# -- the host ------------------------------------------------------------------------------------------


def check_port(settings: Settings, places: Places) -> Check:
    with suppress(OSError):
        if server := LocalServer.read(places.top):
            return ok(f"a server serves from here already: {server.url}, process {server.pid}")
    try:
        for sock in listen(settings.host, addresses_of(settings.host, settings.port)):
            sock.close()
    except CellgateError as error:
        return fail(str(error), "name another with --port or --host")
    return ok(f"{settings.host}:{settings.port} is free")


def check_clock(settings: Settings, places: Places) -> Check:
    now = time.gmtime()
    if now.tm_year < FIRST_YEAR:
        return fail(f"it is {now.tm_year} here", "set the clock: tokens would expire, and logs be of no use")
    kept = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(ADJTIMEX_BYTES))
    if kept == CLOCK_IS_FREE:
        return warn("nothing keeps the clock right", "run chrony or systemd-timesyncd: tokens and audits tell times")
    by = "kept right" if kept >= 0 else "by whom may not be asked"
    return ok(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', now)}, {by}")


def check_cgroups(settings: Settings, places: Places) -> Check:
    host = look_at_host()
    missing = {"memory", "pids", "cpu"} - set(host.cgroup_controllers)
    seen = f"version {host.cgroup_version}: {', '.join(host.cgroup_controllers) or 'none'}"
    if settings.driver == "native" and missing:
        return fail(f"{seen}; no {', '.join(sorted(missing))}", "mount them, or use --driver docker")
    return ok(seen)


def check_kernel(settings: Settings, places: Places) -> Check:
    host = look_at_host()
    seen = f"Linux {host.kernel}"
    if settings.driver != "native":
        return ok(seen)
    if "kill_process" not in host.seccomp_actions:
        return fail(f"{seen} without seccomp", "use a kernel with CONFIG_SECCOMP_FILTER")
    if not host.is_root and not host.max_user_namespaces:
        return fail(f"{seen}: no user namespaces for others than root", "sysctl user.max_user_namespaces=10000")
    if not host.landlock_abi:
        return warn(f"{seen} without Landlock", "boot with lsm=landlock,… for one more layer around files")
    return ok(f"{seen}, seccomp, Landlock {host.landlock_abi}")


def check_engine(settings: Settings, places: Places) -> Check:
    if settings.driver != "docker":
        return ok(f"driver {settings.driver} needs none")
    from cellgate.sandbox.docker.engine import Engine, EngineFailed

    try:
        engine = Engine.open()
        engine.close()
    except (DriverUnavailable, EngineFailed, OSError) as error:
        return fail(one_sentence(error), "start Docker, or name another engine in DOCKER_HOST")
    return ok(f"it answers; its socket's group is {engine_group(os.environ)}")


# -- the installation ----------------------------------------------------------------------------------


def check_page(settings: Settings, places: Places) -> Check:
    from cellgate.gateway.assets import read_assets

    if "index.html" not in (assets := read_assets()):
        return warn("the page's files are not installed", "install Cellgate again; clients are served without them")
    return ok(f"{len(assets)} files")


def check_judge(settings: Settings, places: Places) -> Check:
    from cellgate.live import judging

    async def judge() -> bool:
        judges = judging.Judges()
        try:
            return not (await judges.judge("import os\nwhile True: os.fork()", "python", STANDARD)).allowed
        finally:
            await judges.close()

    try:
        if asyncio.run(asyncio.wait_for(judge(), JUDGE_SECONDS)):
            return ok("a worker that judges code starts and answers")
        seen = "a fork bomb was let pass"
    except (PolicyError, asyncio.TimeoutError, OSError) as error:
        seen = f"no code can be judged: {one_sentence(error)}"
    return fail(seen, "install Cellgate again; `--policy off` serves without judging")


def check_unit(settings: Settings, places: Places) -> Check:
    try:
        lines = UNIT.read_text().splitlines()
    except OSError:
        return ok("there is no unit of systemd")
    program = next((line.partition("=")[2].split()[0] for line in lines if line.startswith("ExecStart=/")), "")
    if not os.access(program, os.X_OK):
        return fail(f"{UNIT} starts {program or 'nothing'}, which is not there", "set ExecStart= to this installation")
    if "KillMode=process" not in lines:
        return warn(f"{UNIT} has no KillMode=process", "add it: else sessions end with the service")
    return ok(f"{UNIT} starts {program}")


CHECKS: dict[str, Callable[[Settings, Places], Check]] = {
    "state directory": check_state_directory,
    "room": check_room,
    "tokens": check_tokens,
    "registry": check_registry,
    "port": check_port,
    "clock": check_clock,
    "cgroups": check_cgroups,
    "kernel": check_kernel,
    "engine": check_engine,
    "page": check_page,
    "judge": check_judge,
    "systemd": check_unit,
}


def look_over(settings: Settings) -> dict[str, Check]:
    """All of it. A check that cannot be carried out has failed, and hinders no other."""
    places = Places(Path(os.path.realpath(settings.state_dir)))
    found = {}
    for name, check in CHECKS.items():
        try:
            found[name] = check(settings, places)
        except (CellgateError, OSError) as error:
            found[name] = fail(one_sentence(error), "run this as the user who runs the server")
    return found


def worst_state(checks: Sequence[Check]) -> State:
    return max((check.state for check in checks), key=list(State).index, default=State.OK)


def render_checks(checks: dict[str, Check]) -> str:
    """A line for each, and one more for what to do."""
    lines = []
    for name, check in checks.items():
        lines.append(f"{check.state.value:5}{name:17}{check.seen}")
        if check.remedy:
            lines.append(f"{'':22}→ {check.remedy}")
    return "\n".join(lines) + "\n"


def checks_to_json(checks: dict[str, Check]) -> dict[str, object]:
    return {name: {**asdict(check), "state": check.state.value} for name, check in checks.items()}


def one_sentence(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
