"""/api/kernelspecs as Jupyter has it: which kernels can be asked for, and their logos."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from tornado.web import HTTPError

from cellgate.errors import UnknownKernel
from cellgate.gateway.base import RestHandler
from cellgate.live.kernelspecs import DEFAULT_KERNEL, Kernelspec

__all__ = ["KernelspecHandler", "KernelspecsHandler", "LogoHandler", "Logos", "read_logos"]

Logos = dict[str, dict[str, bytes]]  # by kernelspec and file name

MAX_LOGO_BYTES = 256 << 10  # each is read once, and stays in memory
MAX_LOGOS = 8  # of one kernelspec; Jupyter knows three
_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


def read_logos(specs: Iterable[Kernelspec]) -> Logos:
    """What is served later is looked up by name in what was found here: no request reaches a path."""
    return {spec.name: _read(_folder(spec)) for spec in specs}


def _folder(spec: Kernelspec) -> Path | None:
    if spec.resources is None and spec.language == "python" and (found := find_spec("ipykernel")) and found.origin:
        return Path(found.origin).parent / "resources"
    return spec.resources


def _read(folder: Path | None) -> dict[str, bytes]:
    logos: dict[str, bytes] = {}
    for path in sorted(folder.glob("logo-*"))[:MAX_LOGOS] if folder else []:
        try:
            if path.suffix in _TYPES and path.stat().st_size <= MAX_LOGO_BYTES:
                logos[path.name] = path.read_bytes()
        except OSError:
            continue  # a logo less
    return logos


def kernelspec_model(spec: Kernelspec, logos: Iterable[str]) -> dict[str, object]:
    """As jupyter_server has it. There is no command in it: nobody but the server starts a kernel."""
    return {
        "name": spec.name,
        "spec": {
            "argv": [],
            "env": {},
            "display_name": spec.display_name,
            "language": spec.language,
            "interrupt_mode": "signal",
            "metadata": dict(spec.metadata),
        },
        "resources": {Path(name).stem: f"/kernelspecs/{quote(spec.name)}/{quote(name)}" for name in logos},
    }


class KernelspecsHandler(RestHandler):
    def get(self) -> None:
        specs, logos = self.manager.kernelspecs, self.services.logos
        models = {name: kernelspec_model(spec, logos.get(name, ())) for name, spec in specs.items()}
        self.answer({"default": DEFAULT_KERNEL, "kernelspecs": models})


class KernelspecHandler(RestHandler):
    def get(self, kernel_name: str) -> None:
        specs = self.manager.kernelspecs
        if kernel_name not in specs:
            raise UnknownKernel(kernel_name, tuple(specs))
        self.answer(kernelspec_model(specs[kernel_name], self.services.logos.get(kernel_name, ())))


class LogoHandler(RestHandler):
    def get(self, kernel_name: str, file_name: str) -> None:
        logo = self.services.logos.get(kernel_name, {}).get(file_name)
        if logo is None:
            raise HTTPError(404)
        self.set_header("Content-Type", _TYPES[Path(file_name).suffix])
        self.set_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
        self.set_header("Cache-Control", "private, max-age=86400")
        self.finish(logo)
