"""A partner's service: one node that fetches messages, and one worker that answers them."""

from __future__ import annotations

import logging
import os
import sys

from client.deployed import PARTNER_VARIABLE, PartnerFile
from common.errors import UserError
from common.files import private_directory
from common.printable import log_printable
from deployment.environment import flower_environment, free_port, new_secret
from deployment.partner_check import Untrusted, check_data, check_key, check_server
from deployment.supervision import Child, supervise

NODE_ADVICE = (
    'see the lines above; after "Failed to activate SuperNode" this partner\'s key is revoked, '
    "not registered, or in use by another process: ask the coordinator"
)
log = logging.getLogger("fedaccord")


def start(own: PartnerFile, worker_module: str = "client.worker") -> int:
    """Serve the federation until SIGTERM or SIGINT arrives.

    Args:
        own: The partner's settings.
        worker_module: The module that answers the messages.

    Returns:
        The exit code.

    Raises:
        UserError: The key, the data or the server's certificate is unusable.
    """
    log_printable(logging.INFO)
    check_key(own)
    check_data(own)
    try:
        check_server(own)
    except Untrusted:
        raise
    except UserError as error:
        log.warning("%s; the node tries again until the server answers", error)
    log.info("partner %s serves %s", own.name, own.server)
    return supervise(lambda: _children(own, worker_module))


def _children(own: PartnerFile, worker_module: str) -> list[Child]:
    private_directory(own.directory)
    environment = {**flower_environment(own.directory), PARTNER_VARIABLE: str(own.path)}
    guarded = ["--superexec-auth-secret-file", str(new_secret(own.directory))]
    port = free_port()
    node = [
        *(sys.executable, "-m", "client.node"),
        *("--superlink", own.server, "--root-certificates", str(own.authority)),
        *("--auth-supernode-private-key", str(own.key)),
        *("--isolation", "process", *guarded, "--host", "127.0.0.1", "--port", str(port)),
    ]
    worker = [
        *(sys.executable, "-m", worker_module),
        *("--runtime-api-address", f"127.0.0.1:{port}", "--insecure", *guarded),
        *("--parent-pid", str(os.getpid())),
    ]
    return [Child("node", node, environment, NODE_ADVICE), Child("worker", worker, environment)]
