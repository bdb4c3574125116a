"""Process 1 of a sandbox as a program of 136 bytes: it makes the system calls of a list, one after another, and sleeps.

The warden writes the list (`Calls`) and spawns the program (`Program.spawn_as_init`) where it would otherwise fork: a
fork of a Python process, which then shares all its memory, cost 4.7 ms of CPU time for work that takes 1, and the
warden a page fault for everything it touched next (measured). And so process 1 never holds anything of the warden's.
What the list says is in `birth.py`.

The program is the same for all, and may be run and not read, so what runs it may not be looked into by the session's
own code. It reads its list from descriptor 0 into memory that it gives back at the end: what is left of a process
that only has to be there are 12 KB. Its children's ends are ignored (SIGCHLD), so the kernel reaps them.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from cellgate.errors import DriverUnavailable
from cellgate.sandbox.native import linux
from cellgate.sandbox.native.syscalls import numbers

__all__ = ["Calls", "Later", "Program", "failure"]

_LIST: Final = 0x500000  # where the list lies in the program's memory, and how long it may be
_LIST_BYTES: Final = 0x10000
_HEADER: Final = struct.Struct("=QQQ40x")  # who hears of a failure; where the calls begin; where they end
_CALL: Final = struct.Struct("=IHHq6Q")  # number, only what `passes` will do, place in the list, passes, arguments
_ARGUMENTS_AT: Final = 16
_NUMBER: Final = struct.Struct("=Q")
_MASK: Final = (1 << 64) - 1

_X86_64: Final = """
    31c0            xor eax, eax            # read(0, list, 64 KiB)
    31ff            xor edi, edi
    bd00005000      mov ebp, 0x500000
    89ee            mov esi, ebp
    ba00000100      mov edx, 0x10000
    0f05            syscall
    488b5d08        mov rbx, [rbp+8]
    8b03            mov eax, [rbx]          # next:
    488b7b10        mov rdi, [rbx+16]
    488b7318        mov rsi, [rbx+24]
    488b5320        mov rdx, [rbx+32]
    4c8b5328        mov r10, [rbx+40]
    4c8b4330        mov r8, [rbx+48]
    4c8b4b38        mov r9, [rbx+56]
    0f05            syscall
    483b4308        cmp rax, [rbx+8]
    740c            je passed
    66837b0400      cmp word [rbx+4], 0
    7526            jne failed
    4885c0          test rax, rax
    7821            js failed
    4883c340        add rbx, 64             # passed:
    483b5d10        cmp rbx, [rbp+16]
    72c8            jb next
    b80b000000      mov eax, 11             # munmap(list, 64 KiB)
    89ef            mov edi, ebp
    be00000100      mov esi, 0x10000
    0f05            syscall
    b822000000      mov eax, 34             # sleep: pause()
    0f05            syscall
    ebf7            jmp sleep
    48894308        mov [rbx+8], rax        # failed: write(whoever hears of it, the call, 64)
    b801000000      mov eax, 1
    488b7d00        mov rdi, [rbp]
    4889de          mov rsi, rbx
    ba40000000      mov edx, 64
    0f05            syscall
    b8e7000000      mov eax, 231            # exit_group(1)
    bf01000000      mov edi, 1
    0f05            syscall
