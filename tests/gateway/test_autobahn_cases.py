"""The cases of Autobahn's test suite (25.10.1), by its numbers: what its fuzzing client sends, and what it takes for OK
in the strict sense. Where the suite would take a dropped connection too, a close frame with the right code must come.

The suite itself runs on Python 2.7 alone; see `test_autobahn.py`. Sections 12 and 13 are about compression, which is
never agreed on. Of section 9 the sizes are here, and not the times.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from tests.support.websocket import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Echo,
    Got,
    RawClient,
    close,
    frame,
    serve,
)

HELLO = b"Hello, world!"
KOSME = bytes.fromhex("ceba e1bdb9 cf83 cebc ceb5")  # κόσμε

OCTETS = 1  # a chop size


@dataclass(frozen=True)
class Case:
    sent: bytes
    answers: Sequence[Got] = ()
    code: int | None = None  # that the server closes with; None when it does not, and answers our close
    chop: int = 0  # bytes at a time; 0 for all at once


def failed(code: int, *sent: bytes, answers: Sequence[Got] = (), chop: int = 0) -> Case:
    return Case(b"".join(sent), answers, code, chop)


def echoed(opcode: int, data: bytes, *, chop: int = 0, fragment: int = 0) -> Case:
    size = fragment or len(data) or 1
    parts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    return Case(fragments(opcode, *parts), [Got(opcode, data)], chop=chop)


def fragments(opcode: int, *parts: bytes) -> bytes:
    last = len(parts) - 1
    return b"".join(frame(0 if at else opcode, part, fin=at == last) for at, part in enumerate(parts))


def framing() -> Iterator[tuple[str, Case]]:
    sizes = (0, 125, 126, 127, 128, 65535, 65536)
    for section, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate(sizes, 1):
            yield f"1.{section}.{number}", echoed(opcode, byte * size)
        yield f"1.{section}.8", echoed(opcode, byte * 65536, chop=997)


def pings() -> Iterator[tuple[str, Case]]:
    payloads = (b"", HELLO, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125)
    for number, data in enumerate(payloads, 1):
        yield f"2.{number}", Case(frame(PING, data), [Got(PONG, data)])
    yield "2.5", failed(1002, frame(PING, b"\xfe" * 126))
    yield "2.6", Case(frame(PING, b"\xfe" * 125), [Got(PONG, b"\xfe" * 125)], chop=OCTETS)
    yield "2.7", Case(frame(PONG))
    yield "2.8", Case(frame(PONG, b"unsolicited pong payload"))
    yield "2.9", Case(frame(PONG, b"unsolicited pong payload") + frame(PING, b"ping"), [Got(PONG, b"ping")])
    ten = [b"payload-%d" % number for number in range(10)]
    many, answers = b"".join(frame(PING, data) for data in ten), [Got(PONG, data) for data in ten]
    yield "2.10", Case(many, answers)
    yield "2.11", Case(many, answers, chop=OCTETS)


def reserved_bits() -> Iterator[tuple[str, Case]]:
    after_echo = [(2, TEXT, HELLO, 0), (3, TEXT, HELLO, 7), (4, TEXT, HELLO, OCTETS)]
    yield "3.1", failed(1002, frame(TEXT, HELLO, rsv=1))
    for rsv, opcode, data, chop in after_echo:
        sent = (frame(TEXT, HELLO), frame(opcode, data, rsv=rsv), frame(PING))
        yield f"3.{rsv}", failed(1002, *sent, answers=[Got(TEXT, HELLO)], chop=chop)
    yield "3.5", failed(1002, frame(BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", rsv=5))
    yield "3.6", failed(1002, frame(PING, HELLO, rsv=6))
    yield "3.7", failed(1002, frame(CLOSE, rsv=7))


def reserved_opcodes() -> Iterator[tuple[str, Case]]:
    for section, first in ((1, 3), (2, 11)):
        yield f"4.{section}.1", failed(1002, frame(first))
        yield f"4.{section}.2", failed(1002, frame(first + 1, b"reserved opcode payload"))
        for number, (data, chop) in enumerate([(b"", 0), (HELLO, 0), (HELLO, OCTETS)], 3):
            sent = (frame(TEXT, HELLO), frame(first + number - 1, data), frame(PING))
            yield f"4.{section}.{number}", failed(1002, *sent, answers=[Got(TEXT, HELLO)], chop=chop)


def fragmentation() -> Iterator[tuple[str, Case]]:
    one, two, three = b"fragment1", b"fragment2", b"fragment3"
    whole = Got(TEXT, one + two)
    for number, opcode in ((1, PING), (2, PONG)):
        yield f"5.{number}", failed(1002, fragments(opcode, one, two))
    with_ping = frame(TEXT, one, fin=False) + frame(PING, b"pongme") + frame(0, two)
    nothing_to_continue = {
        fin: frame(0, b"non-continuation payload", fin=fin) + frame(TEXT, HELLO) for fin in (True, False)
    }
    for number, chop in enumerate((0, 7, OCTETS)):
        yield f"5.{3 + number}", Case(fragments(TEXT, one, two), [whole], chop=chop)
        yield f"5.{6 + number}", Case(with_ping, [Got(PONG, b"pongme"), whole], chop=chop)
        yield f"5.{9 + number}", failed(1002, nothing_to_continue[True], chop=chop)
        yield f"5.{12 + number}", failed(1002, nothing_to_continue[False], chop=chop)
    sent = (fragments(TEXT, one, two), frame(0, three, fin=False), frame(TEXT, b"fragment4"))
    yield "5.15", failed(1002, *sent, answers=[whole])
    yield "5.16", failed(1002, *(frame(0, one, fin=False), frame(TEXT, two, fin=False), frame(0, three)) * 2)
    yield "5.17", failed(1002, *(frame(0, one), frame(TEXT, two, fin=False), frame(0, three)) * 2)
    yield "5.18", failed(1002, frame(TEXT, one, fin=False), frame(TEXT, two))
    parts = [b"fragment%d" % number for number in range(1, 6)]
    sent_frames = [frame(0 if at else TEXT, part, fin=at == 4) for at, part in enumerate(parts)]
    sent_frames[2:2], sent_frames[5:5] = [frame(PING, b"pongme 1!")], [frame(PING, b"pongme 2!")]
    answers = [Got(PONG, b"pongme 1!"), Got(PONG, b"pongme 2!"), Got(TEXT, b"".join(parts))]
    yield "5.19", Case(b"".join(sent_frames), answers)
    yield "5.20", Case(b"".join(sent_frames), answers, chop=15)


def sequences(is_valid: bool, *texts: str) -> list[tuple[bool, bytes]]:
    return [(is_valid, bytes.fromhex(text)) for text in texts]


CUT_SHORT = ("c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf")
LONELY = ((0xC0, 0xDF), (0xE0, 0xEF), (0xF0, 0xF7), (0xF8, 0xFB), (0xFC, 0xFD))
LAST_OF_PLANE = [
    bytes([a, b, 0xBF, c]) for a in range(0xF0, 0xF5) for b in (0x8F, 0x9F, 0xAF, 0xBF) for c in (190, 191)
]

# Sections 6.5 to 6.23: what a text frame carries, and whether that is UTF-8.
UTF8: list[list[tuple[bool, bytes]]] = [
    [(True, f"hello{char}world".encode()) for char in "$¢€\U00024b62"] + [(True, KOSME)],
    [(size in (2, 5, 7, 9, 11), KOSME[:size]) for size in range(1, 12)],
    sequences(True, "00", "c280", "e0a080", "f0908080"),
    sequences(False, "f888808080", "fc8480808080"),
    sequences(True, "7f", "dfbf", "efbfbf", "f48fbfbf"),
    sequences(False, "f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf"),
    sequences(True, "ed9fbf", "ee8080", "efbfbd", "f48fbfbf") + sequences(False, "f4908080"),
    sequences(False, "80", "bf", *(("80bf" * 3)[: 2 * size] for size in range(2, 7)), bytes(range(0x80, 0xBF)).hex()),
    sequences(False, *("".join(f"{byte:x}20" for byte in range(*bounds)) for bounds in LONELY)),
    sequences(False, *CUT_SHORT),
    sequences(False, "".join(CUT_SHORT)),
    sequences(False, "fe", "ff", "fefeffff"),
    sequences(False, "c0af", "e080af", "f08080af", "f8808080af", "fc80808080af"),
    sequences(False, "c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf"),
    sequences(False, "c080", "e08080", "f0808080", "f880808080", "fc8080808080"),
    sequences(False, "eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf"),
    sequences(False, *(a + b for a in ("eda080", "edadbf", "edae80", "edafbf") for b in ("edb080", "edbfbf"))),
    sequences(True, "efbfbe", "efbfbf")
    + [(True, data) for data in LAST_OF_PLANE if b"\xf0\x90" <= data[:2] < b"\xf4\x90"],
    sequences(True, *(f"efbf{byte:x}" for byte in range(0xB9, 0xC0))),
]


def utf8() -> Iterator[tuple[str, Case]]:
    bad, empty, text = KOSME + b"\xed\xa0\x80edited", Got(TEXT, b""), "Hello-µ@ßöäüàá-UTF-8!!".encode()
    yield "6.1.1", Case(frame(TEXT), [empty])
    yield "6.1.2", Case(fragments(TEXT, b"", b"", b""), [empty])
    yield "6.1.3", Case(fragments(TEXT, b"", b"middle frame payload", b""), [Got(TEXT, b"middle frame payload")])
    yield "6.2.1", echoed(TEXT, text)
    yield "6.2.2", Case(fragments(TEXT, text[:12], text[12:]), [Got(TEXT, text)])
    yield "6.2.3", echoed(TEXT, text, fragment=1)
    yield "6.2.4", echoed(TEXT, KOSME, fragment=1)
    yield "6.3.1", failed(1007, frame(TEXT, bad))
    yield "6.3.2", failed(1007, *(frame(0 if at else TEXT, bad[at : at + 1], fin=False) for at in range(len(bad))))
    # What these send last, the server must not wait for: it is not sent here. The pong shows that it waited for the
    # byte that is wrong.
    pong = [Got(PONG, b"")]
    cut = {1: (KOSME, b"\xf4\x90\x80\x80"), 2: (KOSME + b"\xf4", b"\x90")}
    for number, (good, wrong) in cut.items():
        sent = (frame(TEXT, good, fin=False), frame(PING), frame(0, wrong, fin=False))
        yield f"6.4.{number}", failed(1007, *sent, answers=pong)
    yield "6.4.3", failed(1007, frame(TEXT, KOSME + b"\xf4\x90\x80\x80edited")[: -len(b"edited")])
    yield "6.4.4", failed(1007, frame(TEXT, KOSME + b"\xf4\x90\x80\x80edited")[: -len(b"\x80\x80edited")])
    for section, texts in enumerate(UTF8, 5):
        for number, (is_valid, data) in enumerate(texts, 1):
            yield f"6.{section}.{number}", echoed(TEXT, data) if is_valid else failed(1007, frame(TEXT, data))


def closing() -> Iterator[tuple[str, Case]]:
    bye, hello = close(1000), frame(TEXT, HELLO)
    yield "7.1.1", failed(1000, hello, bye, answers=[Got(TEXT, HELLO)])
    yield "7.1.2", failed(1000, bye, bye)
    yield "7.1.3", failed(1000, bye, frame(PING))
    yield "7.1.4", failed(1000, bye, hello)
    yield "7.1.5", failed(1000, frame(TEXT, b"fragment1", fin=False), bye, frame(0, b"fragment2"))
    large = b"BAsd7&jh23" * 26215
    yield (
        "7.1.6",
        failed(1000, frame(TEXT, large), hello, bye, frame(PING), answers=[Got(TEXT, large), Got(TEXT, HELLO)]),
    )
    yield "7.3.1", failed(0, frame(CLOSE))
    yield "7.3.2", failed(1002, frame(CLOSE, b"a"))
    yield "7.3.3", failed(1000, bye)
    yield "7.3.4", failed(1000, close(1000, HELLO))
    yield "7.3.5", failed(1000, close(1000, b"*" * 123))
    yield "7.3.6", failed(1002, close(1000, b"*" * 124))
    yield "7.5.1", failed(1007, close(1000, KOSME + b"\xed\xa0\x80edited"))
    for number, code in enumerate((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999), 1):
        yield f"7.7.{number}", failed(code, close(code))
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield f"7.9.{number}", failed(1002, close(code))
    for number, code in enumerate((5000, 65535), 1):  # the suite has no opinion; 1002 is ours
        yield f"7.13.{number}", failed(1002, close(code))


def sizes() -> Iterator[tuple[str, Callable[[], Case]]]:
    """Made when they are sent: together they have 300 MB, and every process that a test forks would inherit them."""
    kib, mib = 1 << 10, 1 << 20
    for section, opcode, byte in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for number, size in enumerate((64 * kib, 256 * kib, mib, 4 * mib, 8 * mib, 16 * mib), 1):
            yield f"9.{section}.{number}", partial(sized, opcode, byte, size)
        for number in range(9):
            yield f"9.{2 + section}.{number + 1}", partial(sized, opcode, byte, 4 * mib, fragment=64 << 2 * number)
        for number in range(6):
            yield f"9.{4 + section}.{number + 1}", partial(sized, opcode, byte, mib, chop=64 << number)
        for number, size in enumerate((0, 16, 64, 256, 1024, 4096), 1):
            yield f"9.{6 + section}.{number}", partial(thousand, opcode, byte * size)
    yield "10.1.1", partial(sized, TEXT, b"*", 65536, fragment=1300)


def sized(opcode: int, byte: bytes, size: int, *, chop: int = 0, fragment: int = 0) -> Case:
    return echoed(opcode, byte * size, chop=chop, fragment=fragment)


def thousand(opcode: int, data: bytes) -> Case:
    return Case(frame(opcode, data) * 1000, [Got(opcode, data)] * 1000)


SECTIONS = (framing, pings, reserved_bits, reserved_opcodes, fragmentation, utf8, closing, sizes)
CASES: dict[str, Case | Callable[[], Case]] = dict(itertools.chain.from_iterable(section() for section in SECTIONS))


class LargeEcho(Echo):
    max_message_size = 16 << 20


@pytest.mark.parametrize("number", CASES)
async def test_it_answers_as_the_suite_wants_it(number):
    found = CASES[number]
    case = found if isinstance(found, Case) else found()
    async with serve(LargeEcho) as stage:
        client = await RawClient.connect(stage.port)
        chop = case.chop or len(case.sent)
        for at in range(0, len(case.sent), chop):
            client.send(case.sent[at : at + chop])
            if case.chop:
                await client.writer.drain()
        assert [await client.read() for _ in case.answers] == list(case.answers)
        if case.code is None:
            client.send(close(1000))
        (last,) = await client.read_all()  # the close frame, and then the end of the connection
        assert last.opcode == CLOSE
        assert int.from_bytes(last.data[:2], "big") == (1000 if case.code is None else case.code)


def test_all_of_the_suites_cases_are_here():
    counts = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1}
    seen = [int(number.partition(".")[0]) for number in CASES]
    assert {section: seen.count(section) for section in sorted(set(seen))} == counts
