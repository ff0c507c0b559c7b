"""What all trials of a sweep cost together; who may read ledgers fills it in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Composed:
    """The privacy that a record has lost to every trial that has begun, finished or not.

    Attributes:
        private: how many trials trained with privacy.
        open: how many trained without: with one of them there is no guarantee at all.
        epsilon: upper bound over the private trials, at `delta`.
        single: the largest ε of one of these trials alone.
        accountant: what gave the bound.
    """

    private: int
    open: int
    epsilon: float
    delta: float
    single: float
    accountant: str

    def words(self) -> str:
        """The figure in plain words."""
        if self.private == 0:
            return "No trial trained with privacy: there is no guarantee for any record."
        told = (
            f"One trial alone costs a record up to ε = {self.single:.2f}; all {self.private} "
            f"private trials on the same data together up to ε = {self.epsilon:.2f} "
            f"(δ = {self.delta:g}, {self.accountant.upper()})."
        )
        if self.open:
            told += (
                f" {self.open} more trained without privacy: whoever publishes anything chosen by "
                "them gives no guarantee at all."
            )
        return told
