"""Judges code without running it, for agents: what a session of theirs would say of it as a cell."""

from __future__ import annotations

from typing import Final

from cellgate.errors import UsageError
from cellgate.gateway.base import RestHandler
from cellgate.gateway.bodies import check_names, code_of, policy_of, text_of
from cellgate.policy.facts import LANGUAGES

__all__ = ["MAX_CODE_BYTES", "VALIDATE_NAMES", "ValidateHandler"]

MAX_CODE_BYTES: Final = 1 << 20  # as of a cell

VALIDATE_NAMES: Final = ("code", "language", "policy")


class ValidateHandler(RestHandler):
    max_body_bytes = 2 * MAX_CODE_BYTES  # JSON takes a byte more for each line; what is nearly all escapes is no code

    async def post(self) -> None:
        fields = self.fields()
        check_names(fields, VALIDATE_NAMES)
        code = code_of(fields, "code", max_bytes=MAX_CODE_BYTES)
        language = text_of(fields, "language", max_chars=100) or "python"
        if language not in LANGUAGES:
            raise UsageError(f"language is {language!r}; of {', '.join(LANGUAGES)} any would pass")
        verdict = await self.manager.validate(self.principal, code, language, policy_of(fields))
        self.answer(verdict.to_json())
