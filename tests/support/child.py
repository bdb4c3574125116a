"""Runs a function in a forked child, for what a process can do to itself only once: give up rights, enter a group."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CHILD_SECONDS = 30  # SIGALRM ends a child that hangs


class Died(Exception):
    """The child was ended by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = signal.Signals(number)


def in_child(function: Callable[[], T]) -> T:
    """What `function` returns in a forked child. Raises what it raises there, as an AssertionError, or Died."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        signal.alarm(CHILD_SECONDS)
        try:
            answer: tuple[bool, object] = (True, function())
        except BaseException:
            answer = (False, traceback.format_exc())
        try:
            with open(writing, "wb") as pipe:
                pickle.dump(answer, pipe)
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        raw = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        raise Died(os.WTERMSIG(status))
    passed, value = pickle.loads(raw)
    assert passed, value
    return value
