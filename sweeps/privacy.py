"""The privacy cost of all trials of a sweep together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Composed:
    """The privacy that a record has lost to all trials that have begun.

    Attributes:
        private: The number of trials with privacy.
        open: The number of trials without privacy; one of them voids the guarantee.
        epsilon: An upper bound on ε over all private trials, at `delta`.
        delta: The largest δ of a private trial.
        single: The largest ε of one private trial alone.
        accountant: The accountant that gave the bound.
    """

    private: int
    open: int
    epsilon: float
    delta: float
    single: float
    accountant: str

    def words(self) -> str:
        """The cost in whole sentences."""
        if self.private == 0:
            return "All trials trained without privacy: there is no guarantee for any record."
        sentences = (
            f"One trial alone costs a record up to ε = {self.single:.2f}; all {self.private} "
            f"private trials on the same data together up to ε = {self.epsilon:.2f} "
            f"(δ = {self.delta:g}, {self.accountant.upper()})."
        )
        if self.open:
            sentences += (
                f" {self.open} more trained without privacy: a result that was selected with their "
                "help has no guarantee."
            )
        return sentences
