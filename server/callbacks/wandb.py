"""Weights & Biases: offline in the run directory, unless `tracking.online` is set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from common.config import TrackingConfig
from common.files import sha256_text


class Wandb:
    """One run of Weights & Biases for one run directory."""

    def __init__(self, tracking: TrackingConfig, directory: Path) -> None:
        self.tracking = tracking
        self.directory = directory
        self.run: Any = None

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Open the run under an identity that a continued run has again."""
        self.run = wandb.init(
            project=self.tracking.project,
            group=self.tracking.group,
            name=self.directory.name,
            id=sha256_text(str(self.directory))[:16],
            resume="allow",
            dir=str(self.directory),
            mode="online" if self.tracking.online else "offline",
            config=dict(settings),
            # Only what is logged here: no terminal, no code, no machine.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True
            ),
        )
        # Figures of one round come in two parts.
        self.run.define_metric("round")
        self.run.define_metric("*", step_metric="round")

    def log(self, number: int, figures: Mapping[str, float]) -> None:
        """Figures of a round."""
        self.run.log({"round": number, **figures})

    def end(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """Summary and files."""
        self.run.summary.update(dict(figures))
        artefact = wandb.Artifact(f"run-{self.run.id}", type="run")
        for path in files:
            artefact.add_file(str(path), name=path.name)
        self.run.log_artifact(artefact)
        self.run.finish()
