"""Builds images with a kernel host in them: from the official Python image where a registry can be reached, else from a
Debian root that is made here.

Packages are fetched by this host's pip for the Python of the image, and copied in: nothing in a build needs a network,
and an image needs neither pip nor a compiler. What was installed is written down in a label, and holds for whatever is
built on top. Blocks; `say` is told of each step.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import cellgate_kernel.link
from cellgate.errors import UsageError
from cellgate.sandbox.docker.engine import Engine, EngineFailed
from cellgate.sandbox.docker.images import NAME, TEMPLATE_LABEL, LinkVersion, Template, find_templates, image_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["RECIPES", "SERVICE", "BuildFailed", "Recipe", "build", "build_service", "recipe_from", "recipe_of"]

Say = Callable[[str], object]

OFFICIAL_BASE: Final = "python:3.12-slim-bookworm"
DEBIAN_BASE: Final = "cellgate/debian:bookworm"
DEBIAN_SUITE: Final = "bookworm"
LEAST_PYTHON: Final = (3, 10)
# What wheels of other projects call the C library that official and Debian images have; musl is another.
PLATFORMS: Final = ("manylinux_2_28_{0}", "manylinux_2_17_{0}", "manylinux2014_{0}", "manylinux_2_12_{0}")
MAX_REQUIREMENTS_BYTES: Final = 64 << 10  # names of packages; whatever is larger is another file
SERVICE: Final = "service"
STEP_SECONDS: Final = 1800.0  # for all of scikit-learn over a slow line
ASK_BASE: Final = (
    "import json, platform, site, sys; print(json.dumps([list(sys.version_info[:3]), site.getsitepackages()[0],"
    " platform.machine(), platform.libc_ver()[0]]))"
)


class BuildFailed(Exception):
    """A step of a build did not do; the text says which, and what it said last."""


@dataclass(frozen=True)
class Recipe:
    """What an image is made of. `base` is another template, or an image by its name, or "" for one that is found."""

    name: str
    requirements: str
    base: str = ""
    kernel: str = "python"  # the kernel host's own template: what it imports before a session begins


def recipes_directory() -> Path:
    """In a wheel beside this module, in a checkout at its top."""
    packed = Path(__file__).parent / "recipes"
    return packed if packed.is_dir() else Path(__file__).parents[4] / "images"


RECIPES: Final[Mapping[str, tuple[str, str]]] = {  # name -> base, kernel
    "python": ("", "python"),
    "python-data": ("python", "python-data"),
}


def recipe_of(name: str) -> Recipe:
    """One that comes with Cellgate. Raises UsageError."""
    if name not in RECIPES:
        raise UsageError(f"there is no recipe {name[:80]!r}; known: {', '.join(RECIPES)}")
    base, kernel = RECIPES[name]
    return Recipe(name, (recipes_directory() / f"{name}.txt").read_text(), base, kernel)


def recipe_from(name: str, base: str, requirements: Path, engine: Engine) -> Recipe:
    """Somebody's own. Raises UsageError, EngineFailed."""
    if not NAME.fullmatch(name) or len(name) > 100 or name in (*RECIPES, SERVICE):
        raise UsageError(f"{name[:80]!r} cannot be its name; small letters and digits with . _ - between would pass")
    try:
        text = requirements.read_bytes()[: MAX_REQUIREMENTS_BYTES + 1].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{requirements}: {error}; a requirements file in UTF-8 would pass") from error
    if len(text) > MAX_REQUIREMENTS_BYTES:
        raise UsageError(f"{requirements} is no requirements file: {MAX_REQUIREMENTS_BYTES} bytes would pass")
    found = find_templates(engine).get(base)
    return Recipe(name, text, base, found.kernel if found is not None else "python")


@dataclass(frozen=True)
class _Base:
    """An image that is built on, and what its Python says of itself."""

    image: str
    python: str  # "3.12"
    site: str
    machine: str
    pins: str  # what is in it already, and stays as it is


