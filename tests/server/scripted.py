"""A federation in this process: a grid whose partners answer from a script, and a model of four
numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import torch
from flwr.app import Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from torch import Tensor

from common import messages
from common.config import Config, config_hash
from common.evaluation import Evaluation
from common.messages import Prepared, Report, Request
from results.history import RoundRecord
from server import checkpoint as checkpoints
from server.callbacks import Callback
from server.callbacks.append_audit_log import AppendAuditLog
from server.callbacks.chain import Chain
from server.callbacks.save_checkpoint import SaveCheckpoint
from server.callbacks.stop_early import StopEarly
from server.callbacks.write_decisions import WriteDecisions
from server.callbacks.write_results import WriteResults
from server.callbacks.write_rounds import WriteRounds
from server.rounds import Server
from strategies.build import build as build_pipeline

Arrays = dict[str, Tensor]
# A partner's answer to a message: (its kind, the round, the arrays in it) to one of the messages'
# bodies, a RecordDict, an Error, or None where it never answers.
Partner = Callable[[str, int, Arrays], object]
FINGERPRINT = "f" * 16


class ScriptedGrid(Grid):
    """Flower's grid, whose node n is the n-th partner of the script."""

    def __init__(self, script: Mapping[str, Partner]) -> None:
        self.partners = dict(enumerate(script.values(), 1))
        self.names = dict(enumerate(script, 1))
        self.sent: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> list[int]:
        return list(self.names)

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node, name=name) for node, name in self.names.items()]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        identities = []
        for message in messages:
            identities.append(f"message-{len(self.sent)}")
            message.metadata.__dict__["_message_id"] = identities[-1]
            self.sent[identities[-1]] = message
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        questions = [self.sent[identity] for identity in message_ids]
        answers = [(question, self._answer(question)) for question in questions]
        return [
            Message(
                body if isinstance(body, (Error, RecordDict)) else messages.pack(body),
                reply_to=question,
            )
            for question, body in answers
            if body is not None
        ]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, question: Message) -> object:
        request = messages.unpack(question.content)
        assert isinstance(request, Request)
        kind = question.metadata.message_type
        arrays = {} if kind == messages.PREPARE else messages.arrays(question.content)
        return self.partners[question.metadata.dst_node_id](kind, request.round, arrays)


def report(name: str, loss: float = 0.5, **fields: Any) -> Report:
    counts = [[40.0, 10.0], [10.0, 40.0]]
    return Report(name, counts, {}, loss, examples=600.0, epsilon=1.5, delta=1e-5, **fields)


def prepared(name: str) -> Prepared:
    return Prepared(name, FINGERPRINT, version("fedaccord"), 600.0, 1.0)


def honest(
    name: str,
    delta: Callable[[int], float] = lambda number: 1.0,
    loss: Callable[[int], float] = lambda number: 0.5,
) -> Partner:
    """A partner whose update is `delta` of the round in every entry, and whose loss is `loss`."""

    def answer(kind: str, number: int, arrays: Arrays) -> object:
        if kind == messages.PREPARE:
            return prepared(name)
        if kind == messages.EVALUATE:
            return report(name, loss(number))
        update = torch.full_like(arrays["w"], delta(number))
        return messages.pack(report(name, loss(number)), {"w": update})

    return answer


class FourNumbers:
    """A `GlobalModel` whose accuracy on 100 public rows is its first number in percent."""

    fingerprint = FINGERPRINT

    def __init__(self, public_rows: bool = False) -> None:
        self.public_rows = public_rows
        self.parameters = {"w": torch.zeros(4)}

    def read(self) -> Arrays:
        return {name: value.clone() for name, value in self.parameters.items()}

    def write(self, parameters: Mapping[str, Tensor]) -> None:
        self.parameters = {"w": parameters["w"].clone()}

    def constants(self) -> Arrays:
        return {"spread": torch.ones(2)}

    def evaluate(self, parameters: Arrays) -> Evaluation:
        right = float(parameters["w"][0])
        return Evaluation(np.array([[right, 100 - right], [0.0, 0.0]]), {}, 0.5, 100)

    def validation_loss(self, parameters: Arrays) -> float:
        return float(parameters["w"].abs().sum())

    def reference_update(self, parameters: Arrays) -> Arrays:
        return {"w": torch.ones(4)}


class Recorder(Callback):
    """Remembers every event, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def preparing(self, done: int, total: int) -> None:
        self.events.append(("preparing", done, total))

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        self.events.append(("started", partners, rounds, first_round))

    def replied(self, round_number: int, done: int, total: int) -> None:
        self.events.append(("replied", round_number, done, total))

    def round_ended(self, record: RoundRecord) -> None:
        self.events.append(("round_ended", record.round))

    def finished(self, results: dict[str, Any]) -> None:
        self.events.append(("finished", len(results["rounds"])))


def config(directory: Path, **run: Any) -> Config:
    """A run of three rounds of plain federated averaging, without deadlines to wait for."""
    found = Config()
    found.data.labels = ["no", "yes"]
    found.strategy = {
        "fair": {"_target_": "strategies.fair.uniform.Uniform"},
        "robust": {"_target_": "strategies.robust.mean.Mean"},
        "server": {"_target_": "strategies.optimizers.fedavg.FedAvg", "lr": 1.0},
    }
    settings = {"dir": str(directory), "rounds": 3, "deadline_seconds": 0.2, **run}
    for name, value in settings.items():
        assert hasattr(found.run, name)
        setattr(found.run, name, value)
    return found


def server(
    settings: Config,
    script: Mapping[str, Partner],
    callbacks: Sequence[Callback] = (),
    model: FourNumbers | None = None,
    stop: Event | None = None,
) -> Server:
    """A server as `server.build` makes it, but for the model and the folder that holds it."""
    assert settings.run.dir is not None
    directory = Path(settings.run.dir)
    directory.mkdir(exist_ok=True)
    settings.run.partners = settings.run.partners or len(script)
    resumed = checkpoints.resumable(directory / "checkpoints", config_hash(settings))
    own: list[Callback] = [
        WriteDecisions(directory / "decisions.jsonl"),
        SaveCheckpoint(directory / "checkpoints", settings.run.keep_checkpoints),
        AppendAuditLog(directory, settings),
        WriteRounds(directory / "rounds.csv"),
        WriteResults(directory / "results.json"),
        StopEarly(settings.run.patience),
    ]
    return Server(
        settings,
        ScriptedGrid(script),
        model or FourNumbers(),
        build_pipeline(settings.strategy),
        resumed,
        resumed.run_id if resumed else "run",
        Chain([*own, *callbacks]),
        stop or Event(),
        simulated=False,
    )
