"""Counts of named entities, which add up over partners, and precision, recall and F1 from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.metrics import Counts
from common.tags import spans


def entity_counts(truth: Sequence[str], predicted: Sequence[str], types: Sequence[str]) -> Counts:
    """True positives, false positives, false negatives [types, 3] of one record's BIO tags.

    A predicted entity is right if its type and both its ends are (CoNLL-2003).
    """
    wanted, given = set(spans(truth)), set(spans(predicted))
    counts = np.zeros((len(types), 3))
    for column, entities in enumerate((wanted & given, given - wanted, wanted - given)):
        for kind, _, _ in entities:
            counts[types.index(kind), column] += 1
    return counts


def f1(counts: Counts) -> float:
    """Micro F1 of entities from [types, 3] true positives, false positives, false negatives.

    NaN where there is neither an entity nor a prediction.
    """
    tp, fp, fn = counts.sum(0)
    return float(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn > 0 else math.nan


def scores(counts: Counts, types: Sequence[str]) -> dict[str, dict[str, float]]:
    """seqeval's `classification_report(output_dict=True)` from counts [types, 3].

    As there, types without an entity or a prediction are left out, and 0/0 is 0.
    """
    lines: dict[str, dict[str, float]] = {}
    for index in sorted(range(len(types)), key=lambda i: types[i]):
        if counts[index].any():
            lines[types[index]] = _line(*map(float, counts[index]))
    rows = [(row["precision"], row["recall"], row["f1-score"]) for row in lines.values()]
    support = np.array([row["support"] for row in lines.values()])
    means = {
        "macro avg": np.mean(rows, axis=0) if rows else np.zeros(3),
        "weighted avg": support @ rows / support.sum() if support.sum() > 0 else np.zeros(3),
    }
    lines["micro avg"] = _line(*map(float, counts.sum(0)))
    for name, row in means.items():
        shares = dict(zip(("precision", "recall", "f1-score"), map(float, row), strict=True))
        lines[name] = {**shares, "support": float(support.sum())}
    return lines


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
    """`scores` as text, in the form of seqeval's `classification_report`."""
    names = ("precision", "recall", "f1-score", "support")
    width = max(*(len(name) for name in found), len("weighted avg"), digits)
    lines = [f"{'':>{width}} " + "".join(f" {name:>9}" for name in names), ""]
    for name, row in found.items():
        if name == "micro avg":
            lines.append("")
        figures = "".join(f" {row[key]:>9.{digits}f}" for key in names[:3])
        lines.append(f"{name:>{width}} {figures} {row['support']:>9.0f}")
    return "\n".join(lines) + "\n"
