"""The program that process 1 of a sandbox becomes once its work is done: it sleeps, in 129 bytes.

A process that only has to be there costs 2.4 MB as a fork of the warden, for each session, and 12 KB as this. Its
children's ends are ignored (SIGCHLD), so the kernel reaps them. The file is one that may be run and not read, so what
runs it may not be looked into by the session's own code.
"""

from __future__ import annotations

import os
import platform
import struct
from typing import Final

__all__ = ["idle_program"]

# For ever: pause(2); where there is none, ppoll(2) of nothing. aarch64 is reviewed, not yet run.
_CODE: Final = {
    "x86_64": (62, bytes.fromhex("b822000000 0f05 ebf7")),  # mov eax, 34; syscall; jmp back
    "aarch64": (
        183,
        struct.pack(
            "<8I",
            *(0xD2800000 + register for register in range(5)),  # mov x0..x4, 0
            0xD2800928,  # mov x8, 73
            0xD4000001,  # svc 0
            0x17FFFFF9,  # b back
        ),
    ),
}
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56  # one of the file, one of its only segment


def idle_program() -> int | None:
    """A descriptor of the program, to be run with `os.execve`; None on a machine it is not written for, or where a
    file in memory may not be made."""
    if platform.machine() not in _CODE:
        return None
    machine, code = _CODE[platform.machine()]
    size = _HEADERS + len(code)
    entry = _BASE + _HEADERS
    file_header = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # load it all, to read and run
    try:
        program = os.memfd_create("cellgate-init", os.MFD_CLOEXEC)
    except OSError:
        return None
    os.write(program, b"\x7fELF\x02\x01\x01" + bytes(9) + file_header + segment + code)
    os.fchmod(program, 0o111)
    return program
