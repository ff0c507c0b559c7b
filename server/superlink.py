"""`python -m server.superlink`: Flower's SuperLink behind two doors.

Flower serves everything on one port: what partners need (fleet), and what starts runs, registers
keys and hands out the runs' own traffic (control, runtime), the latter without asking who it is.
Here partners reach a port that answers fleet requests and nothing else; the rest listens on the
loopback interface only.

Flower reads a request to its end before it asks who sent it, and takes a message from whomever the
message itself names.  Here a request has a largest size, and a partner speaks for itself alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import HTTPException

from common.flower.superlink import superlink

FLEET = "/v1/fleet/"
# A partner's key must be registered by the coordinator; asking to be registered is not served.
CLOSED = ("/v1/fleet/register-node", "/v1/fleet/unregister-node")
# Parameters travel in chunks of 5 MiB, each in a request of its own.
LARGEST_REQUEST = 16 << 20
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Event, Receive, Send], Awaitable[None]]


class FleetOnly:
    """Passes on fleet requests of a sane size and answers 404 or 413 to all others."""

    def __init__(self, application: Application, largest: int = LARGEST_REQUEST) -> None:
        self.application = application
        self.largest = largest

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            return
        path = str(scope.get("path", ""))
        if not path.startswith(FLEET) or path in CLOSED:
            await _refuse(send, 404)
            return
        said = dict(scope.get("headers", ())).get(b"content-length", b"0")
        if not said.isdigit() or int(said) > self.largest:
            await _refuse(send, 413)
            return
        await self.application(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        """`receive` for a request whose stated length may be missing or wrong."""
        taken = 0

        async def counted() -> Event:
            nonlocal taken
            event = await receive()
            taken += len(event.get("body", b""))
            # To the application it looks as if the sender had hung up.
            return event if taken <= self.largest else {"type": "http.disconnect"}

        return counted


async def _refuse(send: Send, status: int) -> None:
    headers = [(b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def of_itself(push: Callable[..., Any]) -> Callable[..., Any]:
    """Flower's handler of pushed messages, restricted to the sender's own replies."""

    def checked(request: Any, state: Any) -> Any:
        for message in request.messages_list:
            sender, question = message.metadata.src_node_id, message.metadata.reply_to_message_id
            if sender != request.node.node_id or not question:
                raise HTTPException(403, "a partner may send its own replies and nothing else")
        return push(request=request, state=state)

    return checked


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
    """Serve both doors until the process is told to end.

    Args:
        host, port: the outer door, for partners.
        arguments: those of `flower-superlink`, for the inner door.
    """
    config, application = superlink(arguments, of_itself)
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
