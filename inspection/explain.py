"""Which words carried the model's answer: integrated gradients (Sundararajan et al. 2017).

The function explained is the margin of a label: its logit less the mean of the other labels'.  The
path runs from the text with every word blanked (padding in its place, positions kept) to the text,
in the space of word vectors.  Completeness: the weights add up to the margin of the text less that
of the blank one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from inspection.trained import Trained

STEPS, MOST_STEPS, AT_ONCE = 64, 1024, 32
# What the sum may miss of the margin's difference before the path is walked in smaller steps.
TOLERANCE = 0.01
LEAST_OCCURRENCES = 3


@dataclass(frozen=True)
class Explanation:
    """`words` as they stand in the text (special tokens too) with their `weights`.

    `margin` and `blank_margin` are those of `label`; `error` is what the weights miss of their
    difference; `probability` is the model's for `label`.
    """

    words: list[str]
    weights: list[float]
    special: list[bool]
    label: str
    probability: float
    margin: float
    blank_margin: float
    error: float


def explain(trained: Trained, text: str, label: str | None = None) -> Explanation:
    """Explain the predicted label of `text`, or `label`.

    Raises UserError when captum is missing, the label is unknown or the text is empty.
    """
    if not text.strip():
        raise UserError("text: is empty")
    if label is not None and label not in trained.labels:
        raise UserError(
            f"label: there is no label '{label}'; there are {', '.join(trained.labels)}"
        )
    gradients = _captum()
    coded = trained.tokenizer(
        text,
        truncation=True,
        return_tensors="pt",
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    ids, mask = coded["input_ids"], coded["attention_mask"]
    special = coded["special_tokens_mask"][0].bool()
    blank = torch.where(
        special, ids, torch.full_like(ids, int(trained.tokenizer.pad_token_id or 0))
    )
    with torch.no_grad():
        logits = trained.model(input_ids=ids, attention_mask=mask).logits[0]
    target = int(logits.argmax()) if label is None else trained.labels.index(label)

    def margin(ids: Tensor, mask: Tensor) -> Tensor:
        found = trained.model(input_ids=ids, attention_mask=mask).logits
        others = (found.sum(1) - found[:, target]) / (found.shape[1] - 1)
        difference: Tensor = found[:, target] - others
        return difference

    method = gradients(margin, _word_vectors(trained.model))
    steps = STEPS
    while True:
        # Smaller steps until the weights add up.
        weights, error = method.attribute(
            ids,
            baselines=blank,
            additional_forward_args=(mask,),
            n_steps=steps,
            internal_batch_size=AT_ONCE,
            return_convergence_delta=True,
        )
        per_token = weights.detach()[0].sum(1)
        moved = float(per_token.sum()) - float(error)
        if abs(float(error)) <= TOLERANCE * max(1.0, abs(moved)) or steps >= MOST_STEPS:
            break
        steps *= 2
    with torch.no_grad():
        here = float(margin(ids, mask))
    words, sums, fixed = _by_word(text, coded, per_token.tolist())
    return Explanation(
        words,
        sums,
        fixed,
        trained.labels[target],
        float(logits.softmax(0)[target]),
        here,
        here - moved,
        float(error),
    )


def _captum() -> Any:
    try:
        from captum.attr import LayerIntegratedGradients
    except ImportError as error:
        raise UserError("explanations need captum: pip install 'fedaccord[explain]'") from error
    return LayerIntegratedGradients


def _word_vectors(model: nn.Module) -> nn.Module:
    """The table of word vectors, which every BERT family calls by the same name."""
    found: nn.Module = next(
        m for name, m in model.named_modules() if name.endswith("word_embeddings")
    )
    return found


def _by_word(
    text: str, coded: Any, weights: list[float]
) -> tuple[list[str], list[float], list[bool]]:
    """Pieces of a word joined, their weights added; special tokens each for themselves."""
    words: list[str] = []
    sums: list[float] = []
    special: list[bool] = []
    last: int | None = None
    begin = 0
    for place, number in enumerate(coded.word_ids(0)):
        start, end = (int(x) for x in coded["offset_mapping"][0][place])
        if number is not None and number == last:
            words[-1] = text[begin:end]
            sums[-1] += weights[place]
            continue
        last, begin = number, start
        words.append(coded.tokens(0)[place] if number is None else text[start:end])
        sums.append(weights[place])
        special.append(number is None)
    return words, sums, special


@dataclass(frozen=True)
class Carrier:
    """A word and its mean weight for a label, over `occurrences` in texts that got this label."""

    word: str
    weight: float
    occurrences: int


def global_words(
    explanations: Iterable[Explanation], most: int, least: int = LEAST_OCCURRENCES
) -> dict[str, list[Carrier]]:
    """For each label the `most` words that carry most towards it, by mean weight.

    Letter case is ignored; a word that occurs fewer than `least` times is left out.
    """
    weights: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for found in explanations:
        for word, weight, special in zip(found.words, found.weights, found.special, strict=True):
            if not special and any(c.isalnum() for c in word):
                weights[found.label][word.lower()].append(weight)
    carriers = {
        label: [
            Carrier(word, sum(own) / len(own), len(own))
            for word, own in words.items()
            if len(own) >= least
        ]
        for label, words in weights.items()
    }
    return {
        label: sorted(found, key=lambda c: (-c.weight, c.word))[:most]
        for label, found in sorted(carriers.items())
    }
