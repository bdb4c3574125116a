"""What can go wrong, as one tree; each error says whose side it lies on and what would have passed.

    CellgateError
    ├── UsageError           yours    usage                 what was asked for makes no sense
    ├── LimitError           yours    bad_limit             a limit is no number, or out of its range
    ├── PolicyError          yours    policy_error          code that could not be judged
    ├── NoSubprotocol        yours    no_subprotocol        a websocket that offers nothing that is spoken here
    ├── UnknownTemplate      yours    unknown_template      no such template here
    ├── UnknownSession       yours    unknown_session       no such session, or not yours
    ├── UnknownKernel        yours    unknown_kernel        no kernelspec of this name here
    ├── UnknownScript        yours    unknown_script        no such script, or not yours
    ├── TooManySessions      yours    too_many_sessions     one principal's share is used up
    ├── QuotaUsedUp          yours    quota_used_up         the same of memory, bytes on disk, or a day's time
    ├── TooManyClients       yours    too_many_clients      a session has all the connections it may
    ├── TooManyWaiting       yours    too_many_waiting      a queue holds all of one principal's that it may
    ├── FileError            yours    file_error            something about a file in a sandbox
    │   ├── BadPath          yours    bad_path              a path that no file there can have
    │   ├── NoSuchFile       yours    no_such_file          nothing of this name
    │   ├── NotAFile         yours    not_a_file            a directory, a pipe, a device
    │   ├── NotADirectory    yours    not_a_directory       no directory, or none on the way
    │   ├── AlreadyThere     yours    already_there         something is in the way
    │   ├── NotEmpty         yours    not_empty             a directory with something in it
    │   ├── NotPermitted     yours    not_permitted         the sandbox does not permit it
    │   ├── WorkspaceGone    yours    workspace_gone        the work directory was removed
    │   ├── FileTooLarge     yours    file_too_large        larger than a file may be
    │   ├── BadRange         yours    bad_range             bytes that the file does not have
    │   ├── BadArchive       yours    bad_archive           one that is not unpacked
    │   ├── DiskFull         yours    disk_full             no room in the workspace
    │   └── FilesFailed      theirs   files_failed          the sandbox did not do it
    ├── StateDirectoryInUse  yours    state_dir_in_use      another gateway serves from it
    ├── NewerState           yours    newer_state           a newer version wrote this state
    ├── ServerFull           ours     server_full           all sessions that this server may have exist
    ├── Draining             ours     draining              this server is about to stop
    ├── StorageFull          ours     storage_full          the state directory cannot be written
    ├── LinkClosed           theirs   link_closed           a link was closed by either end
    ├── NotAnswered          theirs   not_answered          its kernel will not say; the reason is among the facts
    ├── SandboxGone          theirs   sandbox_gone          it has ended; the certificate says how
    ├── BadCertificate       ours     bad_certificate       something that is no death certificate
    ├── DriverUnavailable    ours     driver_unavailable    this host cannot run this driver
    └── SandboxStartFailed   ours     sandbox_start_failed  a sandbox was begun and did not come up

The codes are stable: programs compare them. Facts are fields; the text is made when somebody reads it.
Needs nothing but the standard library, because the warden imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from cellgate.sandbox.certificate import DeathCertificate

__all__ = [
    "AlreadyThere",
    "BadArchive",
    "BadCertificate",
    "BadPath",
    "BadRange",
    "CellgateError",
    "DiskFull",
    "Draining",
    "DriverUnavailable",
    "Fault",
    "FileError",
    "FileTooLarge",
    "FilesFailed",
    "LimitError",
    "LinkClosed",
    "NewerState",
    "NoSubprotocol",
    "NoSuchFile",
    "NotADirectory",
    "NotAFile",
    "NotAnswered",
    "NotEmpty",
    "NotPermitted",
    "PolicyError",
    "QuotaUsedUp",
    "SandboxGone",
    "SandboxStartFailed",
    "ServerFull",
    "StateDirectoryInUse",
    "StorageFull",
    "TooManyClients",
    "TooManySessions",
    "TooManyWaiting",
    "UnknownKernel",
    "UnknownScript",
    "UnknownSession",
    "UnknownTemplate",
    "UsageError",
    "WorkspaceGone",
]


class Fault(str, Enum):
    """Whose side an error lies on."""

    YOURS = "yours"  # the caller's: asking the same again fails the same
    THEIRS = "theirs"  # that of the code which ran in the sandbox
    OURS = "ours"  # Cellgate's or its host's: the details belong in our log, not in an answer to a client


@dataclass(eq=False)
class CellgateError(Exception):
    """The root. A subclass is a dataclass of its facts with a `code`, a `fault` and one sentence of text."""

    code: ClassVar[str] = "internal"
    fault: ClassVar[Fault] = Fault.OURS

    def text(self) -> str:
        """One sentence: what was seen, and what would have passed."""
        return "something failed that never should; this is a fault of Cellgate"

    def facts(self) -> dict[str, object]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __str__(self) -> str:
        return self.text()

    def __reduce__(self) -> tuple[object, ...]:  # so that it crosses processes whole, as pytest-xdist wants
        return type(self), tuple(self.facts().values())


@dataclass(eq=False)
class UsageError(CellgateError):
    """The request itself is wrong: a missing file, code that is not UTF-8, options that exclude each other."""

    code = "usage"
    fault = Fault.YOURS
    problem: str  # one sentence that also says what would pass

    def text(self) -> str:
        return self.problem


@dataclass(eq=False)
class LimitError(CellgateError):
    """A limit that is not a number, not finite, or outside what this version and this host accept."""

    code = "bad_limit"
    fault = Fault.YOURS
    name: str
    value: object
    accepted: str  # for example "a whole number from 16 to 65536"

    def text(self) -> str:
        return f"{self.name} is {repr(self.value)[:80]}; {self.accepted} would pass"


@dataclass(eq=False)
class PolicyError(CellgateError):
    """Code that no verdict can be given of; it does not run, because what cannot be judged is denied."""

    code = "policy_error"
    fault = Fault.YOURS
    problem: str

    def text(self) -> str:
        return f"this code could not be judged, so it does not run: {self.problem}; simpler code would pass"


@dataclass(eq=False)
class NoSubprotocol(CellgateError):
    """A websocket that offers no subprotocol of those that are spoken on it."""

    code = "no_subprotocol"
    fault = Fault.YOURS
    known: tuple[str, ...]

    def text(self) -> str:
        return f"this websocket needs a subprotocol; {' or '.join(self.known)} would pass"


@dataclass(eq=False)
class UnknownTemplate(CellgateError):
    """A template that this driver does not have."""

    code = "unknown_template"
    fault = Fault.YOURS
    template: str
    known: tuple[str, ...]

    def text(self) -> str:
        return f"there is no template {self.template[:80]!r}; known: {', '.join(self.known) or 'none'}"


@dataclass(eq=False)
class FileError(CellgateError):
    """Something about a file in a sandbox, which code there may have changed meanwhile."""

    code = "file_error"
    fault = Fault.YOURS
    path: str
    why: ClassVar[str] = "cannot be used"

    def text(self) -> str:
        return f"{self.path[:200]!r} {self.why}"


class BadPath(FileError):
    """A path that no file can have, or that leads out of a sandbox's directories for files."""

    code = "bad_path"
    why = "is no path for files here; one below the work directory, without '..' or empty parts, would pass"


