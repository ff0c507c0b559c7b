"""Precision, recall and F1 of entities, from counts that add up over partners."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.metrics import Counts


def f1(counts: Counts) -> float:
    """Micro F1 of entities from [types, 3] true positives, false positives, false negatives.

    nan where there is neither an entity nor a prediction.
    """
    tp, fp, fn = counts.sum(0)
    return float(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn > 0 else math.nan


def scores(counts: Counts, types: Sequence[str]) -> dict[str, dict[str, float]]:
    """seqeval's `classification_report(output_dict=True)` from counts [types, 3].

    Types without an entity or a prediction are left out, as there; a share of nothing is 0.
    """
    found: dict[str, dict[str, float]] = {}
    for index in sorted(range(len(types)), key=lambda i: types[i]):
        if counts[index].any():
            found[types[index]] = _line(*map(float, counts[index]))
    rows = [(row["precision"], row["recall"], row["f1-score"]) for row in found.values()]
    support = np.array([row["support"] for row in found.values()])
    means = {
        "macro avg": np.mean(rows, axis=0) if rows else np.zeros(3),
        "weighted avg": support @ rows / support.sum() if support.sum() > 0 else np.zeros(3),
    }
    found["micro avg"] = _line(*map(float, counts.sum(0)))
    for name, row in means.items():
        shares = dict(zip(("precision", "recall", "f1-score"), map(float, row), strict=True))
        found[name] = {**shares, "support": float(support.sum())}
    return found


def _line(tp: float, fp: float, fn: float) -> dict[str, float]:
    def share(hits: float, total: float) -> float:
        return hits / total if total > 0 else 0.0

    return {
        "precision": share(tp, tp + fp),
        "recall": share(tp, tp + fn),
        "f1-score": share(2 * tp, 2 * tp + fp + fn),
        "support": tp + fn,
    }


def report_text(found: dict[str, dict[str, Any]], digits: int = 2) -> str:
    """`scores` as the table that seqeval's `classification_report` prints."""
    names = ("precision", "recall", "f1-score", "support")
    width = max(*(len(name) for name in found), len("weighted avg"), digits)
    lines = [f"{'':>{width}} " + "".join(f" {name:>9}" for name in names), ""]
    for name, row in found.items():
        if name == "micro avg":
            lines.append("")
        figures = "".join(f" {row[key]:>9.{digits}f}" for key in names[:3])
        lines.append(f"{name:>{width}} {figures} {row['support']:>9.0f}")
    return "\n".join(lines) + "\n"
