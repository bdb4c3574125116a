"""Files in the sandbox, for whoever asks over the link: also while a cell runs, and beside any kernel.

A thread of its own carries out one `files_request` after another, with the rights of the code in the sandbox: it keeps
nothing from that code, which may do all this by itself. What it owes is to the asker: bounded answers, a stable code
for each refusal, no waiting at what only looks like a file, and that an archive which is refused leaves nothing behind.

A file is read and written piece by piece, each in a request of its own, so that nobody has to hold a whole one. Who
writes a file that others may read writes it under another name, and renames it at the end. Archives are packed piece
by piece as well, and never lie anywhere; one that comes lies in the workspace, is looked through, unpacked beside its
place, and then moved there.
"""

from __future__ import annotations

import _thread
import errno
import heapq
import os
import shutil
import stat
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from .archives import BadArchive, Member, pack, read_members, unpack
from .compose import Request, RequestError

__all__ = ["ERRORS", "Files", "FilesError"]

MAX_PIECE_BYTES = 1 << 20  # of one read or write: a link's window holds four
MAX_LISTED = 500  # entries of one answer, which the host reads no more than 512 KiB of; the next goes on behind it
MAX_PATH_BYTES = 4095  # PATH_MAX without its NUL
MAX_WAITING = 64  # requests: each may bring a piece
MAX_PACKING = 8  # archives that are being fetched; beyond it the one that was asked for least recently is given up
PART_PREFIX = ".cellgate-"  # how the names of what is not finished begin
STALE_SECONDS = 3600.0  # since something of that name was written: whoever wrote it is gone

# Every code of a refusal, and what it means.
ERRORS = {
    "bad_request": "a field is missing, or is not what it should be",
    "bad_path": "no path that can be: it is too long, or has a NUL, or is the workspace itself",
    "outside": "a path that leads elsewhere than into the directories for work, home and temporary files",
    "no_such_file": "there is nothing of this name",
    "not_a_file": "it is a directory, or a pipe, a socket or a device",
    "not_a_directory": "it is no directory, or something on the way to it is none",
    "already_there": "there is something of this name already",
    "not_empty": "it is a directory with something in it",
    "not_permitted": "the sandbox does not permit it",
    "workspace_gone": "the work directory itself is not there any more",
    "file_too_large": "the file would be larger than one may be",
    "disk_full": "the workspace has no room, or no inodes",
    "bad_archive": "an archive that cannot be read, or has what is not unpacked",
    "unknown_handle": "no archive is being packed under this number",
    "files_failed": "something else went wrong",
}

_BY_ERRNO = {
    errno.ENOENT: "no_such_file",
    errno.EISDIR: "not_a_file",
    errno.ENXIO: "not_a_file",  # a pipe or socket that nobody reads
    errno.ENOTDIR: "not_a_directory",
    errno.EEXIST: "already_there",
    errno.ENOTEMPTY: "not_empty",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
    errno.EROFS: "not_permitted",
    errno.EBUSY: "not_permitted",
    errno.ETXTBSY: "not_permitted",
    errno.EINVAL: "bad_request",
    errno.ELOOP: "bad_path",
    errno.ENAMETOOLONG: "bad_path",
    errno.EXDEV: "bad_path",
    errno.EFBIG: "file_too_large",
    errno.EOVERFLOW: "file_too_large",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.ENOMEM: "disk_full",  # a tmpfs lives in the memory that the sandbox has
}

Content = dict[str, Any]
Operation = Callable[["Files", Mapping[str, Any], bytes], tuple[Content, bytes | None]]
Answer = Callable[[Request, Content, bytes | None], None]


class FilesError(Exception):
    """A request that is refused. `code` is one of ERRORS; facts are numbers and short texts."""

    def __init__(self, code: str, sentence: str = "", **facts: Any) -> None:
        super().__init__(sentence or ERRORS[code])
        self.code = code
        self.facts = facts


@dataclass
class _Packing:
    pieces: Iterator[bytes]
    asked_at: float


