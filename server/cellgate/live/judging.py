"""Has code judged in processes that can be killed, so that hostile text neither stalls the event loop nor outlasts its
time. What no verdict can be given of raises PolicyError, for which read: denied.

    gateway ──┬── nursery    forked before the gateway serves, with all readers loaded: it forks workers, and ends them
              ├── worker     judges one request after the other; a limit on its memory, no files, no further processes
              └── worker

A worker is forked by the nursery and not by the gateway, which is large by then, has secrets, and whose installation
may be readable by root alone. Requests are pickles, because they come from us; replies come from beside hostile text,
and are bounded MessagePack that is checked.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple, NoReturn

import msgpack

from cellgate.errors import PolicyError
from cellgate.live.turns import Turns
from cellgate.policy.judge import READERS, judge, judge_message
from cellgate.policy.policies import POLICIES, Policy
from cellgate.policy.verdicts import MAX_FINDINGS, Finding, Metrics, Severity, Verdict
from cellgate.sandbox.native import linux

__all__ = ["Judges", "preload"]

log = logging.getLogger("cellgate.live")

VERDICT_SECONDS: Final = 2.0  # of CPU; a megabyte of ordinary Python takes about one; what takes more is made to
PATIENCE: Final = 5  # times as long on the clock: a busy host is no reason to deny
MEMORY_BYTES: Final = 512 << 20  # beyond what is loaded: the tree of a megabyte of code has some 100
WORKERS: Final = 2  # so that one hostile cell after the other leaves a way for the rest
MAX_WAITING: Final = 1000  # requests of one principal for a worker; beyond it somebody floods
CACHE_BYTES: Final = 4 << 20  # of verdicts; most cells have none but metrics, in some 100 bytes
MAX_REPLY_BYTES: Final = 1 << 20  # MAX_FINDINGS of some hundred bytes each, twenty times over
READ_BYTES: Final = 64 << 10  # of replies, at a time
MAX_POLICIES: Final = 100  # that a worker keeps in mind; a server has one, and some sessions have theirs
END_SECONDS: Final = 2.0  # for the nursery to end by itself
NURSERY_NAME: Final = "cellgate-nursery"  # in `ps`; 15 characters are shown
WORKER_NAME: Final = "cellgate-judge"

_CODE: Final = ("code", "user_expressions")
_CODE_IN: Final = {  # of messages whose content is read, what of it
    "execute_request": _CODE,
    "complete_request": _CODE,
    "inspect_request": _CODE,
    "debug_request": ("arguments",),
}
_HEAD: Final = struct.Struct("!I")  # the length of a reply
_REQUEST: Final = struct.Struct("!II")  # the lengths of a policy, and of what is asked
_ORDER: Final = struct.Struct("!cI")  # to the nursery: what to do, and with which worker
_START, _END = b"+", b"-"


def preload() -> None:
    """Load all that judging ever loads: a process that has given up its rights may find nothing more to load."""
    for language in READERS:
        judge("x = 1", language, POLICIES["strict"])
    judge("%time x = 1\n!ls\nimport os as o\no.system(f'ls {x}')", "python", POLICIES["strict"])


class Judges:
    """The gateway's side: judges requests by way of workers, two at a time, and remembers what they said."""

    def __init__(
        self,
        *,
        workers: int = WORKERS,
        verdict_seconds: float = VERDICT_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._seconds = verdict_seconds
        self._memory_bytes = memory_bytes
        self._cache = _Cache(cache_bytes)
        self._nursery: _Nursery | None = None
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._turns = Turns(workers)
        self._closed = False

    def start(self) -> None:
        """Fork the nursery: once, before there is anything that it must not know, and while nothing runs beside.
        Whoever calls has called `preload`. Without it the first request does both, and waits for them."""
        self._nursery = _Nursery.fork(self._memory_bytes)

    def recall(
        self, msg_type: str, content: Mapping[str, object], policy: Policy, language: str = "python"
    ) -> Verdict | None:
        """The verdict on a message, if it is known at once: there is nothing to read in it, or it was read before."""
        keys = _CODE_IN.get(msg_type)
        if policy.is_off or keys is None:  # by its type alone
            return judge_message(msg_type, content, policy, language)
        try:
            return self._cache.get(_Request.of_message(msg_type, content, policy, language).key)
        except PolicyError:  # which is told when it is asked for
            return None

    async def judge(self, code: str, language: str, policy: Policy, *, principal: str = "") -> Verdict:
        """What a policy thinks of a cell. Whoever has many requests keeps no other principal waiting for longer than
        one of them takes. Raises PolicyError."""
        if policy.is_off:
            return judge(code, language, policy)
        return await self._ask(_Request.of(policy, "", code, language), principal)

    async def judge_message(
        self,
        msg_type: str,
        content: Mapping[str, object],
        policy: Policy,
        language: str = "python",
        *,
        principal: str = "",
    ) -> Verdict:
        """What a policy thinks of a request as Jupyter's clients send it. Raises PolicyError."""
        if policy.is_off or msg_type not in _CODE_IN:
            return judge_message(msg_type, content, policy, language)
        return await self._ask(_Request.of_message(msg_type, content, policy, language), principal)

    async def close(self) -> None:
        """End all workers; whoever waits for one has a PolicyError."""
        self._closed = True
        for worker in self._all:
            worker.hang_up()
        while self._idle:
            self._drop(self._idle.pop())
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            await nursery.close()

    # -- one request --------------------------------------------------------------------------------------

    async def _ask(self, request: _Request, principal: str) -> Verdict:
        if (known := self._cache.get(request.key)) is not None:
            return known
        if self._turns.waiting_of(principal) >= MAX_WAITING:
            raise PolicyError(f"{MAX_WAITING} others of yours wait to be judged")
        async with self._turns.of(principal):
            reply = await self._reply_of_a_worker(request)
        verdict = _verdict(reply)
        self._cache.put(request.key, verdict, len(reply))
        return verdict

    async def _reply_of_a_worker(self, request: _Request) -> bytes:
        """A worker may be ended by something else than what it was asked: then another one is asked, once."""
        try:
            return await self._reply(request)
        except _WorkerEnded:
            try:
                return await self._reply(request)
            except _WorkerEnded as error:
                raise PolicyError("whoever read it ended: it took too much memory") from error

    async def _reply(self, request: _Request) -> bytes:
        """Raises PolicyError and _WorkerEnded."""
        worker = self._take()
        try:
            reply = await worker.ask(request, self._seconds)
        except BaseException:  # nobody knows what it would say next
            self._drop(worker)
            raise
        if self._closed:
            self._drop(worker)
        else:
            self._idle.append(worker)
        return reply

    def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if not worker.has_ended:
                return worker
            self._drop(worker)
        if self._closed:
            raise PolicyError("this server ends")
        worker = self._begin()
        self._all.add(worker)
        return worker

    def _begin(self) -> _Worker:
        if self._nursery is not None:
            with suppress(OSError):  # it was killed
                return self._nursery.begin()
            self._nursery.forget()
            self._all.clear()  # they ended with it; to the next, their numbers are those of others
            log.warning("the process that starts workers for judging code has ended; another takes its place")
        preload()
        self._nursery = _Nursery.fork(self._memory_bytes)
        return self._nursery.begin()

    def _drop(self, worker: _Worker) -> None:
        if worker in self._all:
            self._all.remove(worker)
            if self._nursery is not None:
                self._nursery.end(worker)
        worker.close()


class _Request(NamedTuple):
    """What a worker is asked, as it goes there; and what its verdict is remembered by."""

    key: bytes
    policy: bytes
    asked: bytes

    @staticmethod
    def of(policy: Policy, msg_type: str, content: object, language: str) -> _Request:
        """Plain code, as its content, has no type. Raises PolicyError."""
        packed = policy.remember("packed", _packed)
        try:
            asked = pickle.dumps((msg_type, content, language), protocol=pickle.HIGHEST_PROTOCOL)
        except RecursionError as error:
            raise PolicyError("it is nested too deeply") from error
        key = hashlib.blake2b(asked, digest_size=32, key=packed.digest).digest()
        return _Request(key, packed.policy, asked)

    @staticmethod
    def of_message(msg_type: str, content: Mapping[str, object], policy: Policy, language: str) -> _Request:
        code = {key: content[key] for key in _CODE_IN[msg_type] if key in content}
        return _Request.of(policy, msg_type, code, language)


class _Packed(NamedTuple):
    policy: bytes
    digest: bytes


def _packed(policy: Policy) -> _Packed:
    packed = pickle.dumps(replace(policy), protocol=pickle.HIGHEST_PROTOCOL)  # without what it remembers
    return _Packed(packed, hashlib.blake2b(packed, digest_size=32).digest())


class _WorkerEnded(OSError):
    """Before it said anything, or it says what no worker would."""


class _Worker:
    """The gateway's end of one worker."""

    def __init__(self, number: int, line: socket.socket) -> None:
        self.number = number
        self.has_ended = False
        self._loop = asyncio.get_running_loop()
        self._line = line
        self._clock = 0  # of its CPU time, once it has said who it is
        self._began = self._until = self._seconds = 0.0  # of what it was asked last
        self._heard = bytearray()
        self._unsent = memoryview(b"")
        self._reply: asyncio.Future[bytes] | None = None  # that is waited for
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(line, self._read)

    async def ask(self, request: _Request, seconds: float) -> bytes:
        """Raises PolicyError when its reply took more CPU time than this, and _WorkerEnded. It is of no use then."""
        self._seconds, self._until = seconds, time.monotonic() + PATIENCE * seconds
        self._began = self._now()
        self._reply = self._loop.create_future()
        self._timer = self._loop.call_later(seconds, self._look)
        head = _REQUEST.pack(len(request.policy), len(request.asked))
        self._unsent = memoryview(head + request.policy + request.asked)
        self._write()
        try:
            return await self._reply
        finally:
            self._reply = None
            self._timer.cancel()

    def hang_up(self) -> None:
        """Whoever waits for it is told that it ended."""
        if not self.has_ended:
            self.has_ended = True
            self._loop.remove_reader(self._line)
            self._loop.remove_writer(self._line)
            if self._reply is not None and not self._reply.done():
                self._reply.set_exception(_WorkerEnded())

    def close(self) -> None:
        self.hang_up()
        self._line.close()

    def _write(self) -> None:
        """As much as there is room for; the rest when there is."""
        try:
            self._unsent = self._unsent[self._line.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.hang_up()
            return
        if self._unsent:
            self._loop.add_writer(self._line, self._write)
        else:
            self._loop.remove_writer(self._line)

    def _read(self) -> None:
        try:
            part = self._line.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self._heard += part
        if not self._clock and len(self._heard) >= _HEAD.size:
            (pid,) = _HEAD.unpack_from(self._heard)
            self._clock = ~pid << 3 | 2  # as clock_getcpuclockid(3) makes it
            del self._heard[: _HEAD.size]
        if self._clock and len(self._heard) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._heard)
            if length <= MAX_REPLY_BYTES and self._reply is not None:
                if len(self._heard) < _HEAD.size + length:
                    return
                if len(self._heard) == _HEAD.size + length and not self._reply.done():
                    self._reply.set_result(bytes(self._heard[_HEAD.size :]))
                    self._heard.clear()
                    return
            part = b""  # it says more than it was asked
        if not part:
            self.hang_up()

    def _look(self) -> None:
        """At the clocks: its own, and that on the wall."""
        left = min(self._seconds - (self._now() - self._began), self._until - time.monotonic())
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif self._reply is not None and not self._reply.done():
            self._reply.set_exception(PolicyError(f"reading it took more than {self._seconds:g} s"))

    def _now(self) -> float:
        """CPU time that it has spent."""
        if self._clock:
            with suppress(OSError):
                return time.clock_gettime(self._clock)
        return 0.0


def _verdict(reply: bytes) -> Verdict:
    """What a worker said, believed as far as its shape goes. Raises PolicyError."""
    try:
        said = msgpack.unpackb(reply)
        if "error" in said:
            raise PolicyError(str(said["error"])[:500])
        findings = tuple(_finding(finding) for finding in said["findings"][:MAX_FINDINGS])
        if said["allowed"] is any(finding.severity is Severity.DENY for finding in findings):
            raise ValueError("allowed, and denied")
        return Verdict(
            allowed=said["allowed"] is True,
            findings=findings,
            metrics=Metrics(**{name: int(value) for name, value in said["metrics"].items()}),
            policy=str(said["policy"]),
            more=int(said["more"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, msgpack.UnpackException) as error:
        raise PolicyError("whoever read it said nothing that makes sense") from error


def _finding(said: Mapping[str, Any]) -> Finding:
    values = {row.name: said[row.name] for row in fields(Finding)}
    for name, value in values.items():
        if type(value) is not (int if name.endswith(("line", "column")) else str):
            raise TypeError(name)
    return Finding(**{**values, "severity": Severity(values["severity"])})


class _Cache:
    """The verdicts that were last asked for, as many as fit."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._known: OrderedDict[bytes, tuple[Verdict, int]] = OrderedDict()

    def get(self, key: bytes) -> Verdict | None:
        if key not in self._known:
            return None
        self._known.move_to_end(key)
        return self._known[key][0]

    def put(self, key: bytes, verdict: Verdict, reply_bytes: int) -> None:
        if key in self._known:  # two asked at once
            return
        size = 4 * reply_bytes + 1000  # objects take several times what their text does
        self._known[key] = verdict, size
        self._bytes += size
        while self._bytes > self._most:
            _, (_, size) = self._known.popitem(last=False)
            self._bytes -= size


# -- the nursery -------------------------------------------------------------------------------------------


@dataclass
class _Nursery:
    """The gateway's end of the process that forks workers. Orders are packets without an answer: a worker that could
    not be started is a line that ends at once."""

    pid: int
    line: socket.socket
    count: int = 0

    @staticmethod
    def fork(memory_bytes: int) -> _Nursery:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        try:
            pid = os.fork()
            if pid == 0:
                _be_nursery(theirs, parent, memory_bytes)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        ours.setblocking(False)
        return _Nursery(pid, ours)

    def begin(self) -> _Worker:
        """Raises OSError when the nursery has ended."""
        self.count += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                socket.send_fds(self.line, [_ORDER.pack(_START, self.count)], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        return _Worker(self.count, ours)

    def end(self, worker: _Worker) -> None:
        with suppress(OSError):  # it has ended, and its workers with it
            self.line.send(_ORDER.pack(_END, worker.number))

    def forget(self) -> None:
        """It has ended by itself."""
        self.line.close()
        with suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    async def close(self) -> None:
        self.line.close()
        with suppress(ChildProcessError):
            waiting = asyncio.get_running_loop().run_in_executor(None, os.waitpid, self.pid, 0)
            try:
                await asyncio.wait_for(asyncio.shield(waiting), END_SECONDS)
            except asyncio.TimeoutError:
                os.kill(self.pid, signal.SIGKILL)
                await waiting


def _be_nursery(line: socket.socket, parent: int, memory_bytes: int) -> NoReturn:
    """In the child, for good: fork workers until the gateway hangs up."""
    code = 1
    try:
        linux.set_name(NURSERY_NAME[:15])
        _let_go(line, parent)
        gc.collect()
        gc.freeze()
        workers: dict[int, int] = {}
        myself = os.getpid()
        while True:
            packet, descriptors, _, _ = socket.recv_fds(line, _ORDER.size, 1)
            _reap(workers)
            if not packet:
                break
            order, number = _ORDER.unpack(packet)
            if order == _START:
                with socket.socket(fileno=descriptors[0]) as theirs, suppress(OSError):  # too many processes
                    pid = os.fork()
                    if pid == 0:
                        line.close()
                        _be_worker(theirs, parent=myself, memory_bytes=memory_bytes)
                    workers[number] = pid
            elif (pid := workers.pop(number, 0)) > 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for pid in workers.values():
            os.kill(pid, signal.SIGKILL)
        code = 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)


def _reap(workers: dict[int, int]) -> None:
    """Those that ended by themselves: until then their numbers are nobody else's."""
    for number, pid in list(workers.items()):
        if os.waitpid(pid, os.WNOHANG)[0]:
            del workers[number]


def _let_go(line: socket.socket, parent: int) -> None:
    """Of all that was the gateway's; ends when it does."""
    linux.set_pdeathsig(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    with suppress(ValueError):
        signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the gateway's to understand
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    descriptor = line.fileno()
    if descriptor > 3:
        linux.close_range(3, descriptor - 1)
    linux.close_range(descriptor + 1)


# -- a worker ----------------------------------------------------------------------------------------------


def _be_worker(line: socket.socket, *, parent: int, memory_bytes: int) -> NoReturn:
    """In the child, for good: judge what is asked until the gateway hangs up."""
    code = 1
    try:
        linux.set_name(WORKER_NAME)
        linux.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        _bound(memory_bytes)
        line.sendall(_HEAD.pack(os.getpid()))
        policies: dict[bytes, Policy] = {}
        while request := _read(line):
            reply = _judged(*request, policies)
            line.sendall(_HEAD.pack(len(reply)) + reply)
        code = 0
    except OSError:
        code = 0  # the gateway has hung up
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)


def _bound(memory_bytes: int) -> None:
    """So much more memory than there is, and nothing else that a reader of text needs not."""
    with open("/proc/self/statm", "rb") as file:
        has = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + memory_bytes, has + memory_bytes))
    for what in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC, resource.RLIMIT_NOFILE):
        resource.setrlimit(what, (0, 0))


