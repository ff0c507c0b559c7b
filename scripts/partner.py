"""`fedaccord partner check` and `fedaccord partner start`."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import ssl
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.text import Text

from client.deployed import PARTNER_VARIABLE, PartnerFile, load_partner_file, rows
from common.errors import UserError
from common.files import private_directory
from common.printable import log_printable
from common.processes import Child, flower_environment, free_port, new_secret, supervise
from scripts.console import PlainConsole

CONNECT_SECONDS = 10.0
NEEDED_BYTES = 1 << 30
TRIED_ROWS, TRIED_TOKENS = 40, 24


@dataclass(frozen=True)
class Line:
    """One check: what, whether it passed, and what was found or is to be done."""

    what: str
    passed: bool
    words: str


def check(own: PartnerFile) -> list[Line]:
    """Everything that a run would need, each on its own; nothing is sent but a TLS handshake."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("key", lambda: _key(own)),
        ("certificate and server", lambda: _server(own)),
        ("policy", lambda: _policy(own)),
        ("data", lambda: _data(own)),
        ("models", lambda: _models(own)),
        ("private training", lambda: _training(own)),
        ("ledger", lambda: _ledger(own)),
        ("disk", lambda: _disk(own)),
        ("device", _device),
        ("versions", _versions),
    ]
    lines = []
    for what, probe in checks:
        try:
            lines.append(Line(what, True, probe()))
        except UserError as error:
            lines.append(Line(what, False, str(error)))
    return lines


def _key(own: PartnerFile) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        content, mode = own.key.read_bytes(), own.key.stat().st_mode & 0o777
        key = load_ssh_private_key(content, None)
    except (OSError, ValueError) as error:
        raise UserError(f"{own.key} cannot be read; unpack the kit again") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"{own.key} is not an elliptic-curve key; ask for a new kit")
    if mode & 0o077:
        raise UserError(f"{own.key} can be read by others; chmod 600 it")
    return "readable by this user only"


