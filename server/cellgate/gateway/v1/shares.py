"""A link to watch one session, for somebody who has no token: its notebook as it is and what comes, and nothing else.

The link's token is signed, and kept nowhere: it is good as long as its session, and opens what handlers that say
`is_shared` show of it. It stands behind the `#` of the link, where no server and no log sees it.
"""

from __future__ import annotations

from cellgate.gateway.v1.sessions import V1Handler

__all__ = ["ShareHandler"]


class ShareHandler(V1Handler):
    def post(self, session_id: str) -> None:
        token = self.services.guard.make_share(self.find(session_id).id, self.principal)
        url = f"{self.request.protocol}://{self.request.host}/watch#{token}"
        self.answer({"url": url, "token": token})
