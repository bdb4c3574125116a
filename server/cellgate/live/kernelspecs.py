"""Which kernels can be asked for, by name: those that are ready in a template, and every other kernelspec that is
installed beside this program, behind a bridge.

Reads what is installed once, when a server starts. Knows nothing of HTTP.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import msgpack

from cellgate.errors import UnknownKernel
from cellgate.live.requirements import installed_packages, normal_name

__all__ = ["DEFAULT_KERNEL", "Kernelspec", "choose_kernelspec", "find_kernelspecs", "kernelspecs_of_images", "setup_of"]

DEFAULT_KERNEL = "python3"  # the name that every Jupyter client knows
DATA_PACKAGES = ("numpy", "pandas", "matplotlib")  # what the template `python-data` imports
MAX_SPEC_BYTES = 64 << 10  # a kernel.json has some lines


@dataclass(frozen=True)
class Kernelspec:
    """One kernel. `bridged` is the name that the kernel host knows it by; "" for its own Python kernel."""

    name: str
    display_name: str
    language: str
    template: str
    bridged: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    resources: Path | None = None  # where its logos lie
    packages: Mapping[str, str] | None = None  # versions by normal name of what it can import; None: nobody knows


def find_kernelspecs(templates: Collection[str], prefix: Path = Path(sys.prefix)) -> dict[str, Kernelspec]:
    """By name. `templates`: what the driver offers."""
    installed = prefix / "share" / "jupyter" / "kernels"
    python = installed / DEFAULT_KERNEL
    logos = python if python.is_dir() else None
    packages = installed_packages()  # sandboxes see the interpreter that this program runs in
    specs = [Kernelspec(DEFAULT_KERNEL, "Python 3", "python", "python", resources=logos, packages=packages)]
    if "python-data" in templates and all(find_spec(name) for name in DATA_PACKAGES):
        title = "Python 3 (numpy, pandas, matplotlib loaded)"
        specs.append(Kernelspec("python-data", title, "python", "python-data", resources=logos, packages=packages))
    known = {spec.name: spec for spec in specs}
    for path in sorted(installed.glob("*/kernel.json")):
        name = path.parent.name.lower()
        if name not in known and (spec := _read(name, path)):
            known[name] = spec
    return known


def kernelspecs_of_images(packages: Mapping[str, Mapping[str, str]]) -> dict[str, Kernelspec]:
    """Those of a driver whose templates are images, by what is installed in each. What is installed beside this program
    is not in them."""
    specs = {}
    for template, installed in packages.items():
        name, title = (DEFAULT_KERNEL, "Python 3") if template == "python" else (template, f"Python 3 ({template})")
        versions = {normal_name(package): version for package, version in installed.items()}
        specs[name] = Kernelspec(name, title, "python", template, packages=versions)
    return specs


def choose_kernelspec(
    specs: Mapping[str, Kernelspec], *, kernel: str = "", language: str = "", template: str = ""
) -> Kernelspec:
    """The first that is all that is named, the default before others. Raises UnknownKernel."""
    in_order = sorted(specs.values(), key=lambda spec: spec.name != DEFAULT_KERNEL)
    for spec in in_order:
        if (
            kernel.lower() in ("", spec.name)
            and language.lower() in ("", spec.language.lower())
            and (not template or (spec.template == template and not spec.bridged))
        ):
            return spec
    raise UnknownKernel(", ".join(word for word in (kernel, language, template) if word), tuple(specs))


def setup_of(spec: Kernelspec, env: Mapping[str, str]) -> bytes:
    """What the kernel host is told in its first HELLO."""
    said = {**({"kernel": spec.bridged} if spec.bridged else {}), **({"env": dict(env)} if env else {})}
    packed: bytes = msgpack.packb(said) if said else b""
    return packed


def _read(name: str, path: Path) -> Kernelspec | None:
    try:
        with path.open("rb") as file:
            spec = json.loads(file.read(MAX_SPEC_BYTES))
        title, language = str(spec["display_name"]), str(spec["language"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not one that could be started
    metadata = spec.get("metadata")
    return Kernelspec(
        name,
        title,
        language,
        "python",
        bridged=path.parent.name,
        metadata=metadata if isinstance(metadata, dict) else {},
        resources=path.parent,
    )
