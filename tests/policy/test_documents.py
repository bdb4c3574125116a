"""POLICY.md says what the tables say. `python tests/policy/test_documents.py` writes them into it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cellgate.policy.judge import judge
from cellgate.policy.policies import (
    STRICT,
    limits_as_markdown,
    lists_as_markdown,
    parse_policy,
    policies_as_markdown,
)
from cellgate.policy.rules import CATEGORIES, RULES, rules_as_markdown
from tests.policy.evasions import EVASIONS
from tests.policy.languages import FIRES, MISSED, SILENT

PATH = Path(__file__).parents[2] / "server" / "POLICY.md"


def evasions_as_markdown() -> str:
    missed = [name for name, code in EVASIONS.items() if judge(code, "python", STRICT).allowed]
    share = 100 * (len(EVASIONS) - len(missed)) / len(EVASIONS)
    told = "; ".join(missed)
    return (
        f"Of {len(EVASIONS)} ways around that have a name, `strict` denies {len(EVASIONS) - len(missed)} "
        f"({share:.1f} %). That says nothing of those that nobody thought of. It misses:\n\n"
        f"{told}.\n"
    )


def languages_as_markdown() -> str:
    def told(codes: list[str]) -> str:
        return ", ".join(f"`` {code} ``" if "`" in code else f"`{code}`" for code in codes).replace("\n", " ⏎ ")

    lines = []
    for language in FIRES:
        lines.append(f"### {language}\n")
        lines.extend(f"- `{rule}`: {told(codes)}" for rule, codes in FIRES[language].items())
        lines.append(f"- none of these in: {told(SILENT[language])}")
        lines.extend(f"- **misses** `{rule}`: {told(codes)}" for rule, codes in MISSED[language].items())
        lines.append("")
    return "\n".join(lines)


TABLES = {
    "policies": policies_as_markdown,
    "limits": limits_as_markdown,
    "lists": lists_as_markdown,
    "rules": rules_as_markdown,
    "evasions": evasions_as_markdown,
    "languages": languages_as_markdown,
}


def table(name: str, document: str) -> re.Match[str]:
    found = re.search(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- end of {name} -->)", document, re.DOTALL)
    assert found is not None
    return found


@pytest.mark.parametrize("name", TABLES)
def test_a_table_in_the_document_is_that_of_the_code(name):
    assert table(name, PATH.read_text())[2] == TABLES[name]()


def test_what_is_said_to_stand_for_other_validators_checks_are_rules():
    rows = PATH.read_text().split("## What stands for what")[1].split("\n## ")[0].splitlines()
    here = [cell for row in rows if row.startswith("|") for cell in re.findall(r"`([a-z_]+)`", row.split("|")[3])]
    keys = {"allow_modules", "deny_modules"}
    assert len(here) > 20
    assert set(here) - keys <= set(RULES) | set(CATEGORIES)


def test_the_policy_file_in_the_document_is_one():
    text = re.search(r"```toml\n(.*?)```", PATH.read_text(), re.DOTALL)
    assert text is not None
    policy = parse_policy(text[1], "mine")
    assert policy.allows_module("sklearn.svm") and not policy.allows_module("pandas.io")
    assert policy.limits.code_bytes == 20_000


if __name__ == "__main__":
    document = PATH.read_text()
    for name, render in TABLES.items():
        found = table(name, document)
        document = document[: found.start()] + found[1] + render() + found[3] + document[found.end() :]
    PATH.write_text(document)
