"""Token attributions per label by integrated gradients (Sundararajan et al. 2017).

The function explained is the margin of a label: its logit minus the mean logit of the other labels.
The path leads from the text with padding in place of every word (positions kept) to the text, in
the space of word vectors.  Completeness: the weights add up to the margin of the text minus that of
the blank text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
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
    """The attribution of one text.

    Attributes:
        words: the text's words and the special tokens, in order.
        weights: how much each of `words` moves the margin of `label`.
        special: which of `words` are special tokens.
        label: the label that is explained.
        probability: the model's probability of `label`.
        margin, blank_margin: the margin of `label` for the text and for the blank text.
        error: the sum of the weights minus the difference of the margins.
    """

    words: list[str]
    weights: list[float]
    special: list[bool]
    label: str
    probability: float
    margin: float
    blank_margin: float
    error: float


@dataclass(frozen=True)
class _Encoded:
    """One text as the model reads it.

    Attributes:
        tokens: what the tokenizer returned, offsets and special tokens included.
        ids: token ids, int64 [1, tokens].
        blank: the same with padding in the place of every word.
        mask: attention mask, int64 [1, tokens].
    """

    tokens: Any
    ids: Tensor
    blank: Tensor
    mask: Tensor


def explain(trained: Trained, text: str, label: str | None = None) -> Explanation:
    """Explain the predicted label of `text`, or `label`.

    Args:
        trained: the model of a finished run.
        text: what to explain; the model reads as much of it as it was trained on.
        label: one of the model's labels; None explains the predicted one.

    Raises:
        UserError: captum is missing, the label is unknown or the text is empty.
    """
    if not text.strip():
        raise UserError("text: is empty")
    if label is not None and label not in trained.labels:
        raise UserError(
            f"label: there is no label '{label}'; there are {', '.join(trained.labels)}"
        )
    gradients = _captum()
    encoded = _encoded(trained, text)
    with torch.no_grad():
        logits = trained.model(input_ids=encoded.ids, attention_mask=encoded.mask).logits[0]
    target = int(logits.argmax()) if label is None else trained.labels.index(label)
    margin = _margin(trained.model, target)
    method = gradients(margin, _word_vectors(trained.model))
    per_token, error = _attributed(method, encoded)
    with torch.no_grad():
        text_margin = float(margin(encoded.ids, encoded.mask))
    words, weights, special = _by_word(text, encoded.tokens, per_token.tolist())
    return Explanation(
        words,
        weights,
        special,
        trained.labels[target],
        float(logits.softmax(0)[target]),
        text_margin,
        text_margin - (float(per_token.sum()) - error),
        error,
    )


def _encoded(trained: Trained, text: str) -> _Encoded:
    tokens = trained.tokenizer(
        text,
        truncation=True,
        return_tensors="pt",
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    ids, special = tokens["input_ids"], tokens["special_tokens_mask"][0].bool()
    padding = torch.full_like(ids, int(trained.tokenizer.pad_token_id or 0))
    return _Encoded(tokens, ids, torch.where(special, ids, padding), tokens["attention_mask"])


def _margin(model: nn.Module, target: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The function that is explained: the target's logit less the mean of the others', [texts]."""

    def margin(ids: Tensor, mask: Tensor) -> Tensor:
        logits = model(input_ids=ids, attention_mask=mask).logits
        others = (logits.sum(1) - logits[:, target]) / (logits.shape[1] - 1)
        difference: Tensor = logits[:, target] - others
        return difference

    return margin


def _attributed(method: Any, encoded: _Encoded) -> tuple[Tensor, float]:
    """The weight of each token [tokens], and what their sum misses of the margins' difference.

    The steps are halved until the weights add up, or `MOST_STEPS` is reached.
    """
    steps = STEPS
    while True:
        weights, error = method.attribute(
            encoded.ids,
            baselines=encoded.blank,
            additional_forward_args=(encoded.mask,),
            n_steps=steps,
            internal_batch_size=AT_ONCE,
            return_convergence_delta=True,
        )
        per_token = weights.detach()[0].sum(1)
        moved = float(per_token.sum()) - float(error)
        if abs(float(error)) <= TOLERANCE * max(1.0, abs(moved)) or steps >= MOST_STEPS:
            return per_token, float(error)
        steps *= 2


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
