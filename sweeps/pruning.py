"""Ends a trial whose rounds so far are worse than those of earlier trials."""

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
    """Tells the study every round's held-out accuracy and sets `stop` when the study gives up.

    The study knows the directions: its one objective is to be maximised where this is used.
    """

    def __init__(self, trial: Trial, rounds: int, stop: Event) -> None:
        self.trial = trial
        self.rounds = rounds
        self.stop = stop
        self.reason = ""

    @property
    def pruned(self) -> bool:
        """Whether it was this that ended the run."""
        return bool(self.reason)

    def round_ended(self, record: RoundRecord) -> None:
        """Report the round; the last one is never pruned, for then there is nothing to save."""
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
    """What watches trial `number` of the sweep; None where nothing is to be pruned.

    `sweeper` is Hydra's configuration of the sweeper.
    """
    if sweeper.get("pruner", "none") == "none":
        return None
    from sweeps.study import open_study, trial_of

    study = open_study(sweeper, sweep)
    return Pruner(trial_of(study, number), rounds, stop)
