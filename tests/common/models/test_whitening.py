"""FeatureWhitening makes public vectors round, and folding it away changes no logit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from common.config import Config, ModelConfig
from common.errors import UserError
from common.models.build import build
from common.models.export import export
from common.models.whitening import DIRECTIONS, FeatureWhitening


def cone(rows: int, features: int) -> Tensor:
    """Vectors in a narrow cone that vary along five directions far more than along the rest."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(rows, features, generator=generator)
    few = torch.randn(rows, 5, generator=generator) @ torch.randn(5, features, generator=generator)
    return 3.0 + base + 4.0 * few


@pytest.mark.parametrize("rows", [400, 20, 2])
def test_fitted_vectors_are_centred_and_of_unit_norm(rows: int) -> None:
    vectors = cone(rows, 64)
    conditioning = FeatureWhitening(64, scale=7.0)
    conditioning.fit(vectors)
    out = conditioning(vectors) / 7.0
    assert float(out.mean(0).abs().max()) < 1e-4
    assert float(out.norm(dim=1).square().mean()) == pytest.approx(1.0, rel=1e-4)


def test_leading_directions_come_down_to_the_average_and_others_stay() -> None:
    vectors = cone(4000, 64)
    conditioning = FeatureWhitening(64, scale=1.0)
    conditioning.fit(vectors)
    standard = (vectors - vectors.mean(0)) / vectors.std(0)
    before = torch.linalg.eigvalsh(torch.cov(standard.T)).flip(0)
    after = torch.linalg.eigvalsh(torch.cov(conditioning(vectors).T)).flip(0)
    capped = torch.cat([before[:DIRECTIONS].clamp(max=1.0), before[DIRECTIONS:]])
    capped = capped.sort(descending=True).values
    assert float(before[0] / before[-1]) > 10 * float(after[0] / after[-1])
    torch.testing.assert_close(after / after.sum(), capped / capped.sum(), rtol=1e-3, atol=1e-5)


def test_folding_changes_no_logit() -> None:
    vectors = cone(300, 64)
    conditioning, classifier = FeatureWhitening(64, scale=28.0), nn.Linear(64, 3)
    conditioning.fit(vectors)
    with torch.no_grad():
        wanted = classifier(conditioning(vectors))
        torch.testing.assert_close(
            conditioning.fold(classifier)(vectors), wanted, rtol=1e-4, atol=1e-3
        )


def test_an_exported_model_leaves_layers_out_and_carries_no_conditioning(
    tiny_bert: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    config = Config(model=ModelConfig(base=str(tiny_bert), drop_layers=1, max_length=24))
    config.data.labels = ["negative", "positive"]
    net = build(config.model, ("negative", "positive"), config.run.seed)
    assert isinstance(net.trained.head.conditioning, FeatureWhitening)
    features = net.trained.head.classifier.in_features
    net.trained.head.conditioning.fit(cone(50, features) / 10)
    with torch.no_grad():
        net.trained.head.classifier.weight.normal_()
    export({**net.read(), **net.constants()}, config, tmp_path / "model")
    loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "model", trust_remote_code=True
    )
    assert loaded.config.encoder["num_hidden_layers"] == 2
    assert not [n for n, _ in loaded.named_buffers() if "head" in n]
    batch = net.tokenizer(["a fine film", "dull"], return_tensors="pt", padding=True)
    with torch.no_grad():
        wanted = net.logits(batch["input_ids"], batch["attention_mask"])
        torch.testing.assert_close(loaded(**batch).logits, wanted, rtol=1e-3, atol=1e-3)


def test_leaving_out_every_layer_is_one_clear_line(tiny_bert: Path) -> None:
    with pytest.raises(UserError, match=r"model\.drop_layers: 9 leaves none"):
        build(ModelConfig(base=str(tiny_bert), drop_layers=9, max_length=24), ("a", "b"), 0)
