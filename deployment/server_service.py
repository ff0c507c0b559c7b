"""The coordinator's service: Flower's SuperLink, and a worker that runs submitted runs."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime

from common.files import held, private_directory
from common.printable import log_printable
from deployment.coordinator import Coordinator
from deployment.environment import flower_environment, new_secret
from deployment.supervision import Child, supervise

log = logging.getLogger("fedaccord")


class ServerService:
    """The processes of a server, and the partners' keys that it accepts.

    Attributes:
        own: The coordinator's settings.
        accepted: The public keys that the SuperLink has registered, by partner.
        started_at: When the SuperLink was started; None once orphaned runs have been ended.
    """

    def __init__(self, own: Coordinator) -> None:
        self.own = own
        self.accepted: dict[str, bytes] = {}
        self.started_at: datetime | None = None

    def children(self) -> list[Child]:
        """The SuperLink and its worker, with a new secret."""
        self.accepted.clear()
        self.started_at = datetime.now(UTC)
        own, settings = self.own, self.own.settings
        environment = flower_environment(own.directory)
        guarded = ["--superexec-auth-secret-file", str(new_secret(own.directory))]
        tls = [
            *("--ssl-certfile", str(own.kit_file("server.pem"))),
            *("--ssl-keyfile", str(own.kit_file("server.key"))),
            *("--ssl-ca-certfile", str(own.authority)),
        ]
        link = [
            *(sys.executable, "-m", "server.superlink", settings.host, str(settings.port)),
            *("--host", "127.0.0.1", "--port", str(settings.control_port), *tls, *guarded),
            *("--isolation", "process", "--enable-supernode-auth"),
            *("--disable-runtime-dependency-installation",),
            *("--database", str(own.directory / "superlink.db")),
        ]
        worker = [
            *(sys.executable, "-m", "server.worker"),
            *("--runtime-api-address", f"127.0.0.1:{settings.control_port}"),
            *("--root-certificates", str(own.authority), *guarded),
            *("--parent-pid", str(os.getpid())),
        ]
        return [Child("server", link, environment), Child("worker", worker, environment)]

    def tick(self) -> None:
        """Register the keys in the kit's folder; after a start, end the last server's runs."""
        from server.control import connect, read_keys

        keys = read_keys(self.own.kit_file("partners"))
        if keys == self.accepted and self.started_at is None:
            return
        with connect(self.own.settings.control_port, self.own.authority) as control:
            for change in control.register(keys):
                log.info("%s", change)
            self.accepted = keys
            if self.started_at is not None:
                for number in control.end_orphans(self.started_at):
                    log.warning(
                        "run %d ended with the last server; continue it with run.resume", number
                    )
                self.started_at = None


def serve(own: Coordinator) -> int:
    """Run the server until SIGTERM or SIGINT arrives.

    Args:
        own: The coordinator's settings.

    Returns:
        The exit code.

    Raises:
        UserError: A file of the kit is missing, or a server of this federation runs already.
    """
    log_printable(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name in ("ca.pem", "server.pem", "server.key", "partners"):
        own.kit_file(name)
    service = ServerService(own)
    lock = private_directory(own.directory) / "server.lock"
    with held(lock, f"{own.directory}: a server of this federation runs already; stop it first"):
        log.info("partners connect to %s:%d", own.settings.host, own.settings.port)
        return supervise(service.children, service.tick)