def _read(line: socket.socket) -> tuple[bytes, bytes] | None:
    """One request, as a policy and what is asked; None when there are no more."""
    head = line.recv(_REQUEST.size, socket.MSG_WAITALL)
    if len(head) < _REQUEST.size:
        return None
    policy, asked = _REQUEST.unpack(head)
    return line.recv(policy, socket.MSG_WAITALL), line.recv(asked, socket.MSG_WAITALL)


def _judge(policy: Policy, msg_type: str, content: Any, language: str) -> Verdict:
    if not msg_type:
        return judge(content, language, policy)
    return judge_message(msg_type, content, policy, language)


def _judged(packed: bytes, asked: bytes, policies: dict[bytes, Policy]) -> bytes:
    """`policies`: those that were asked by before, and what they remember."""
    try:
        if packed not in policies:
            if len(policies) >= MAX_POLICIES:
                policies.clear()
            policies[packed] = pickle.loads(packed)
        verdict = _judge(policies[packed], *pickle.loads(asked))
        said = verdict.to_json()
    except PolicyError as error:
        said = {"error": error.problem}
    except (MemoryError, RecursionError) as error:
        said = {"error": f"{type(error).__name__} while reading it"}
    reply: bytes = msgpack.packb(said, unicode_errors="replace")
    return reply
