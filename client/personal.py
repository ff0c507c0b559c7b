"""Ditto's personal model, which never leaves the partner (Li et al. 2021).

It is trained on the partner's own rows, without noise, and is drawn towards the global model of
each round.  Privacy argument: nothing of it is sent.  The model, and how good it is, are files in
the partner's directory that no message reads, so what others see is the same with and without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from client.partner import group_values
from client.session import Session
from client.training import LocalTraining, Proximal, train
from common.evaluation import evaluate
from common.export import export
from common.files import private_directory, sha256_text, write_atomic
from common.messages import Request

PARAMETERS = "parameters.safetensors"


def improve(
    session: Session, request: Request, incoming: Mapping[str, Tensor], sample_rate: float
) -> None:
    """Train the personal model for as many steps as the global model gets.

    A round that is asked again after a crash is not trained again.
    """
    config, partner = session.config, session.partner
    path = _directory(session, request) / PARAMETERS
    done, standing = _read(path)
    if done >= request.round:
        return
    sampling = partner.streams("personal", str(request.round))
    start = {**incoming, **standing}
    trained = train(
        session.network,
        session.train,
        start,
        LocalTraining(
            config.train,
            sample_rate,
            None,
            expected_batch_size=float(config.train.batch_size),
            proximal=Proximal(config.train.ditto_lambda, incoming),
        ),
        sampling,
        sampling,
        session.device,
    )
    moved = {name: start[name] + change for name, change in trained.delta.items()}
    write_atomic(path, save(moved, metadata={"round": str(request.round)}))


def deliver(session: Session, request: Request, delivered: Mapping[str, Tensor]) -> None:
    """Write the personal model as a folder for transformers, and how good both models are."""
    directory = _directory(session, request)
    done, standing = _read(directory / PARAMETERS)
    if not done:
        return
    groups = group_values(session.partner.validation)
    figures: dict[str, object] = {"round": done, "rows": len(session.validation)}
    for name, parameters in (("global", delivered), ("personal", {**delivered, **standing})):
        session.network.write(parameters)
        measured = evaluate(session.network, session.validation, groups, session.device)
        figures[name] = {"accuracy": measured.accuracy, "loss": measured.loss}
    export({**delivered, **standing}, session.config, directory / "model")
    write_atomic(directory / "personal.json", json.dumps(figures, indent=1) + "\n")


def _directory(session: Session, request: Request) -> Path:
    # The run's name comes from the coordinator and may be anything, so it names no path.
    name = sha256_text(request.run)[:16]
    return private_directory(session.partner.directory / "personal" / name)


def _read(path: Path) -> tuple[int, dict[str, Tensor]]:
    """The last round that was trained, and the parameters after it; (0, {}) before the first."""
    if not path.exists():
        return 0, {}
    with safe_open(path, "pt") as file:
        return int(file.metadata()["round"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
