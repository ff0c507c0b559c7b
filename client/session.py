"""From a Flower message to a function's arguments and back, with what a process can keep.

A simulation worker lives for the whole run and serves many partners: the network is built once and
the latest partners stay open.  A deployed process serves one message, and everything that is worth
keeping is on its disk.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict

from client.deployed import PARTNER_VARIABLE, open_partner, withheld
from client.partner import Partner, in_simulation, simulated
from common import messages
from common.config import Config, config_hash, from_json, validate
from common.device import Device, pick_device, usable_cores
from common.errors import LocalError, UserError
from common.features import Examples
from common.messages import MessageError, Refusal, Request
from common.model import Network, build
from common.words import prepare_table

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
    for part in (network.embeddings, network.lower, network.suffix):
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
    asked = validate(from_json(config_json))
    config, partner = open_partner(Path(os.environ[PARTNER_VARIABLE]), asked)
    try:
        # Built with the seed of the run: adapters start from it, and must be the same everywhere.
        network = build(config.model, asked.outputs, asked.run.seed, asked.task)
    except UserError as error:
        raise withheld("its model cannot be used", error) from error
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
    if not in_simulation():
        if PARTNER_VARIABLE not in os.environ:
            raise UserError(
                "this partner has no partner.yaml: start it with `fedaccord partner start`"
            )
        return _open_deployed(str(context.run_config["config"]))
    config_json = str(context.run_config["config"])
    _forget_others(config_json)
    return _open(config_json, int(context.node_config["partition-id"]))


def answer(message: Message, context: Context, handler: Handler) -> Message:
    """Run `handler` and wrap what it returns, or the reason why it could not.

    An unexpected error is answered with its type alone: its text might quote a row.
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
    except LocalError as error:
        reason = str(error if in_simulation() else withheld("its files cannot be used", error))
        content = messages.pack(Refusal(name, reason))
    except (UserError, MessageError) as error:
        content = messages.pack(Refusal(name, str(error)))
    except Exception as error:
        what = _internal(error)
        log.error("internal error: %s", what)
        content = messages.pack(Refusal(name, f"internal error at the partner: {what}"))
    return Message(content, reply_to=message)


def _internal(error: Exception) -> str:
    """Type and place of an unexpected error; of the system's errors (a full disk) also what."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    told = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return f"{type(error).__name__}{told} at {where}"
