"""Masked texts: what is hidden, what is learnt and clipped, and what is delivered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from client.training import LocalTraining, Privacy, train
from common.config import Config, ModelConfig, TrainConfig, validate
from common.data.batch import Batch
from common.data.records import build_table
from common.data.schema import Columns, DataConfig
from common.data.table import Table
from common.device import Device
from common.errors import UserError
from common.evaluation import evaluate
from common.examples.mlm import MaskedExamples, prepare_masked
from common.examples.prepare import prepare_table
from common.losses import IGNORED
from common.models.build import build
from common.models.export import export
from common.models.heads import PREDICTED
from common.models.network import Network
from common.scoring import scoring_of
from inspection.trained import load_trained
from scripts.compose import compose_config
from simulation.seeded_streams import SeededStream

FP32 = Device(torch.device("cpu"), torch.float32)


def model_of(base: Path, **settings: object) -> ModelConfig:
    given = {
        "head": "lm",
        "max_length": 24,
        "layers": 1,
        "drop_layers": 0,
        "prefix_cache": False,
        **settings,
    }
    config = ModelConfig(base=str(base), **given)  # type: ignore[arg-type]
    config.lora.targets = ["query"]
    return config


def table_of(texts: list[str]) -> Table:
    batch = Batch("made", 1, {"text": texts})
    return build_table([batch], DataConfig(columns=Columns(label=""), target="none"))


@pytest.fixture
def masked(
    tiny_bert: Path, reviews: tuple[list[str], list[int]], tmp_path: Path
) -> tuple[Network, MaskedExamples]:
    config = model_of(tiny_bert)
    net = build(config, (), 0)
    found = prepare_table(table_of(reviews[0][:200]), net, config, FP32, tmp_path)
    assert isinstance(found, MaskedExamples)
    return net, found


def test_fifteen_percent_are_predicted_and_most_of_them_hidden(
    masked: tuple[Network, MaskedExamples],
) -> None:
    net, rows = masked
    wanted = hidden = kept = 0
    for index in range(len(rows)):
        batch, whole = rows[index], rows.inner[index]
        places = batch.mask[0] == PREDICTED
        usual = int(whole.mask.sum()) - 2
        assert int(places.sum()) == max(1, round(0.15 * usual))
        assert batch.labels[0].tolist() == whole.inputs[0][places].tolist()
        assert torch.equal(batch.inputs[0][~places], whole.inputs[0][~places])
        # The ends of a text are never asked for.
        assert not places[0]
        assert not places[usual + 1]
        wanted += int(places.sum())
        hidden += int((batch.inputs[0][places] == net.tokenizer.mask_token_id).sum())
        kept += int((batch.inputs[0][places] == batch.labels[0]).sum())
    assert wanted > 300
    assert hidden / wanted == pytest.approx(0.8, abs=0.08)
    assert 0.05 < kept / wanted < 0.2


def test_a_mask_is_a_function_of_its_row_and_the_draw_alone(
    masked: tuple[Network, MaskedExamples],
    reviews: tuple[list[str], list[int]],
    tiny_bert: Path,
    tmp_path: Path,
) -> None:
    net, rows = masked
    # One row less in front: under privacy the other rows' gradients must not change with it.
    fewer = prepare_masked(table_of(reviews[0][1:200]), net, model_of(tiny_bert), tmp_path)
    for index in range(1, 60):
        ours, theirs = rows[index], fewer[index - 1]
        assert torch.equal(ours.inputs, theirs.inputs)
        assert torch.equal(ours.mask, theirs.mask)
    other = rows.drawn(SeededStream(1))
    assert sum(not torch.equal(rows[i].mask, other[i].mask) for i in range(60)) > 40
    again = rows.drawn(SeededStream(1))
    assert all(torch.equal(again[i].inputs, other[i].inputs) for i in range(60))


def test_logits_are_those_of_the_stock_model_at_the_places(
    masked: tuple[Network, MaskedExamples],
) -> None:
    net, rows = masked
    batch = rows.__getitems__(list(range(12)))
    with torch.no_grad():
        ours = rows.logits(net, batch)
        stock = net.stock(input_ids=batch.inputs, attention_mask=batch.mask.bool()).logits
    there = batch.labels != IGNORED
    torch.testing.assert_close(ours[there], stock[batch.mask == PREDICTED], atol=1e-5, rtol=1e-4)
    wanted = torch.stack(
        [
            nn.functional.cross_entropy(stock[i][batch.mask[i] == PREDICTED], row[row != IGNORED])
            for i, row in enumerate(batch.labels)
        ]
    )
    torch.testing.assert_close(scoring_of(net.task).losses(ours, batch), wanted)
    assert not any("decode" in name for name in net.trainable())


def test_perplexity_and_accuracy_are_those_of_every_row(
    masked: tuple[Network, MaskedExamples],
) -> None:
    net, rows = masked
    found = evaluate(net, rows, {"half": np.array(["a", "b"] * 100)}, FP32)
    losses, right = [], []
    for index in range(len(rows)):
        batch = rows[index]
        with torch.no_grad():
            logits = rows.logits(net, batch)[0]
        losses.append(float(nn.functional.cross_entropy(logits, batch.labels[0])))
        right.append(float((logits.argmax(-1) == batch.labels[0]).float().mean()))
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.accuracy == pytest.approx(np.mean(right))
    assert found.groups["half=a"].sum() == 100
    figures = net.task.figures(found.measured, Config().data)
    assert figures["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)


@pytest.mark.parametrize("clipping", ["hooks", "ghost", "bookkeeping"])
def test_each_text_is_clipped_as_one(masked: tuple[Network, MaskedExamples], clipping: str) -> None:
    net, rows = masked
    start, clip, draw = net.read(), 0.05, torch.Generator().manual_seed(0)
    start = {k: v + 0.1 * torch.randn(v.shape, generator=draw) for k, v in start.items()}
    net.write(start)
    seen = rows.drawn(SeededStream(7))
    total = {k: torch.zeros_like(p) for k, p in net.trainable().items()}
    for index in range(len(rows)):
        batch = seen[index]
        loss = scoring_of(net.task).losses(seen.logits(net, batch), batch).sum()
        found = torch.autograd.grad(loss, list(net.trainable().values()))
        norm = float(torch.sqrt(sum((g**2).sum() for g in found)))
        for sum_, g in zip(total.values(), found, strict=True):
            sum_ += g * min(1.0, clip / (norm + 1e-6))
    trained = train(
        net,
        rows,
        start,
        LocalTraining(TrainConfig(lr=1.0, physical_batch=16), 1.0, Privacy(1e-9, clip, clipping)),
        SeededStream(7),
        SeededStream(0),
        FP32,
    )
    for key, change in trained.delta.items():
        torch.testing.assert_close(change, -total[key] / 200, atol=2e-7, rtol=2e-3)


def test_training_lowers_the_perplexity_and_the_model_is_a_start(
    masked: tuple[Network, MaskedExamples], tiny_bert: Path, tmp_path: Path
) -> None:
    net, rows = masked
    before = evaluate(net, rows, {}, FP32).loss
    how = TrainConfig(local_steps=60, optimizer="adam", lr=0.01)
    draws = [SeededStream(seed) for seed in (0, 1)]
    trained = train(net, rows, net.read(), LocalTraining(how, 0.3, None), *draws, FP32)
    assert trained.examples > 0
    assert evaluate(net, rows, {}, FP32).loss < before - 0.5
    config = Config(task="mlm", model=model_of(tiny_bert))
    export(net.read(), config, tmp_path / "model")
    fill = pipeline("fill-mask", model=str(tmp_path / "model"))
    assert len(fill("the [MASK] was good")) == 5
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    given = tokenizer("the [MASK] was good", return_tensors="pt")
    with torch.no_grad():
        theirs = model(**given).logits[0, 2]
        mask = given["attention_mask"].clone()
        mask[0, 2] = PREDICTED
        ours = net.logits(given["input_ids"], mask)[0, 0]
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    # The next step of the way: a classifier on top of it.
    config = ModelConfig(
        base=str(tmp_path / "model"), max_length=24, drop_layers=0, trainable="last_k"
    )
    ours, theirs = build(config, ("a", "b"), 0).stock.encoder, model.bert
    for (name, one), other in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(one, other[1], msg=name)
    with pytest.raises(UserError, match=r"fills in words \(task=mlm\)"):
        load_trained(tmp_path)


def test_the_command_composes_and_refuses_what_does_not_fit() -> None:
    found = compose_config(["task=mlm"])
    assert found.outputs == ()
    assert found.about.confusion_size(0) == 2
    for override, problem in (
        ("model.head=cls", "model.head: must be token with task=ner, lm with task=mlm"),
        ("model.prefix_cache=true", "model.prefix_cache: task=mlm masks other words"),
        ("privacy.grad_sample_mode=auto", "privacy.grad_sample_mode: auto measures classifiers"),
        ("data.labels=[a,b]", "data.labels: task=mlm reads texts alone"),
        ("data.target=label", "data.columns.label: empty with data.target=none"),
    ):
        with pytest.raises(UserError, match=problem):
            validate(compose_config(["task=mlm", override]))
