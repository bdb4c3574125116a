"""The warden's view of a zygote: begins one, hears it, has it fork and signal kernels, and lets go of it.

What a zygote does itself is in `zygote.py`. Nothing here decides about sandboxes.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from cellgate.sandbox.limits import Limits
from cellgate.sandbox.native import linux
from cellgate.sandbox.native.commands import MAX_PACKET_BYTES, pack, unpack
from cellgate.sandbox.native.images import UnpackedImage, hold
from cellgate.sandbox.native.rootfs import plan_image_root, plan_root
from cellgate.sandbox.native.zygote import Home, run_zygote

__all__ = ["Zygote"]

_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as official images have it too


class Zygote:
    """A template's zygote. Whoever made it owes a `close` when `hear` said that it ended, or an `end`."""

    def __init__(
        self,
        template: str,
        image: tuple[UnpackedImage, Path] | None = None,
        *,
        is_host_root: bool,
        forget: Callable[[], None],
    ) -> None:
        """Begin it, in this host's Python or an image's; it says itself when it is ready. `forget` is called in the new
        process: what a zygote knows every session knows, so let it not be about other sessions. Raises OSError."""
        self.template = template
        self._held: int | None = None
        if image is None:
            self._kernel, path, self.root = template, f"{sys.prefix}/bin:{_SYSTEM_PATH}", plan_root()
        else:
            about, directory = image
            self._held = hold(directory)
            if self._held is None:
                raise FileNotFoundError(errno.ENOENT, "this image is being removed", str(directory))
            self._kernel, path, self.root = (
                about.kernel,
                _SYSTEM_PATH,
                plan_image_root(directory / "root", about.python),
            )
        self.root_namespace = -1  # once it has said `rooted`
        self.is_ready = False
        self.failure = ""  # why it ended, if it said so
        self.log = ""
        self._mount_point = tempfile.mkdtemp(prefix="cellgate-root-")
        os.chmod(self._mount_point, 0o755)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        warden = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                home = Home(self._mount_point, path, is_host_root)
                self._become_zygote(warden, theirs.detach(), home, forget)
            finally:
                os._exit(70)
        theirs.close()

    def _become_zygote(self, warden: int, keep: int, home: Home, forget: Callable[[], None]) -> None:
        linux.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != warden:  # it ended before the line above
            os._exit(0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        kernel, root = self._kernel, self.root
        forget()
        self.__dict__.clear()
        gc.collect()
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        linux.close_range(3, keep - 1)
        linux.close_range(keep + 1)
        run_zygote(socket.socket(fileno=keep), kernel, root, home)

    def hear(self) -> dict[str, Any] | None:
        """What it says next, of itself or of a kernel. None: it has ended."""
        try:
            packet = self.socket.recv(MAX_PACKET_BYTES)
        except ConnectionError:
            packet = b""
        if not packet:
            return None
        said = cast("dict[str, Any]", unpack(packet))
        if "rooted" in said:
            with suppress(OSError):  # it was killed meanwhile: the next thing that is heard says so
                self.root_namespace = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
                os.rmdir(self._mount_point)
                self.socket.send(b"go on")
        elif "ready" in said:
            self.is_ready = True
        elif "failed" in said:
            self.failure, self.log = said["failed"], said["log"]
        return said

    def has_hung_up(self) -> bool:
        """Whether it has ended and has nothing more to say."""
        try:
            return not self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def fork(self, sandbox_id: str, limits: Limits, fds: Sequence[int]) -> None:
        """Have it fork a kernel; `forked`, `unforked` and `exited` tell of it. Raises OSError when it has ended."""
        order = {"fork": sandbox_id, "open_files": limits.open_files, "file_bytes": limits.file_bytes}
        socket.send_fds(self.socket, [pack(order)], list(fds))

    def signal(self, sandbox_id: str, number: int) -> None:
        """Signal a kernel's process group, if the zygote has not reaped it; `signalled` tells that it was done. When
        the zygote has ended, so have its kernels."""
        with suppress(OSError):
            self.socket.send(pack({"signal": sandbox_id, "number": number}))

    def close(self) -> None:
        self.socket.close()
        if self.root_namespace >= 0:
            os.close(self.root_namespace)
            self.root_namespace = -1
        if self._held is not None:
            os.close(self._held)
            self._held = None
        with suppress(OSError):
            os.rmdir(self._mount_point)

    def end(self) -> None:
        """End it, and its kernels with it; returns when it is reaped."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.close()