def build(engine: Engine, recipe: Recipe, say: Say, *, fresh: bool = False) -> Template:
    """The image of this recipe. Nothing that is as it should be is made again, unless `fresh` asks for it.
    Raises BuildFailed, EngineFailed, UsageError."""
    packages = _packages(engine, recipe, say, fresh=fresh)
    digest = _digest(packages.image, LinkVersion, recipe.kernel, KERNEL_HALF.read(), *_kernel_sources().values())
    found = find_templates(engine).get(recipe.name)
    if found is not None and found.recipe == digest:
        say(f"{recipe.name}: as it should be")
        return found
    say(f"{recipe.name}: putting the kernel host in")
    with tempfile.TemporaryDirectory(prefix="cellgate-image-") as scratch:
        kernel = Path(scratch, "site", "cellgate_kernel")
        kernel.mkdir(parents=True)
        for name, text in _kernel_sources().items():
            (kernel / name).write_text(text)
        labels = {
            TEMPLATE_LABEL: recipe.name,
            "io.cellgate.kernel": recipe.kernel,
            "io.cellgate.link": LinkVersion,
            "io.cellgate.python": packages.python,
            "io.cellgate.pins": packages.pins,
            "io.cellgate.recipe": digest,
        }
        KERNEL_HALF.build(engine, packages, kernel.parent, image_name(recipe.name), labels)
    return find_templates(engine)[recipe.name]


def build_service(engine: Engine, say: Say, *, fresh: bool = False) -> str:
    """The image of the service itself, which `docker-compose.yml` starts; its name. Raises as `build`."""
    packages = _packages(
        engine, Recipe(SERVICE, "".join(f"{line}\n" for line in _own_requirements())), say, fresh=fresh
    )
    sources = _own_sources()
    contents = (path.read_bytes().hex() for path in sources.values())
    digest = _digest(packages.image, SERVICE_HALF.read(), *sources, *contents)
    name = image_name(SERVICE)
    if (engine.labels(name) or {}).get("io.cellgate.recipe") == digest:
        say(f"{SERVICE}: as it should be")
        return name
    say(f"{SERVICE}: putting Cellgate in")
    with tempfile.TemporaryDirectory(prefix="cellgate-image-") as scratch:
        for inside, path in sources.items():
            place = Path(scratch, "site", inside)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
        SERVICE_HALF.build(engine, packages, Path(scratch, "site"), name, {"io.cellgate.recipe": digest})
    return name


