"""What the README says, and the manuals beside the code that it points to, is what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cellgate.cli import COMMANDS, make_parser
from cellgate.commands.exits import exits_as_markdown
from cellgate.sandbox.limits import LIMIT_ROWS, limits_as_markdown
from cellgate.serve import greeting
from cellgate.serve.child import about_native
from cellgate.settings import profiles_as_markdown, read_settings, settings_as_markdown
from tests.bench.compare.figures import Comparison, as_markdown
from tests.docs.specification import targets

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SERVING, COMMANDS_MD, CLIENTS_MD = (
    (ROOT / f"server/{name}.md").read_text() for name in ("SERVING", "COMMANDS", "CLIENTS")
)
IMAGES = (ROOT / "images/README.md").read_text()
MANUALS = "\n".join((README, SERVING, COMMANDS_MD, CLIENTS_MD, IMAGES))
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "CHANGELOG.md",
        "SPECIFICATION.md",
        "images/README.md",
        "images/deploy/README.md",
        "kernels/README.md",
        "server/CLIENTS.md",
        "server/COMMANDS.md",
        "server/SERVING.md",
        "static/README.md",
        "tests/README.md",
        "tests/bench/README.md",
        "tests/clients/README.md",
        "tests/faults/README.md",
        "tests/hostile/REPORT.md",
        "tests/soak/README.md",
    )
]
COMPARISON = ROOT / "tests/bench/compare/results/comparison.json"


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def shell_lines(text: str) -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


def command_lines() -> list[list[str]]:
    """Every call of `cellgate` in a shell block, as words."""
    calls = re.findall(r"(?:^|[ /|])cellgate (.*?)(?: > .*)?$", "\n".join(shell_lines(MANUALS)), re.MULTILINE)
    return [shlex.split(call, comments=True) for call in calls]


def test_setting_up_takes_exactly_two_commands():
    assert len(shell_lines(section("Set up"))) == 2


def test_ci_runs_both_commands_word_by_word():
    run = {line.removesuffix(" || again .venv/bin/python") for line in (ROOT / ".ci/run").read_text().splitlines()}
    assert set(shell_lines(section("Set up"))) <= run


@pytest.mark.parametrize("words", command_lines(), ids=" ".join)
def test_every_call_of_cellgate_in_the_manuals_is_one_the_parser_takes(words):
    make_parser().parse_args(words)


def test_every_command_has_its_line():
    table = COMMANDS_MD.split("\n| command |")[1].split("\n\n")[0]
    assert {name for name in COMMANDS if f"`cellgate {name}`" not in table} == set()


def test_what_serve_prints_is_what_it_prints():
    settings = read_settings(flags={}, environ={}, file={}, is_root=True)
    about = about_native({"is_host_root": True, "cgroup": 2})
    url = re.search(r"    (http://127.0.0.1:8890/\S+)", SERVING)
    assert url and greeting(settings, url[1], 4711, about, end_sessions=False) in SERVING


def test_the_table_of_exit_statuses_is_that_of_the_code():
    assert exits_as_markdown() in COMMANDS_MD


def test_the_table_of_limits_is_that_of_the_code():
    assert limits_as_markdown() == README.split("<!-- limits: ")[1].split("-->\n")[1].split("<!-- end of limits")[0]


def test_the_tables_of_settings_are_those_of_the_code():
    assert settings_as_markdown() == SERVING.split("<!-- settings: ")[1].split("-->\n")[1].split("<!-- end")[0]
    assert profiles_as_markdown() == SERVING.split("<!-- profiles: ")[1].split("-->\n")[1].split("<!-- end")[0]


def test_every_flag_named_in_the_manuals_exists():
    known, serving = make_parser().parse_args(["run", "-c", "1"]), make_parser().parse_args(["serve"])
    flags = set(re.findall(r"`(--[a-z-]+)", MANUALS)) - {"--help"}
    for flag in flags:
        attribute = flag[2:].replace("-", "_")
        assert hasattr(known, attribute) or hasattr(serving, attribute) or flag in ("--memory", "--cpus"), flag
    assert all(hasattr(known, row.name) for row in LIMIT_ROWS)


def test_the_comparison_is_that_of_the_run_that_is_kept_beside_it():
    shown = README.split("<!-- comparison: ")[1].split("-->\n")[1].split("<!-- end of comparison")[0]
    assert shown == as_markdown(Comparison.load(COMPARISON))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(document):
    text = document.read_text()
    linked = [document.parent / target for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
    named = [ROOT / path for path in re.findall(r"`((?:server|kernels|tests)/[\w./-]+\.(?:py|md))`", text)]
    assert [str(path) for path in linked + named if not path.exists()] == []


def test_the_targets_are_those_of_the_benches():
    table = README.split("<!-- targets; ")[1].split("-->\n")[1].split("<!-- end of targets")[0]
    known = {(target.figure, number) for target in targets() for number in target.wanted.split(", ")}
    rows = [re.split(r" *\| *", row.strip("| "))[1:] for row in table.splitlines()[2:]]
    told = [(figure.strip("`"), number.rsplit(" ", 1)[0]) for numbers, figure in rows for number in numbers.split(", ")]
    assert len(told) >= len(rows) and [one for one in told if one not in known] == []


def slug(heading: str) -> str:
    """What a heading is linked by."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_heading_that_a_document_links_to_exists(document):
    for target, anchor in re.findall(r"\]\(([\w./-]*\.md|)#([^)]+)\)", document.read_text()):
        text = (document.parent / target if target else document).read_text()
        assert anchor in {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}, (target, anchor)
