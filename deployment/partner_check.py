"""Checks of a partner's installation: everything that a run needs, before a run needs it."""

from __future__ import annotations

import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from client.deployed import PartnerFile, rows
from common.errors import UserError
from common.files import private_directory

if TYPE_CHECKING:
    # They bring torch, whose import takes seconds.
    from common.config import ModelConfig
    from common.models.network import Network

CONNECT_SECONDS = 10.0
NEEDED_BYTES = 1 << 30
TRIAL_TEXTS, TRIAL_TOKENS = 40, 24


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        subject: What was checked.
        passed: Whether it is usable.
        words: The finding, or the problem and its remedy.
    """

    subject: str
    passed: bool
    words: str


class Untrusted(UserError):
    """The server's certificate is not of this federation."""


def check(own: PartnerFile) -> list[Check]:
    """Run every check on its own. Only a TLS handshake leaves this machine.

    Args:
        own: The partner's settings.
    """
    checks: list[tuple[str, Callable[[], str]]] = [
        ("key", lambda: check_key(own)),
        ("certificate and server", lambda: check_server(own)),
        ("policy", lambda: _policy(own)),
        ("data", lambda: check_data(own)),
        ("models", lambda: _models(own)),
        ("private training", lambda: check_training(own)),
        ("ledger", lambda: _ledger(own)),
        ("disk", lambda: _disk(own)),
        ("device", _device),
        ("versions", _versions),
    ]
    found = []
    for subject, probe in checks:
        try:
            found.append(Check(subject, True, probe()))
        except UserError as error:
            found.append(Check(subject, False, str(error)))
    return found


def check_key(own: PartnerFile) -> str:
    """Check the partner's private key.

    Raises:
        UserError: The key is missing, of another kind, or readable by other users.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        content, mode = own.key.read_bytes(), own.key.stat().st_mode & 0o777
        key = load_ssh_private_key(content, None)
    except (OSError, ValueError) as error:
        raise UserError(f"{own.key}: cannot be read; unpack the kit again") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UserError(f"{own.key}: is not an elliptic-curve key; ask for a new kit")
    if mode & 0o077:
        raise UserError(f"{own.key}: can be read by other users; run chmod 600 on it")
    return "only this user can read it"


def check_server(own: PartnerFile) -> str:
    """Connect to the server and check its certificate.

    Raises:
        Untrusted: Another authority signed the certificate, or it is for another host.
        UserError: The server does not answer.
    """
    try:
        context = ssl.create_default_context(cafile=str(own.authority))
    except (OSError, ssl.SSLError) as error:
        raise UserError(f"{own.authority}: cannot be read; unpack the kit again") from error
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
            f"{own.server}: this federation's authority has not signed the server's certificate "
            f"for this host ({error.verify_message}); do not connect, and ask the coordinator"
        ) from error
    except (OSError, ssl.SSLError) as error:
        raise UserError(
            f"{own.server}: cannot be reached ({type(error).__name__}); allow outgoing TCP "
            "connections to it in the firewall, or wait until the coordinator has started it"
        ) from error


def _policy(own: PartnerFile) -> str:
    budget = own.policy.budget
    without = "allowed" if own.policy.allow_non_private else "not allowed"
    personal = "allowed" if own.policy.allow_personal_models else "not allowed"
    return (
        f"lifetime epsilon {budget.epsilon:g}, delta {budget.delta:g}; training without "
        f"differential privacy is {without}; personal models are {personal}"
    )


def check_data(own: PartnerFile) -> str:
    """Read the partner's rows and check that its own policy lets a run use them.

    Raises:
        UserError: A row or column is unusable, or delta is too large for the number of rows.
    """
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
    found = f"{len(train)} rows for training, {len(validation)} for validation"
    found = "; ".join([found, *notes(own.data, own.cache)])
    if train.replaced is None:
        return found
    return f"{found}; replaced in all of them: {describe(train.replaced)}"


def _models(own: PartnerFile) -> str:
    from transformers import AutoConfig

    from common.models.loading import locate

    for name, model in own.models.items():
        try:
            AutoConfig.from_pretrained(
                locate(model.place), revision=model.revision, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise UserError(
                f"models.{name}: {model.place} cannot be loaded; copy the model to this machine "
                "or correct the entry"
            ) from error
    return ", ".join(own.models) or "no model is allowed"


def check_training(own: PartnerFile) -> str:
    """Train a few private steps on made-up texts, and measure clipping, noise and sampling.

    Uses the first allowed model and the installed software; reads none of the partner's rows.

    Raises:
        UserError: The installation does not do what the ledger would account for.
    """
    from client.wiring import cut_off
    from common.config import ModelConfig
    from common.models.build import build

    model = next(iter(own.models.values()), None)
    if model is None:
        return "not tried, because no model is allowed"
    config = ModelConfig(base=model.place, revision=model.revision, max_length=TRIAL_TOKENS)
    network = build(config, ("no", "yes"), seed=0)
    problems = [f"no gradient reaches {name}" for name in cut_off(network)[:1]]
    problems += _training_problems(network, config, private_directory(own.directory))
    if problems:
        raise UserError(
            f"{'; '.join(problems)}: do not train with this installation; reinstall fedaccord "
            "and its dependencies in the versions of pyproject.toml"
        )
    return f"clipped, noised and sampled as accounted ({TRIAL_TEXTS} made-up texts)"


def _training_problems(network: Network, config: ModelConfig, directory: Path) -> list[str]:
    import numpy as np
    import torch

    from client import selfcheck
    from common.device import Device
    from common.examples.prepare import prepare

    device = Device(torch.device("cpu"), torch.float32)
    letters = np.random.default_rng(0).integers(97, 123, (TRIAL_TEXTS, 12))
    texts = [" ".join(map(chr, row)) for row in letters]
    labels = np.arange(TRIAL_TEXTS) % 2
    with tempfile.TemporaryDirectory(dir=directory) as cache:
        # Neighbouring data sets: the second lacks the last text.
        examples, fewer = (
            prepare(texts[:count], labels[:count], network, config, device, Path(cache))
            for count in (TRIAL_TEXTS, TRIAL_TEXTS - 1)
        )
        problems = []
        # Read once: training moves the network's own parameters.
        start = network.read()
        for mode in ("hooks", "bookkeeping"):
            subject = selfcheck.Subject(network, start, examples, fewer, 0.05, mode, device)
            problems += selfcheck.check_training(subject)
    return problems


def _ledger(own: PartnerFile) -> str:
    from client import ledger

    if not own.ledger.exists():
        return "there is none yet; the first private run creates it"
    if problems := ledger.verify(own.ledger):
        raise UserError(f"{own.ledger}: is damaged ({problems[0]}); restore it from its backup")
    return f"intact, {len(ledger.read(own.ledger))} entries"


def _disk(own: PartnerFile) -> str:
    try:
        free = shutil.disk_usage(private_directory(own.directory)).free
        probe = own.directory / ".probe"
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{own.directory}: cannot be written ({error.strerror}); correct its owner and rights"
        ) from error
    if free < NEEDED_BYTES:
        raise UserError(
            f"{own.directory}: has {free >> 20} MiB free; make room for {NEEDED_BYTES >> 20} MiB"
        )
    return f"{free >> 20} MiB free"


def _device() -> str:
    from common.device import pick_device, usable_cores

    device = pick_device("auto")
    return f"{device.device.type} with {device.dtype}, {usable_cores()} cores"


def _versions() -> str:
    names = ("fedaccord", "flwr", "torch", "transformers", "opacus")
    return ", ".join(f"{name} {version(name)}" for name in names)