def _own_requirements() -> list[str]:
    """What this program and its driver docker need: as it was installed, or as its checkout says it."""
    checkout = Path(__file__).parents[4] / "pyproject.toml"
    if checkout.is_file():
        project = tomllib.loads(checkout.read_text())["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["docker"]]
    wanted = [line.split(";", 1) for line in importlib.metadata.requires("cellgate") or ()]
    return [name for name, *marker in wanted if not marker or "docker" in marker[0] or "extra" not in marker[0]]


def _own_sources() -> dict[str, Path]:
    """Every file of both packages and of the page, by the path that it has when it is installed."""
    host = Path(__file__).parents[2]
    roots = {"cellgate": host, "cellgate_kernel": Path(cellgate_kernel.link.__file__).parent}
    if not (host / "static").is_dir():  # in a checkout it lies at the top
        roots["cellgate/static"] = host.parents[1] / "static"
    return {
        f"{name}/{path.relative_to(root)}": path
        for name, root in roots.items()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not {"__pycache__", ".mypy_cache"} & set(path.parts)
    }


def _packages(engine: Engine, recipe: Recipe, say: Say, *, fresh: bool) -> _Base:
    """The first half of the image."""
    name = f"cellgate/{recipe.name}:packages"
    base = _find_base(engine, recipe, say)
    digest = _digest(base.image, recipe.requirements, PACKAGES_HALF.read())
    found = engine.labels(name)
    if fresh or found is None or found.get("io.cellgate.recipe") != digest:
        with tempfile.TemporaryDirectory(prefix="cellgate-image-") as scratch:
            site = Path(scratch, "site")
            site.mkdir()
            say(f"{recipe.name}: fetching packages for Python {base.python}")
            pins = _fetch(recipe, base, site)
            say(f"{recipe.name}: putting them in")
            labels = {"io.cellgate.recipe": digest, "io.cellgate.pins": pins}
            PACKAGES_HALF.build(engine, base, site, name, labels)
        found = labels
    image = engine.image_id(name)
    assert image is not None  # it was found, or built just now
    return replace(base, image=image, pins=found.get("io.cellgate.pins", ""))


@dataclass(frozen=True)
class Half:
    """One of the two files that an image is built by."""

    file: str

    def read(self) -> str:
        return (recipes_directory() / self.file).read_text()

    def build(self, engine: Engine, base: _Base, site: Path, name: str, labels: Mapping[str, str]) -> None:
        arguments = {"BASE": base.image, "SITE": base.site}
        engine.build(_context(site, self.read()), tag=name, arguments=arguments, labels=labels)


PACKAGES_HALF: Final = Half("packages.Dockerfile")
KERNEL_HALF: Final = Half("kernel.Dockerfile")
SERVICE_HALF: Final = Half("service.Dockerfile")


def _digest(*parts: str) -> str:
    """Of all that is decided here. What an index offers meanwhile is not, and `fresh` asks for it."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# -- the base --------------------------------------------------------------------------------------------


def _find_base(engine: Engine, recipe: Recipe, say: Say) -> _Base:
    if recipe.base in RECIPES:
        return _packages(engine, recipe_of(recipe.base), say, fresh=False)
    if (found := engine.labels(half := f"cellgate/{recipe.base}:packages")) is not None:
        return _ask(engine, half, found.get("io.cellgate.pins", ""))
    if recipe.base:
        return _ask(engine, recipe.base if engine.image_id(recipe.base) else engine.pull(recipe.base), "")
    for name in (OFFICIAL_BASE, DEBIAN_BASE):
        if engine.image_id(name) is not None:
            return _ask(engine, name, "")
    say(f"fetching {OFFICIAL_BASE}")
    try:
        return _ask(engine, engine.pull(OFFICIAL_BASE), "")
    except EngineFailed as error:
        say(f"no registry can be reached ({error}); making a Debian root instead")
    with tempfile.TemporaryDirectory(prefix="cellgate-image-") as scratch:
        root = Path(scratch, "root.tar")
        _run("mmdebstrap", "--variant=minbase", "--include=python3", DEBIAN_SUITE, str(root))
        say("importing it")
        engine.import_root(root, DEBIAN_BASE)
    return _ask(engine, DEBIAN_BASE, "")


def _ask(engine: Engine, image: str, pins: str) -> _Base:
    image = engine.image_id(image) or image
    said = engine.run(image, ["python3", "-c", ASK_BASE])
    try:
        version, site, machine, libc = json.loads(said)
    except ValueError as error:
        raise BuildFailed(f"{image} has no python3 that answers: {said[-300:]}") from error
    if tuple(version) < LEAST_PYTHON:
        raise BuildFailed(f"{image} has Python {version}; 3.10 or newer would pass")
    if libc != "glibc":
        raise BuildFailed(f"{image} has no glibc, for which packages are fetched; a Debian image would pass")
    return _Base(image, f"{version[0]}.{version[1]}", site, machine, pins)


# -- what is in it ---------------------------------------------------------------------------------------


def _kernel_sources() -> dict[str, str]:
    """By the names of its files."""
    found = sorted(Path(cellgate_kernel.link.__file__).parent.glob("*.py"))
    return {path.name: path.read_text() for path in found}


def _fetch(recipe: Recipe, base: _Base, site: Path) -> str:
    """The packages into `site`. What there is then, the base's included, as requirements."""
    wanted, pinned = site.parent / "wanted.txt", site.parent / "pinned.txt"
    wanted.write_text(recipe.requirements)
    pinned.write_text(base.pins)
    tag = base.python.replace(".", "")
    _run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(site)),
        *("--requirement", str(wanted), "--constraint", str(pinned), "--only-binary", ":all:"),
        *("--python-version", base.python, "--implementation", "cp"),
        *(word for abi in (f"cp{tag}", "abi3", "none") for word in ("--abi", abi)),
        *(word for platform in PLATFORMS for word in ("--platform", platform.format(base.machine))),
    )
    pins = dict(line.split("==") for line in base.pins.splitlines())
    pins |= {found.name: found.version for found in importlib.metadata.distributions(path=[str(site)])}
    return "".join(f"{name}=={version}\n" for name, version in sorted(pins.items(), key=lambda pin: pin[0].lower()))


def _context(site: Path, dockerfile: str) -> io.BytesIO:
    """What the engine is sent: as root's, readable for everybody, and the same whoever builds it."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
        return info

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile.encode())
        archive.addfile(plain(info), io.BytesIO(dockerfile.encode()))
        archive.add(site, "site", filter=plain)
    packed.seek(0)
    return packed


def _run(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=STEP_SECONDS)
    except FileNotFoundError as error:
        raise BuildFailed(f"there is no {words[0]} here; installing it would pass, or a registry to reach") from error
    except subprocess.TimeoutExpired as error:
        raise BuildFailed(f"{words[0]} took longer than {STEP_SECONDS:g} s") from error
    except subprocess.CalledProcessError as error:
        raise BuildFailed(f"{' '.join(words[:3])} failed: {error.stderr.strip()[-1000:]}") from error
