"""How the server fares, in numbers: `/metrics` for Prometheus, `/v1/stats` for pages and for `cellgate top`."""

from __future__ import annotations

from cellgate.gateway.base import RestHandler
from cellgate.metrics.prometheus import MEDIA_TYPE

__all__ = ["MetricsHandler", "StatsHandler"]


class MetricsHandler(RestHandler):
    def get(self) -> None:
        self.set_header("Content-Type", MEDIA_TYPE)
        self.finish(self.services.meters.exposition())


class StatsHandler(RestHandler):
    def get(self) -> None:
        self.answer(self.services.meters.stats())
