"""What the stages of a pipeline share: their state, their results and their checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Generator, Tensor

from strategies.fair.capping import check_cap_holds
from strategies.rows import Rows

State = dict[str, Tensor]


@dataclass(frozen=True)
class Context:
    """What a stage may need besides the rows.

    Attributes:
        generator: the round's source of randomness.
        reference: the server's own update [d] from its public data, for rules that ask for one.
    """

    generator: Generator
    reference: Tensor | None = None


@dataclass(frozen=True)
class PreResult:
    """Rows after a pre-aggregation stage.

    Attributes:
        rows, weights: the new rows and their weights (summing to 1).
        clip: per old row, the factor by which it was shortened; None for a stage that mixes.
        mixing: float64 [k, n], rows summing to 1: who is in which new row; None for clipping.
    """

    rows: Rows
    weights: Tensor
    clip: Tensor | None = None
    mixing: Tensor | None = None


@dataclass(frozen=True)
class RuleResult:
    """What a robust rule made of the rows.

    Attributes:
        update: float32 [d].
        shares: float64 [k], the weight that each row got in the update.
        scores: float64 [k], the rule's own measure of each row, or None.
        state: the rule's state for the next round.
        clip: float64 [k], factors by which the rule itself shortened rows, or None.
    """

    update: Tensor
    shares: Tensor
    scores: Tensor | None
    state: State
    clip: Tensor | None = None


class PreStage(Protocol):
    """A linear map of rows before the robust rule; implementations inherit from it."""

    def check(self, n: int) -> None:
        """Raise ``UserError`` when the stage cannot work on n rows; by default it always can."""

    def rows_after(self, n: int) -> int:
        """How many rows leave the stage when n enter; by default as many."""
        return n

    @abstractmethod
    def apply(self, rows: Rows, weights: Tensor, context: Context) -> PreResult:
        """Map the rows; weights [n] sum to 1."""


class FairWeights(Protocol):
    """How much weight each partner's update requests; implementations inherit from it.

    Attributes:
        needs: the metrics that every partner must report for these weights.
        cap: the largest weight of one partner, in (0, 1].
    """

    needs: ClassVar[tuple[str, ...]]
    cap: float

    def check(self, n: int) -> None:
        """Raise ``UserError`` when the cap cannot hold for n partners."""
        check_cap_holds(self.cap, n)

    def init(self) -> State:
        """The state before the first round; by default there is none."""
        return {}

    @abstractmethod
    def weights(
        self, metrics: Mapping[str, Mapping[str, float]], state: State
    ) -> tuple[Tensor, State]:
        """Weights float64 [n] summing to 1 in the order of ``metrics``, and the next state."""


class RobustRule(Protocol):
    """How weighted rows become one update; implementations inherit from it.

    Attributes:
        title: the rule's name at the start of a sentence, for decision records.
        score_name: what its scores measure; None for a rule without scores.
        breaks_at_half_weight: whether malicious partners who hold half of the weight defeat it.
        needs_reference: whether it compares the rows with the server's own update.
    """

    title: ClassVar[str]
    score_name: ClassVar[str | None] = None
    breaks_at_half_weight: ClassVar[bool] = False
    needs_reference: ClassVar[bool] = False

    @abstractmethod
    def check(self, n: int) -> None:
        """Raise ``UserError`` when the rule cannot work on n rows."""

    def init(self, size: int) -> State:
        """The state before the first round, for updates of ``size`` values; by default none."""
        return {}

    @abstractmethod
    def apply(self, rows: Rows, weights: Tensor, state: State, context: Context) -> RuleResult:
        """Merge the rows; weights [n] sum to 1."""


class ServerOptimizer(Protocol):
    """How the merged update moves the global model; implementations inherit from it."""

    def init(self, size: int) -> State:
        """The state before the first round, for ``size`` parameters; by default none."""
        return {}

    @abstractmethod
    def step(
        self, state: State, params: Tensor, update: Tensor, round: int, rounds: int
    ) -> tuple[Tensor, State]:
        """New parameters [d] and state; ``round`` counts from 1."""
