"""/v1/scripts: code kept under a name. Running one is what `runs` does with any code."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from cellgate.errors import UsageError
from cellgate.gateway.base import timestamp
from cellgate.gateway.bodies import check_names, code_of, text_of
from cellgate.gateway.v1.sessions import V1Handler
from cellgate.live.kernelspecs import choose_kernelspec
from cellgate.live.scripts import MAX_CODE_BYTES, SCRIPT_NAME, Script, Scripts, diff_of

__all__ = ["MAX_VERSION", "DiffHandler", "ScriptHandler", "ScriptsHandler", "VersionsHandler", "version_of"]

MAX_VERSION = 999_999_999


def script_model(script: Script, *, with_code: bool) -> dict[str, Any]:
    model = {**vars(script), "created": timestamp(datetime.fromtimestamp(script.created, timezone.utc))}
    return model if with_code else {name: value for name, value in model.items() if name != "code"}


def version_of(words: Mapping[str, str], name: str = "version") -> int | None:
    """The number in a query's word; None without one. Raises UsageError."""
    text = words.get(name)
    if text is None:
        return None
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise UsageError(f"{name} is {text[:40]!r}; the number of a version would pass")
    return int(text)


class ScriptsBase(V1Handler):
    max_body_bytes = MAX_CODE_BYTES * 7 + 4096  # a character may take six of JSON, and some a byte beside

    @property
    def scripts(self) -> Scripts:
        return self.manager.scripts


class ScriptsHandler(ScriptsBase):
    def get(self) -> None:
        listed = self.scripts.newest(self.principal)
        self.answer({"scripts": [script_model(script, with_code=False) for script in listed]})

    def post(self) -> None:
        """201 with a new version, 200 when the newest is just that."""
        fields = self.fields()
        check_names(fields, ("name", "code", "kernel", "language"))
        name = text_of(fields, "name", max_chars=100)
        if not SCRIPT_NAME.fullmatch(name):
            raise UsageError(f"name is {name!r}; letters, digits and . _ - would pass, beginning with no . and no -")
        words = {word: text_of(fields, word, max_chars=100) for word in ("kernel", "language")}
        script, is_new = self.scripts.save(
            self.principal,
            name,
            code_of(fields, "code", max_bytes=MAX_CODE_BYTES),
            kernel=choose_kernelspec(self.manager.kernelspecs, **words).name,
            now=time.time(),
        )
        self.set_header("Location", f"/v1/scripts/{name}")
        self.answer(script_model(script, with_code=True), 201 if is_new else 200)


class ScriptHandler(ScriptsBase):
    def get(self, name: str) -> None:
        version = version_of(self.words("version"))
        self.answer(script_model(self.scripts.get(self.principal, name, version), with_code=True))

    def delete(self, name: str) -> None:
        self.scripts.delete(self.principal, name)
        self.answer_nothing()


class VersionsHandler(ScriptsBase):
    def get(self, name: str) -> None:
        found = self.scripts.versions(self.principal, name)
        self.answer({"versions": [script_model(script, with_code=False) for script in found]})


class DiffHandler(ScriptsBase):
    async def get(self, name: str) -> None:
        """From one version to another: by default to the newest, from the one before that."""
        words = self.words("from", "to")
        after = self.scripts.get(self.principal, name, version_of(words, "to"))
        before = self.scripts.get(self.principal, name, version_of(words, "from") or max(after.version - 1, 1))
        titles = f"{name} {before.version}", f"{name} {after.version}"
        lines = before.code.splitlines(), after.code.splitlines()
        told = await asyncio.to_thread(diff_of, *lines, titles)
        self.answer({"from": before.version, "to": after.version, "diff": told})
