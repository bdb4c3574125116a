"""What waits to leave the kernel, in order: text of streams, and finished messages.

Any thread puts in, and has what must not wait written out at once (`push`): so a flushed line is on its way before
the next statement runs, should that be the process's last. Putting is a single append, so an exception that strikes
user code anywhere (an interrupt, an alarm) tears no message and loses none. Whoever puts while too much waits is held
until there is room: so a gateway that does not read stops `print`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from .compose import Parent

__all__ = ["LINGER_SECONDS", "Message", "Outbox", "Text"]

Buffer = bytes | bytearray | memoryview

MAX_WAITING_BYTES = 2 << 20  # beside the link's window: enough to keep the reader busy while user code computes
ITEM_BYTES = 128  # what an item costs beside its text; so a million empty prints are bounded too
LINGER_SECONDS = 0.02  # that text waits for its end: below what a person notices
LOOK_AHEAD = 8  # a flushed print is two writes and a flush; what goes on for longer is no line that would be torn
MAX_TEXT = 256 << 10  # characters of one stream message: what a client renders at once, and an output cap keeps whole


class Text(NamedTuple):
    """Written to a stream; joined with what follows on the same stream in the same cell."""

    parent: Parent | None
    name: str
    text: str


class Message(NamedTuple):
    """A message with its tag, ready for the link."""

    parts: list[Buffer]
    size: int
    urgent: bool


class Outbox:
    def __init__(self, wake: Callable[[], None], push: Callable[[], None]) -> None:
        """`wake` makes the reader thread look here; it is called only when that one would not by itself. `push`
        writes out all that is here, or leaves it to the reader if the link is stuck."""
        self._wake = wake
        self._push = push
        self._items: deque[Text | Message | None] = deque()  # None ends a stream message: a flush
        # Reentrant: a signal handler, or a finalizer that the collector runs, may print anywhere, here too.
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self.reader = 0  # the thread that must never wait here, not even when a finalizer prints in it
        self._waiting_bytes = 0
        self._held: Text | None = None  # seen before it was ended, at this time
        self._held_at = 0.0
        self._offset = 0  # into the first item's text: a long one leaves in pieces
        self.is_due = False  # something waits that should not wait for company
        self.is_watched = False  # the reader looks here before it sleeps, or soon wakes by itself
        self.is_awake = False  # the reader looks here before it sleeps

    # -- any thread -----------------------------------------------------------------------------------

    def write(self, text: Text, *, wait: bool = True) -> None:
        """`wait=False` never holds the caller: for the reader thread, and for what ends a cell."""
        with self._lock:
            self._items.append(text)
            self._waiting_bytes += len(text.text) + ITEM_BYTES
        if not self.is_watched:
            self.is_watched = True
            self._wake()
        if wait and self._waiting_bytes > MAX_WAITING_BYTES:
            self._wait_for_room()

    def flush(self) -> None:
        """What was written so far leaves at once, and in a message of its own."""
        try:
            if type(self._items[-1]) is not Text:
                return
        except IndexError:  # all has left, perhaps a moment ago
            return
        self._items.append(None)
        self._push()

    def put(self, message: Message, *, soon: bool = False, wait: bool = True) -> None:
        """`soon` leaves it to the next that is due, some milliseconds at most."""
        with self._lock:
            self._items.append(message)
            self._waiting_bytes += message.size + ITEM_BYTES
        if not soon:
            self._push()
        elif not self.is_watched:
            self.is_watched = True
            self._wake()
        if wait and self._waiting_bytes > MAX_WAITING_BYTES:
            self._wait_for_room()

    def hurry(self) -> None:
        """Have the reader write out what is here."""
        self.is_due = True
        if not self.is_awake:
            self.is_awake = True
            self._wake()

    def _wait_for_room(self) -> None:
        self.hurry()
        if threading.get_ident() == self.reader:
            return
        with self._room:
            while self._waiting_bytes > MAX_WAITING_BYTES // 2:
                self._room.wait()

    # -- who writes to the link ------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        return not self._items

    @property
    def is_full(self) -> bool:
        return self._waiting_bytes > MAX_WAITING_BYTES

    def take(self, now: float, *, everything: bool) -> Text | Message | None:
        """The next message, or all text up to where its message ends. Text that nothing has ended yet has to have
        been here for a while, unless `everything` must leave. None when there is none."""
        items = self._items
        while items:
            first = items.popleft()
            if type(first) is Message:
                self._left(first.size + ITEM_BYTES)
                return first
            if first is not None:
                assert type(first) is Text
                return self._take_text(first, now, everything)
        return None

    def _take_text(self, first: Text, now: float, everything: bool) -> Text | None:
        items = self._items
        if not everything and not self.is_full and not self._is_ended(first):
            if first is not self._held:
                self._held, self._held_at = first, now
            if now < self._held_at + LINGER_SECONDS:
                items.appendleft(first)
                return None
        offset, self._offset = self._offset, 0
        end = offset + MAX_TEXT
        if len(first.text) > end:
            items.appendleft(first)
            self._offset = end
            self._left(MAX_TEXT)
            return first._replace(text=first.text[offset:end])
        pieces = [first.text[offset:] if offset else first.text]
        size = len(pieces[0])
        left = size + ITEM_BYTES
        while items:
            item = items[0]
            if type(item) is not Text or item.parent is not first.parent or item.name != first.name:
                if item is None:
                    items.popleft()
                break
            size += len(item.text)
            if size > MAX_TEXT:
                break
            pieces.append(item.text)
            left += len(item.text) + ITEM_BYTES
            items.popleft()
        self._left(left)
        return first._replace(text="".join(pieces)) if len(pieces) > 1 or offset else first

    def _is_ended(self, first: Text) -> bool:
        """Whether something follows that ends the message which begins with `first`."""
        for at in range(min(len(self._items), LOOK_AHEAD)):  # by number: others append meanwhile
            item = self._items[at]
            if type(item) is not Text or item.parent is not first.parent or item.name != first.name:
                return True
        return len(self._items) > LOOK_AHEAD

    def _left(self, size: int) -> None:
        with self._lock:
            self._waiting_bytes = self._waiting_bytes - size if self._items else 0  # so that no error adds up
            if self._waiting_bytes <= MAX_WAITING_BYTES // 2:
                self._room.notify_all()
