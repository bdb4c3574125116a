"""Makes an IPython kernel ready: once in a zygote, to be forked per session, or at the start of a plain process.

What can be done before a session is known is done here: everything is imported, the shell is built, and the way of a
request is gone several times over a link to nobody, so that a fork writes to as few pages as can be. What is left is
one thread, no socket, no event loop, a frozen heap and an empty namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import linecache
import os
import socket
import sys
import threading
import uuid
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType
from typing import Any

from IPython.core.history import HistoryManager
from traitlets.config import Config

from .host import Host, Setup
from .link import Link, Message
from .message import Channel, Status, Tag, join_v1
from .shell import SandboxKernel, follow_threads, remember_signatures
from .tracebacks import quicken

__all__ = ["TEMPLATES", "Prepared", "prepare", "start", "warm"]

# What a template imports beside the kernel. A missing one is an error: a template is offered when it is there.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "python": (),
    "python-data": ("numpy", "pandas", "matplotlib", "matplotlib.pyplot", "matplotlib_inline.backend_inline"),
}

# Modules that the kernel, the shell or an ordinary cell would import later. Not jedi, which completes names: with the
# types of the builtins it takes 40 MB, and those would make every fork 0.8 ms slower (measured) for those who type.
_LATER = (
    *("IPython.core.completer", "IPython.core.debugger", "IPython.core.interactiveshell", "IPython.core.oinspect"),
    *("IPython.core.ultratb", "IPython.core.tbtools", "IPython.display", "IPython.lib.display", "IPython.lib.pretty"),
    *("IPython.core.magics.basic", "IPython.core.magics.execution", "IPython.core.pylabtools", "IPython.utils.timing"),
    *("asyncio", "concurrent.futures.thread", "ctypes", "multiprocessing", "multiprocessing.util", "sqlite3"),
    *("pygments", "pygments.lexers.python", "pygments.formatters.terminal256", "pygments.formatters.html"),
    *("pygments.styles", "pexpect", "IPython.utils._process_posix"),
    *("collections", "dataclasses", "datetime", "decimal", "fractions", "functools", "itertools", "statistics"),
    *("csv", "glob", "hashlib", "html", "io", "json", "math", "pathlib", "pickle", "pprint", "random", "re", "shutil"),
    *("base64", "bdb", "copy", "difflib", "doctest", "getpass", "heapq", "inspect", "linecache", "operator", "pdb"),
    *("secrets", "select", "socket", "string", "subprocess", "tempfile", "textwrap", "threading", "time", "timeit"),
    *("tokenize", "traceback", "types", "typing", "unittest.mock", "urllib.parse", "uuid", "warnings", "zlib"),
    *("encodings.idna", "encodings.latin_1", "encodings.ascii", "encodings.utf_16"),
)

# What a fork will do is rehearsed last, and often enough that the interpreter has specialised it and caches its names:
# it would write both to shared pages otherwise (1,750 pages copied to the first answer without, 1,530 with; 64 rounds
# gain no more than 16).
STARTS = 16
CELLS = 25  # of the simplest kind, before that
WARM_CELLS = 3  # after which a cell takes the interpreter as long as it ever will
_TRY = """
import sys
print("x"); print("y", flush=True); print("z", file=sys.stderr)
class C:
    def _repr_html_(self): return "<b>c</b>"
display(C()); C()
"""
_FAIL = "def f(n):\n    return 1 / n\nf(0)"
_AWAIT = "import asyncio\nawait asyncio.sleep(0)"
_DATA = """
import numpy, pandas, matplotlib.pyplot as plt
display(pandas.DataFrame({"a": numpy.arange(3), "b": list("xyz")}))
plt.plot([1, 2, 3]); plt.title("t"); plt.show()
"""


@dataclass(frozen=True)
class Prepared:
    """A kernel that wants only a host."""

    kernel: SandboxKernel

    def bind(self, host: Host) -> SandboxKernel:
        """The kernel in this process, which may be a fork of the one it was prepared in."""
        _reseed()
        self.kernel.bind(host)
        return self.kernel


def prepare(template: str = "python") -> Prepared:
    """A kernel with what the template names imported. Raises KeyError for an unknown template, ImportError for one
    whose libraries are not here. Writes no file, starts no thread and leaves no descriptor open."""
    libraries = TEMPLATES[template]
    for name in _LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    kernel = _build()
    for name in libraries:
        importlib.import_module(name)
    with _audience(kernel) as ask:  # so that what is imported by the first use is imported
        ask("execute_request", _cell("1+1"))
    _KEPT.extend(_fill_holes())
    _gather(kernel)
    _rehearse(kernel, [_DATA] if libraries else [])
    for _ in range(STARTS):
        with _audience(kernel) as ask:
            ask("execute_request", _cell("1+1"))
        _forget(kernel)
    gc.collect()
    _join_free_memory()
    _KEPT.extend(_fill_holes())
    gc.freeze()
    return Prepared(kernel)


def _join_free_memory() -> None:
    """As the C library does when something large is given back: it goes through all that is free, wherever it lies,
    which in a fork copies some 500 pages."""
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


def start() -> Prepared:
    """A kernel for this process alone: no more is done ahead than must be."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    kernel = _build()
    return Prepared(kernel)


