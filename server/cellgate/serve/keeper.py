"""The process that stays: it forks the gateway, forks another when that dies, and starts the warden for it.

It has one thread and no loop of asyncio, so that it may fork; what it knows of clients is the listening sockets, which
it only holds. When it was started by root it is the only part of the server besides the warden that has rights, and
the gateway can ask one thing of it: that there be a warden.

    gateway to keeper   `warden`            there should be one
                        `serving ...`       clients are answered; a line about the sandboxes for the operator
    keeper to gateway   {} or an error      as the warden says them: there is one, or why there is none
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from cellgate.commands.exits import EndedBySignal, ExitStatus
from cellgate.errors import CellgateError, DriverUnavailable
from cellgate.sandbox.native.commands import pack, unpack
from cellgate.sandbox.native.door import somebody_answers
from cellgate.sandbox.native.driver import start_warden
from cellgate.sandbox.native.warden import unavailable
from cellgate.terminal import one_line

__all__ = ["END_SECONDS", "WARDEN", "Gateway", "Keeper", "WardenStarter", "is_final", "pause_before", "serving"]

# What the forked process does: given its line to the keeper, its exit status.
Gateway = Callable[[socket.socket], int]

END_SECONDS: Final = 10.0  # from the first signal until the gateway is killed
MAX_FAILURES: Final = 8  # gateways in a row that died before they served, in some 45 s: a ninth would not do better
_PAUSE_SECONDS: Final = 0.5  # between two starts, so that what fails at once does not take a whole processor
_LONGEST_PAUSE_SECONDS: Final = 10.0  # so long clients wait in the backlog when what was wrong has gone
_STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PACKET_BYTES: Final = 1 << 16

WARDEN: Final = b"warden"
_SERVING: Final = b"serving "


def serving(about: str) -> bytes:
    """What a gateway says when it answers clients."""
    return _SERVING + one_line(about).encode()[: _PACKET_BYTES // 2]


def is_final(code: int, *, was_told: bool, has_served: bool) -> bool:
    """Whether no other gateway takes the place of one that ended with this exit code (negative: the signal). It did
    what it was told, or would only find again what it found: a directory in use, or at the first start no driver."""
    return was_told or code in (ExitStatus.OK, ExitStatus.USAGE) or (code > 0 and not has_served)


def pause_before(failures: int, lived_seconds: float) -> float | None:
    """Until the next start, when so many in a row have died before they served, the last after so long.
    None: there have been enough."""
    if failures >= MAX_FAILURES:
        return None
    return max(0.0, min(_PAUSE_SECONDS * (1 << failures), _LONGEST_PAUSE_SECONDS) - lived_seconds)


class _End(NamedTuple):
    """Of a gateway."""

    exit_code: int
    was_told: bool


class Keeper:
    """Keeps one gateway running until it is told to end; `run` is called once."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        warden: WardenStarter | None = None,
        sockets: list[socket.socket] | None = None,
        on_serving: Callable[[int, str], None] = lambda pid, about: None,
        renew: Callable[[], Gateway] | None = None,
        ends_with: int | None = None,
        ends_sessions: bool = False,
    ) -> None:
        """`sockets` are closed as soon as nobody new is to be served; `on_serving` is called for the first gateway
        that serves, with its process id. When the pipe `ends_with` comes to its end, that is as a SIGTERM. `renew` is
        asked at SIGHUP for what takes the gateway's place; it may raise CellgateError. Without it SIGHUP ends us.
        `ends_sessions`: so a gateway does that is told to end; one that ends at SIGHUP does not."""
        self._gateway = gateway
        self._warden = warden
        self._sockets = sockets or []
        self._on_serving = on_serving
        self._renew = renew
        self._is_asked_to_renew = self._is_renewing = False
        self._ends_with = ends_with
        self._ends_sessions = ends_sessions
        self._selector = selectors.DefaultSelector()
        self._child = 0
        self._end: _End | None = None  # of the child, once it is reaped
        self._line: socket.socket | None = None
        self._has_served = False
        self._serves = False
        self._told: list[int] = []  # the signals that said to end
        self._kill_at: float | None = None

    def run(self) -> ExitStatus:
        """Returns how the last gateway ended. Raises EndedBySignal when the end had to be at once."""
        failures = 0
        with self._signals():
            if self._ends_with is not None:
                self._selector.register(self._ends_with, selectors.EVENT_READ, self._on_pipe)
            while True:
                began = time.monotonic()
                code, was_told = self._live()
                if self._has_successor():
                    failures = 0
                    with _signals_wait():
                        self._is_renewing = False
                        self._kill_at = self._kill_at if self._told else None
                    continue
                if is_final(code, was_told=was_told, has_served=self._has_served):
                    return self._ended(code)
                failures = 0 if self._serves else failures + 1
                pause = pause_before(failures, time.monotonic() - began)
                if pause is None:
                    _say(f"{failures} gateways in a row died before they served; this one {_how(code)}")
                    return ExitStatus.FAILED
                _say(f"the gateway {_how(code)}; another takes its place")
                self._rest(pause)
                if self._told:
                    return ExitStatus.OK

    def _has_successor(self) -> bool:
        """Whether the one that ended was ended for another. When we were told to end meanwhile, the other comes only
        to end the sessions, which that one has kept."""
        return self._is_renewing and (not self._told or (self._ends_sessions and len(self._told) == 1))

    # -- a gateway's life ----------------------------------------------------------------------------

    def _live(self) -> _End:
        """Fork a gateway and see it through."""
        self._fork()
        try:
            while self._end is None:
                self._turn()
        finally:
            if self._end is None:  # we fail: so does it
                self._kill()
            self._hang_up()
        return self._end

    def _fork(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._end, self._serves = None, False
        with suppress(OSError):
            sys.stdout.flush()  # or the child would say again what waits there
            sys.stderr.flush()
        with theirs, _signals_wait():  # the child must not take one with our handlers
            self._child = os.fork()
            if self._child == 0:
                self._be(theirs)
            if self._told:  # just now, when there was nobody to tell
                self._tell()
        self._line.setblocking(False)
        self._selector.register(self._line, selectors.EVENT_READ, self._hear)

    def _be(self, line: socket.socket) -> None:
        """In the child, for good."""
        code = int(ExitStatus.FAILED)
        try:
            signal.set_wakeup_fd(-1)
            for number in (*_STOPPING, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
            self._let_go()
            code = self._gateway(line)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os._exit(code)

    def _let_go(self) -> None:
        """In the child, of what is the keeper's alone."""
        for key in self._selector.get_map().values():
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        if self._line is not None:
            self._line.close()

    def _ended(self, code: int) -> ExitStatus:
        if len(self._told) > 1:
            raise EndedBySignal(self._told[-1])
        if code in (ExitStatus.OK, -signal.SIGTERM):  # the signal came before it could listen to signals
            return ExitStatus.OK
        if code < 0:
            _say(f"the gateway {_how(code)} while it was to end")
        return ExitStatus.USAGE if code == ExitStatus.USAGE else ExitStatus.FAILED

    def _hang_up(self) -> None:
        if self._line is not None:
            self._selector.unregister(self._line)
            self._line.close()
            self._line = None

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._told and (left := until - time.monotonic()) > 0:
            self._turn(left)

    # -- what happens --------------------------------------------------------------------------------

    def _turn(self, seconds: float | None = None) -> None:
        """Wait for something, at most so long, and do what there is to do."""
        if self._kill_at is not None:
            seconds = max(0.0, self._kill_at - time.monotonic())
        for key, _ in self._selector.select(seconds):
            if key.fd in self._selector.get_map():  # or what came before it has closed it
                key.data()
        self._reap()
        if self._is_asked_to_renew:
            self._is_asked_to_renew = False
            self._begin_renewal()
        if self._told and not self._has_successor():
            while self._sockets:
                self._sockets.pop().close()
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            _say(f"the gateway has not ended within {END_SECONDS:g} s, and is killed")
            self._kill()

    def _hear(self) -> None:
        assert self._line is not None  # it is what is heard
        try:
            packet = self._line.recv(_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if packet == WARDEN and self._warden is not None:
            self._warden.ask(self._selector, self._answer)
        elif packet.startswith(_SERVING):
            self._on_served(one_line(packet.removeprefix(_SERVING).decode(errors="replace")))
        elif not packet:
            self._hang_up()  # it is ending

    def _answer(self, packet: bytes) -> None:
        """To whichever gateway lives now: there is a warden, or why not."""
        if self._line is not None:
            with suppress(OSError):
                self._line.send(packet)

    def _on_served(self, about: str) -> None:
        if self._serves:
            return
        self._serves = True
        if self._told:
            self._tell()
        elif self._has_served:
            _say(f"the gateway serves again, as process {self._child}")
        else:
            self._has_served = True
            with suppress(OSError):  # nobody reads what we say; clients are served all the same
                self._on_serving(self._child, about)

    def _reap(self) -> None:
        """Also those that we never knew: as process 1 of a container everybody's orphans are ours."""
        with _signals_wait(), suppress(ChildProcessError):  # or one would be passed on to who is no child any more
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._child:
                    self._child, self._end = 0, _End(os.waitstatus_to_exitcode(found[1]), bool(self._told))

    # -- signals -------------------------------------------------------------------------------------

    @contextmanager
    def _signals(self) -> Iterator[None]:
        wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        before = {number: signal.getsignal(number) for number in (*_STOPPING, signal.SIGCHLD)}
        self._selector.register(wake, selectors.EVENT_READ, lambda: os.read(wake, 1024))
        woken = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in _STOPPING:
            if before[number] is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, lambda number, _: self._take(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # to be woken is all that is wanted
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken)
            self._selector.unregister(wake)
            os.close(wake)
            os.close(waker)

    def _begin_renewal(self) -> None:
        """End the gateway, and keep its sessions for one with what is said now."""
        assert self._renew is not None  # or SIGHUP would have ended us
        if self._told:
            return
        try:
            self._gateway = self._renew()
        except CellgateError as error:
            _say(f"nothing is changed: error[{error.code}]: {error}")
            return
        _say("the settings are read again")
        if self._child and not self._is_renewing:  # else the next is made of it anyway
            self._is_renewing = True
            self._kill_at = time.monotonic() + END_SECONDS
            os.kill(self._child, signal.SIGHUP)

    def _take(self, number: int) -> None:
        """The first asks the gateway to end, the next ends it at once. What it served lives on either way."""
        if number == signal.SIGHUP and self._renew is not None:
            self._is_asked_to_renew = True  # we may be in the midst of something
            return
        self._told.append(number)
        if len(self._told) == 1:
            self._kill_at = time.monotonic() + END_SECONDS
            self._tell()
        else:
            self._kill()

    def _tell(self) -> None:
        """The gateway to end. One that is to end sessions is told when it serves: before, it would only die."""
        if self._child and (self._serves or not self._ends_sessions):
            os.kill(self._child, signal.SIGTERM)

    def _on_pipe(self) -> None:
        assert self._ends_with is not None  # it is what is heard
        if not os.read(self._ends_with, 1024):
            self._selector.unregister(self._ends_with)
            self._take(signal.SIGTERM)

    def _kill(self) -> None:
        self._kill_at = None
        if self._child:
            os.kill(self._child, signal.SIGKILL)


class WardenStarter:
    """Sees to it that a warden lives at a path, for the user of this number."""

    def __init__(self, path: str, uid: int | None, images: Path | None = None) -> None:
        self._path = path
        self._uid = uid
        self._images = images
        self._starting: socket.socket | None = None  # where the one that is being started will say its first word

    def ask(self, selector: selectors.BaseSelector, answer: Callable[[bytes], None]) -> None:
        """Start one unless one lives; `answer` is called now or later, once for all who ask until then."""
        if self._starting is not None:
            return
        if somebody_answers(self._path):
            return answer(pack({}))
        try:
            starting = self._starting = start_warden(self._path, self._uid, self._images)
        except DriverUnavailable as error:
            return answer(unavailable(error))
        selector.register(starting, selectors.EVENT_READ, lambda: self._on_word(starting, selector, answer))

    def _on_word(
        self, starting: socket.socket, selector: selectors.BaseSelector, answer: Callable[[bytes], None]
    ) -> None:
        """Its first; then we let go of it, and it waits for its driver."""
        self._starting = None
        selector.unregister(starting)
        with starting, suppress(OSError):
            packet = starting.recv(_PACKET_BYTES)
            if packet and "unavailable" not in unpack(packet):
                return answer(pack({}))
            if packet:
                return answer(packet)
        answer(unavailable(DriverUnavailable("native", "the warden said nothing", f"{self._path}.log may say why")))


@contextmanager
def _signals_wait() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how(code: int) -> str:
    return f"ended with status {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


def _say(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"cellgate: {text}\n")
        sys.stderr.flush()
