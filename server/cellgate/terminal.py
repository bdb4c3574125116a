"""Makes text that came out of a sandbox safe to show on a terminal.

A terminal obeys what is printed to it: titles, clipboard writes, hyperlinks, answers typed back as input, and text that
hides or reorders other text. What passes here is text, colours (SGR), "erase to the end of the line", and the four
movements that progress bars and tables need: newline, carriage return, backspace, tab. All else is dropped. Pure;
knows nothing of descriptors, nor whether there is a terminal at all.
"""

from __future__ import annotations

import re

__all__ = ["TerminalFilter", "one_line"]

# An escape sequence that is not complete after so many characters is no colour: it is dropped. The longest
# SGR in use (two true colours and the attributes) has some 60.
MAX_PENDING_CHARACTERS = 256

_SEQUENCE = re.compile(
    r"(?P<kept>\x1b\[[0-9;:]*[mK])"  # SGR, and erase in line
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # any other control sequence
    r"|(?P<string>\x1b[PX\]^_]|[\x90\x98\x9d\x9e\x9f])"  # DCS, SOS, OSC, PM, APC: a string up to its terminator
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"  # any other escape
    r"|(?P<pending>(?:\x1b\[|\x9b)[0-?]*[ -/]*\Z|\x1b[ -/]*\Z)"  # more may come in the next chunk
    r"|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # control characters, an ESC that begins nothing among them
    r"|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # bidirectional controls: they make text read as other text
)
_STRING_END = re.compile(r"\x07|\x9c|\x1b\\|[\x18\x1a]")
_RESET = "\x1b[0m"


class TerminalFilter:
    """One stream of text, fed in chunks that may cut a sequence anywhere."""

    def __init__(self) -> None:
        self._pending = ""
        self._in_string = False
        self._coloured = False

    def feed(self, text: str) -> str:
        """The part of `text`, and of what was held back before, that may be shown."""
        text = self._pending + text
        self._pending = ""
        shown: list[str] = []
        at = 0
        while at < len(text):
            if self._in_string:
                at = self._skip_string(text, at)
                continue
            found = _SEQUENCE.search(text, at)
            if found is None:
                shown.append(text[at:])
                break
            shown.append(text[at : found.start()])
            at = found.end()
            if found["kept"]:
                shown.append(found["kept"])
                self._coloured = self._coloured or found["kept"].endswith("m")
            elif found["string"]:
                self._in_string = True
            elif found["pending"] and len(found["pending"]) <= MAX_PENDING_CHARACTERS:
                self._pending = found["pending"]
        return "".join(shown)

    def close(self) -> str:
        """What to write at the end: colours back to normal, if any were set."""
        self._pending = ""
        return _RESET if self._coloured else ""

    def _skip_string(self, text: str, at: int) -> int:
        found = _STRING_END.search(text, at)
        if found:
            self._in_string = False
            return found.end()
        if text.endswith("\x1b"):  # perhaps the first half of ST
            self._pending = "\x1b"
        return len(text)


def one_line(text: str) -> str:
    """Text that may hold words of hostile code, as one line of plain characters."""
    if text.isprintable():  # nearly always
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
