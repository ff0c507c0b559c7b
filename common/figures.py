"""The figures that describe a trained model: name, words, format and direction, each said once.

Progress lines, reports, model cards and sweeps all read them from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: Its key in results.json.
        words: What a reader sees.
        higher_is_better: Whether a larger value means a better model.
        share: Whether it is at most 1 and written in percent; otherwise it is a plain number.
    """

    name: str
    words: str
    higher_is_better: bool = True
    share: bool = False

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The direction of an optimisation for this figure."""
        return "maximize" if self.higher_is_better else "minimize"

    def show(self, value: float | None) -> str:
        """The value as text: 77.3 %, 0.4213, or a dash where it was not measured."""
        if value is None:
            return "-"
        return f"{100 * value:.1f} %" if self.share else f"{value:.4g}"

    def worst(self, values: Iterable[float]) -> float | None:
        """The worst of several values; None of none."""
        return (min if self.higher_is_better else max)(values, default=None)


ACCURACY = Figure("accuracy", "accuracy", share=True)
LOSS = Figure("loss", "loss", higher_is_better=False)
ENTITY_F1 = Figure("entity_f1", "entity F1", share=True)
MICRO_F1 = Figure("micro_f1", "micro F1", share=True)
MACRO_F1 = Figure("macro_f1", "macro F1", share=True)
MAE = Figure("mae", "mean absolute error", higher_is_better=False)
RMSE = Figure("rmse", "root mean square error", higher_is_better=False)
PEARSON = Figure("pearson", "Pearson's r")
SPEARMAN = Figure("spearman", "Spearman's rank correlation")
R2 = Figure("r2", "R²")
PERPLEXITY = Figure("perplexity", "perplexity", higher_is_better=False)
