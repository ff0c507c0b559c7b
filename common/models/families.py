"""The supported model families: one entry each.

An entry says how a family names the parts that the cut, the heads and the adapters need.  To add a
family, add an entry to `FAMILIES` and a tiny random model to the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from common.errors import UserError
from common.models.heads import FirstTokenHead, MaskedHead, PooledHead, SequenceHead
from common.models.mpnet import position_layers

Part = Callable[[Any], nn.Module]


@dataclass(frozen=True)
class Family:
    """How one family names its parts.

    Attributes:
        name: `model_type` of its configuration.
        masked_head: A model for masked language modelling to its head.
        sequence_head: A model for sequence classification to its head.
        embeddings: An encoder to its embeddings.
        layers: An encoder to its list of layers.
        called_layers: The same layers as modules with the interface of `BertLayer`; None where they
            have it already.
        shared: Modules outside the layers that the layers read, and which are never trained.
        dropouts: The settings that hold dropout probabilities.
        positions_follow_padding: Whether positions are counted from the padding id on.
        own_attention: Whether attention is computed outside transformers' attention interface.
        splits_layers: Whether a layer can be entered behind its attention (`feed_forward_chunk`).
        scaled_outputs: Names of the linear layers whose output IA³ scales.
        scaled_inputs: Ends of the paths of those whose input IA³ scales.
    """

    name: str
    masked_head: Part
    sequence_head: Part = lambda model: SequenceHead(model.classifier)
    embeddings: Part = lambda encoder: encoder.embeddings
    layers: Callable[[Any], nn.ModuleList] = lambda encoder: encoder.encoder.layer
    called_layers: Callable[[Any], nn.ModuleList] | None = None
    shared: Callable[[Any], tuple[nn.Module, ...]] = lambda encoder: ()
    dropouts: tuple[str, ...] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    positions_follow_padding: bool = False
    own_attention: bool = False
    splits_layers: bool = True
    scaled_outputs: tuple[str, ...] = ("key", "value")
    scaled_inputs: tuple[str, ...] = ("output.dense",)

    @property
    def key_bias(self) -> str:
        """The end of the name of the bias of attention keys."""
        return f"{self.scaled_outputs[0]}.bias"

    def positions(self, config: Any) -> int:
        """The largest number of sub-tokens that a model with this configuration takes."""
        skipped = config.pad_token_id + 1 if self.positions_follow_padding else 0
        return int(config.max_position_embeddings) - skipped


class ProjectedEmbeddings(nn.Module):
    """ELECTRA's embeddings where they are narrower than its layers."""

    def __init__(self, embeddings: nn.Module, project: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.project = project

    def forward(self, input_ids: Tensor) -> Tensor:
        """Vectors [batch, tokens, hidden]."""
        vectors: Tensor = self.project(self.embeddings(input_ids=input_ids))
        return vectors


def _bert_masked_head(model: Any) -> nn.Module:
    return MaskedHead(model.cls.predictions.transform, model.cls.predictions.decoder)


def _bert_head(model: Any) -> nn.Module:
    return PooledHead(model.bert.pooler, model.dropout, model.classifier)


def _roberta_masked_head(model: Any) -> nn.Module:
    parts = (model.lm_head.dense, nn.GELU(), model.lm_head.layer_norm)
    return MaskedHead(nn.Sequential(*parts), model.lm_head.decoder)


def _distilbert_masked_head(model: Any) -> nn.Module:
    parts = (model.vocab_transform, model.activation, model.vocab_layer_norm)
    return MaskedHead(nn.Sequential(*parts), model.vocab_projector)


def _distilbert_head(model: Any) -> nn.Module:
    return FirstTokenHead(model.pre_classifier, model.dropout, model.classifier)


def _electra_masked_head(model: Any) -> nn.Module:
    return MaskedHead(model.generator_predictions, model.generator_lm_head)


def _electra_embeddings(encoder: Any) -> nn.Module:
    embeddings: nn.Module = encoder.embeddings
    if encoder.config.embedding_size == encoder.config.hidden_size:
        return embeddings
    return ProjectedEmbeddings(embeddings, encoder.embeddings_project)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("bert", _bert_masked_head, _bert_head),
        Family("roberta", _roberta_masked_head, positions_follow_padding=True),
        Family("xlm-roberta", _roberta_masked_head, positions_follow_padding=True),
        Family("camembert", _roberta_masked_head, positions_follow_padding=True),
        Family(
            "distilbert",
            _distilbert_masked_head,
            _distilbert_head,
            layers=lambda encoder: encoder.transformer.layer,
            dropouts=("dropout", "attention_dropout", "seq_classif_dropout"),
            splits_layers=False,
            scaled_outputs=("k_lin", "v_lin"),
            scaled_inputs=("lin2",),
        ),
        Family("electra", _electra_masked_head, embeddings=_electra_embeddings),
        Family(
            "mpnet",
            _roberta_masked_head,
            called_layers=lambda encoder: position_layers(encoder.encoder),
            shared=lambda encoder: (encoder.encoder.relative_attention_bias,),
            positions_follow_padding=True,
            own_attention=True,
            scaled_outputs=("k", "v"),
        ),
    )
}
# Why a family that people may expect is not among them.
UNSUPPORTED = {
    "albert": "one set of weights is all of its layers, so that its upper ones cannot be trained "
    "above frozen lower ones; ",
}


def family_of(config: Any) -> Family:
    """The family of a model, from its transformers configuration.

    Raises:
        UserError: The family is not supported.
    """
    if config.model_type not in FAMILIES:
        raise UserError(
            f"model.base: the {config.model_type} family is not supported: "
            f"{UNSUPPORTED.get(config.model_type, '')}use one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[config.model_type]
