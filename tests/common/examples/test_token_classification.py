"""Tagged words: windows, losses of whole records, entity counts, the exported model."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from seqeval.metrics import classification_report, f1_score
from torch import nn
from transformers import pipeline

from client.training import LocalTraining, Privacy, train
from common.config import Config, ModelConfig, TrainConfig
from common.data.batch import Batch
from common.data.records import build_table
from common.data.schema import DataConfig
from common.data.table import Table
from common.device import Device
from common.entities import entity_counts, f1, report_text, scores
from common.evaluation import evaluate
from common.examples.token_classification import WordExamples, prepare_words, window_starts
from common.losses import IGNORED
from common.models.adapters import merge_adapters
from common.models.build import build
from common.models.export import export
from common.models.network import Network
from common.tags import tag_names
from simulation.seeded_streams import SeededStream
from tests.conftest import BAD, FILLER, GOOD

FP32 = Device(torch.device("cpu"), torch.float32)
TYPES = ("BAD", "GOOD")
TAGS = tag_names(TYPES)
POOLS = [(FILLER, ""), (FILLER, ""), (GOOD, "GOOD"), (BAD, "BAD")]


def tagged(rows: int, longest: int = 30, seed: int = 0) -> Table:
    """Sentences of made-up words, some of them entities; a word may leave no sub-token."""
    draw = np.random.default_rng(seed)
    words, tags = [], []
    for _ in range(rows):
        row: list[str] = []
        of: list[str] = []
        for _ in range(int(draw.integers(1, longest))):
            pool, kind = [(FILLER, ""), (FILLER, ""), (GOOD, "GOOD"), (BAD, "BAD")][
                draw.integers(4)
            ]
            row.append(pool[draw.integers(len(pool))] + ("story" if draw.random() < 0.2 else ""))
            begins = draw.random() < 0.5 or not of or not of[-1].endswith(f"-{kind}")
            of.append(f"{'B' if begins else 'I'}-{kind}" if kind else "O")
        if draw.random() < 0.2:
            row[0] = "\u200b"
        words.append(row)
        tags.append(of)
    batch = Batch("made", 1, {"text": words, "label": tags})
    return build_table([batch], DataConfig(labels=list(TYPES), scheme="bio"))


def prepared(
    tiny_bert: Path, cache: Path, table: Table, **settings: object
) -> tuple[Network, ModelConfig, WordExamples]:
    fields = {"max_length": 12, "stride": 4, "layers": 1, "head_scale": 5.0, **settings}
    config = ModelConfig(base=str(tiny_bert), head="token", **fields)  # type: ignore[arg-type]
    net = build(config, TAGS, 0)
    draw = torch.Generator().manual_seed(0)
    net.write({k: v + 0.1 * torch.randn(v.shape, generator=draw) for k, v in net.read().items()})
    return net, config, prepare_words(table, net, config, FP32, cache)


@pytest.mark.parametrize("stride", [0, 3, 4, 9])
def test_every_word_is_learnt_once_at_its_first_sub_token(
    tiny_bert: Path, tmp_path: Path, stride: int
) -> None:
    table = tagged(40)
    net, _, rows = prepared(tiny_bert, tmp_path, table, stride=stride)
    assert table.tags is not None
    for index, text in enumerate(table.texts):
        whole = net.tokenizer(text.split("\n"), is_split_into_words=True)
        first = {w: p for p, w in reversed(list(enumerate(whole.word_ids(0)))) if w is not None}
        batch = rows[index]
        places = batch.labels != IGNORED
        of = batch.labels[places].tolist()
        assert of == [int(table.tags.of(index)[w]) for w in sorted(first)]
        ids = whole["input_ids"]
        assert batch.inputs.shape[1] <= 16
        if not batch.inputs.is_floating_point():
            assert batch.inputs[places].tolist() == [ids[first[w]] for w in sorted(first)]


def test_windows_cover_and_overlap() -> None:
    for tokens in range(0, 40):
        starts = window_starts(tokens, 10, 4)
        covered = [p for s in starts for p in range(s, min(s + 10, tokens))]
        assert set(covered) == set(range(tokens))
        assert all(b - a == 6 for a, b in pairwise(starts))
        assert len(starts) == 1 or starts[-1] + 4 < tokens


def test_cached_vectors_equal_computed_ones(tiny_bert: Path, tmp_path: Path) -> None:
    table = tagged(30)
    net, config, cached = prepared(tiny_bert, tmp_path, table)
    plain = prepare_words(table, net, replace(config, prefix_cache=False), FP32, tmp_path)
    assert cached.inner is not plain.inner
    ours, theirs = evaluate(net, cached, {}, FP32), evaluate(net, plain, {}, FP32)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    np.testing.assert_array_equal(ours.confusion, theirs.confusion)


@pytest.mark.parametrize("trainable", ["lora", "full"])
@pytest.mark.parametrize("physical", [2, 64])
def test_a_record_of_many_windows_is_clipped_as_one(
    tiny_bert: Path, tmp_path: Path, trainable: str, physical: int
) -> None:
    table = tagged(12, longest=40)
    net, _, rows = prepared(tiny_bert, tmp_path, table, trainable=trainable)
    assert int(np.diff(rows.windows).max()) > 3
    start, clip = net.read(), 0.05
    total = {name: torch.zeros_like(p) for name, p in net.trainable().items()}
    norms = []
    for index in range(len(rows)):
        batch = rows[index]
        logits = rows.logits(net, batch)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten())
        if bool((batch.labels == IGNORED).all()):
            continue  # a row without any sub-token
        found = torch.autograd.grad(loss, list(net.trainable().values()))
        norm = torch.sqrt(sum((g**2).sum() for g in found))
        norms.append(float(norm))
        for sum_, g in zip(total.values(), found, strict=True):
            sum_ += g * min(1.0, clip / (float(norm) + 1e-6))
    assert max(norms) > clip
    trained = train(
        net,
        rows,
        start,
        LocalTraining(
            TrainConfig(lr=1.0, physical_batch=physical), 1.0, Privacy(1e-9, clip, "hooks")
        ),
        SeededStream(0),
        SeededStream(0),
        FP32,
    )
    for name, change in trained.delta.items():
        torch.testing.assert_close(change, -total[name] / len(rows), atol=2e-7, rtol=1e-3)


def test_entity_counts_and_report_are_those_of_seqeval(tiny_bert: Path, tmp_path: Path) -> None:
    table = tagged(60)
    net, _, rows = prepared(tiny_bert, tmp_path, table)
    assert table.tags is not None
    batch = rows.__getitems__(range(len(rows)))
    with torch.no_grad():
        given = rows.predicted(batch, rows.logits(net, batch))
    truth = [[TAGS[c] for c in table.tags.of(i)] for i in range(len(table))]
    predicted = [[TAGS[c] for c in codes] for codes in given]
    half = np.array([i % 2 for i in range(len(table))]).astype(str)
    measured = evaluate(net, rows, {"half": half}, FP32)
    assert measured.sums is not None
    assert f1(measured.sums) == pytest.approx(f1_score(truth, predicted))
    added = sum(entity_counts(t, p, TYPES) for t, p in zip(truth, predicted, strict=True))
    np.testing.assert_array_equal(added, measured.sums)
    theirs = classification_report(truth, predicted, output_dict=True, zero_division=0)
    found = scores(measured.sums, TYPES)
    assert list(found) == list(theirs)
    for name, row in theirs.items():
        assert found[name] == pytest.approx(row)
    assert report_text(found).split() == classification_report(truth, predicted).split()
    right = [
        a == b for t, p in zip(truth, predicted, strict=True) for a, b in zip(t, p, strict=True)
    ]
    assert measured.accuracy == pytest.approx(np.mean(right))
    both = measured.groups["half=0"] + measured.groups["half=1"]
    np.testing.assert_array_equal(both, measured.confusion)


def test_nothing_to_find_has_no_f1() -> None:
    nothing = np.zeros((2, 3))
    assert np.isnan(f1(nothing))
    assert scores(nothing, TYPES)["micro avg"]["f1-score"] == 0.0


def test_the_exported_model_is_a_stock_token_classifier(tiny_bert: Path, tmp_path: Path) -> None:
    table = tagged(20)
    config = Config(model=ModelConfig(base=str(tiny_bert), head="token", max_length=24), task="ner")
    config.data.labels = list(TYPES)
    net, _, rows = prepared(tiny_bert, tmp_path, table, max_length=64)
    conditioning = net.trained.head.conditioning
    assert conditioning is not None
    conditioning.fit(torch.randn((50, 32), generator=torch.Generator().manual_seed(1)))  # type: ignore[operator]
    config.model.head_scale, config.model.layers = 5.0, 1
    with torch.no_grad():
        batch = rows.__getitems__([0, 1, 2])
        ours = rows.logits(net, batch)
    export({**net.read(), **net.constants()}, config, tmp_path / "model")
    loaded = pipeline("token-classification", model=str(tmp_path / "model"))
    text = table.texts[0].replace("\n", " ")
    found = loaded(text)
    assert {row["entity"] for row in found} <= set(TAGS)
    words = net.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        theirs = loaded.model(**words).logits[0]
    torch.testing.assert_close(theirs, ours[0][: len(theirs)], atol=1e-5, rtol=1e-4)
    merge_adapters(net)
    assert type(net.stock).__name__ == "BertForTokenClassification"