def warm(template: str = "python") -> Prepared:
    """For a process of its own that waits for its session: what the template names is imported, and a cell has run.
    Raises as `prepare` does, which also lays out memory for forks and takes three times as long."""
    prepared = start()
    for name in TEMPLATES[template]:
        importlib.import_module(name)
    with _audience(prepared.kernel) as ask:
        for _ in range(WARM_CELLS):
            ask("execute_request", _cell("1+1"))
    _forget(prepared.kernel)
    return prepared


def _build() -> SandboxKernel:
    follow_threads()
    remember_signatures()
    held: Any = sys.modules.get("debugpy", _absent := object())
    sys.modules["debugpy"] = None  # type: ignore[assignment]  # 10 MB for a debugger that is not offered
    try:
        config = Config()
        config.HistoryManager.hist_file = ":memory:"
        kernel: SandboxKernel = SandboxKernel.instance(config=config)
    finally:
        if held is _absent:
            del sys.modules["debugpy"]
        else:
            sys.modules["debugpy"] = held
    quicken(kernel.shell.compile._filename_map)
    extensions: Any = kernel.shell.extension_manager
    extensions.load_extension("storemagic")  # as every IPython application does
    return kernel


def _reseed() -> None:
    """Give this process entropy of its own. Python's own generators reseed at a fork; numpy's does not."""
    if numpy_random := sys.modules.get("numpy.random"):  # `seed()` takes twice as long to fill the same 624 words
        words = sys.modules["numpy"].frombuffer(os.urandom(4 * 624), "u4")
        numpy_random.set_state(("MT19937", words, 624))
    vars(uuid).update(_node=None, _last_timestamp=None)  # uuid1's


# -- the rehearsal ------------------------------------------------------------------------------------


def _rehearse(kernel: SandboxKernel, more: list[str]) -> None:
    """Go the way of each kind of request, over a link whose other end is here."""
    with _audience(kernel) as ask:
        for _ in range(CELLS):
            ask("execute_request", _cell("1+1"))
        for code in (_TRY, _FAIL, _AWAIT, "1 +", "%time 1", *more):
            for _ in range(3):
                ask("execute_request", _cell(code))
        ask("complete_request", {"code": "%ti", "cursor_pos": 3})
        for code in ("print", "json.dumps", "f"):
            ask("inspect_request", {"code": code, "cursor_pos": len(code), "detail_level": 0})
        ask("is_complete_request", {"code": "for x in y:"})
        ask("history_request", {"hist_access_type": "tail", "n": 3, "output": False, "raw": True})
        ask("comm_info_request", {})
        ask("kernel_info_request", {})


def _cell(code: str) -> dict[str, Any]:
    return {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}


@contextlib.contextmanager
def _audience(kernel: SandboxKernel) -> Iterator[Any]:
    """A function that sends the kernel a request and lets it be answered, without a reader thread."""
    with contextlib.ExitStack() as stack:
        birth, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(birth)
        host = Host(theirs)
        stack.callback(host.close)
        stream, other = socket.socketpair()
        stack.enter_context(stream)
        with other:
            socket.send_fds(birth, [b"L"], [other.fileno()])
        link = Link()
        Prepared(kernel).bind(host)
        stack.callback(kernel.unbind)
        kernel.begin(Setup(b""))
        stream.sendall(link.open())
        host.attach(kernel)
        for _ in range(3):  # the link, its HELLO, and what has been waiting for it
            host.outbox.is_due = True
            host.turn(wait=False)
        link.receive(stream.recv(1 << 20))
        numbers = iter(range(1 << 20))

        def ask(kind: str, content: dict[str, Any]) -> None:
            name = f"rehearsal-{next(numbers)}"
            header = {"msg_id": name, "msg_type": kind, "session": "s", "username": "u", "date": "", "version": "5.3"}
            parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
            tag = Tag(Channel.SHELL, kind, Status.NONE, name.encode()).pack()
            stream.sendall(b"".join(link.send([tag, *join_v1(b"shell", parts)], urgent=True)))
            host.turn(wait=False)
            kernel.rehearse(host)
            host.outbox.is_due = True
            host.turn(wait=False)
            answers = [event for event in link.receive(stream.recv(1 << 20)) if isinstance(event, Message)]
            assert answers, f"nothing came for {kind}"
            stream.sendall(link.acknowledge())
            host.turn(wait=False)

        yield ask


