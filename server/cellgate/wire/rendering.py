"""What became of a cell as text for a language model, within so many characters.

    Result ── render ──▶ "[error ...]"  how it ended, if not well
                         the traceback, its own frames before those of libraries
                         what was displayed, printed, returned; images as placeholders
                         notices, and the names that it bound

What is too long is cut in its middle, where it says how much is missing and how to get it. Escape sequences are taken
out, and of a line that was written over and over (a progress bar) the last state is left. Pure.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellgate.wire.result import Result

__all__ = ["DEFAULT_CHARS", "MIN_CHARS", "PARTS", "Image", "clean", "images_of", "part_of", "render", "shorten"]

DEFAULT_CHARS = 12_000  # some 3,000 tokens: a page or two of a conversation
MIN_CHARS = 200  # below it no cut could be told
PARTS = ("error", "stdout", "stderr", "outputs")  # that can be had whole, by name
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
LIBRARY_FRAMES = 8  # named at most
SHOWN_NAMES = 20  # of each list in a diff
LONG_SECONDS = 1.0  # from which on the time is worth telling

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours and the like
    r"|\x1b[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # strings to the terminal
    r"|\x1b[ -/]*[0-~]"
    r"|[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]"
    r"|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # what makes text read as other text
)
_ONLY_AN_OBJECT = re.compile(r"<IPython\.core\.display\.\w+ object>|<Figure size .*>")
_OWN_FRAME = re.compile(r"(Cell In ?\[|Input In ?\[|File <ipython-input|File (?!.*(site-packages|/lib/python\d)))")
_FRAME = re.compile(r"(Cell In|Input In|File )")
_TAGS = re.compile(r"<(script|style)\b[^<]*</\1>|<[^<>]*>", re.IGNORECASE)  # linear, whatever the page


@dataclass(frozen=True)
class Image:
    """One that a cell displayed, as MIME bundles have it."""

    mime: str
    base64: str
    size: tuple[int, int] | None  # in pixels, where it is easily known

    @property
    def bytes(self) -> int:
        return len(self.base64.rstrip("=")) * 3 // 4


@dataclass(frozen=True)
class _Section:
    """A part of the text. `name` is one of PARTS, or nothing for what is never cut."""

    name: str
    text: str
    head: float = 0.5  # of what is left of it, the share that is from its beginning


def render(result: Result, *, max_chars: int = DEFAULT_CHARS, rest: str = "") -> str:
    """The text, `max_chars` at most. `rest` says how to get all of a part, as in "read_output(part='{part}')"."""
    sections = [section for section in _sections(result) if section.text]
    if not sections:
        return "(no output)"[:max_chars]
    fixed = sum(len(section.text) + 1 for section in sections if not section.name)
    shares = _shares([len(section.text) for section in sections if section.name], max_chars - fixed - len(sections))
    sizes = iter(shares)
    texts = [_cut(section, next(sizes), rest) if section.name else section.text for section in sections]
    whole = "\n".join(texts)
    return whole if len(whole) <= max_chars else _middle(whole, max_chars, "…", 0.5)


def part_of(result: Result, part: str) -> str:
    """All of one of PARTS."""
    if part in ("stdout", "stderr"):
        return clean(getattr(result, part))
    return _error(result) if part == "error" else _outputs(result)


def images_of(result: Result) -> list[Image]:
    """In the order in which placeholders number them."""
    return [image for output in result.outputs if (image := _image(output["data"]))]


def clean(text: str) -> str:
    """Without what a terminal would obey; of each line what was written last."""
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    if "\r" not in text and "\b" not in text:
        return text
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return "\n".join(lines).replace("\b", "")


# -- the parts ---------------------------------------------------------------------------------------------


def _sections(result: Result) -> list[_Section]:
    return [
        _Section("", _ending(result)),
        _Section("error", _error(result), head=0.8),
        _Section("outputs", _outputs(result)),
        _Section("stdout", clean(result.stdout).rstrip("\n")),
        _Section("stderr", _labelled("stderr:", clean(result.stderr).rstrip("\n")), head=0.3),
        _Section("", _notices(result)),
        _Section("", _diff(result.diff)),
    ]


def _ending(result: Result) -> str:
    """A line, unless it went well and fast."""
    wall = result.metrics.get("wall")
    took = f" after {wall:.3g} s" if isinstance(wall, (int, float)) and wall >= LONG_SECONDS else ""
    if result.is_ok:
        return f"[ok{took}]" if took else ""
    words = [word for word in (result.status, result.reason if result.reason != result.status else "") if word]
    sentence = f": {clean(result.sentence)[:400]}" if result.sentence else ""
    return f"[{' '.join(words) or 'still running'}{took}{sentence}]"


def _error(result: Result) -> str:
    if result.error is None:
        return ""
    name, value = (clean(str(result.error.get(key, ""))) for key in ("name", "value"))
    frames = [clean(str(frame)).strip("\n") for frame in result.error.get("traceback") or ()]
    frames = [frame for frame in frames if _FRAME.match(frame)]
    own = [frame for frame in frames if _OWN_FRAME.match(frame)]
    others = [frame.partition("\n")[0] for frame in frames if not _OWN_FRAME.match(frame)]
    if len(others) > LIBRARY_FRAMES:
        others = [*others[: LIBRARY_FRAMES // 2], "…", *others[-LIBRARY_FRAMES // 2 :]]
    through = ["raised in libraries, innermost last:", *(f"  {line}" for line in others)] if others else []
    return "\n".join([f"{name}: {value}" if value else name, *own, *through])


def _outputs(result: Result) -> str:
    texts = []
    numbers = iter(range(1, len(result.outputs) + 1))
    for output in result.outputs:
        data = output["data"]
        if image := _image(data):
            size = "" if image.size is None else f", {image.size[0]} × {image.size[1]} pixels"
            texts.append(f"[image {next(numbers)}: {image.mime}{size}, {image.bytes} bytes]")
        else:
            texts.append(clean(_text(data)).rstrip("\n"))
    return "\n".join(texts)


def _text(data: Mapping[str, Any]) -> str:
    """The plainest form that says something."""
    plain = _joined(data.get("text/plain"))
    if plain and not _ONLY_AN_OBJECT.fullmatch(plain.strip()):
        return plain
    for mime in ("text/markdown", "text/latex", "image/svg+xml"):
        if text := _joined(data.get(mime)):
            return text
    if "application/json" in data:
        return json.dumps(data["application/json"], ensure_ascii=False)
    if page := _joined(data.get("text/html")):
        lines = (line.strip() for line in html.unescape(_TAGS.sub(" ", page)).splitlines())
        return "\n".join(line for line in lines if line)
    return plain or f"[{', '.join(map(str, data)) or 'nothing'}]"


def _joined(value: Any) -> str:
    """Notebook files have lists of lines."""
    return "".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else ""


def _image(data: Mapping[str, Any]) -> Image | None:
    for mime in IMAGES:
        if base64 := _joined(data.get(mime)).replace("\n", ""):
            return Image(mime, base64, _size(mime, base64))
    return None


def _size(mime: str, base64: str) -> tuple[int, int] | None:
    """Of a PNG, whose header has it in bytes 16 to 24."""
    try:
        head = b64decode(base64[:32], validate=True)
    except ValueError:
        return None
    if mime != "image/png" or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _notices(result: Result) -> str:
    said = [clean(str(notice.get("text", ""))).strip() for notice in result.notices]
    missing = result.truncated or {}
    if missing and not any(notice.get("note") == "output_truncated" for notice in result.notices):
        said.append(f"[{missing.get('messages')} messages, {missing.get('bytes')} bytes of output are missing]")
    return "\n".join(text[:500] for text in said[:10] if text)


def _diff(diff: Mapping[str, Sequence[str]] | None) -> str:
    words = []
    for kind in ("added", "changed", "removed"):
        if found := (diff or {}).get(kind):
            more = f", and {len(found) - SHOWN_NAMES} more" if len(found) > SHOWN_NAMES else ""
            words.append(f"{kind} {', '.join(map(str, found[:SHOWN_NAMES]))}{more}")
    return f"[names: {'; '.join(words)}]" if words else ""


def _labelled(label: str, text: str) -> str:
    return f"{label}\n{text}" if text else ""


def shorten(text: str, max_chars: int, *, head: float = 0.5) -> str:
    """The same in so many characters, cut in the middle with a word on how much there was."""
    return _cut(_Section("text", text, head), max_chars, "")


# -- within so many characters ----------------------------------------------------------------------------


def _shares(sizes: Iterable[int], room: int) -> list[int]:
    """What each may have: all that it needs if there is room, else as much as any other that needs more."""
    wanted = list(sizes)
    shares = [0] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    for done, at in enumerate(order):
        shares[at] = min(wanted[at], max(room, 0) // (len(wanted) - done))
        room -= shares[at]
    return shares


def _cut(section: _Section, room: int, rest: str) -> str:
    if len(section.text) <= room:
        return section.text
    how = f"; {rest.format(part=section.name)} has all" if rest else ""
    mark = f"\n[… {len(section.text)} characters in all, the middle is not shown{how} …]\n"
    return _middle(section.text, room, mark, section.head)


def _middle(text: str, room: int, mark: str, head: float) -> str:
    """The beginning and the end, at the ends of lines where there are some near."""
    if len(text) <= room:
        return text
    left = room - len(mark)
    if left <= 0:
        return text[:room]
    first = int(left * head)
    last = left - first
    begin, end = text[:first], text[len(text) - last :] if last else ""
    begin = begin[: at + 1] if (at := begin.rfind("\n")) > first // 2 else begin
    end = end[at + 1 :] if 0 <= (at := end.find("\n")) < last // 2 else end
    return f"{begin.rstrip(chr(10))}{mark}{end}"
