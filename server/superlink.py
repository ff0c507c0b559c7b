"""`python -m server.superlink`: Flower's SuperLink behind two doors.

Flower serves everything on one port: what partners need (fleet), and what starts runs, registers
keys and hands out the runs' own traffic (control, runtime), the latter without asking who it is.
Here partners reach a port that answers fleet requests and nothing else; the rest listens on the
loopback interface only.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from flwr.superlink.main import create_app

FLEET = "/v1/fleet/"
# A partner's key must be registered by the coordinator; asking to be registered is not served.
CLOSED = ("/v1/fleet/register-node", "/v1/fleet/unregister-node")
Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Any, Send], Awaitable[None]]


class FleetOnly:
    """Passes on fleet requests and answers 404 to all others."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Serve one connection."""
        path = str(scope.get("path", ""))
        if scope["type"] == "http" and path.startswith(FLEET) and path not in CLOSED:
            await self.application(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})


class _Quiet(uvicorn.Server):
    """A server that leaves the signals to its sibling."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _serve(private: uvicorn.Server, public: uvicorn.Server) -> None:
    async def private_first() -> None:
        try:
            await private.serve()
        finally:
            public.should_exit = True

    main = asyncio.create_task(private_first())
    while not private.started and not main.done():
        await asyncio.sleep(0.05)
    if not main.done():
        await public.serve()
        private.should_exit = True
    await main


def main(host: str, port: int, arguments: list[str]) -> None:
    """Serve until told to end; `arguments` are those of `flower-superlink` for the inner door."""
    sys.argv = ["flower-superlink", *arguments]
    # The package hides its module of the same name behind a function.
    flower: Any = importlib.import_module("flwr.superlink.cli.flower_superlink")
    config = flower._parse_superlink_lifespan_config()
    application = create_app(config, flower.SuperLinkLifespan)
    shared: dict[str, Any] = {
        "ssl_keyfile": config.ssl_keyfile,
        "ssl_certfile": config.ssl_certfile,
        "access_log": False,
        "log_level": "warning",
    }
    private = uvicorn.Config(application, host=config.host, port=config.port, **shared)
    public = uvicorn.Config(FleetOnly(application), host=host, port=port, lifespan="off", **shared)
    asyncio.run(_serve(uvicorn.Server(private), _Quiet(public)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
