"""Small changes that a reader hardly notices, and the accuracy that they cost.

Each changes about one word in five (whitespace: one gap in five; case: every word of the text),
keeps its meaning for a person, and draws from the generator that it is given.  Four short functions
of our own: of the libraries for this, nlpaug and AugLy have had no release since 2022, and
TextAttack brings flair, LanguageTool and twenty more packages for changes of single letters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np

from inspection.trained import Trained
from results.fairness import Z

SCHEMA_VERSION = 1
RATE = 0.2
# The keys beside each key of a QWERTY keyboard.
BESIDE = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok",
    "o": "ipl", "p": "ol", "a": "qsz", "s": "awdx", "d": "sefc", "f": "drgv", "g": "fthb",
    "h": "gyjn", "j": "hukm", "k": "jil", "l": "kop", "z": "asx", "x": "zsdc", "c": "xdfv",
    "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip
Perturbation = Callable[[str, Random], str]


def _in_words(text: str, random: Random, change: Callable[[str], str]) -> str:
    """`change` applied to about RATE of the words of three letters or more."""
    return re.sub(r"[^\W\d_]{3,}", lambda m: change(m[0]) if random.random() < RATE else m[0], text)


def typos(text: str, random: Random) -> str:
    """One letter replaced by a key beside it."""

    def change(word: str) -> str:
        places = [i for i, c in enumerate(word) if c.lower() in BESIDE]
        if not places:
            return word
        i = random.choice(places)
        new = random.choice(BESIDE[word[i].lower()])
        return word[:i] + (new.upper() if word[i].isupper() else new) + word[i + 1 :]

    return _in_words(text, random, change)


def swaps(text: str, random: Random) -> str:
    """Two neighbouring letters that differ exchanged; the first letter of the word stays."""

    def change(word: str) -> str:
        places = [i for i in range(1, len(word) - 1) if word[i] != word[i + 1]]
        if not places:
            return word
        i = random.choice(places)
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]

    return _in_words(text, random, change)


def case(text: str, random: Random) -> str:
    """All in capitals, all in small letters, or every word with a capital."""
    return random.choice((str.upper, str.lower, str.title))(text)


def whitespace(text: str, random: Random) -> str:
    """A gap doubled, or closed."""
    return re.sub(
        r"(?<=\S)[ \t]+(?=\S)",
        lambda m: random.choice(("  ", "")) if random.random() < RATE else m[0],
        text,
    )


PERTURBATIONS: dict[str, Perturbation] = {
    "typos": typos,
    "swaps": swaps,
    "case": case,
    "whitespace": whitespace,
}


def paired_interval(lost: int, won: int, rows: int) -> tuple[float, float]:
    """95 % interval of (lost - won) / rows for paired answers (Agresti and Min 2005).

    `lost` rows went from right to wrong, `won` from wrong to right; half a row is added to each of
    the four cells of their table.
    """
    n, b, c = rows + 2.0, lost + 0.5, won + 0.5
    middle = (b - c) / n
    half = Z * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    return max(-1.0, middle - half), min(1.0, middle + half)


def perturbed(
    trained: Trained, texts: Sequence[str], labels: Sequence[int], seed: int
) -> dict[str, Any]:
    """Accuracy as the texts are and after each perturbation (docs/explain.md)."""
    truth = np.asarray(labels)
    before = trained.predict(texts) == truth
    found = {}
    for name, change in PERTURBATIONS.items():
        random = Random(f"{seed}/{name}")
        changed = [change(text, random) for text in texts]
        after = trained.predict(changed) == truth
        lost, won = int((before & ~after).sum()), int((~before & after).sum())
        found[name] = {
            "changed_texts": sum(a != b for a, b in zip(texts, changed, strict=True)),
            "accuracy": float(after.mean()),
            "lost": float(before.mean() - after.mean()),
            "interval": list(paired_interval(lost, won, len(texts))),
            "right_to_wrong": lost,
            "wrong_to_right": won,
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "seed": seed,
        "rows": len(texts),
        "accuracy": float(before.mean()),
        "perturbations": found,
    }
