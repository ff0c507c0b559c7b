"""Every model family and every choice of trained parts, on tiny random models of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AlbertConfig,
    AlbertModel,
    BertConfig,
    BertModel,
    CamembertConfig,
    CamembertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
    pipeline,
)

from client.training import LocalTraining, Privacy, train
from common.config import Config, LoraConfig, ModelConfig, TrainConfig, validate
from common.data.batch import Batch
from common.data.records import build_table
from common.data.schema import DataConfig
from common.data.table import Table
from common.device import Device
from common.errors import UserError
from common.evaluation import evaluate
from common.examples.frozen_layers import FrozenLayerExamples
from common.examples.prepare import prepare, prepare_table
from common.examples.token_classification import prepare_words
from common.losses import IGNORED
from common.models.adapters import merge_adapters
from common.models.build import build
from common.models.export import export
from common.models.heads import PREDICTED
from common.tags import tag_names
from simulation.seeded_streams import SeededStream
from tests.conftest import BAD, FILLER, GOOD

FP32 = Device(torch.device("cpu"), torch.float32)
LABELS = ("negative", "positive")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER]
SMALL = {"vocab_size": len(WORDS), "max_position_embeddings": 64, "pad_token_id": 0}
BERT = {**SMALL, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
BERT |= {"intermediate_size": 64, "initializer_range": 0.2}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**BERT)),
    "roberta": lambda: RobertaModel(RobertaConfig(**BERT)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(
            **SMALL, dim=32, n_layers=3, n_heads=4, hidden_dim=64, initializer_range=0.2
        )
    ),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**BERT)),
    "camembert": lambda: CamembertModel(CamembertConfig(**BERT)),
    # Small: embeddings narrower than the layers, and a projection.  Base and large: as wide.
    "electra": lambda: ElectraModel(ElectraConfig(**BERT, embedding_size=16)),
    "wide-electra": lambda: ElectraModel(ElectraConfig(**BERT, embedding_size=32)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**BERT)),
    "albert": lambda: AlbertModel(AlbertConfig(**BERT, embedding_size=16)),
}
KINDS = ("lora", "attention_lora", "ia3", "bitfit", "last_k", "full")
SUPPORTED = [name for name in MODELS if name != "albert"]
# Every choice of trained parts in every architecture; one in those that share it.
CHOICES = [
    (name, kind) for name in ("bert", "roberta", "distilbert", "electra", "mpnet") for kind in KINDS
]
CHOICES += [("xlm-roberta", "lora"), ("camembert", "lora"), ("wide-electra", "full")]


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
    """A model's settings; `trainable` may also be "attention_lora", on queries in place of the
    feed-forward part."""
    names = {
        "max_length": 24,
        "layers": 2,
        "drop_layers": 0,
        "head_scale": 6.0,
        "lora": LoraConfig(8, 16, factors="both"),
        **settings,
    }
    targets = ["lin1" if "distilbert" in base.name else "intermediate.dense"]
    if names.get("trainable") == "attention_lora":
        names["trainable"] = "lora"
        queries = {"distilbert": "q_lin", "mpnet": "q"}
        targets = [next((q for name, q in queries.items() if name in base.name), "query")]
    config = ModelConfig(base=str(base), **names)  # type: ignore[arg-type]
    if "lora" not in settings:
        config.lora.targets = targets
    return config


@pytest.mark.parametrize("head", ["mean", "cls", "token", "lm"])
@pytest.mark.parametrize(("name", "trainable"), CHOICES)
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
    marked = mask.clone()
    if head == "lm":
        marked[:, 1] = PREDICTED
    with torch.no_grad():
        cut = net.logits(ids, marked)
        merge_adapters(net)
        stock = net.stock(input_ids=ids, attention_mask=mask).logits
    if head == "lm":
        stock = stock[:, 1:2]
    torch.testing.assert_close(cut, stock, atol=2e-5, rtol=1e-4)
    assert "Scale" not in {type(module).__name__ for module in net.stock.modules()}


def rows_of(head: str, reviews: tuple[list[str], list[int]]) -> Table:
    """The first reviews, as texts or as words of which good and bad ones are entities."""
    texts, labels = reviews[0][:24], reviews[1][:24]
    if head != "token":
        names = [LABELS[label] for label in labels]
        return build_table(
            [Batch("made", 1, {"text": texts, "label": names})], DataConfig(labels=list(LABELS))
        )
    words = [text.split() for text in texts]
    tags = [["B-X" if word in GOOD + BAD else "O" for word in row] for row in words]
    batch = Batch("made", 1, {"text": words, "label": tags})
    return build_table([batch], DataConfig(labels=["X"], scheme="bio"))


@pytest.mark.parametrize("head", ["mean", "cls", "token"])
@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("trainable", ["lora", "attention_lora"])
def test_the_cache_of_frozen_layers_is_exact(
    family: dict[str, Path],
    reviews: tuple[list[str], list[int]],
    tmp_path: Path,
    name: str,
    trainable: str,
    head: str,
) -> None:
    config = choices(family[name], head=head, trainable=trainable, max_length=10, stride=3)
    labels = tag_names(("X",)) if head == "token" else LABELS
    net = build(config, labels, 0)
    draw = torch.Generator().manual_seed(0)
    net.write({k: v + 0.1 * torch.randn(v.shape, generator=draw) for k, v in net.read().items()})
    table = rows_of(head, reviews)
    cached = prepare_table(table, net, config, FP32, tmp_path)
    computed = prepare_table(table, net, replace(config, prefix_cache=False), FP32, tmp_path)
    assert isinstance(getattr(cached, "inner", cached), FrozenLayerExamples)
    ours, theirs = evaluate(net, cached, {}, FP32), evaluate(net, computed, {}, FP32)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    np.testing.assert_array_equal(ours.confusion, theirs.confusion)


@pytest.mark.parametrize(
    ("name", "changed", "frozen"),
    [
        *((name, {}, name != "distilbert") for name in SUPPORTED),
        ("bert", {"trainable": "ia3"}, False),
        ("bert", {"trainable": "bitfit"}, False),
        ("bert", {"trainable": "last_k"}, False),
        ("bert", {"trainable": "full"}, False),
        ("bert", {"lora": LoraConfig(targets=["query"])}, False),
        ("bert", {"lora": LoraConfig(targets=["dense"])}, False),
        # The attention's own output layer has the same last name.
        ("bert", {"lora": LoraConfig(targets=["output.dense"])}, False),
        ("bert", {"dropout": 0.1}, False),
    ],
)
def test_the_cut_is_behind_a_frozen_attention(
    family: dict[str, Path], name: str, changed: dict[str, Any], frozen: bool
) -> None:
    config = choices(family[name], **{"trainable": "lora", **changed})
    assert build(config, LABELS, 0).freezes_attention == frozen


@pytest.mark.parametrize("name", ["bert", "roberta", "electra"])
@pytest.mark.parametrize(
    ("head", "clipping", "cached"),
    [
        ("mean", "bookkeeping", True),
        ("mean", "hooks", True),
        ("mean", "ghost", True),
        ("mean", "hooks", False),
        ("cls", "bookkeeping", True),
        ("token", "hooks", True),
    ],
)
def test_the_position_of_the_cut_changes_no_private_step(
    family: dict[str, Path],
    reviews: tuple[list[str], list[int]],
    tmp_path: Path,
    name: str,
    head: str,
    clipping: str,
    cached: bool,
) -> None:
    config = choices(family[name], head=head, max_length=10, stride=3, prefix_cache=cached)
    deltas = []
    for frozen in (True, False):
        net = build(config, tag_names(("X",)) if head == "token" else LABELS, 0)
        assert net.freezes_attention
        # A cached property: what is written first stays.
        net.__dict__["freezes_attention"] = frozen
        rows = prepare_table(rows_of(head, reviews), net, config, FP32, tmp_path)
        seeds = [SeededStream(n) for n in (1, 2)]
        privacy = Privacy(0.5, 1.0, clipping)
        how = TrainConfig(local_steps=2, lr=0.5)
        assert isinstance(getattr(rows, "inner", rows), FrozenLayerExamples) == cached
        deltas.append(
            train(net, rows, net.read(), LocalTraining(how, 0.5, privacy), *seeds, FP32).delta
        )
    for parameter, delta in deltas[0].items():
        torch.testing.assert_close(delta, deltas[1][parameter], atol=1e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def byte_roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RoBERTa as its checkpoints are: byte-level sub-tokens, padding id 1, positions from 2 on."""
    folder = tmp_path_factory.mktemp("byte-roberta")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learnt = ByteLevelBPETokenizer()
    learnt.train_from_iterator(
        ["good film was cold", " good film"] * 9, 320, special_tokens=special
    )
    learnt.save_model(str(folder))
    RobertaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    shape = {**BERT, "vocab_size": 320, "max_position_embeddings": 18, "type_vocab_size": 1}
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(**{**shape, "pad_token_id": 1})).save_pretrained(folder)
    return folder


