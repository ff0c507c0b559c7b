"""Checkpoints: whole or not there, and enough of them to continue as if nothing had happened.

`round-000012/` holds `parameters.safetensors` (the global model's trainable tensors),
`state.safetensors` (every stage's state, the running average and the public constants) and
`run.json` (history and run id).  No generator state is kept: every random stream is keyed by seed
and round.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import UserError
from common.files import atomic_directory
from results.history import History

# What the keys of a checkpoint's state begin with that belong to no stage of the aggregation.
AVERAGE, CONSTANT = "average/", "constant/"


@dataclass(frozen=True)
class Checkpoint:
    """A run after `round` rounds.

    Attributes:
        parameters: the global model's trainable tensors by name.
        state: what else the next round needs, as tensors by name.
        stale_rounds: rounds since the best validation loss (`server.early_stopping`).
        best_loss: that loss; None before the first round.
    """

    round: int
    run_id: str
    config_hash: str
    parameters: dict[str, Tensor]
    state: dict[str, Tensor]
    history: History
    stale_rounds: int = 0
    best_loss: float | None = None

    @property
    def stages(self) -> dict[str, Tensor]:
        """The state of the stages of the aggregation."""
        return {k: v for k, v in self.state.items() if not k.startswith((AVERAGE, CONSTANT))}

    @property
    def constants(self) -> dict[str, Tensor]:
        """The model's public constants by name, as they were fitted when the run began."""
        return {
            k.removeprefix(CONSTANT): v for k, v in self.state.items() if k.startswith(CONSTANT)
        }


def as_state(constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Public constants under the keys that they have in a checkpoint's state."""
    return {CONSTANT + name: value for name, value in constants.items()}


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def save(directory: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint and drop all but the newest `keep`."""
    path = directory / f"round-{checkpoint.round:06d}"
    shutil.rmtree(path, ignore_errors=True)
    with atomic_directory(path) as temporary:
        save_file(_contiguous(checkpoint.parameters), temporary / "parameters.safetensors")
        save_file(_contiguous(checkpoint.state), temporary / "state.safetensors")
        body: dict[str, Any] = {
            "round": checkpoint.round,
            "run_id": checkpoint.run_id,
            "config_hash": checkpoint.config_hash,
            "stale_rounds": checkpoint.stale_rounds,
            "best_loss": checkpoint.best_loss,
            "history": checkpoint.history.to_json(),
        }
        (temporary / "run.json").write_text(json.dumps(body))
    for old in folders(directory)[:-keep]:
        shutil.rmtree(old)
    return path


def folders(directory: Path) -> list[Path]:
    """The folders of all checkpoints, the newest last."""
    return sorted(directory.glob("round-*"))


def latest(directory: Path) -> Checkpoint | None:
    """The newest checkpoint, or None when there is none yet.

    Raises UserError when it cannot be read.
    """
    for left_over in directory.glob(".round-*"):
        shutil.rmtree(left_over)
    saved = folders(directory)
    if not saved:
        return None
    path = saved[-1]
    try:
        body = json.loads((path / "run.json").read_text())
        return Checkpoint(
            parameters=load_file(path / "parameters.safetensors"),
            state=load_file(path / "state.safetensors"),
            history=History.from_json(body.pop("history")),
            **body,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); "
            "remove this folder to continue from the one before"
        ) from error


def resumable(directory: Path, config_hash: str) -> Checkpoint | None:
    """The newest checkpoint of a run with this configuration, or None when there is none yet.

    Raises UserError when it cannot be read or is another configuration's.
    """
    checkpoint = latest(directory)
    if checkpoint is not None and checkpoint.config_hash != config_hash:
        raise UserError(
            f"{directory.parent}: holds the checkpoints of another configuration; choose another "
            "run.dir, or continue that run with run.resume"
        )
    return checkpoint
