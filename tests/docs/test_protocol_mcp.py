"""PROTOCOL.md on the Model Context Protocol says what the code does."""

from __future__ import annotations

from cellgate.gateway import tools
from cellgate.wire import mcp, rendering
from tests.docs.test_protocol_http import WORDS, rendered


def test_the_tools():
    assert rendered("tools") == tools.tools_as_markdown()


def test_the_numbers_in_the_text():
    assert f"(up to {mcp.VERSIONS[-1]})" in WORDS
    assert f"`notifications/progress` each {tools.PULSE_SECONDS:g} s" in WORDS
    assert f"({rendering.DEFAULT_CHARS} by default)" in WORDS
    assert f"up to {tools.MAX_IMAGE_CHARS} characters of base64" in WORDS
