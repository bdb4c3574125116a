"""PROTOCOL.md on files and variables says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from cellgate.gateway.v1 import files as routes
from cellgate_kernel import archives, files
from tests.docs.test_protocol_md import PAGE, table

WORDS = " ".join(PAGE.split())


def test_the_operations():
    assert [row[0] for row in table("op | is told")] == list(files.OPERATIONS)


def test_the_refusals():
    assert dict(table("refusal | meaning")) == files.ERRORS


def test_every_refusal_that_is_raised_is_in_the_table():
    source = Path(files.__file__).read_text()
    raised = set(re.findall(r'(?:FilesError|_refusal)\(\s*"(\w+)"', source)) | set(files._BY_ERRNO.values())
    assert raised <= set(files.ERRORS)


def test_the_limits():
    written = {row[0]: int(row[1]) for row in table("limit of the files | value")}
    assert written == {name: getattr(files, name, getattr(archives, name, None)) for name in written}


def test_what_the_text_says_of_files_over_http():
    assert f"It may take {routes.UPLOAD_SECONDS / 3600:g} hour" in WORDS
