"""Model, rows and evaluation of the peers: Hugging Face, peft and Opacus, used as documented.

The classifier reads mean token vectors, as the model's own card prescribes: from the pooled [CLS]
of a sentence encoder nothing was learnt in a few noisy steps (docs/performance.md).  Variants:
``full`` trains every encoder layer and the classifier (the embeddings stay frozen: Opacus' hooks
cannot take BERT's position ids, which are one row for a whole batch);
``lora`` is peft's default for BERT, r = 8 on query and value of all layers, and the classifier;
``lora_top`` trains what fedaccord trains in this bench: the sixth layer is left out, r = 8 on the
intermediate matrix of the fifth, and the classifier.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformers import AutoConfig, AutoTokenizer, BertConfig, BertModel, BertPreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from bench.peers.job import Job, Rows

VARIANTS = ("full", "lora", "lora_top")


class MeanPooledClassifier(BertPreTrainedModel):
    """BERT, mean pooling, a linear layer."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits [rows, labels], and the mean loss where labels are given."""
        states = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        logits = self.classifier((states * weights).sum(1) / weights.sum(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def build_model(job: Job) -> nn.Module:
    """The model, the same for everybody who builds it."""
    torch.manual_seed(job.seed)
    config = AutoConfig.from_pretrained(job.base, num_labels=2, trust_remote_code=False)
    if job.variant == "lora_top":
        config.num_hidden_layers = max(1, config.num_hidden_layers - 1)
    model: Any = MeanPooledClassifier.from_pretrained(
        job.base, config=config, trust_remote_code=False
    )
    if job.variant == "full":
        model.bert.embeddings.requires_grad_(False)
        return model
    top = config.num_hidden_layers - 1
    chosen: dict[str, Any] = (
        {"target_modules": ["query", "value"]}
        if job.variant == "lora"
        else {"target_modules": ["intermediate.dense"], "layers_to_transform": [top]}
    )
    lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, lora_dropout=0.1, **chosen)
    return get_peft_model(model, lora)


def tokenised(rows: Rows, job: Job) -> TensorDataset:
    """Token ids and mask [rows, length], padded to a fixed length, and labels [rows]."""
    tokenizer = AutoTokenizer.from_pretrained(job.base, trust_remote_code=False)
    encoded = tokenizer(
        rows.texts,
        truncation=True,
        padding="max_length",
        max_length=job.length,
        return_tensors="pt",
    )
    return TensorDataset(encoded["input_ids"], encoded["attention_mask"], torch.tensor(rows.labels))


@torch.no_grad()
def accuracy(model: nn.Module, rows: TensorDataset, batch: int = 64) -> float:
    """Share of the rows that `model` labels rightly."""
    model.eval()
    right = 0
    ids, mask, labels = rows.tensors
    for start in range(0, len(labels), batch):
        part = slice(start, start + batch)
        logits: Tensor = model(input_ids=ids[part], attention_mask=mask[part]).logits
        right += int((logits.argmax(1) == labels[part]).sum())
    return right / len(labels)
