"""Which images a sandbox may be made of: those that `cellgate images` built, by their labels, named once by an id that
means the same bytes for ever. How they are built is `build.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cellgate.errors import DriverUnavailable, UsageError
from cellgate.sandbox.docker.engine import Engine, Image
from cellgate_kernel.link import VERSION

__all__ = ["NAME", "PINNED", "LinkVersion", "Template", "find_templates", "image_name", "usable_images"]

LinkVersion: Final = str(VERSION)  # an image's kernel host must speak this one
TEMPLATE_LABEL: Final = "io.cellgate.template"
NAME: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")  # as the engine wants the name of an image
PINNED: Final = re.compile(rf"({NAME.pattern})(?:@(sha256:[0-9a-f]{{64}}))?")


@dataclass(frozen=True)
class Template:
    """An image of ours, as its labels tell of it."""

    name: str
    image: str
    size_bytes: int
    python: str
    kernel: str  # the template of the kernel host: what is imported before a session begins
    recipe: str  # a digest of all that it was made of
    pins: str  # what is installed in it, as a requirements file says it
    link: str


def image_name(template: str) -> str:
    return f"cellgate/{template}:latest"


def find_templates(engine: Engine) -> dict[str, Template]:
    """All by name. Raises EngineFailed."""
    found = (_read(image) for image in engine.images(TEMPLATE_LABEL))
    return {template.name: template for template in sorted(filter(None, found), key=lambda one: one.name)}


def _read(image: Image) -> Template | None:
    """None for one that has lost its name to a newer one."""
    labels = image.labels
    name = labels.get(TEMPLATE_LABEL, "")
    if image_name(name) not in image.names:
        return None
    said = (labels.get(f"io.cellgate.{key}", "") for key in ("python", "kernel", "recipe", "pins", "link"))
    return Template(name, image.id, image.size_bytes, *said)


def usable_images(engine: Engine, allowed: Sequence[str] = ()) -> dict[str, Template]:
    """By template: all, or those that are `allowed`, each by its name or as `name@sha256:...`.
    Raises DriverUnavailable when one of them, or every one, is missing; EngineFailed; UsageError."""
    found = {name: one for name, one in find_templates(engine).items() if one.link == LinkVersion}
    if allowed:
        found = dict(_pick(found, allowed))
    if not found:
        raise DriverUnavailable(
            "docker", "the engine has no image of a kernel host", "`cellgate images build` makes some"
        )
    return found


def _pick(found: dict[str, Template], allowed: Sequence[str]) -> Iterator[tuple[str, Template]]:
    for text in allowed:
        match = PINNED.fullmatch(text)
        if match is None:
            raise UsageError(f"{text[:80]!r} names no image; `python` or `python@sha256:...` would pass")
        name, image = match.groups()
        if name not in found:
            remedy = f"`cellgate images build {name}` makes it"
            raise DriverUnavailable("docker", f"the engine has no image of the template {name}", remedy)
        if image is not None and found[name].image != image:
            missing = f"the image of the template {name} is {found[name].image}, not {image}"
            raise DriverUnavailable("docker", missing, "build that one, or allow this one")
        yield name, found[name]
