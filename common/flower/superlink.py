"""Flower's SuperLink: the server that partners and the coordinator's own processes talk to."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from flwr.superlink.main import create_app
from flwr.superlink.servicer.fleet import fleet_handlers

from common.flower.substitution import substitute

Push = Callable[..., Any]


def superlink(arguments: Sequence[str], guarded: Callable[[Push], Push]) -> tuple[Any, Any]:
    """The settings and the ASGI application of a SuperLink.

    Args:
        arguments: those of `flower-superlink`.
        guarded: wraps the handler of the messages that partners push.

    Returns:
        Settings with `host`, `port`, `ssl_keyfile` and `ssl_certfile`, and the application.
    """
    sys.argv = ["flower-superlink", *arguments]
    # The package hides its module of the same name behind a function.
    flower: Any = importlib.import_module("flwr.superlink.cli.flower_superlink")
    settings = flower._parse_superlink_lifespan_config()
    application = create_app(settings, flower.SuperLinkLifespan)
    substitute(fleet_handlers, "push_messages", guarded(fleet_handlers.push_messages))
    return settings, application