def _server(own: PartnerFile) -> str:
    try:
        context = ssl.create_default_context(cafile=str(own.authority))
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"{own.authority} cannot be read; unpack the kit again") from error
    host, _, port = own.server.rpartition(":")
    host = host.strip("[]")
    try:
        with (
            socket.create_connection((host, int(port)), CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            return f"{own.server} answers with {secure.version()} and the federation's certificate"
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(
            f"{own.server} shows a certificate that this federation's authority did not sign for "
            f"it ({error.verify_message}); do not connect, ask the coordinator"
        ) from error
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"{own.server} cannot be reached ({type(error).__name__}); open the firewall for "
            "outgoing TCP to it, or wait until the coordinator has started it"
        ) from error


class Untrusted(UserError):
    """The server's certificate is not of this federation."""


def _policy(own: PartnerFile) -> str:
    budget = own.policy.budget
    without = "allowed" if own.policy.allow_non_private else "not allowed"
    personal = "allowed" if own.policy.allow_personal_models else "not allowed"
    return (
        f"lifetime epsilon {budget.epsilon:g}, delta {budget.delta:g}; without DP {without}; "
        f"personal models {personal}"
    )


def _data(own: PartnerFile) -> str:
    from client.accounting import check_delta
    from client.policy import PolicyRequest
    from common.data.deidentify import describe
    from common.data.load import notes
    from common.data.schema import target_of
    from common.tasks import TASKS

    columns, policy = own.data.columns, own.policy
    policy.check(
        PolicyRequest(
            dataset=own.name,
            task=next(t.name for t in TASKS.values() if t.target == target_of(own.data)),
            text=(columns.text,),
            label=tuple(filter(None, [columns.label])),
            groups=tuple(columns.groups),
            private=True,
            exact_metrics=False,
            epsilon=policy.budget.epsilon,
            delta=policy.budget.delta,
        )
    )
    train, validation = rows(own)
    check_delta(policy.budget.delta, len(train))
    found = f"{len(train)} rows to train on, {len(validation)} to validate on"
    found = "; ".join([found, *notes(own.data, own.cache)])
    if train.replaced is None:
        return found
    return f"{found}; replaced in all of them: {describe(train.replaced)}"


def _models(own: PartnerFile) -> str:
    from transformers import AutoConfig

    from common.model import locate

    for name, model in own.models.items():
        try:
            AutoConfig.from_pretrained(
                locate(model.place), revision=model.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise UserError(f"models.{name}: {model.place} cannot be loaded here") from error
    return ", ".join(own.models) or "none is allowed"


def _training(own: PartnerFile) -> str:
    """Train a few steps on made-up texts: are clipping and noise what they must be?

    On the allowed model, with the software that is installed here; no row of the partner's enters.
    """
    import numpy as np
    import torch

    from client.selfcheck import Subject, check_training
    from client.wiring import cut_off
    from common.config import ModelConfig
    from common.device import Device
    from common.model import build
    from common.prefix import prepare

    model = next(iter(own.models.values()), None)
    if model is None:
        return "not tried: no model is allowed"
    config = ModelConfig(base=model.place, revision=model.revision, max_length=TRIED_TOKENS)
    network = build(config, ("no", "yes"), seed=0)
    device = Device(torch.device("cpu"), torch.float32)
    words = np.random.default_rng(0).integers(97, 123, (TRIED_ROWS, 12))
    texts = [" ".join(map(chr, row)) for row in words]
    labels = np.arange(TRIED_ROWS) % 2
    with tempfile.TemporaryDirectory(dir=private_directory(own.directory)) as cache:
        records, fewer = (
            prepare(texts[:rows], labels[:rows], network, config, device, Path(cache))
            for rows in (TRIED_ROWS, TRIED_ROWS - 1)
        )
        problems = [f"no gradient reaches {name}" for name in cut_off(network)[:1]]
        for way in ("hooks", "bookkeeping"):
            subject = Subject(network, network.read(), records, fewer, 0.05, way, device)
            problems += check_training(subject)
    if problems:
        raise UserError(
            f"{'; '.join(problems)}: do not train with this installation; install fedaccord and "
            "its dependencies anew in the versions of pyproject.toml"
        )
    return f"clipped, noised and sampled as accounted ({TRIED_ROWS} made-up texts)"


def _ledger(own: PartnerFile) -> str:
    from client import ledger

    if not own.ledger.exists():
        return "none yet; it begins with the first private run"
    if problems := ledger.verify(own.ledger):
        raise UserError(f"{own.ledger} is damaged ({problems[0]}); restore it from its backup")
    return f"whole, {len(ledger.read(own.ledger))} rows"


def _disk(own: PartnerFile) -> str:
    try:
        free = shutil.disk_usage(private_directory(own.directory)).free
        probe = own.directory / ".probe"
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise UserError(f"{own.directory} cannot be written: {error.strerror}") from error
    if free < NEEDED_BYTES:
        raise UserError(f"{own.directory}: {free >> 20} MiB free, 1024 are needed; make room")
    return f"{free >> 20} MiB free"


def _device() -> str:
    from common.device import pick_device, usable_cores

    device = pick_device("auto")
    return f"{device.device.type} with {device.dtype}, {usable_cores()} cores"


def _versions() -> str:
    names = ("fedaccord", "flwr", "torch", "transformers", "opacus")
    return ", ".join(f"{name} {version(name)}" for name in names)


NODE_ADVICE = (
    'the lines above say why; after "Failed to activate SuperNode" this partner\'s key is revoked, '
    "not registered, or in use by another process: ask the coordinator"
)


def start(own: PartnerFile, worker_module: str = "client.worker") -> int:
    """Serve the federation until told to end; `worker_module` answers the messages.

    Raises UserError when the server's certificate, the key or the data would make that pointless.
    """
    log_printable(logging.INFO)
    log = logging.getLogger("fedaccord")
    _key(own)
    _data(own)
    try:
        _server(own)
    except Untrusted:
        raise
    except UserError as error:
        log.warning("%s; trying again until it answers", error)
    log.info("partner %s serves %s", own.name, own.server)

    def children() -> list[Child]:
        private_directory(own.directory)
        environment = {**flower_environment(own.directory), PARTNER_VARIABLE: str(own.path)}
        secret = new_secret(own.directory, "runtime.secret")
        guarded = ["--superexec-auth-secret-file", str(secret)]
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
        return [
            Child("node", node, environment, NODE_ADVICE),
            Child("worker", worker, environment),
        ]

    return supervise(children)


def main(action: str, path: str) -> int:
    """Run `check` (exit code 1 when a line fails) or `start`."""
    own = load_partner_file(Path(path))
    if action == "start":
        return start(own)
    console = PlainConsole(soft_wrap=True)
    lines = check(own)
    for line in lines:
        verdict = ("pass", "green") if line.passed else ("FAIL", "red")
        console.print(Text.assemble(verdict, f"  {line.what}: {line.words}"))
    return 0 if all(line.passed for line in lines) else 1