def _gather(kernel: SandboxKernel) -> None:
    """Give every function that runs from a fork to the end of its first cell its code anew, side by side. The
    interpreter writes to the code it runs, and each lay where its module was loaded, on a page that had to be copied
    for it (1,570 pages copied to the first answer without, 1,390 with)."""
    ran = _what_runs(kernel)
    renewed: dict[int, CodeType] = {}

    def renew(code: CodeType) -> CodeType:
        if id(code) not in renewed:
            parts = tuple(renew(part) if isinstance(part, CodeType) else part for part in code.co_consts)
            renewed[id(code)] = code.replace(co_consts=parts)
        return renewed[id(code)]

    functions = [one for one in gc.get_objects() if type(one) is FunctionType and id(one.__code__) in ran]
    old = [function.__code__ for function in functions]  # kept meanwhile, so that no address comes twice
    for function, code in zip(functions, old, strict=True):
        function.__code__ = renew(code)


def _what_runs(kernel: SandboxKernel) -> set[int]:
    """The addresses of code objects, told by a child that starts as a kernel does."""
    ran: set[int] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        ran.add(id(frame.f_code))

    reading, writing = os.pipe()
    sys.setprofile(note)  # the child has it too
    pid = os.fork()
    if pid == 0:
        try:
            with _audience(kernel) as ask:
                ask("execute_request", _cell("1+1"))
            birth, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with birth:
                Host(theirs).start()
                sys.setprofile(None)
                os.write(writing, array("Q", ran).tobytes())
        finally:
            os._exit(0)
    sys.setprofile(None)
    os.close(writing)
    with open(reading, "rb") as told:
        ran = set(array("Q", told.read()))
    os.waitpid(pid, 0)
    return ran


_KEPT: list[list[object]] = []


def _fill_holes() -> Iterator[list[object]]:
    """Use up the free places that imports left in the allocator's pools. A fork would put its first objects there,
    each on another shared page that is copied for it; so they lie side by side on pages of their own (a tenth less
    own memory after thirty cells, measured)."""
    for size in range(16, 513, 16):  # the size classes of Python's allocator
        kept: list[object] = []
        last = in_a_row = 0
        # Until half a fresh pool of 16 KiB was filled: the whole would never be, for its first bytes are its header.
        while in_a_row < 8192 // size and len(kept) < 100_000:
            one: object = object() if size == 16 else float(len(kept)) if size == 32 else bytes(size - 33)
            in_a_row = in_a_row + 1 if id(one) == last + size else 0
            last = id(one)
            kept.append(one)
        yield kept


class _NobodyWaits(threading.Event):
    """Of history in memory, which no thread saves. An interrupt within an event's `set` can leave its lock taken, and
    IPython 8 sets one in every cell."""

    def set(self) -> None:
        pass


def _forget(kernel: SandboxKernel) -> None:
    """As if nothing had been run."""
    shell = kernel.shell
    shell.reset(new_session=False)
    old: Any = shell.history_manager
    shell.configurables.remove(old)
    old.db.close()
    if instances := getattr(HistoryManager, "_instances", None):  # IPython 9 counts them, and warns of many
        instances.discard(old)
    shell.init_history()
    new: Any = shell.history_manager
    if "save_flag" in new.trait_names():  # IPython 8
        new.save_flag = _NobodyWaits()
    shell.init_user_ns()
    shell.execution_count = 1
    shell.displayhook.flush()
    shell.last_execution_result = None
    for name in [name for name in linecache.cache if "ipykernel_" in name]:
        del linecache.cache[name]
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        with contextlib.suppress(AttributeError):
            delattr(sys, name)
