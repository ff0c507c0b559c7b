"""The ready experiments compose, and keep the rank that their figures were measured at."""

from __future__ import annotations

from pathlib import Path

import pytest

import conf
from scripts.compose import compose_config

RANKS = {
    "btc_ner": 1,
    "hate": 8,
    "medquad": 8,
    "ncbi_disease": 1,
    "rotten_tomatoes": 1,
    "small": 1,
    "thorough": 8,
}


def test_every_experiment_is_listed() -> None:
    folder = Path(str(conf.__file__)).parent / "experiment"
    assert {path.stem for path in folder.glob("*.yaml")} == set(RANKS)


@pytest.mark.parametrize(("name", "rank"), RANKS.items())
def test_an_experiment_composes(name: str, rank: int) -> None:
    lora = compose_config([f"experiment={name}"]).model.lora
    assert lora.r == rank
    assert (list(lora.targets), lora.factors) == (["intermediate.dense"], "b")