class NoSuchFile(FileError):
    """There is nothing of this name in the sandbox."""

    code = "no_such_file"
    why = "is not there; a list of its directory names what is"


class NotAFile(FileError):
    """What this names is a directory, a pipe, a socket or a device."""

    code = "not_a_file"
    why = "is no regular file; a file would pass, and a directory can be listed or packed"


class NotADirectory(FileError):
    """What this names, or something on the way to it, is no directory."""

    code = "not_a_directory"
    why = "is no directory, or there is none on the way to it; a directory would pass"


class AlreadyThere(FileError):
    """Something of this name is in the way."""

    code = "already_there"
    why = "is there already, and something else is to be; deleting it makes way"


class NotEmpty(FileError):
    """A directory that is to be deleted has something in it."""

    code = "not_empty"
    why = "is a directory with something in it; with `recursive` that goes too"


class NotPermitted(FileError):
    """The sandbox does not permit it: the place is read-only, or its mode forbids it."""

    code = "not_permitted"
    why = "does not permit that; another place, or a change of its mode by code in the session, would pass"


class WorkspaceGone(FileError):
    """Code in the session has removed its own work directory."""

    code = "workspace_gone"
    why = "cannot be reached: code in this session has removed its work directory; a restart makes a fresh one"


@dataclass(eq=False)
class FileTooLarge(FileError):
    """A file that is larger than this session's files may be."""

    code = "file_too_large"
    file_bytes: int  # what would have passed

    def text(self) -> str:
        return f"{self.path[:200]!r} is too large; up to {self.file_bytes} bytes would pass"


