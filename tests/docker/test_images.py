"""Images with a kernel host in them: what they are made of, that nothing is made twice, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellgate.cli import main
from cellgate.errors import DriverUnavailable, UsageError
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.client import KernelClient
from cellgate.sandbox.docker.build import RECIPES, Recipe, build, recipe_from, recipe_of
from cellgate.sandbox.docker.driver import DockerDriver
from cellgate.sandbox.docker.engine import Engine
from cellgate.sandbox.docker.images import find_templates, image_name, usable_images
from tests.support.docker import make_image
from tests.support.drivers import SMALL

pytestmark = pytest.mark.docker
MINE = "cellgate-test-mine"


@pytest.fixture
def engine() -> Iterator[Engine]:
    try:
        make_image("python")
    except DriverUnavailable as error:
        pytest.skip(str(error))
    engine = Engine.open()
    try:
        yield engine
    finally:
        engine.close()


def test_an_image_tells_what_it_is_made_of(engine):
    found = find_templates(engine)["python"]
    packages = dict(line.split("==") for line in found.pins.splitlines())
    assert {"ipykernel", "msgpack"} <= set(packages)
    assert (found.kernel, found.link) == ("python", "1")


def test_nothing_that_is_as_it_should_be_is_made_again(engine):
    said: list[str] = []
    before = find_templates(engine)["python"].image
    assert build(engine, recipe_of("python"), said.append).image == before
    assert said == ["python: as it should be"]


async def test_an_image_of_ones_own_has_what_its_requirements_name(engine, tmp_path: Path):
    requirements = tmp_path / "mine.txt"
    requirements.write_text("humanize==4.9.0\n")
    try:
        recipe = recipe_from(MINE, "python", requirements, engine)
        await asyncio.to_thread(build, engine, recipe, print)
        driver = await DockerDriver.start(images=[MINE])
        try:
            assert driver.packages(MINE)["humanize"] == "4.9.0"
            sandbox = await driver.create(SandboxSpec(template=MINE, limits=SMALL))
            async with KernelClient(sandbox) as kernel:
                result = await kernel.execute("import humanize; humanize.intcomma(10**6)", timeout=30)
            assert result.value == "'1,000,000'"
        finally:
            await driver.close()
    finally:
        for name in (image_name(MINE), f"cellgate/{MINE}:packages"):
            engine.remove_image(name)
    assert MINE not in find_templates(engine)


@pytest.mark.parametrize("name", ["", "../x", "UPPER", "a b", "python", "x" * 101, "-a"])
def test_a_name_that_cannot_be_is_refused(engine, name, tmp_path: Path):
    with pytest.raises(UsageError, match="cannot be its name"):
        recipe_from(name, "python", tmp_path / "none", engine)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"x" * 70_000])
def test_a_file_that_holds_no_requirements_is_refused(engine, content, tmp_path: Path):
    path = tmp_path / "requirements.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match="would pass"):
        recipe_from(MINE, "python", path, engine)


def test_an_image_of_another_link_is_no_template(engine, monkeypatch):
    monkeypatch.setattr("cellgate.sandbox.docker.images.LinkVersion", "2")
    with pytest.raises(DriverUnavailable, match="cellgate images build"):
        usable_images(engine)


def test_a_recipe_that_is_not_there_is_refused_and_the_others_named():
    with pytest.raises(UsageError, match=", ".join(RECIPES)):
        recipe_of("cobol")
    assert isinstance(recipe_of("python-data"), Recipe)


def test_the_command_lists_what_there_is_and_checks_it_in_a_sandbox(engine, capsys):
    assert main(["images", "ls", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["python"]["image"] == find_templates(engine)["python"].image
    assert main(["images", "ls"]) == 0
    assert listed["python"]["image"] in capsys.readouterr().out
    assert main(["images", "check", "python"]) == 0
    assert capsys.readouterr().out == "python: ok\n"


def test_the_command_says_where_it_looked_for_an_engine(monkeypatch, capsys, tmp_path: Path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert main(["images", "ls"]) == 4
    said = capsys.readouterr().err
    assert "does not answer" in said and "DOCKER_HOST" in said
