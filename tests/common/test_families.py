"""Every model family and every choice of trained parts, on tiny random models of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from client.training import Privacy, train
from common.config import Config, ModelConfig, TrainConfig, validate
from common.device import Device
from common.errors import UserError
from common.features import prepare
from common.model import build, merge_adapters
from tests.conftest import BAD, FILLER, GOOD

FP32 = Device(torch.device("cpu"), torch.float32)
LABELS = ("negative", "positive")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER]
SMALL = {"vocab_size": len(WORDS), "max_position_embeddings": 64, "pad_token_id": 0}
BERT = {**SMALL, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
BERT |= {"intermediate_size": 64, "initializer_range": 0.2}
MODELS = {
    "roberta": lambda: RobertaModel(RobertaConfig(**BERT)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(
            **SMALL, dim=32, n_layers=3, n_heads=4, hidden_dim=64, initializer_range=0.2
        )
    ),
    "electra": lambda: ElectraModel(ElectraConfig(**BERT, embedding_size=16)),
    "albert": lambda: AlbertModel(AlbertConfig(**BERT, embedding_size=16)),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family: random weights, a whole-word tokenizer."""
    tokens = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), WORDS[:5], strict=True))
    special = {f"{name}_token": word for name, word in names.items()}
    folders = {}
    for name, make in MODELS.items():
        folders[name] = tmp_path_factory.mktemp(name)
        torch.manual_seed(0)
        make().save_pretrained(folders[name])
        fast = PreTrainedTokenizerFast(tokenizer_object=tokens, **special)
        fast.save_pretrained(folders[name])
    return folders


def choices(base: Path, **settings: object) -> ModelConfig:
    names = {"max_length": 24, "layers": 2, **settings}
    config = ModelConfig(base=str(base), **names)  # type: ignore[arg-type]
    config.lora.targets = ["q_lin" if "distilbert" in base.name else "query"]
    return config


@pytest.mark.parametrize("head", ["mean", "cls", "token"])
@pytest.mark.parametrize("trainable", ["lora", "ia3", "bitfit", "last_k", "full"])
@pytest.mark.parametrize("name", ["roberta", "distilbert", "electra"])
def test_the_cut_model_equals_the_stock_one_merged(
    family: dict[str, Path],
    reviews: tuple[list[str], list[int]],
    name: str,
    trainable: str,
    head: str,
) -> None:
    net = build(choices(family[name], head=head, trainable=trainable), LABELS, 0)
    draw = torch.Generator().manual_seed(0)
    net.write({k: v + 0.1 * torch.randn(v.shape, generator=draw) for k, v in net.read().items()})
    batch = net.tokenizer(reviews[0][:9], return_tensors="pt", padding=True)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        cut = net.suffix(net.prefix(ids, mask), mask)
        merge_adapters(net)
        stock = net.stock(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(cut, stock, atol=2e-5, rtol=1e-4)
    assert "Scale" not in {type(module).__name__ for module in net.stock.modules()}


@pytest.mark.parametrize("trainable", ["ia3", "bitfit"])
@pytest.mark.parametrize("name", ["roberta", "distilbert", "electra"])
def test_private_steps_clip_each_record(
    family: dict[str, Path],
    reviews: tuple[list[str], list[int]],
    tmp_path: Path,
    name: str,
    trainable: str,
) -> None:
    config = choices(family[name], trainable=trainable)
    net = build(config, LABELS, 0)
    rows = prepare(reviews[0][:16], np.array(reviews[1][:16]), net, config, FP32, tmp_path)
    draw = torch.Generator().manual_seed(0)
    net.write({k: v + 0.1 * torch.randn(v.shape, generator=draw) for k, v in net.read().items()})
    start, clip = net.read(), 0.05
    total = {k: torch.zeros_like(p) for k, p in net.trainable().items()}
    for index in range(len(rows)):
        batch = rows[index]
        loss = nn.functional.cross_entropy(rows.logits(net, batch), batch.labels)
        found = torch.autograd.grad(loss, list(net.trainable().values()))
        norm = float(torch.sqrt(sum((g**2).sum() for g in found)))
        for sum_, g in zip(total.values(), found, strict=True):
            sum_ += g * min(1.0, clip / (norm + 1e-6))
    trained = train(
        net,
        rows,
        start,
        TrainConfig(lr=1.0, physical_batch=5),
        1.0,
        Privacy(1e-9, clip, "hooks"),
        torch.Generator().manual_seed(0),
        torch.Generator().manual_seed(0),
        FP32,
    )
    assert trained.delta.keys() == total.keys()
    for key, change in trained.delta.items():
        torch.testing.assert_close(change, -total[key] / 16, atol=2e-7, rtol=1e-3)


def test_what_is_trained_is_what_was_asked_for(family: dict[str, Path]) -> None:
    for name in ("roberta", "distilbert", "electra"):
        scales = build(choices(family[name], trainable="ia3"), LABELS, 0).read()
        of_layers = [k for k in scales if k.startswith("layers.")]
        # Keys, values, and the feed-forward part, of each of two layers.
        assert len(of_layers) == 6
        assert sorted(len(scales[k]) for k in of_layers) == [32] * 4 + [64] * 2
        biases = build(choices(family[name], trainable="bitfit"), LABELS, 0).read()
        assert all(k.endswith("bias") for k in biases if k.startswith("layers."))


def test_albert_is_refused_with_the_reason(family: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="the albert family is not supported: one set of weights"):
        build(choices(family["albert"]), LABELS, 0)


def test_adalora_is_refused_with_the_reason() -> None:
    config = Config()
    config.model.trainable = "adalora"
    with pytest.raises(UserError, match="adalora ranks directions by unclipped gradients"):
        validate(config)
