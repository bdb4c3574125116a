"""Reads shell code by its syntax tree: the programs that commands start, also behind `sudo`, `xargs` or `sh -c`, the
files that they are joined to, and the words that are paths or addresses.

A word is followed as far as quotes, assignments and aliases go. Nothing else is expanded: a command that is named by
what another one prints is known as computed, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tree_sitter import Node

from cellgate.policy import trees
from cellgate.policy.facts import MAX_TEXT_CHARS, Bounds, Kind, Reading, Seen

__all__ = ["read"]

MAX_INSIDE: Final = 3  # `sh -c "sh -c '…'"`
MAX_WORDS: Final = 256  # of one command that are looked at for another one
MAX_PARTS: Final = 64  # of one word
MAX_VALUES: Final = 16  # of one variable
MAX_EXPANDED_CHARS: Final = 10_000  # of one word are variables', each of which may hold others many times

_STRINGS: Final = frozenset(("word", "string", "raw_string", "ansi_c_string", "concatenation"))
_KINDS: Final = _STRINGS | {
    *("command", "pipeline", "function_definition", "variable_assignment", "file_redirect"),
    *("heredoc_body", "herestring_redirect"),
}
_SHELLS: Final = frozenset(("sh", "bash", "zsh", "dash", "ksh", "ash", "rbash"))
# Commands that start what their next words name: their options that take the word behind them.
_STARTERS: Final = {
    "builtin": "",
    "busybox": "",
    "chroot": "",
    "command": "",
    "coproc": "",
    "doas": "uC",
    "env": "uC",
    "exec": "a",
    "fakeroot": "",
    "ionice": "cnpPu",
    "nice": "n",
    "nohup": "",
    "parallel": "jI",
    "setsid": "",
    "stdbuf": "ioe",
    "strace": "eopPusaS",
    "sudo": "ughpCrtUDRT",
    "taskset": "",
    "time": "",
    "timeout": "sk",
    "watch": "n",
    "xargs": "nIPLdsEa",
}
_SKIPPING: Final = frozenset(("timeout", "chroot", "taskset"))  # that take a word of their own before
_FINDERS: Final = frozenset(("-exec", "-execdir", "-ok", "-okdir"))
_HARMLESS_FILES: Final = ("/dev/null", "/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/tty", "/dev/fd/")


def read(code: str, bounds: Bounds) -> Reading:
    """Every command and every literal word. Raises PolicyError."""
    return _Reader(code, bounds, MAX_INSIDE).read()


class _Reader:
    """Reads one text once."""

    def __init__(self, code: str, bounds: Bounds, inside: int) -> None:
        self._bounds = bounds
        self._inside_left = inside
        self._tree = trees.parse(code, "bash")
        self._nodes = self._tree.nodes("bash", _KINDS)
        self._facts: list[Seen] = []
        self._values: dict[str, list[str]] = {}
        self._aliases: dict[str, str] = {}
        self._functions: dict[str, int] = {}  # name -> where its body ends, once it has begun

    def read(self) -> Reading:
        strings = [node for node in self._nodes if node.type in _STRINGS]
        self._facts.extend(self._tree.sizes("bash", strings, self._bounds))
        for node in self._nodes:
            self._learn(node)
        for node in self._nodes:
            self._tell(node)
        facts = sorted(self._facts, key=lambda seen: seen.place[:2])
        return Reading(tuple(facts), self._tree.root.descendant_count, self._tree.depth)

    def _learn(self, node: Node) -> None:
        if node.type == "variable_assignment":
            name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
            said = self._said(value) if value else ()
            values = self._values.setdefault(_text(name) if name else "", [])
            values.extend(said[: MAX_VALUES - len(values)])
        elif node.type == "function_definition" and (name := node.child_by_field_name("name")):
            self._functions[_text(name)] = -1
        elif node.type == "command" and _text(node).startswith("alias"):
            for argument in node.children_by_field_name("argument")[:MAX_WORDS]:
                for one in self._said(argument):
                    alias, _, meant = one.partition("=")
                    self._aliases[alias] = meant

    def _tell(self, node: Node) -> None:
        match node.type:
            case "command":
                self._tell_command(node)
            case "pipeline":
                self._tell_pipeline(node)
            case "function_definition" if name := node.child_by_field_name("name"):
                self._functions[_text(name)] = node.end_byte
            case "file_redirect":
                self._tell_redirect(node)
            case _ if node.type in _STRINGS:
                end = min(node.end_byte, node.start_byte + MAX_TEXT_CHARS)
                said = self._tree.source[node.start_byte : end].decode("utf-8", "replace").strip("\"'")
                if "/" in said or "." in said:
                    self._say(Kind.TEXT, "", node, said)

    def _say(self, kind: Kind, name: str, node: Node, said: str) -> None:
        self._facts.append(Seen(kind, name, self._tree.place(node), said[:MAX_TEXT_CHARS], "bash"))

    # -- commands --------------------------------------------------------------------------------------------

    def _tell_command(self, node: Node) -> None:
        """What the command starts, and what that starts in turn."""
        name = node.child_by_field_name("name")
        if name is None:
            return
        words = [name, *node.children_by_field_name("argument")[:MAX_WORDS]]
        at: int | None = 0
        while at is not None and at < len(words):
            at = self._tell_program(node, words, at)

    def _tell_program(self, node: Node, words: list[Node], at: int) -> int | None:
        """The word that names a program; the index of the next such word, if it starts another."""
        said = self._said(words[at])
        if not said:
            self._say(Kind.COMPUTED, "command", words[at], _text(node))
        for whole in said:
            meant = self._aliases.get(whole, whole).strip()
            program = meant.partition(" ")[0].rpartition("/")[2]
            if program and whole not in self._functions:
                self._say(Kind.COMMAND, program, words[at], _text(node))
        program = said[0].rpartition("/")[2] if said else ""
        if program == "eval":
            self._read_inside(" ".join(self._first(words[at + 1 :])), node)
        elif program in _SHELLS:
            self._tell_shell(node, words, at)
        elif program == "find":
            return next((i + 1 for i in range(at, len(words)) if _text(words[i]) in _FINDERS), None)
        elif program in _STARTERS:
            return _next_program(program, [_text(word) for word in words], at + 1)
        return None

    def _tell_shell(self, node: Node, words: list[Node], at: int) -> None:
        for index in range(at + 1, len(words) - 1):
            option = _text(words[index])
            if option.startswith("-") and option.endswith("c"):
                for code in self._said(words[index + 1]):
                    self._read_inside(code, node)
                return

    def _read_inside(self, code: str, node: Node) -> None:
        if code and self._inside_left:
            inner = _Reader(code, self._bounds, self._inside_left - 1).read()
            place = self._tree.place(node)
            self._facts.extend(seen._replace(place=place) for seen in inner.facts if seen.kind is not Kind.UNPARSED)

    def _first(self, words: Iterable[Node]) -> Iterator[str]:
        for word in words:
            said = self._said(word)
            if not said:
                return
            yield said[0]

    def _tell_pipeline(self, node: Node) -> None:
        """A function that pipes itself into itself."""
        names = [
            _text(name)
            for part in node.named_children[:MAX_PARTS]
            if part.type == "command" and (name := part.child_by_field_name("name"))
        ]
        for function in set(names):
            if names.count(function) > 1 and node.end_byte <= self._functions.get(function, -1):
                self._say(Kind.PATTERN, "fork_loop", node, _text(node))

    def _tell_redirect(self, node: Node) -> None:
        """Files are commands here: `>` changes one, `<` looks at one."""
        to = node.child_by_field_name("destination")
        sign = next((child.type for child in node.children if not child.is_named), "")
        if to is None or to.type == "number":
            return
        for path in self._said(to) or ("",):
            if path.startswith(("/dev/tcp/", "/dev/udp/")):
                self._say(Kind.COMMAND, "/dev/tcp", node, _text(node))
            elif not path.startswith(_HARMLESS_FILES):
                self._say(Kind.COMMAND, ">" if ">" in sign else "<", node, _text(node))

    # -- words -----------------------------------------------------------------------------------------------

    def _said(self, word: Node) -> tuple[str, ...]:
        """What a word may say, quotes and known variables apart; nothing when only running tells."""
        found, waiting, expanded = [""], [word], 0
        for _ in range(MAX_PARTS):
            if not waiting:
                return tuple(found)
            node = waiting.pop()
            part: list[str] | None = None
            match node.type:
                case "word" | "string_content" | "number" | "variable_name" | "extglob_pattern":
                    part = [_text(node).replace("\\", "")]
                case "raw_string":
                    part = [_text(node)[1:-1]]
                case "ansi_c_string":
                    part = [trees.unescaped(_text(node)[2:-1])]
                case "simple_expansion" | "expansion" if node.named_child_count == 1:
                    part = self._values.get(_text(node.named_children[0]))
                    expanded += max(map(len, part or ("",)))
                case "command_name" | "concatenation" | "string" | "translated_string":
                    waiting.extend(reversed(node.named_children[:MAX_PARTS]))
                    continue
            if not part or expanded > MAX_EXPANDED_CHARS:
                return ()
            found = [before + one for before in found for one in part][:MAX_VALUES]
        return ()


def _next_program(starter: str, words: list[str], at: int) -> int | None:
    """Where what is started stands, behind options, their values and assignments."""
    takes, skip = _STARTERS[starter], starter in _SKIPPING
    while at < len(words):
        word = words[at]
        if word.startswith("-"):
            at += len(word) == 2 and word[1] in takes
        elif "=" not in word.partition("/")[0]:
            if not skip:
                return at
            skip = False
        at += 1
    return None


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
