"""Attention in bfloat16 on a processor: trained in float32, else torch's own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from common.config import Config, ModelConfig
from common.models import attention
from common.models.build import build
from common.models.export import export

SHAPE = (4, 2, 9, 16)


def drawn(dtype: torch.dtype, trained: bool) -> list[torch.Tensor]:
    """Queries, keys and values."""
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(SHAPE, generator=generator) for _ in range(3)]
    return [x.to(torch.bfloat16).to(dtype).requires_grad_(trained) for x in exact]


def mask() -> torch.Tensor:
    """Rows of 9, 6, 3 and 1 tokens."""
    return (torch.arange(9) < torch.tensor([[9], [6], [3], [1]]))[:, None, None]


def test_trained_attention_is_the_float32_one_but_for_its_result() -> None:
    exact, rounded = drawn(torch.float32, True), drawn(torch.bfloat16, True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = attention.attention(nn.Module(), *rounded, mask(), is_causal=False)
    expected, _ = sdpa_attention_forward(nn.Module(), *exact, mask(), is_causal=False)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.to(torch.bfloat16))
    found.float().sum().backward()
    expected.sum().backward()
    for a, b in zip(rounded, exact, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad.to(torch.bfloat16))


@pytest.mark.parametrize(
    ("dtype", "trained"), [(torch.bfloat16, False), (torch.float32, True), (torch.float32, False)]
)
def test_all_other_attention_is_torchs_own(dtype: torch.dtype, trained: bool) -> None:
    given = drawn(dtype, trained)
    found, _ = attention.attention(nn.Module(), *given, mask(), is_causal=False)
    expected, _ = sdpa_attention_forward(nn.Module(), *given, mask(), is_causal=False)
    assert torch.equal(found, expected)


def test_a_network_computes_its_attention_there(
    tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(ModelConfig(base=str(tiny_bert), max_length=24), ("bad", "good"), 0)
    asked: list[torch.dtype] = []

    def watched(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **options: object,
    ) -> tuple[torch.Tensor, None]:
        asked.append(query.dtype)
        return attention.attention(module, query, key, value, attention_mask, **options)

    monkeypatch.setitem(attention.AttentionInterface._global_mapping, attention.NAME, watched)
    ids = torch.randint(5, 20, (2, 6))
    network.logits(ids, torch.ones_like(ids))
    assert asked


def test_a_checkpoint_that_asks_for_attentions_can_be_delivered(
    tiny_bert: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_bert, base)
    about = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**about, "output_attentions": True}))
    config = Config(model=ModelConfig(base=str(base), head="cls", max_length=24))
    config.data.labels = ["bad", "good"]
    network = build(config.model, ("bad", "good"), 0)
    export(network.read(), config, tmp_path / "model")
    AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
