"""A model that was damaged at the server, sent to real partners in this process, without Ray."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from threading import Event

import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client import handlers, session
from client.refusal import described
from common import messages
from common.config import Config, to_json
from common.device import usable_cores
from common.errors import UserError
from scripts.configure import configure
from server.build import build_server
from simulation.prepare import ENVIRONMENT, complete
from simulation.session import open_session
from tests.server.scripted import ScriptedGrid

HANDLERS = {
    messages.PREPARE: handlers.prepare,
    messages.TRAIN: handlers.train,
    messages.EVALUATE: handlers.evaluate,
}


class InProcess(ScriptedGrid):
    """Partners that run the client's own code."""

    def __init__(self, config: Config) -> None:
        super().__init__({f"partner-{n}": handlers.train for n in range(1, 4)})  # type: ignore[dict-item]
        self.settings = {"config": to_json(config)}

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._reply(self.sent[identity]) for identity in message_ids]

    def _reply(self, question: Message) -> Message:
        node = question.metadata.dst_node_id
        context = Context(1, node, {"partition-id": node - 1}, RecordDict(), dict(self.settings))
        handler = HANDLERS[question.metadata.message_type]
        return session.answer(question, context, handler, open_session, described)


@pytest.mark.parametrize("damage", [torch.nan, torch.inf, None])
def test_partners_refuse_a_model_that_is_not_finite_and_the_run_ends(
    job: list[str],
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: float | None,
) -> None:
    for name, value in {**environment, **ENVIRONMENT}.items():
        monkeypatch.setenv(name, value)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    directory = tmp_path / "run"
    directory.mkdir()
    # One thread for each partner, as this process has for everything.
    settings = ["run.rounds=1", f"run.workers={usable_cores()}", f"run.dir={directory}"]
    config = complete(configure([*job, *settings]))
    server = build_server(config, InProcess(config), [], Event(), simulated=True)
    if damage is None:
        assert server.run()["rounds"][0]["replies"] == 3
        return
    parameters = server.model.read()
    name = next(iter(parameters))
    parameters[name].view(-1)[-1] = damage
    server.model.write(parameters)
    with pytest.raises(UserError, match=r"round 1: 0 usable updates.*incoming model is not finite"):
        server.run()
    assert not (directory / "results.json").exists()
    assert not (directory / "decisions.jsonl").exists()
