"""From a Flower message to a function's arguments and back, with what a process can keep.

A simulation worker lives for the whole run and serves many partners: the network is built once and
the latest partners stay open.  A deployed process serves one message, and everything that is worth
keeping is on its disk.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict

from client.deployed import PARTNER_VARIABLE, open_partner
from client.partner import Partner, in_simulation, simulated
from client.refusal import described, public_reason
from common import messages
from common.config import Config, config_hash, from_json, validate
from common.device import Device, pick_device, usable_cores
from common.errors import UserError
from common.examples.batch import Examples
from common.examples.prepare import prepare_table
from common.messages import MessageError, Refusal, Request
from common.models.build import build
from common.models.network import Network
from common.printable import short_entry
from common.refusals import Reason, Refused
from common.request import checked

log = logging.getLogger(__name__)
OPEN_PARTNERS = 64
# The configuration that this process serves at the moment.
_serving: list[str] = []


@dataclass(frozen=True)
class Session:
    """Everything a message handler needs."""

    config: Config
    # `config_hash(config)`, which takes milliseconds, and a simulation serves many partners.
    identity: str
    partner: Partner
    network: Network
    device: Device
    train: Examples
    validation: Examples


Handler = Callable[[Session, Request, RecordDict], RecordDict]


@lru_cache(maxsize=1)
def _network(config_json: str) -> tuple[Network, Device]:
    config = from_json(config_json)
    return _placed(build(config.model, config.outputs, config.run.seed, config.task), config)


def _placed(network: Network, config: Config) -> tuple[Network, Device]:
    device = pick_device(config.model.precision, config.model.compile)
    for part in (network.embeddings, network.frozen, network.trained):
        part.to(device.device)
    return network, device


@lru_cache(maxsize=1)
def _configured(config_json: str) -> tuple[Config, str]:
    config = validate(from_json(config_json))
    return config, config_hash(config)


@lru_cache(maxsize=OPEN_PARTNERS)
def _open(config_json: str, index: int) -> Session:
    config, identity = _configured(config_json)
    torch.set_num_threads(threads_per_worker(config))
    partner = simulated(config, config_json, index)
    return _session(config, identity, partner, *_network(config_json))


def _forget_others(config_json: str) -> None:
    """Close the partners of an earlier run: sweeps and four-way studies share workers."""
    if _serving[:] != [config_json]:
        _open.cache_clear()
        _serving[:] = [config_json]


def _open_deployed(config_json: str) -> Session:
    """The session of a partner that has its own file; `config_json` is what a coordinator asks."""
    asked = checked(config_json)
    config, partner = open_partner(Path(os.environ[PARTNER_VARIABLE]), asked)
    try:
        # Built with the seed of the run: adapters start from it, and must be the same everywhere.
        network = build(config.model, asked.outputs, asked.run.seed, asked.task)
    except UserError as error:
        raise Refused(Reason.OWN_MODEL, str(error)) from error
    return _session(config, config_hash(config), partner, *_placed(network, config))


def _session(
    config: Config, identity: str, partner: Partner, network: Network, device: Device
) -> Session:
    def examples(table: object) -> Examples:
        rows = partner.train if table == "train" else partner.validation
        return prepare_table(rows, network, config.model, device, partner.cache)

    return Session(
        config, identity, partner, network, device, examples("train"), examples("validation")
    )


def threads_per_worker(config: Config) -> int:
    """Cores divided by worker processes, so that workers do not fight over them."""
    cores = usable_cores()
    return max(1, cores // (config.run.workers or cores))


def open_session(context: Context) -> Session:
    """The session behind a Flower context.

    Raises UserError when the configuration is wrong or this process may not serve it.
    """
    config_json = str(context.run_config.get("config", ""))
    if not in_simulation():
        if PARTNER_VARIABLE not in os.environ:
            raise Refused(
                Reason.OWN_SETTINGS,
                "this partner has no partner.yaml: start it with `fedaccord partner start`",
            )
        return _open_deployed(config_json)
    _forget_others(config_json)
    return _open(config_json, int(context.node_config["partition-id"]))


def answer(message: Message, context: Context, handler: Handler) -> Message:
    """Run `handler` and wrap what it returns, or the reason why it could not.

    A simulation's owner reads the whole reason; a deployed partner's own log has it, and the
    coordinator gets one of `common.refusals`.
    """
    began = time.perf_counter()
    name = "?"
    try:
        session = open_session(context)
        name = session.partner.name
        request = messages.unpack(message.content)
        if not isinstance(request, Request):
            raise MessageError("not a request")
        try:
            content = handler(session, request, message.content)
        finally:
            session.train.release()
            session.validation.release()
        # Withheld where metrics are private: it tells the sizes of the batches.
        if not session.config.private_metrics:
            messages.put_seconds(content, time.perf_counter() - began)
    except Exception as error:
        reason = described(error)
        if not in_simulation():
            log.error("%s", short_entry(reason))
            reason = public_reason(error)
        content = messages.pack(Refusal(name, reason))
    return Message(content, reply_to=message)