"""

_AARCH64: Final = """
    000080d2 mov x0, #0                     # read(0, list, 64 KiB)
    140aa0d2 mov x20, #0x500000
    e10314aa mov x1, x20
    2200a0d2 mov x2, #0x10000
    e80780d2 mov x8, #63
    010000d4 svc #0
    950640f9 ldr x21, [x20, #8]
    960a40f9 ldr x22, [x20, #16]
    a80240b9 ldr w8, [x21]                  # next:
    a00641a9 ldp x0, x1, [x21, #16]
    a20e42a9 ldp x2, x3, [x21, #32]
    a41643a9 ldp x4, x5, [x21, #48]
    010000d4 svc #0
    a90640f9 ldr x9, [x21, #8]
    1f0009eb cmp x0, x9
    80000054 b.eq passed
    a90a4079 ldrh w9, [x21, #4]
    29020035 cbnz w9, failed
    0002f8b7 tbnz x0, #63, failed
    b5020191 add x21, x21, #64              # passed:
    bf0216eb cmp x21, x22
    63feff54 b.lo next
    e00314aa mov x0, x20                    # munmap(list, 64 KiB)
    2100a0d2 mov x1, #0x10000
    e81a80d2 mov x8, #215
    010000d4 svc #0
    000080d2 mov x0, #0                     # sleep: ppoll(nothing), for there is no pause(2)
    010080d2 mov x1, #0
    020080d2 mov x2, #0
    030080d2 mov x3, #0
    040080d2 mov x4, #0
    280980d2 mov x8, #73
    010000d4 svc #0
    f9ffff17 b sleep
    a00600f9 str x0, [x21, #8]              # failed: write(whoever hears of it, the call, 64)
    800240f9 ldr x0, [x20]
    e10315aa mov x1, x21
    020880d2 mov x2, #64
    080880d2 mov x8, #64
    010000d4 svc #0
    200080d2 mov x0, #1                     # exit_group(1)
    c80b80d2 mov x8, #94
    010000d4 svc #0
"""

# aarch64 is reviewed, not yet run. The number is the machine's in an ELF header.
_CODE: Final = {
    machine: (number, bytes.fromhex("".join(line.split()[0] for line in text.strip().splitlines())))
    for machine, number, text in (("x86_64", 62, _X86_64), ("aarch64", 183, _AARCH64))
}
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 2 * 56  # one of the file, one of each segment


class Later(NamedTuple):
    """A number that a list is made without, and is given when it is packed."""

    name: str
    plus: int = 0


class Calls:
    """A list of system calls in the making, with the bytes that they point to. `call` takes the place of calling."""

    def __init__(self, hears: Later) -> None:
        """`hears` is the descriptor that is written to if a call fails, what `failure` understands."""
        self._calls = bytearray()
        self._bytes = bytearray(_HEADER.size)
        self._places: dict[bytes, int] = {}
        self._hears = hears
        self._later: list[tuple[int, Later]] = []  # where in the calls
        self._texts: list[tuple[int, str, Later]] = []  # where in the bytes

    def call(self, name: str, *arguments: int | str | bytes | Later, passes: int = 0, only: bool = False) -> None:
        """Text and bytes become an address where they lie, closed by a zero. The list goes on if the call returns
        what `passes`, or anything but an error unless `only` that will do. Errors are negative."""
        values = [0] * 6
        for at, given in enumerate(arguments):
            if isinstance(given, Later):
                self._later.append((len(self._calls) + _ARGUMENTS_AT + 8 * at, given))
            else:
                values[at] = given & _MASK if isinstance(given, int) else self.place(given)
        self._calls += _CALL.pack(_NUMBERS[name], only, len(self._calls) // _CALL.size, passes, *values)

    def place(self, data: str | bytes) -> int:
        """The address at which these bytes lie when the calls are made; the same bytes once."""
        raw = os.fsencode(data)
        if raw not in self._places:
            self._places[raw] = _LIST + len(self._bytes)
            self._bytes += raw + bytes(8 - len(raw) % 8)  # whatever lies here is aligned
        return self._places[raw]

    def place_text(self, template: str, given: Later) -> tuple[int, int]:
        """Where a text with that number in it will lie, and how long it is: the same for every number."""
        at, size = len(self._bytes), len(template % 0)
        self._texts.append((at, template, given))
        self._bytes += bytes(size + 8 - size % 8)
        return _LIST + at, size

    def pack(self, numbers: Mapping[str, int]) -> bytes:
        """As the program reads it, with these numbers for what was left open. Raises ValueError when it is too long."""
        begin, size = len(self._bytes), len(self._bytes) + len(self._calls)
        if size > _LIST_BYTES:
            raise ValueError(f"{size} bytes of calls; {_LIST_BYTES} would pass")
        packed = self._bytes + self._calls
        _HEADER.pack_into(packed, 0, numbers[self._hears.name], _LIST + begin, _LIST + size)
        for at, (name, plus) in self._later:
            _NUMBER.pack_into(packed, begin + at, numbers[name] + plus)
        for at, template, (name, plus) in self._texts:
            text = (template % (numbers[name] + plus)).encode()
            packed[at : at + len(text)] = text
        return bytes(packed)


def failure(said: bytes) -> str:
    """What the program wrote when a call failed, in words."""
    if len(said) != _CALL.size:
        return "it ended without a word"
    number, _, place, result, *_ = _CALL.unpack(said)
    name = next((name for name, known in _NUMBERS.items() if known == number), str(number))
    return f"{name}: {os.strerror(-result) if result < 0 else result} (call {place})"


class Program:
    """The program in memory, to be spawned any number of times."""

    def __init__(self) -> None:
        """Raises DriverUnavailable where a file in memory may not be run."""
        machine, code = _CODE[platform.machine()]
        size = _HEADERS + len(code)
        file_header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        program = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # load it all, to read and run
        memory = struct.pack("<IIQQQQQQ", 1, 6, 0, _LIST, _LIST, 0, _LIST_BYTES, 0x1000)  # nothing yet, to be written
        try:
            self._fd = _runnable_memory()
            os.write(self._fd, b"\x7fELF\x02\x01\x01" + bytes(9) + file_header + program + memory + code)
            os.fchmod(self._fd, 0o111)
        except OSError as error:
            remedy = "allow them (sysctl vm.memfd_noexec=0), or use the docker driver"
            raise DriverUnavailable("native", f"no program can be run from memory ({error})", remedy) from error
        self._path = f"/proc/self/fd/{self._fd}"

    def spawn_as_init(self, calls: bytes, keep: Iterable[int], own_pid_namespace: int) -> int:
        """Run it as process 1 of a new pid namespace; its process id out here. It has the descriptors `keep`, under
        their numbers, and 0 to 2. Raises OSError.

        `own_pid_namespace` is an open descriptor of the caller's /proc/self/ns/pid. The caller itself stays where it
        is: only its "namespace for children" changes, and is set back, so that each child gets one of its own."""
        given = os.memfd_create("calls", os.MFD_CLOEXEC)  # not a pipe: a user who has many gets short ones
        try:
            os.pwrite(given, calls, 0)
            actions = [(os.POSIX_SPAWN_DUP2, given, 0), *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in keep)]
            linux.unshare(linux.CLONE_NEWPID)
            try:
                return os.posix_spawn(self._path, ["cellgate-init"], {}, file_actions=actions, setsigmask=())
            finally:
                linux.setns(own_pid_namespace, linux.CLONE_NEWPID)
        finally:
            os.close(given)


def _runnable_memory() -> int:
    try:
        return os.memfd_create("cellgate-init", os.MFD_CLOEXEC | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("cellgate-init", os.MFD_CLOEXEC)  # before Linux 6.3, where all may be run


_MFD_EXEC: Final = 0x10
_NUMBERS: Final[Mapping[str, int]] = numbers(platform.machine()) if platform.machine() in _CODE else {}
