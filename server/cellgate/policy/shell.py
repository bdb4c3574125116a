"""Reads shell lines, as far as words go: which program each command begins with, and words that are paths or addresses.

A reader by syntax sees more; until there is one, this finds commands behind `;`, `|`, `&` and line ends.
"""

from __future__ import annotations

import re

from cellgate.policy.facts import MAX_TEXT_CHARS, Bounds, Kind, Place, Reading, Seen

__all__ = ["read"]

_COMMAND = re.compile(r"[^;|&\n]+")
_WORD = re.compile(r"""(?:"[^"\n]*"|'[^'\n]*'|[^\s"'])+""")
_PREFIXES = re.compile(r"\w+=.*|if|then|else|elif|do|while|until|time|!|\{|\(")  # a command may stand behind them
_FORK_BOMB = re.compile(r"(\S+)\s*\(\)\s*\{[^}]*\1\s*\|\s*\1\s*&")


def read(code: str, bounds: Bounds) -> Reading:
    """Every command and every literal word. Nothing is expanded: what holds a `$` is not known."""
    facts: list[Seen] = []
    nodes = 0
    for number, line in enumerate(code.split("\n"), 1):
        if line.lstrip().startswith("#"):
            continue
        bomb = _FORK_BOMB.search(line)
        if bomb:
            facts.append(Seen(Kind.PATTERN, "fork_loop", Place(number, bomb.start(), number, bomb.end()), "", "bash"))
        for command in _COMMAND.finditer(line):
            at_start = True
            for word in _WORD.finditer(line, command.start(), command.end()):
                nodes += 1
                text = word[0].strip("\"'()")
                place = Place(number, word.start(), number, word.end())
                if "/" in text or "." in text:
                    facts.append(Seen(Kind.TEXT, "", place, text[:MAX_TEXT_CHARS], "bash"))
                if at_start and not _PREFIXES.fullmatch(word[0]):
                    facts.append(_command(text, place, line))
                    at_start = False
    return Reading(tuple(facts), nodes)


def _command(text: str, place: Place, line: str) -> Seen:
    if "$" in text or "`" in text:
        return Seen(Kind.COMPUTED, "command", place, line[:MAX_TEXT_CHARS], "bash")
    return Seen(Kind.COMMAND, text.rpartition("/")[2], place, line[:MAX_TEXT_CHARS], "bash")
