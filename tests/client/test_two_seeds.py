"""The run's seed and a partner's split seed are two settings.

The run's seed initialises the model, so it must be the same at every partner; the split seed says
which rows of one partner validate, and is that partner's own.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from flwr.app import Context, RecordDict
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from client import handlers
from client.deployed import PARTNER_VARIABLE
from client.deployed_session import open_session
from client.division import TRAIN, part
from client.session import Session
from common import messages
from common.config import Config, LoraConfig, to_json
from common.messages import Request

LABELS = ["bad", "good"]


def opened(config: Config) -> Session:
    """The deployed partner's session for a request."""
    return open_session(Context(1, 2, {}, RecordDict(), {"config": to_json(config)}))


def asked() -> Config:
    """A run with Ditto and frozen random A factors, which follow from `run.seed` alone."""
    config = Config()
    lora = LoraConfig(r=4, alpha=8, targets=["query", "value"], factors="b")
    model = replace(
        config.model,
        base="tiny",
        head="cls",
        drop_layers=0,
        layers=2,
        max_length=24,
        precision="fp32",
        lora=lora,
    )
    train = replace(
        config.train, batch_size=60, local_steps=20, optimizer="adam", lr=0.02, ditto_lambda=0.01
    )
    return replace(
        config,
        model=model,
        train=train,
        data=replace(config.data, labels=LABELS),
        privacy=replace(config.privacy, delta=1e-4),
        run=replace(config.run, seed=1),
    )


@pytest.fixture
def folder(
    tiny_bert: Path,
    reviews: tuple[list[str], list[int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The folder of a deployed partner whose split seed is 7."""
    with (tmp_path / "notes.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        rows.writerows((text, LABELS[label]) for text, label in zip(*reviews, strict=True))
    write_partner_file(tmp_path, tiny_bert, split_seed=7)
    monkeypatch.setenv(PARTNER_VARIABLE, str(tmp_path / "partner.yaml"))
    return tmp_path


def write_partner_file(folder: Path, model: Path, split_seed: int) -> None:
    own = {
        "version": 1,
        "name": "clinic",
        "server": "localhost:1",
        "split_seed": split_seed,
        "models": {"tiny": str(model)},
        "data": {"path": "notes.csv", "labels": LABELS},
        "policy": {
            "lifetime": {"epsilon": 20.0, "delta": 1e-3},
            "allow_exact_metrics": True,
            "allow_personal_models": True,
            "tasks": ["classification"],
            "columns": {"text": ["text"], "label": ["label"]},
        },
    }
    (folder / "partner.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")


def test_the_delivered_personal_model_is_the_one_that_was_trained(folder: Path) -> None:
    session = opened(asked())
    incoming = {**session.network.read(), **session.network.constants()}
    for handler in (handlers.train, handlers.evaluate):
        request = Request("run", 1)
        handler(session, request, messages.pack(request, incoming))
    (trained,) = (folder / "state" / "personal").glob("*/parameters.safetensors")
    personal = load_file(trained)
    moved = {name: float((personal[name] - incoming[name]).abs().max()) for name in personal}
    assert min(moved.values()) > 0

    session.network.write({**incoming, **personal})
    session.network.trained.eval()
    chosen = list(range(10))
    with torch.inference_mode():
        expected = session.validation.logits(
            session.network, session.validation.__getitems__(chosen)
        )
        delivered = AutoModelForSequenceClassification.from_pretrained(trained.parent / "model")
        tokenizer = AutoTokenizer.from_pretrained(trained.parent / "model")
        texts = [session.partner.validation.texts[i] for i in chosen]
        found = delivered.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-4)


def validating(session: Session) -> list[str]:
    return list(session.partner.validation.texts)


def test_the_split_seed_divides_the_rows_and_the_run_seed_does_not(
    folder: Path, tiny_bert: Path
) -> None:
    config = asked()
    first = opened(config)
    other_run = replace(config, run=replace(config.run, seed=2))
    second = opened(other_run)
    assert first.config.run.seed == 1
    assert second.config.run.seed == 2
    assert validating(first) == validating(second)
    # The ledger must know that both runs train on the same rows.
    assert part(first.config, TRAIN) == part(second.config, TRAIN)
    write_partner_file(folder, tiny_bert, split_seed=8)
    third = opened(config)
    assert validating(third) != validating(first)
    assert part(third.config, TRAIN) != part(first.config, TRAIN)
