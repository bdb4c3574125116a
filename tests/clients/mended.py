"""jupyter_server's kernel manager for gateways, as nbclient is told to use it, without two faults that end every longer
run, whatever the gateway: it opens its websocket without the token, and asks a local process it does not have whether
the kernel lives."""

from __future__ import annotations

import websocket
from jupyter_server.gateway import managers
from jupyter_server.gateway.gateway_client import GatewayClient

connect = websocket.create_connection


def connect_with_token(url, **options):
    return connect(url, header=GatewayClient.instance().load_connection_args()["headers"], **options)


websocket.create_connection = connect_with_token  # type: ignore[assignment]  # of the same parameters


class GatewayKernelManager(managers.GatewayKernelManager):
    async def _async_is_alive(self) -> bool:
        return await self.is_alive()
