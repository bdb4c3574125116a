"""What a reader sees in a piece of code: facts, each with the place where it stands.

The seam between readers and rules. A reader (`python`, `shell`, `syntax`) turns code of one language into a `Reading`
and knows no rule; `rules` looks each fact up in the words of its language and knows no syntax. Pure data.

A reader is `read(code, bounds) -> Reading`. It owes: never to execute anything of the code, never to raise anything but
PolicyError, and time and memory in proportion to the code's length. Facts of what is inside belong to it too: a Python
cell's hold those of the shell lines in it, each saying in which language it was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

__all__ = ["LANGUAGES", "MAX_TEXT_CHARS", "Bounds", "Kind", "Place", "Reading", "Seen", "language_named"]

# Every language that can be asked for, by the one name that all tables use.
LANGUAGES = (
    *("python", "bash", "javascript", "typescript", "ruby", "go"),
    *("rust", "java", "c", "cpp", "r"),
)
_OTHER_NAMES = {"python3": "python", "ipython": "python", "shell": "bash", "sh": "bash", "node": "javascript"}


def language_named(name: str) -> str:
    """The name here of what a kernelspec calls its language; the same name if none is known."""
    lower = name.strip().lower()
    return "cpp" if lower.startswith(("c++", "cpp")) else _OTHER_NAMES.get(lower, lower)


class Kind(str, Enum):
    """What sort of thing was seen; what `Seen.name` says then."""

    IMPORT = "import"  # a module is loaded: its full name as the language writes it ("os.path", "os/exec", "stdio.h")
    STAR_IMPORT = "star_import"  # the same, all of its names at once
    USE = "use"  # something by its resolved name, called or passed on: "os.system", "eval", "child_process.exec"
    ATTRIBUTE = "attribute"  # a bare attribute, of whatever object: "__globals__"
    NAME = "name"  # a plain name with a leading underscore, bound or read
    TEXT = "text"  # a literal string, cut to MAX_TEXT_CHARS
    COMPUTED = "computed"  # named by a value that only running tells; which way: "getattr", "import", "command"
    MAGIC = "magic"  # an IPython magic with its signs: "%time", "%%bash"
    COMMAND = "command"  # a program that a shell line starts: "curl"
    PATTERN = "pattern"  # a shape of several nodes that the reader knows by a name of its own: "fork_loop"
    LARGE = "large"  # something is beyond a bound; which: "code_bytes", "nesting", "literal_bytes"; text: the figure
    UNPARSED = "unparsed"  # the parser takes it for no code of this language; text: what it said


MAX_TEXT_CHARS = 1000  # of a literal are looked at: paths and addresses are shorter


class Place(NamedTuple):
    """From where to where, in the cell as it was typed. Lines count from 1, columns from 0 and in characters (code
    points, as `str` counts them; not bytes, not UTF-16); the end is the place behind the last character."""

    line: int
    column: int
    end_line: int
    end_column: int


class Seen(NamedTuple):
    """One fact."""

    kind: Kind
    name: str
    place: Place
    text: str = ""  # what else there is to say: the arguments of a magic, the whole shell line
    language: str = "python"  # whose words `name` is one of


@dataclass(frozen=True)
class Bounds:
    """What is larger is seen as LARGE, before it costs anything."""

    nesting: int  # brackets within brackets
    literal_bytes: int  # of one literal


@dataclass(frozen=True)
class Reading:
    """All that was seen in one piece of code, in the order of its text."""

    facts: tuple[Seen, ...]
    nodes: int = 0  # of the syntax tree
    depth: int = 0  # brackets within brackets