def test_roberta_tags_words_of_bytes_up_to_its_last_position(
    byte_roberta: Path, tmp_path: Path
) -> None:
    words = ["good", "café", "film", "\U0001f600", "(cold)", "was"]
    tags = ["O", "B-X", "I-X", "O", "B-X", "O"]
    batch = Batch("made", 1, {"text": [words, ["film"]], "label": [tags, ["B-X"]]})
    table = build_table([batch], DataConfig(labels=["X"], scheme="bio"))
    config = choices(byte_roberta, head="token", max_length=16, stride=4)
    net = build(config, tag_names(("X",)), 0)
    rows = prepare_words(table, net, replace(config, prefix_cache=False), FP32, tmp_path)
    both = rows.__getitems__([0, 1])
    assert both.inputs.shape[1] == 16  # as many as there are positions
    # The first byte of every word, each in one window only.
    labelled = both.labels != IGNORED
    assert sorted(both.labels[labelled].tolist()) == [0, 0, 0, 1, 1, 1, 2]
    begins = net.tokenizer.convert_ids_to_tokens(both.inputs[labelled].tolist())
    assert all(token.startswith("\u0120") for token in begins)
    assert np.isfinite(evaluate(net, rows, {}, FP32).loss)

    with pytest.raises(UserError, match=r"model\.max_length: 17 is more than the 16 positions"):
        build(choices(byte_roberta, max_length=17), LABELS, 0)

    whole = Config(model=config, task="ner")
    whole.data.labels = ["X"]
    export({**net.read(), **net.constants()}, whole, tmp_path / "model")
    tagger = pipeline(
        "token-classification", model=str(tmp_path / "model"), aggregation_strategy="first"
    )
    given = tagger.tokenizer("film", return_tensors="pt")
    one = rows[1]
    assert given["input_ids"][0].tolist() == one.inputs[0][one.mask[0].bool()].tolist()
    with torch.no_grad():
        ours, theirs = rows.logits(net, one)[0], tagger.model(**given).logits[0]
    torch.testing.assert_close(ours[: len(theirs)], theirs, atol=1e-5, rtol=1e-4)


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
        LocalTraining(TrainConfig(lr=1.0, physical_batch=5), 1.0, Privacy(1e-9, clip, "hooks")),
        SeededStream(0),
        SeededStream(0),
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
