"""What a service process is started with: environment variables, a secret and a port."""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path

from common.files import private_directory, write_atomic

SECRET_BYTES = 32


def flower_environment(directory: Path) -> dict[str, str]:
    """The environment of Flower's processes for one identity.

    Flower sends no telemetry, installs nothing and keeps its files in `directory`.

    Args:
        directory: The folder of the identity's state.
    """
    home, temporary = private_directory(directory / "flower"), private_directory(directory / "tmp")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("FLWR_", "FEDACCORD_SIM"))}
    return {
        **kept,
        "FLWR_HOME": str(home),
        "TMPDIR": str(temporary),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_ARENA_MAX": "2",
        # `python -m` would import from the current folder first.
        "PYTHONSAFEPATH": "1",
    }


def new_secret(directory: Path) -> Path:
    """Write a new random secret that authenticates this user's processes to each other.

    Args:
        directory: The folder of the identity's state.

    Returns:
        The path of the secret's file.
    """
    path = private_directory(directory) / "runtime.secret"
    write_atomic(path, secrets.token_bytes(SECRET_BYTES), 0o600)
    return path


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