class Files:
    """One per host. `take` is called on the reader thread, all else happens on a thread of this one's own."""

    def __init__(self, answer: Answer, log: Callable[[str], None]) -> None:
        self._answer = answer
        self._log = log
        self._queue: SimpleQueue[Request] = SimpleQueue()
        self._starting = _thread.allocate_lock()
        self._is_running = False
        self._base = ""  # the work directory; known when the session's setup has come
        self._roots: list[str] = []
        self._packing: dict[int, _Packing] = {}
        self._packed = 0

    def begin(self, base: str) -> None:
        """The session's directories are these from now on."""
        places = (base, os.environ.get("HOME", base), os.environ.get("TMPDIR", "/tmp"))
        with self._starting:
            self._roots = [os.path.realpath(place) for place in places]
            self._base = self._roots[0]
            if not self._queue.empty():
                self._start()

    def take(self, request: Request) -> str:
        """Have a request answered. Why it will not be, or nothing."""
        with self._starting:
            if self._queue.qsize() >= MAX_WAITING:
                return f"{MAX_WAITING} requests for files wait already"
            try:
                if self._base and not self._is_running:
                    self._start()
            except RuntimeError:
                return "no thread can be started in this sandbox; fewer processes and threads in it would pass"
            self._queue.put(request)
            return ""

    def _start(self) -> None:
        """A thread that most sessions never need; not a threading.Thread, as those are the user's."""
        _thread.start_new_thread(self._serve, ())
        self._is_running = True

    def _serve(self) -> None:
        while True:
            request = self._queue.get()
            try:
                content, data = self._carry_out(request)
                self._answer(request, {"status": "ok", **content}, data)
            except BaseException:  # of the answering: a message that cannot be made must not end this thread
                self._log(traceback.format_exc())

    def _carry_out(self, request: Request) -> tuple[Content, bytes | None]:
        """The answer to a request, a refusal included."""
        try:
            content = request.content
            name = _text(content, "op")
            if name not in OPERATIONS:
                raise FilesError("bad_request", f"op is {name[:40]!r}; {', '.join(OPERATIONS)} would pass")
            data = bytes(request.parts[4]) if len(request.parts) > 4 else b""
            return OPERATIONS[name](self, content, data)
        except FilesError as error:
            return _refusal(error.code, str(error), error.facts)
        except BadArchive as error:
            return _refusal("bad_archive", str(error), {"entry": error.entry})
        except RequestError as error:
            return _refusal("bad_request", str(error), {})
        except OSError as error:
            return self._os_refusal(error)
        except (ValueError, UnicodeError) as error:
            return _refusal("bad_path", str(error), {})
        except Exception as error:
            self._log(traceback.format_exc())
            return _refusal("files_failed", repr(error), {})

    def _os_refusal(self, error: OSError) -> tuple[Content, None]:
        code = _BY_ERRNO.get(error.errno or 0, "files_failed")
        if code == "no_such_file" and not os.path.isdir(self._base):
            code = "workspace_gone"
        return _refusal(code, error.strerror or repr(error), self._room() if code == "disk_full" else {})

    def _room(self) -> Content:
        with suppress(OSError):
            room = os.statvfs(self._base)
            return {"free_bytes": room.f_bavail * room.f_frsize, "free_inodes": room.f_favail}
        return {}

    # -- paths ----------------------------------------------------------------------------------------

    def _path(self, content: Mapping[str, Any], field: str = "path", *, follow: bool = True) -> str:
        """Where a path leads, relative to the work directory; `follow` a link in its last place too. Raises FilesError
        for one that leads elsewhere: so an asker who is shown a link by hostile code gets no other file by it."""
        given = _text(content, field)
        if len(os.fsencode(given)) > MAX_PATH_BYTES or "\0" in given:
            raise FilesError("bad_path")
        whole = os.path.join(self._base, given)
        head, tail = os.path.split(whole.rstrip("/"))
        if follow or tail in ("", ".", ".."):
            path = os.path.realpath(whole)
        else:
            path = os.path.join(os.path.realpath(head), tail)
        if not self._is_inside(path):
            raise FilesError("outside")
        if given.endswith("/") and os.path.lexists(path) and not os.path.isdir(path):
            raise FilesError("not_a_directory")
        return path

    def _is_inside(self, path: str) -> bool:
        return any(path == root or path.startswith(root.rstrip("/") + "/") for root in self._roots)

    def _changeable(self, content: Mapping[str, Any], field: str = "path") -> str:
        """A path whose last part may be made, moved or removed: none of the places themselves."""
        path = self._path(content, field, follow=False)
        if path in self._roots:
            raise FilesError("bad_path")
        return path

    # -- operations -----------------------------------------------------------------------------------

    def _list(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        """One directory, sorted by name, from behind `after`."""
        count = min(_number(content, "max", MAX_LISTED), MAX_LISTED)
        after = _text(content, "after", "")
        with os.scandir(self._path(content)) as inside:
            found = heapq.nsmallest(count + 1, (one for one in inside if one.name > after), key=lambda one: one.name)
        entries = []
        for one in found[:count]:
            with suppress(FileNotFoundError):  # gone meanwhile
                entries.append(_entry(one.name, one.stat(follow_symlinks=False)))
        return {"entries": entries, "more": len(found) > count}, None

    def _stat(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        path = self._path(content)
        return _entry(os.path.basename(path), os.stat(path)), None

    def _read(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, bytes]:
        """Some of a file. Whoever reads on compares `version`: a file may change meanwhile."""
        offset, count = _number(content, "offset", 0), _number(content, "bytes", MAX_PIECE_BYTES)
        path = self._path(content)
        descriptor = _open_file(path, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            piece = os.pread(descriptor, min(count, MAX_PIECE_BYTES), offset)
        finally:
            os.close(descriptor)
        return _entry(os.path.basename(path), status), piece

    def _write(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        """Put bytes into a file; into a fresh one, if it is to be made."""
        if len(data) > MAX_PIECE_BYTES:
            raise FilesError("bad_request", f"{len(data)} bytes; up to {MAX_PIECE_BYTES} in one piece would pass")
        is_new = _flag(content, "create")
        path = self._changeable(content)
        if is_new:
            self._clear_stale(os.path.dirname(path))
        descriptor = _open_file(path, os.O_WRONLY | (os.O_CREAT | os.O_EXCL if is_new else os.O_NOFOLLOW))
        try:
            view, at = memoryview(data), _number(content, "offset", 0)
            while view:
                written = os.pwrite(descriptor, view, at)
                view, at = view[written:], at + written
            return _entry(os.path.basename(path), os.fstat(descriptor)), None
        finally:
            os.close(descriptor)

    def _clear_stale(self, directory: str) -> None:
        """What an asker who died had begun here."""
        with suppress(OSError), os.scandir(directory) as inside:
            for one in [one for one in inside if one.name.startswith(PART_PREFIX)]:
                if time.time() - one.stat(follow_symlinks=False).st_mtime > STALE_SECONDS:
                    _remove(one.path)

    def _rename(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        """Under its new name it takes the place of a file there, all at once."""
        path, to = self._changeable(content), self._changeable(content, "to")
        if os.path.isdir(to) and not os.path.isdir(path):
            raise FilesError("not_a_file")
        os.replace(path, to)
        return _entry(os.path.basename(to), os.lstat(to)), None

    def _delete(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        path = self._changeable(content)
        if _flag(content, "recursive"):
            _remove(path)
        elif stat.S_ISDIR(os.lstat(path).st_mode):
            os.rmdir(path)
        else:
            os.unlink(path)
        return {}, None

    def _mkdir(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        """A directory and those above it; also where there is one."""
        path = self._path(content)
        try:
            os.makedirs(path, exist_ok=True)
        except FileExistsError as error:
            raise FilesError("not_a_directory") from error
        return _entry(os.path.basename(path), os.stat(path)), None

    # -- archives -------------------------------------------------------------------------------------

    def _pack(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        """Begin an archive of a directory or file; `next` fetches it."""
        path = self._path(content)
        os.stat(path)
        while len(self._packing) >= MAX_PACKING:
            del self._packing[min(self._packing, key=lambda handle: self._packing[handle].asked_at)]
        self._packed += 1
        self._packing[self._packed] = _Packing(pack(path, _text(content, "format")), time.monotonic())
        return {"handle": self._packed}, None

    def _next(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, bytes]:
        """The next piece of an archive; an empty one when that was all."""
        handle = _number(content, "handle", 0)
        if handle not in self._packing:
            raise FilesError("unknown_handle")
        packing = self._packing[handle]
        packing.asked_at = time.monotonic()
        try:
            piece = next(packing.pieces, b"")
        except BaseException:
            del self._packing[handle]
            raise
        if not piece:
            del self._packing[handle]
        return {}, piece

    def _drop(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        """Nobody fetches the rest of that archive."""
        self._packing.pop(_number(content, "handle", 0), None)
        return {}, None

    def _unpack(self, content: Mapping[str, Any], data: bytes) -> tuple[Content, None]:
        """What is in the archive at `path` comes into the directory `to`: all of it or nothing."""
        path, to, kind = self._path(content), self._path(content, "to"), _text(content, "format")
        members = read_members(path, kind, max_bytes=_number(content, "max_bytes", 1 << 62))
        self._check_places(members, to)
        staging = os.path.join(to, f"{PART_PREFIX}{os.urandom(8).hex()}")
        os.mkdir(staging)
        try:
            unpack(path, kind, members, staging)
            _move(members, staging, to)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return {"entries": len(members), "bytes": sum(member.size for member in members)}, None

    def _check_places(self, members: Sequence[Member], to: str) -> None:
        """Nothing is begun that cannot end well."""
        for member in members:
            place = os.path.join(to, member.name)
            if not self._is_inside(os.path.realpath(place if member.is_directory else os.path.dirname(place))):
                raise BadArchive("it would be written through a link that leads elsewhere", member.name)
            if os.path.lexists(place) and os.path.isdir(place) is not member.is_directory:
                raise FilesError("already_there", entry=member.name[:200])
        needed = sum(member.size for member in members)
        room = os.statvfs(to)
        if needed > room.f_bavail * room.f_frsize or (room.f_files and len(members) > room.f_favail):
            raise FilesError("disk_full", needed_bytes=needed, needed_inodes=len(members), **self._room())


OPERATIONS: dict[str, Operation] = {
    "list": Files._list,
    "stat": Files._stat,
    "read": Files._read,
    "write": Files._write,
    "rename": Files._rename,
    "delete": Files._delete,
    "mkdir": Files._mkdir,
    "pack": Files._pack,
    "next": Files._next,
    "drop": Files._drop,
    "unpack": Files._unpack,
}


def _refusal(code: str, sentence: str, facts: Content) -> tuple[Content, None]:
    return {"status": "error", "ename": code, "evalue": sentence, "traceback": [], "facts": facts}, None


def _entry(name: str, status: os.stat_result) -> Content:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"))
    return {
        "name": name,
        "type": next((kind for is_kind, kind in kinds if is_kind(status.st_mode)), "other"),
        "size": status.st_size,
        "modified": status.st_mtime,
        "mode": stat.S_IMODE(status.st_mode),
        "version": f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}",
    }


def _open_file(path: str, flags: int) -> int:
    """A descriptor of a regular file. Raises FilesError for anything else, without waiting for whoever is behind it."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FilesError("not_a_file")
    return descriptor


def _remove(path: str) -> None:
    """A file, or a directory with all that is in it."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _move(members: Sequence[Member], staging: str, to: str) -> None:
    """Each file takes its place; those that are moved already stay if a later one cannot be."""
    for member in members:
        place = os.path.join(to, member.name)
        if member.is_directory:
            os.makedirs(place, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.replace(os.path.join(staging, member.name), place)


def _text(content: Mapping[str, Any], field: str, default: str | None = None) -> str:
    value = content.get(field, default)
    if not isinstance(value, str):
        raise FilesError("bad_request", f"{field} must be text")
    return value


def _number(content: Mapping[str, Any], field: str, default: int) -> int:
    value = content.get(field, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise FilesError("bad_request", f"{field} must be a whole number from 0 on")
    return value


def _flag(content: Mapping[str, Any], field: str) -> bool:
    value = content.get(field, False)
    if not isinstance(value, bool):
        raise FilesError("bad_request", f"{field} must be true or false")
    return value