@dataclass(eq=False)
class BadRange(FileError):
    """A range of bytes that the file does not have."""

    code = "bad_range"
    size: int

    def text(self) -> str:
        return f"{self.path[:200]!r} has {self.size} bytes; a range that begins within them would pass"


@dataclass(eq=False)
class BadArchive(FileError):
    """An archive that cannot be read, or that has what is not unpacked: links, devices, names that lead elsewhere."""

    code = "bad_archive"
    entry: str = ""
    detail: str = ""

    def text(self) -> str:
        what = f" because of its entry {self.entry[:200]!r}" if self.entry else ""
        detail = f" ({self.detail[:200]})" if self.detail else ""
        would_pass = (
            "files and directories with relative names, in a tar or zip no larger than the workspace, would pass"
        )
        return f"the archive for {self.path[:200]!r} is not unpacked{what}{detail}; {would_pass}"


@dataclass(eq=False)
class DiskFull(FileError):
    """The workspace of the sandbox has no room for this, or no inodes."""

    code = "disk_full"
    workspace_bytes: int
    workspace_inodes: int
    free_bytes: int | None = None
    free_inodes: int | None = None

    def text(self) -> str:
        left = "" if self.free_bytes is None else f", {self.free_bytes} bytes and {self.free_inodes} inodes of it free"
        limits = f"{self.workspace_bytes} bytes and {self.workspace_inodes} inodes"
        return f"there is no room for {self.path[:200]!r}: the workspace has {limits}{left}; deleting files makes room"


@dataclass(eq=False)
class FilesFailed(FileError):
    """The sandbox did not do with a file what it was asked to, or gave no answer that makes sense."""

    code = "files_failed"
    fault = Fault.THEIRS
    detail: str

    def text(self) -> str:
        return f"the sandbox failed at {self.path[:200]!r}: {self.detail[:200]}; a restart of the session may help"


@dataclass(eq=False)
class StateDirectoryInUse(CellgateError):
    """Another gateway keeps its sessions in this directory: two would both think that they own the kernels."""

    code = "state_dir_in_use"
    fault = Fault.YOURS
    directory: str

    def text(self) -> str:
        return f"another gateway serves from {self.directory}; a directory of its own would pass"


@dataclass(eq=False)
class NewerState(CellgateError):
    """What keeps state here has tables that this version does not know: it would lose what a newer one has added."""

    code = "newer_state"
    fault = Fault.YOURS
    path: str
    version: int
    known: int

    def text(self) -> str:
        return (
            f"{self.path} was written by a newer version of Cellgate: its tables are of version {self.version}, and "
            f"this one knows {self.known}; that version, or a backup from before it, would pass"
        )


@dataclass(eq=False)
class LinkClosed(CellgateError):
    """Nothing can be sent on this stream any more. If the sandbox lives, a new attach goes on where it ended."""

    code = "link_closed"
    fault = Fault.THEIRS
    what: str

    def text(self) -> str:
        return f"{self.what} is closed; a new connection would pass"


@dataclass(eq=False)
class NotAnswered(CellgateError):
    """Something was asked of a kernel that it will not answer: it ended, has too much to do, or may not be asked."""

    code = "not_answered"
    fault = Fault.THEIRS
    reason: str  # as a cell ends
    sentence: str
    details: Mapping[str, object] = field(default_factory=dict)

    def text(self) -> str:
        return f"the kernel did not answer: {self.sentence or self.reason}"


@dataclass(eq=False)
class SandboxGone(CellgateError):
    """The sandbox has ended, so that nothing more can be asked of it. The certificate is the answer to
    "why", and None only while it is still being written."""

    code = "sandbox_gone"
    fault = Fault.THEIRS
    sandbox_id: str
    certificate: DeathCertificate | None = None

    def text(self) -> str:
        how = self.certificate.sentence() if self.certificate else "it is ending"
        return f"sandbox {self.sandbox_id} is gone: {how}; a new one would answer"

    def facts(self) -> dict[str, object]:
        return {"sandbox_id": self.sandbox_id, "certificate": self.certificate}


@dataclass(eq=False)
class BadCertificate(CellgateError):
    """What was read as a death certificate is not one; `field` is what was wrong first."""

    code = "bad_certificate"
    fault = Fault.OURS
    field: str
    problem: str

    def text(self) -> str:
        return f"not a death certificate: {self.field} {self.problem}"


