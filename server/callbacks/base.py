"""The events of a run, and the base of everything that acts on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.history import History, RoundRecord

if TYPE_CHECKING:
    # They bring torch, whose import takes seconds, and a display needs none of it.
    from torch import Tensor

    from common.evaluation import Evaluation
    from common.messages import Report
    from server.checkpoint import Checkpoint
    from strategies.records import Decision


@dataclass(frozen=True)
class RoundResult:
    """What a round produced, before any of it is on disk.

    Attributes:
        checkpoint: the run after the round.
        record: the round's figures, which `checkpoint.history` ends with.
        decisions: one for each partner that was asked, sorted by name.
    """

    checkpoint: Checkpoint
    record: RoundRecord
    decisions: Sequence[Decision]


@dataclass(frozen=True)
class FinalModel:
    """The model that the run delivers, measured everywhere.

    Attributes:
        arrays: its trainable parameters and public constants by name.
        reports: one for each partner that measured it, sorted by name.
        test: the measurement on the server's test rows; None where it has none.
        history: the rounds; its cost is complete once `results` are computed from it.
    """

    arrays: Mapping[str, Tensor]
    reports: Sequence[Report]
    test: Evaluation | None
    history: History


class Callback:
    """Ignores every event; a subclass overrides those that concern it.

    The server calls the callbacks one after the other, in their order, from its own thread.  Its
    own callbacks come first, so that any other finds on disk what the event promises.  An error
    ends the run at the last checkpoint: a callback that the run can do without catches its own.
    """

    def preparing(self, done: int, total: int) -> None:
        """`done` of `total` partners have prepared their data."""

    def training_starts(self, current: Checkpoint, partners: Sequence[str]) -> None:
        """All `partners` are ready, and training goes on from `current`; nothing is written yet."""

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """Training begins with `first_round` of `rounds`; the run directory is in order."""

    def replied(self, round_number: int, done: int, total: int) -> None:
        """`done` of the `total` partners of a round have answered."""

    def round_completed(self, result: RoundResult) -> None:
        """A round has its result; write what must survive a crash."""

    def round_ended(self, record: RoundRecord) -> None:
        """A round's checkpoint is on disk.  Partner columns may still be empty."""

    def should_stop(self, current: Checkpoint) -> bool:
        """Whether training ends here, before `run.rounds`; asked before every round."""
        return False

    def training_ended(self, final: FinalModel) -> None:
        """The delivered model is measured; write it."""

    def finished(self, results: dict[str, Any]) -> None:
        """The results are computed, and on disk for every callback of others."""
