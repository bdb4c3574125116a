"""The records of a journal, and how they lie in its segment files. Pure: bytes and values, no file.

A segment is a head (magic, number of its first record, number the link had reached before it, checksum) and
records. A record is a fixed header, then client, tag and body. The header's own checksum makes its length
trustworthy: one whose contents are damaged can be stepped over, and costs no other. PROTOCOL.md has the tables.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

from cellgate_kernel.message import Channel, MessageError, Status, Tag

__all__ = [
    "CARRIED",
    "HEAD_BYTES",
    "MARK_BYTES",
    "RECORD_BYTES",
    "Encoded",
    "Frame",
    "Kind",
    "Marks",
    "Record",
    "decode",
    "encode",
    "frames",
    "has_intact_header",
    "pack_head",
    "unpack_head",
]

Buffer = bytes | bytearray | memoryview

MAGIC = b"cgjrnl\x00\x01"  # the last byte is the version
CARRIED = 0x80  # beside the kind of a copy from an older segment, which has its number from there
# Of a body longer than this the checksum covers every 256th byte: two of each sector of a disk. Pages and sectors are
# what a crash can lose; to read all of 64 KiB took a fifth of what it costs to relay them.
SAMPLED_FROM = 4 << 10
SAMPLED_EVERY = 256
MARK_BYTES = 16 << 10  # one entry of the index for so many bytes: a hundred small records to hop over, 50 us

_HEAD = struct.Struct("<8sQQ")  # magic, first, link; then the checksum
_CRC = struct.Struct("<I")
_CRCS = struct.Struct("<II")  # of the fields, of fields and contents
_FIELDS = struct.Struct("<IQQQBBH")  # length of the contents, seq, cell, link, kind, length of client, of tag
_RECORD = struct.Struct("<IIIQQQBBH")  # both
HEAD_BYTES = _HEAD.size + _CRC.size
RECORD_BYTES = _RECORD.size


class Kind(IntEnum):
    """What a record is. The journal itself heeds four of them, to know at any crash what was pending."""

    INCARNATION = 1  # a kernel has begun: link numbers start anew. The body is the session's own
    REQUEST = 2  # a cell was accepted: opens `cell`. The body is the client's message
    OUTPUT = 3  # what a kernel said, or what the gateway said for it
    TERMINAL = 4  # how a cell ended: closes `cell`
    NOTE = 5  # what the gateway has to say beside: a notice, a truncation, a death certificate
    CUT = 6  # the link's number was reached without OUTPUT. The body is the state of the cell's output cap


_KINDS = {kind.value: kind for kind in Kind}
_OUTPUT, _NOTE = Kind.OUTPUT, Kind.NOTE  # compared once a record: a global is found faster than a member
NO_TAG = Tag(Channel.SHELL, "", Status.NONE, b"")


class Record(NamedTuple):
    """One thing that was said. Its sequence number is given by `append`, and filled in by `read`."""

    kind: Kind
    cell: int = 0  # which cell it belongs to; 0 for none. A cell's key is the sequence number of its REQUEST
    link: int = 0  # number of the link's message that brought it; 0 when none did
    client: bytes = b""  # whom it is for, or from (REQUEST); b"" for all. At most 255 bytes
    tag: Tag = NO_TAG
    body: Buffer = b""  # the v1 message; from `read` a view of what was read
    seq: int = 0


class Marks:
    """A sparse index of a segment: about 16 bytes of memory for MARK_BYTES of file."""

    __slots__ = ("_offsets", "_seqs")

    def __init__(self) -> None:
        self._seqs = array("Q")
        self._offsets = array("Q")

    @property
    def due_at(self) -> int:
        """From which offset on the next record wants a mark."""
        return self._offsets[-1] + MARK_BYTES if self._offsets else 0

    def add(self, seq: int, offset: int) -> int:
        """Marks a record, and returns the new `due_at`."""
        self._seqs.append(seq)
        self._offsets.append(offset)
        return offset + MARK_BYTES

    def before(self, seq: int) -> tuple[int, int] | None:
        """Number and offset of the last mark that is not behind `seq`."""
        at = bisect_right(self._seqs, seq) - 1
        return (self._seqs[at], self._offsets[at]) if at >= 0 else None


# -- writing -------------------------------------------------------------------------------------------


class Encoded(NamedTuple):
    pieces: list[Buffer]
    size: int
    link: int  # the highest link number now
    heeded: list[Record]  # those which are not OUTPUT or NOTE, numbered, and on their own bytes


def sample(body: Buffer) -> bytes:
    return bytes(memoryview(body)[::SAMPLED_EVERY])


def pack_head(first: int, link: int) -> bytes:
    head = _HEAD.pack(MAGIC, first, link)
    return head + _CRC.pack(crc32(head))


def encode(records: Sequence[Record], seq: int, link: int, at: int, marks: Marks | None, flag: int = 0) -> Encoded:
    """What to write for these records, numbered from `seq`, when the first lies at offset `at`. The hot path: 100
    records of 100 bytes take some 100 microseconds."""
    pieces: list[Buffer] = []
    heeded: list[Record] = []
    pack_fields, pack_crcs = _FIELDS.pack, _CRCS.pack
    begin, due_at = at, marks.due_at if marks else 1 << 63
    last_tag: Tag | None = None
    packed = b""
    for record in records:
        kind, cell, number, client, tag, body, _ = record
        if tag is not last_tag and tag != last_tag:  # output comes in runs: packing costs half of all the rest
            last_tag, packed = tag, tag.pack()
        client_size, tag_size, body_size = len(client), len(packed), len(body)
        size = client_size + tag_size + body_size
        fields = pack_fields(size, seq, cell, number, kind | flag, client_size, tag_size)
        who = client + packed
        fields_crc = crc32(fields)
        checked = body if body_size <= SAMPLED_FROM else sample(body)
        pieces += (pack_crcs(fields_crc, crc32(checked, crc32(who, fields_crc))), fields, who, body)
        if kind is not _OUTPUT and kind is not _NOTE:
            heeded.append(Record(kind, cell, number, client, tag, bytes(body), seq))
            if kind is Kind.INCARNATION:
                link = 0
        if number > link:  # noqa: PLR1730 - max() takes three times as long
            link = number
        if at >= due_at and marks:
            due_at = marks.add(seq, at)
        at += RECORD_BYTES + size
        seq += 1
    return Encoded(pieces, at - begin, link, heeded)


# -- reading -------------------------------------------------------------------------------------------


class Frame(NamedTuple):
    """Where a record with an intact header lies; of its contents nothing is known yet."""

    at: int
    end: int
    seq: int
    kind: int
    is_carried: bool


def unpack_head(data: bytes) -> tuple[int, int] | None:
    """The number of the segment's first record and that of the link before it; None if this is no segment."""
    if len(data) < HEAD_BYTES:
        return None
    magic, first, link = _HEAD.unpack_from(data)
    is_whole = crc32(data[: _HEAD.size]) == _CRC.unpack_from(data, _HEAD.size)[0]
    return (first, link) if magic == MAGIC and is_whole and first else None


