"""The decision record: what happened to a partner's update in a round, and why, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from common.printable import short_reason

# Colours and cursor moves of a terminal, and what Ray says of its process.
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_PROCESS = re.compile(r" \(pid=.*")

OUTCOMES = frozenset(
    {"merged", "clipped", "down-weighted", "dropped", "refused", "readmitted", "missing"}
)


@dataclass(frozen=True)
class Decision:
    """One partner in one round.

    Attributes:
        partner, round: who and when (rounds count from 1).
        outcome: one of :data:`OUTCOMES`.
        reason: one sentence in plain words.
        norm: Euclidean norm of the update as it came; None if there was none to measure.
        clipped_to: the norm after clipping; None when it was not clipped.
        score_name, score: the robust rule's own measure of this update.
        weight_asked: what the fair weights gave; weight_given: what entered the merge.
        appeal: ``{"weight", "loss_without", "loss_with", "readmitted"}`` or None.
    """

    partner: str
    round: int
    outcome: str
    reason: str
    norm: float | None = None
    clipped_to: float | None = None
    score_name: str | None = None
    score: float | None = None
    weight_asked: float = 0.0
    weight_given: float = 0.0
    appeal: Mapping[str, float | bool] | None = None

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"unknown outcome {self.outcome!r}")

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain JSON values."""
        record = asdict(self)
        record["appeal"] = None if self.appeal is None else dict(self.appeal)
        return record


def refused(partner: str, round: int, reason: str) -> Decision:
    """The record of a reply that screening, or the partner itself, refused."""
    return Decision(partner, round, "refused", f"Refused: {reason}.")


def missing(partner: str, round: int, reason: str) -> Decision:
    """The record of a partner whose reply never came, or came too late."""
    return Decision(partner, round, "missing", f"No update: {reason}.")


def explain(
    *,
    rule: str,
    asked: float,
    given: float,
    clipped_to: float | None,
    norm: float,
    score_name: str | None,
    score: float | None,
    accepted_scores: list[float],
) -> tuple[str, str]:
    """Outcome and reason of an update that reached the robust rule and was not readmitted."""
    if given < 0.01 * asked:
        return "dropped", f"{rule} left it out{_compare(score_name, score, accepted_scores)}."
    if given < 0.5 * asked:
        why = _compare(score_name, score, accepted_scores)
        return "down-weighted", f"{rule} lowered its weight from {asked:.3g} to {given:.3g}{why}."
    if clipped_to is not None:
        return "clipped", (
            f"Merged at weight {given:.3g} after clipping its norm "
            f"from {norm:.3g} to {clipped_to:.3g}."
        )
    if asked <= 0:
        return "merged", f"The fair weights asked for nothing; it entered at weight {given:.3g}."
    return "merged", f"Merged at weight {given:.3g} (asked {asked:.3g})."


def _compare(name: str | None, score: float | None, accepted: list[float]) -> str:
    if name is None or score is None or not accepted:
        return ""
    high, low = max(accepted), min(accepted)
    if score > high:
        return (
            f": its {name} {score:.2g} is above the {len(accepted)} accepted (largest {high:.2g})"
        )
    if score < low:
        return f": its {name} {score:.2g} is below the {len(accepted)} accepted (least {low:.2g})"
    return f" (its {name} is {score:.2g})"


def node_failure(reason: str | None) -> str:
    """Why a node failed, in one line: the head of a traceback, without colours or process data."""
    return short_reason(_PROCESS.sub("", _TERMINAL.sub("", reason or "")))
