"""The cut model equals the uncut one; cached vectors equal computed ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from transformers import pipeline

from common.config import Config, LoraConfig, ModelConfig
from common.device import Device
from common.errors import UserError
from common.evaluation import evaluate
from common.examples.batch import by_length
from common.examples.prepare import prepare
from common.models.adapters import merge_adapters
from common.models.build import build
from common.models.export import export
from common.models.network import Network
from common.tasks import LOSS_BOUND

FP32 = Device(torch.device("cpu"), torch.float32)
LABELS = ("negative", "positive")
Reviews = tuple[list[str], list[int]]


def moved(net: Network) -> None:
    """Give every trainable tensor a value of its own, as training would."""
    generator = torch.Generator().manual_seed(0)
    net.write(
        {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in net.read().items()}
    )


@pytest.mark.parametrize("head", ["mean", "cls"])
@pytest.mark.parametrize("trainable", ["lora", "last_k", "full"])
def test_frozen_and_trained_layers_equal_the_stock_model(
    tiny_bert: Path, reviews: Reviews, head: str, trainable: str
) -> None:
    net = build(
        ModelConfig(base=str(tiny_bert), head=head, trainable=trainable, max_length=24), LABELS, 0
    )
    moved(net)
    batch = net.tokenizer(reviews[0][:9], return_tensors="pt", padding=True)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        cut = net.logits(ids, mask)
        stock = net.stock(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(cut, stock, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("head", ["mean", "cls"])
def test_export_loads_with_transformers_alone(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path, head: str
) -> None:
    config = Config(model=ModelConfig(base=str(tiny_bert), head=head, max_length=24))
    config.data.labels = list(LABELS)
    net = build(config.model, LABELS, config.run.seed)
    moved(net)
    export(net.read(), config, tmp_path / "model")
    loaded = pipeline(
        "text-classification",
        model=str(tmp_path / "model"),
        trust_remote_code=head == "mean",
        top_k=None,
    )
    texts = reviews[0][:8]
    batch = net.tokenizer(texts, return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        wanted = net.logits(batch["input_ids"], batch["attention_mask"]).softmax(-1)
    for row, found in zip(wanted, loaded(texts), strict=True):
        scores = {item["label"]: item["score"] for item in found}
        assert scores["positive"] == pytest.approx(float(row[1]), abs=1e-5)


def test_merging_adapters_changes_no_logit(tiny_bert: Path, reviews: Reviews) -> None:
    net = build(ModelConfig(base=str(tiny_bert), layers=2, max_length=24), LABELS, 0)
    moved(net)
    batch = net.tokenizer(reviews[0][:5], return_tensors="pt", padding=True)
    with torch.no_grad():
        before = net.stock(**batch).logits
        merge_adapters(net)
        after = net.stock(**batch).logits
    assert not [n for n, _ in net.stock.named_parameters() if "lora" in n]
    torch.testing.assert_close(before, after, atol=1e-5, rtol=1e-5)


def test_same_seed_same_start_and_other_seed_another(tiny_bert: Path) -> None:
    config = ModelConfig(base=str(tiny_bert), max_length=24)
    prints = [build(config, LABELS, seed).fingerprint for seed in (1, 1, 2)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cached_vectors_equal_computed_ones(
    tiny_bert: Path, reviews: Reviews, tmp_path: Path, dtype: torch.dtype
) -> None:
    lora = LoraConfig(targets=["intermediate.dense"])
    config = ModelConfig(base=str(tiny_bert), layers=1, lora=lora, max_length=24)
    net = build(config, LABELS, 0)
    device = Device(torch.device("cpu"), dtype)
    texts, labels = reviews[0][:40], np.array(reviews[1][:40])
    cached = prepare(texts, labels, net, config, device, tmp_path)
    again = prepare(texts, labels, net, config, device, tmp_path)
    rows = [3, 17, 31]
    batch = cached.__getitems__(rows)
    assert torch.equal(batch.inputs, again.__getitems__(rows).inputs)
    assert batch.inputs.dtype == dtype
    ids = net.tokenizer([texts[r] for r in rows], return_tensors="pt", padding=True)
    with device.autocast():
        direct, entered = net.run_frozen(ids["input_ids"], ids["attention_mask"])
    width = direct.shape[1]
    real = ids["attention_mask"].bool()
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(
        batch.inputs[:, :width][real].float(), direct[real].float(), atol=tolerance, rtol=tolerance
    )
    assert int(batch.mask.sum()) == int(real.sum())
    assert batch.entered is not None
    assert entered is not None
    torch.testing.assert_close(batch.entered, entered, atol=tolerance, rtol=tolerance)


def test_no_rows_at_all(tiny_bert: Path, tmp_path: Path) -> None:
    for cached in (True, False):
        config = ModelConfig(base=str(tiny_bert), max_length=24, prefix_cache=cached)
        net = build(config, LABELS, 0)
        rows = prepare([], np.zeros(0, dtype=np.int64), net, config, FP32, tmp_path)
        found = evaluate(net, rows, {"kind": np.zeros(0, dtype=str)}, FP32)
        assert found.confusion.sum() == 0
        assert found.groups == {}
        assert np.isnan(found.loss)


def test_evaluation_counts(tiny_bert: Path, reviews: Reviews, tmp_path: Path) -> None:
    config = ModelConfig(base=str(tiny_bert), max_length=24)
    net = build(config, LABELS, 0)
    moved(net)
    texts, labels = reviews[0][:70], np.array(reviews[1][:70])
    groups = {"kind": np.array(["short" if len(t) < 60 else "long" for t in texts])}
    found = evaluate(net, prepare(texts, labels, net, config, FP32, tmp_path), groups, FP32)
    batch = net.tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        logits = net.stock(**batch).logits
    predicted = logits.argmax(1).numpy()
    assert np.array_equal(found.confusion, confusion_matrix(labels, predicted, labels=[0, 1]))
    short = groups["kind"] == "short"
    assert np.array_equal(
        found.groups["kind=short"], confusion_matrix(labels[short], predicted[short], labels=[0, 1])
    )
    rows = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    assert found.loss == pytest.approx(rows.clamp(max=LOSS_BOUND).mean().item(), abs=1e-5)


def test_length_buckets_cover_every_row_once() -> None:
    lengths = np.array([3, 60, 1, 22, 22, 64, 9, 8, 0, *[16] * 20])
    batches = list(by_length(lengths, 128))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        widths = np.maximum(-(-lengths[batch] // 8) * 8, 8)
        assert len(batch) * widths.max() <= 128
        assert (widths.max() - widths).sum() <= 64
    assert max(map(len, batches)) > 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base": "no/such/folder-here"}, "model.base"),
        ({"layers": 9}, "model.layers"),
        ({"max_length": 500}, "model.max_length"),
        ({"lora": LoraConfig(targets=["nothing"])}, "model.lora.targets"),
    ],
)
def test_a_wrong_model_is_one_clear_line(
    tiny_bert: Path, settings: dict[str, object], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=words) as caught:
        build(ModelConfig(**{"base": str(tiny_bert), "max_length": 24, **settings}), LABELS, 0)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