def has_intact_header(data: bytes, at: int) -> bool:
    if len(data) - at < RECORD_BYTES:
        return False
    return bool(crc32(data[at + _CRCS.size : at + RECORD_BYTES]) == _CRC.unpack_from(data, at)[0])


def frames(data: bytes, at: int, seq: int) -> Iterator[Frame]:
    """The records from offset `at` on, of which the first that is not carried has the number `seq`; up to the
    first whose header is damaged or does not follow. The last may end behind the end of the data."""
    while has_intact_header(data, at):
        _, _, length, number, _, _, kind, _, _ = _RECORD.unpack_from(data, at)
        is_carried = bool(kind & CARRIED)
        if not is_carried and number != seq:
            return
        end = at + RECORD_BYTES + length
        yield Frame(at, end, number, kind & ~CARRIED, is_carried)
        seq += not is_carried
        at = end


def decode(data: bytes, at: int, seq: int, *, carried: bool = False) -> tuple[list[Record], int]:
    """The records from offset `at` on, numbered from `seq`, up to the first that is not whole or damaged; and
    where they end. Their bodies are views of `data`. Of `carried` ones, whose numbers do not follow, one."""
    records: list[Record] = []
    size, view, unpack = len(data), memoryview(data), _RECORD.unpack_from
    last_packed: bytes | None = None
    tag = NO_TAG
    flag = CARRIED if carried else 0
    while size - at >= RECORD_BYTES:
        _, crc, length, number, cell, link, kind, client_size, tag_size = unpack(data, at)
        contents = at + RECORD_BYTES
        end = contents + length
        at_tag = contents + client_size
        at_body = at_tag + tag_size
        if end > size or at_body > end or number != seq:
            break
        if end - at_body <= SAMPLED_FROM:
            found = crc32(view[at + _CRCS.size : end])
        else:
            found = crc32(sample(view[at_body:end]), crc32(view[at + _CRCS.size : at_body]))
        if found != crc:
            break
        packed = data[at_tag:at_body]
        if packed != last_packed:
            try:
                tag, _ = Tag.unpack(memoryview(packed))
            except MessageError:  # whole, but of a version that knows more
                break
            last_packed = packed
        known = _KINDS.get(kind ^ flag)
        if known is None:
            break
        records.append(Record(known, cell, link, data[contents:at_tag], tag, view[at_body:end], seq))
        at = end
        if carried:
            break
        seq += 1
    return records, at
