"""Pruning: ends a trial whose rounds are worse than those of earlier trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from results.history import RoundRecord
from server.callbacks import Callback

if TYPE_CHECKING:
    from optuna.trial import Trial


class Pruner(Callback):
    """Reports each round's held-out accuracy to the study, and stops a trial that the study prunes.

    The study has one objective, accuracy, and maximises it.

    Args:
        trial: Optuna's trial.
        rounds: The number of rounds of the run.
        stop: Set to end the run.
    """

    def __init__(self, trial: Trial, rounds: int, stop: Event) -> None:
        self.trial = trial
        self.rounds = rounds
        self.stop = stop
        self.reason = ""

    @property
    def pruned(self) -> bool:
        """Whether the pruner ended the run."""
        return bool(self.reason)

    def round_ended(self, record: RoundRecord) -> None:
        """Report the round; after the last one there is nothing left to prune."""
        if record.accuracy is None:
            return
        self.trial.report(record.accuracy, record.round)
        if record.round < self.rounds and self.trial.should_prune():
            self.reason = (
                f"accuracy {100 * record.accuracy:.1f} % after round {record.round} of "
                f"{self.rounds} is worse than that of earlier trials"
            )
            self.stop.set()


def pruner_of(
    sweeper: Mapping[str, Any], sweep: Path, number: int, rounds: int, stop: Event
) -> Pruner | None:
    """The pruner of a trial.

    Args:
        sweeper: Hydra's configuration of the sweeper.
        sweep: The folder of the sweep.
        number: The number of the trial.
        rounds: The number of rounds of the run.
        stop: Set to end the run.

    Returns:
        The pruner; None where the sweep does not prune.
    """
    if sweeper.get("pruner", "none") == "none":
        return None
    from sweeps.study import open_study, trial_of

    study = open_study(sweeper, sweep)
    return Pruner(trial_of(study, number), rounds, stop)
