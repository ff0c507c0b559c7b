"""From a Flower message to a function's arguments and back.

`answer` is the same for a deployed partner (`client/deployed_session.py`) and for a simulated one
(`simulation/session.py`).  They differ in how they open a session, and in what they tell the
coordinator about an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Context, Message, RecordDict

from client.partner import Partner
from common import messages
from common.config import Config
from common.device import Device, pick_device
from common.examples.batch import Examples
from common.examples.prepare import prepare_table
from common.messages import MessageError, Refusal, Request
from common.models.network import Network


@dataclass(frozen=True)
class Session:
    """Everything that a message handler needs.

    `identity` is `config_hash(config)`, which takes milliseconds to compute: a simulation worker
    serves many partners of one run.
    """

    config: Config
    identity: str
    partner: Partner
    network: Network
    device: Device
    train: Examples
    validation: Examples


Handler = Callable[[Session, Request, RecordDict], RecordDict]
# Opens the session that a Flower context asks for.  Raises UserError when the configuration is
# wrong, or when this process may not serve it.
Opener = Callable[[Context], Session]
# The sentence that the coordinator gets about an error.
Explain = Callable[[Exception], str]


def placed(network: Network, config: Config) -> tuple[Network, Device]:
    """`network` on the device that `config` asks for, and that device."""
    device = pick_device(config.model.precision, config.model.compile)
    for part in (network.embeddings, network.shared, network.frozen, network.trained):
        part.to(device.device)
    return network, device


def new_session(
    config: Config, identity: str, partner: Partner, network: Network, device: Device
) -> Session:
    """A session whose training and validation rows are tokenised."""
    train, validation = (
        prepare_table(rows, network, config.model, device, partner.cache)
        for rows in (partner.train, partner.validation)
    )
    return Session(config, identity, partner, network, device, train, validation)


def answer(
    message: Message, context: Context, handler: Handler, open_session: Opener, explain: Explain
) -> Message:
    """Run `handler` and wrap its reply, or what `explain` says about the error that it raised."""
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
        # Withheld where metrics are private: the time tells the sizes of the batches.
        if not session.config.private_metrics:
            messages.put_seconds(content, time.perf_counter() - began)
    except Exception as error:
        content = messages.pack(Refusal(name, explain(error)))
    return Message(content, reply_to=message)
