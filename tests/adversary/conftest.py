"""A malicious coordinator and the partner that it asks, through the partner's own door.

`Coordinator.ask` hands a Flower message to `client.session.answer`: with a `partner.yaml` and a
file of rows for a deployed partner, with the variable of simulations for a simulated one.  So the
tests know the messages and the files, and nothing of what is between them.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor

from client import deployed_session, handlers, session
from client.deployed import PARTNER_VARIABLE
from client.refusal import described
from client.session import Opener, Session
from common import messages
from common.config import Config, LoraConfig, from_json, to_json
from common.data.schema import Block
from common.messages import Refusal, Report, Request
from common.models.build import build
from common.models.network import Network
from simulation.session import SIMULATION_VARIABLE
from simulation.session import open_session as open_simulated

LABELS = ("bad", "good")
BASE = "tiny"
Row = tuple[str, str]
HANDLERS = {messages.PREPARE: handlers.prepare, messages.TRAIN: handlers.train}
HANDLERS[messages.EVALUATE] = handlers.evaluate


@dataclass(frozen=True)
class Reply:
    """What a coordinator sees of one message."""

    body: Any
    arrays: dict[str, Tensor]

    @property
    def report(self) -> Report:
        assert isinstance(self.body, Report), self.body
        return self.body

    @property
    def refused(self) -> bool:
        return isinstance(self.body, Refusal)


@dataclass
class Coordinator:
    """Asks one partner whatever it likes; `folder` is the partner's own."""

    folder: Path
    model: Path
    config: Config
    deployed: bool
    _network: Network | None = field(default=None)
    _opened: Session | None = field(default=None)

    @property
    def network(self) -> Network:
        """The model as the coordinator builds it: the same start as at the partner."""
        if self._network is None:
            config = replace(self.config.model, base=str(self.model))
            seed, task = self.config.run.seed, self.config.task
            self._network = build(config, self.config.outputs, seed, task)
            self._network.trained.eval()
        return self._network

    def start(self) -> dict[str, Tensor]:
        """The honest global model before the first round."""
        return {**self.network.read(), **self.network.constants()}

    def ask(
        self,
        kind: str = messages.TRAIN,
        parameters: Mapping[str, Tensor] | None = None,
        number: int = 1,
        run: str = "run",
        config: Config | None = None,
    ) -> Reply:
        """Send one message and read the reply."""
        content = messages.pack(Request(run, number), parameters or self.start())
        message = Message(content, 1, kind)
        message.metadata.__dict__["_message_id"] = "m"
        context = self.context(config)
        explain = deployed_session.explain if self.deployed else described
        opened = self._opened
        opener = self.opener if opened is None else lambda _: opened
        content = session.answer(message, context, HANDLERS[kind], opener, explain).content
        body = messages.unpack(content)
        return Reply(body, messages.arrays(content) if messages.ARRAYS in content else {})

    @property
    def opener(self) -> Opener:
        """How this partner opens a session."""
        return deployed_session.open_session if self.deployed else open_simulated

    def context(self, config: Config | None = None) -> Context:
        """What Flower hands to the partner beside a message."""
        settings: Any = {"config": to_json(config or self.config)}
        return Context(1, 1, {"partition-id": 0}, RecordDict(), settings)

    def keep_open(self) -> Session:
        """Answer the next messages from one opened session: a deployed partner that opens its files
        anew for every message spends most of its time on that."""
        self._opened = self.opener(self.context())
        return self._opened

    def rows(self, train: Sequence[Row], validation: Sequence[Row]) -> None:
        """Put these (text, label) rows in the place of the partner's."""
        self._opened = None
        with (self.folder / "notes.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label", "side"])
            writer.writerows((*row, "train") for row in train)
            writer.writerows((*row, "validation") for row in validation)

    def forget(self) -> None:
        """Make the partner one that was never asked before; its cached vectors stay."""
        state = self.folder / "state"
        state = state if self.deployed else state / "partners"
        if state.is_dir():
            for path in state.iterdir():
                if path.name != "cache":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def base_config(model: Path, folder: Path, deployed: bool) -> Config:
    config = Config()
    config.model.base, config.model.max_length = (BASE if deployed else str(model)), 16
    config.model.precision = "fp32"
    # Both factors of three kinds of layer: the product of A and B is where attacks find the noise.
    config.model.lora = LoraConfig(8, 16, ["query", "value", "dense"], "both")
    config.model.drop_layers, config.model.head_scale = 0, 6.0
    config.privacy.max_grad_norm = 0.1
    config.data.source, config.data.path = "csv", str(folder / "notes.csv")
    config.data.labels, config.data.columns.split = list(LABELS), "side"
    config.train.batch_size, config.train.physical_batch = 60, 64
    config.privacy.delta, config.run.rounds = 1e-4, 2
    if deployed:
        config.privacy.metrics = "private"
    else:
        config.run.dir = config.run.cache_dir = str(folder / "state")
        config.partition.blocks = {"clinic": Block(partners=1)}
        config.data.test_fraction = 0.0
    return from_json(to_json(config))


def partner_file(folder: Path, model: Path, data: Mapping[str, Any], **policy: Any) -> None:
    own = {
        "version": 1,
        "name": "clinic",
        "server": "localhost:1",
        "models": {BASE: str(model)},
        "data": data,
        "policy": {
            "lifetime": {"epsilon": 20.0, "delta": 1e-3},
            "tasks": ["classification", "ner"],
            "columns": {"text": ["text"], "label": ["label"]},
            **policy,
        },
    }
    (folder / "partner.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")


@pytest.fixture
def coordinator(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Coordinator]:
    """`coordinator(deployed=True, **policy)`: a coordinator and a partner without rows yet."""
    torch.set_num_threads(1)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)

    def make(deployed: bool = True, **policy: Any) -> Coordinator:
        if deployed:
            monkeypatch.delenv(SIMULATION_VARIABLE, raising=False)
            monkeypatch.setenv(PARTNER_VARIABLE, str(tmp_path / "partner.yaml"))
            columns = {"text": "text", "label": "label", "split": "side"}
            data = {"path": "notes.csv", "labels": list(LABELS), "columns": columns}
            partner_file(tmp_path, tiny_bert, data, **policy)
        else:
            monkeypatch.setenv(SIMULATION_VARIABLE, "1")
        return Coordinator(
            tmp_path, tiny_bert, base_config(tiny_bert, tmp_path, deployed), deployed
        )

    return make


@pytest.fixture
def texts(reviews: tuple[list[str], list[int]]) -> list[Row]:
    """600 rows of (text, label)."""
    return [(text, LABELS[label]) for text, label in zip(*reviews, strict=True)]
