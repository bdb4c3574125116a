"""What is installed where sandboxes look, and whether that is what somebody needs. Nothing is ever installed for them:
a sandbox has no network.

Requirements are those of Python packaging (PEP 508): `numpy`, `pandas>=2,<3`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion

__all__ = ["installed_packages", "normal_name", "unmet"]

MAX_REQUIREMENT_CHARS = 200  # of one: a name, and a version or two


def normal_name(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_packages(path: Iterable[str] = ()) -> dict[str, str]:
    """Version by normal name, of this interpreter. By the names of directories alone: to read what is in them takes
    thirty times as long."""
    found: dict[str, str] = {}
    for place in path or sys.path:
        for info in sorted(Path(place).glob("*.dist-info")):
            name, _, version = info.name.removesuffix(".dist-info").partition("-")
            found.setdefault(normal_name(name), version)
    return found


def unmet(requirements: Iterable[str], installed: Mapping[str, str]) -> list[str]:
    """A sentence for each that does not hold."""
    return [problem for text in requirements if (problem := _problem(text, installed))]


def _problem(text: str, installed: Mapping[str, str]) -> str:
    try:
        wanted = Requirement(text[:MAX_REQUIREMENT_CHARS])
        if wanted.url is not None:
            return f"{wanted.name} would come from elsewhere, and nothing does; what is installed would pass"
        if wanted.marker is not None and not wanted.marker.evaluate():
            return ""
        version = installed.get(normal_name(wanted.name))
        if version is None:
            return f"{wanted.name} is not installed"
        if not wanted.specifier.contains(version, prereleases=True):
            return f"{wanted.name} is installed as {version}, which is not {wanted.specifier}"
    except (InvalidRequirement, InvalidVersion, ValueError, KeyError):
        return f"{text[:80]!r} is no requirement; a name, or one with versions as numpy>=2, would pass"
    return ""
