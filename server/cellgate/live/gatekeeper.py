"""Judges what the clients of one session send, before its kernel may have it: by the session's policy, in the language
of its kernel. What cannot be judged is denied.

Has verdicts given, and says of each that it was; reads no code, which is for workers (`judging`), and decides nothing
of what comes of a verdict, which is for the session.
"""

from __future__ import annotations

import logging
import time

from cellgate.errors import PolicyError
from cellgate.live.happenings import Happenings, VerdictGiven, Who
from cellgate.live.judging import Judges
from cellgate.policy.judge import CODELESS
from cellgate.policy.policies import Policy
from cellgate.policy.verdicts import Severity, Verdict
from cellgate.sessions.cells import Judgement
from cellgate.wire.jupyter import ClientMessage

__all__ = ["Gatekeeper"]

log = logging.getLogger("cellgate.live")


class Gatekeeper:
    """One session's."""

    def __init__(self, judges: Judges, policy: Policy, language: str, who: Who, happenings: Happenings) -> None:
        self.policy = policy
        self._judges = judges
        self._language = language
        self._who = who
        self._happenings = happenings

    def recall(self, message: ClientMessage) -> Verdict | None:
        """A verdict that lets pass, if it is known at once: such a message goes on without waiting for a turn. One that
        is denied takes the long way, so that what was sent with it stands behind it by then."""
        if self.policy.is_off or message.msg_type in CODELESS:
            return Verdict(policy=self.policy.name)
        known = self._judges.recall(message.msg_type, message.content, self.policy, self._language)
        if known is None or not known.allowed:
            return None
        self._happenings.tell(VerdictGiven(self._who, message.msg_type, (), 0.0))
        return known

    async def judge(self, message: ClientMessage) -> Judgement:
        began = time.monotonic()
        try:
            judgement: Judgement = await self._judges.judge_message(
                message.msg_type, message.content, self.policy, self._language, principal=self._who.principal
            )
        except PolicyError as error:
            judgement = error
        except Exception:  # a fault of ours lets nothing pass
            log.exception("session %s: a %s could not be judged", self._who.session, message.msg_type)
            judgement = PolicyError("this server failed to; its log says why")
        self._tell(message, judgement, time.monotonic() - began)
        return judgement

    def _tell(self, message: ClientMessage, judgement: Judgement, seconds: float) -> None:
        if isinstance(judgement, PolicyError):
            denied_by: tuple[str, ...] = (judgement.code,)
        else:
            denied_by = tuple(dict.fromkeys(finding.rule for finding in judgement.of(Severity.DENY)))
        self._happenings.tell(VerdictGiven(self._who, message.msg_type, denied_by, seconds))
