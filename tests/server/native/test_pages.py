"""Which pages a process has made its own, and taking them all at once."""

import mmap
import os
import struct

import pytest

from cellgate.sandbox.native.pages import Pages, _ranges, own_pages

PAGE = mmap.PAGESIZE


def in_fork(function):
    """What `function` returns, a few numbers, in a fork of this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            numbers = function()
            os.write(writing, struct.pack(f"{len(numbers)}q", *numbers))
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    data = os.read(reading, 1 << 16)
    os.close(reading)
    return struct.unpack(f"{len(data) // 8}q", data)


def address_of(memory):
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@pytest.fixture
def memory():
    with mmap.mmap(-1, 64 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as made:
        for page in range(64):
            made[page * PAGE] = 1
        yield made


def owned(start):
    proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    pages = own_pages(proc, proc)
    os.close(proc)
    return [(page - start) // PAGE for page in pages if 0 <= page - start < 64 * PAGE]


def test_a_fork_owns_only_the_pages_it_has_written_to(memory):
    start = address_of(memory)

    def write_three():
        for page in (3, 4, 40):
            memory[page * PAGE] = 2
        return owned(start)

    assert in_fork(write_three) == (3, 4, 40)


def test_pages_are_taken_at_once_or_left_to_the_faults(memory):
    start = address_of(memory)

    def take_two():
        Pages([start + 5 * PAGE, start + 9 * PAGE]).take()
        return owned(start)

    assert in_fork(take_two) in [(5, 9), ()]  # a kernel before 6.13 does not know the call


def test_pages_that_are_gone_are_no_error(memory):
    Pages([PAGE]).take()
    Pages(()).take()


def test_neighbours_are_one_range():
    assert list(_ranges([0, PAGE, 3 * PAGE, 9 * PAGE])) == [(0, 2 * PAGE), (3 * PAGE, 4 * PAGE), (9 * PAGE, 10 * PAGE)]
    assert list(_ranges([])) == []
