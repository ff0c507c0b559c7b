"""Loss-based membership inference (Yeom et al. 2018) on a finished simulation's model.

Every text fell to its partner's training or validation rows by an independent draw (the split
hashes it), so the finished run is an audit of its own: of the training rows as many are drawn as
make either side equally likely, and for each of these rows membership is a fair coin that the run
has thrown.  So the bound of `auditing.bounds` applies, at no cost of training.  It assumes
that validation rows change the model only through their metrics, whose effect is taken as none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from auditing.bounds import clopper_pearson
from auditing.canaries import judge
from client.partner import split_rows
from common.config import Config, malicious
from common.data.table import Table
from common.errors import UserError
from common.examples.batch import by_length
from common.examples.tokens import TokenExamples, tokenize
from common.models.build import build
from common.models.mean_pooled import MeanPooledForSequenceClassification
from simulation.partner import simulated_shares

Floats = npt.NDArray[np.float64]
Bits = npt.NDArray[np.bool_]
LOW_RATE = 0.01
_TOKENS = 8192


@dataclass(frozen=True)
class MembershipAudit:
    """How well a row's loss tells whether it was trained on; rates have 95 % Clopper-Pearson
    intervals, and `epsilon_lower_bound` holds with `confidence`."""

    members: int
    others: int
    auc: float
    true_positive_rate: float
    true_positive_interval: tuple[float, float]
    at_false_positive_rate: float
    guesses: int
    correct: int
    delta: float
    confidence: float
    epsilon_lower_bound: float


def membership(
    config: Config, model: Path, delta: float, confidence: float, seed: int
) -> MembershipAudit:
    """Attack the exported `model` of a finished simulation of `config`.

    Raises UserError when the split of its rows was not drawn at random.
    """
    scores, inside = _scored(config, model)
    held_out = config.data.validation_fraction
    return judge_scores(scores, inside, held_out, delta, confidence, seed)


def judge_scores(
    scores: Floats, inside: Bits, held_out: float, delta: float, confidence: float, seed: int
) -> MembershipAudit:
    """What the `scores` [n] (higher: more like a member) tell of `inside` [n].

    Each row was held out with probability `held_out`.
    """
    members, others = scores[inside], scores[~inside]
    # The largest threshold that at most one in a hundred of the others exceeds.
    threshold = np.sort(others)[::-1][min(int(LOW_RATE * len(others)), len(others) - 1)]
    hits = int((members > threshold).sum())
    interval = clopper_pearson(hits, len(members), 0.975)
    odds = held_out / (1.0 - held_out)
    fair = np.random.default_rng(seed).random(len(scores)) < np.where(inside, odds, 1.0 / odds)
    centred = scores[fair] - np.median(scores[fair])
    audit = judge(centred, inside[fair], delta, confidence)
    return MembershipAudit(
        members=len(members),
        others=len(others),
        auc=auc(members, others),
        true_positive_rate=hits / len(members),
        true_positive_interval=interval,
        at_false_positive_rate=float((others > threshold).mean()),
        guesses=audit.guesses,
        correct=audit.correct,
        delta=delta,
        confidence=confidence,
        epsilon_lower_bound=audit.epsilon_lower_bound,
    )


def auc(members: Floats, others: Floats) -> float:
    """Probability that a member's score is above another row's, ties counted half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left")
    upto = np.searchsorted(ordered, members, "right")
    return float((below + upto).mean() / (2 * len(others)))


def _scored(config: Config, model: Path) -> tuple[Floats, Bits]:
    """Minus the loss of every honest partner's rows under `model`, and which were trained on."""
    table, shares = simulated_shares(config)
    if table.split is not None:
        raise UserError(
            "data.columns.split: membership says nothing where a column chose the training rows"
        )
    bad = malicious(config, [share.name for share in shares])
    scores, inside = [], []
    network, seen = _Scorer(config, model), set[str]()
    for share in shares:
        if share.name in bad:
            continue
        for rows, trained in zip(
            split_rows(table.select(share.indices), config), (True, False), strict=True
        ):
            # The same text twice is one coin, not two.
            new = [i for i, text in enumerate(rows.texts) if not (text in seen or seen.add(text))]  # type: ignore[func-returns-value]
            losses = network.scores(rows.select(np.asarray(new, dtype=np.int64)))
            scores.append(losses)
            inside.append(np.full(len(losses), trained))
    if not scores or not (~np.concatenate(inside)).any():
        raise UserError("data.validation_fraction: no rows were held out to compare with")
    return np.concatenate(scores), np.concatenate(inside)


class _Scorer:
    """The exported model, as anybody who is given it would use it."""

    def __init__(self, config: Config, model: Path) -> None:
        kind: Any = (
            MeanPooledForSequenceClassification
            if config.model.head == "mean"
            else AutoModelForSequenceClassification
        )
        self.model = kind.from_pretrained(model, trust_remote_code=False).eval()
        self.config = config
        self.network = build(config.model, tuple(config.data.labels), config.run.seed)

    def scores(self, rows: Table) -> Floats:
        """Minus the cross-entropy of every row, [n]."""
        assert self.config.run.cache_dir is not None
        cache = Path(self.config.run.cache_dir)
        examples: TokenExamples
        examples, _ = tokenize(rows.texts, rows.labels, self.network, self.config.model, cache)
        scores = np.zeros(len(examples))
        for chosen in by_length(examples.lengths, _TOKENS):
            batch = examples.__getitems__(chosen.tolist())
            with torch.inference_mode():
                logits = self.model(input_ids=batch.inputs, attention_mask=batch.mask).logits
            losses = nn.functional.cross_entropy(logits.double(), batch.labels, reduction="none")
            scores[batch.indices] = -losses.numpy()
        return scores