@dataclass(eq=False)
class UnknownSession(CellgateError):
    """There is no such session, or it is somebody else's: nobody can tell which."""

    code = "unknown_session"
    fault = Fault.YOURS
    session_id: str

    def text(self) -> str:
        return f"there is no session {self.session_id[:80]!r} of yours; /api/kernels and /api/sessions list them"


@dataclass(eq=False)
class UnknownKernel(CellgateError):
    """A kernelspec that is not installed here."""

    code = "unknown_kernel"
    fault = Fault.YOURS
    name: str
    known: tuple[str, ...]

    def text(self) -> str:
        return f"there is no kernelspec {self.name[:80]!r}; known: {', '.join(self.known)}"


@dataclass(eq=False)
class UnknownScript(CellgateError):
    """There is no such script, or it is somebody else's."""

    code = "unknown_script"
    fault = Fault.YOURS
    name: str
    version: int | None = None  # None: not one version of it

    def text(self) -> str:
        which = "" if self.version is None else f" with a version {self.version}"
        return f"there is no script {self.name[:80]!r}{which} of yours; /v1/scripts lists them"


@dataclass(eq=False)
class TooManySessions(CellgateError):
    """This principal has as many sessions as one may have."""

    code = "too_many_sessions"
    fault = Fault.YOURS
    count: int
    retry_seconds: int = 10

    def text(self) -> str:
        return f"you have {self.count} sessions, which is all you may have; deleting one makes room"


@dataclass(eq=False)
class QuotaUsedUp(CellgateError):
    """This principal has, or has used today, as much as one may."""

    code = "quota_used_up"
    fault = Fault.YOURS
    quota: str  # its name in the settings
    asked: float
    left: float
    remedy: str
    retry_seconds: int = 10

    def text(self) -> str:
        return f"{self.quota} leaves you {self.left:g}, and {self.asked:g} or more is asked for; {self.remedy}"


@dataclass(eq=False)
class TooManyClients(CellgateError):
    """A session has as many connections as it may have."""

    code = "too_many_clients"
    fault = Fault.YOURS
    count: int
    retry_seconds: int = 10

    def text(self) -> str:
        return f"this session has {self.count} connections, which is all it may have; closing one makes room"


@dataclass(eq=False)
class TooManyWaiting(CellgateError):
    """This principal has as many one-shots in the queue as may wait."""

    code = "too_many_waiting"
    fault = Fault.YOURS
    count: int
    retry_seconds: int = 5

    def text(self) -> str:
        return f"{self.count} of yours wait for their turn, which is as many as may; try again when some have had it"


@dataclass(eq=False)
class ServerFull(CellgateError):
    """This server has as many sessions as it may have."""

    code = "server_full"
    fault = Fault.OURS
    count: int
    retry_seconds: int = 10

    def text(self) -> str:
        return f"all {self.count} sessions that this server may have exist; try again when one has ended"


@dataclass(eq=False)
class Draining(CellgateError):
    """This server takes no new sessions because it is about to stop."""

    code = "draining"
    fault = Fault.OURS
    retry_seconds: int = 5

    def text(self) -> str:
        return "this server is about to stop and takes no new sessions; try again when it is back"


@dataclass(eq=False)
class StorageFull(CellgateError):
    """Nothing can be written to the state directory, so a session could lose what is said in it."""

    code = "storage_full"
    fault = Fault.OURS
    detail: str

    def text(self) -> str:
        return f"the state directory cannot be written ({self.detail}); new sessions pass again when it can"


@dataclass(eq=False)
class DriverUnavailable(CellgateError):
    """This host lacks what the driver needs. Never answered by silently taking a weaker driver."""

    code = "driver_unavailable"
    fault = Fault.OURS
    driver: str
    missing: str
    remedy: str  # what the operator can do: a package, a setting, or another driver by name

    def text(self) -> str:
        return f"the {self.driver} driver cannot run here: {self.missing}; {self.remedy}"


@dataclass(eq=False)
class SandboxStartFailed(CellgateError):
    """A sandbox was begun and did not come up. Nothing of it is left. `log_tail` is what it said last."""

    code = "sandbox_start_failed"
    fault = Fault.OURS
    driver: str
    step: str
    detail: str
    log_tail: str = ""

    def text(self) -> str:
        said = f"; it said last: {self.log_tail.strip()[-500:]}" if self.log_tail.strip() else ""
        return f"the {self.driver} driver could not start a sandbox: {self.step}: {self.detail}{said}"
