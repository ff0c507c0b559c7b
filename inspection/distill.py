"""A smaller student of the delivered model, taught on public text alone.

The student starts as the teacher with some of its layers left out (DistilBERT; Sanh et al. 2019)
and learns to answer as the teacher does: cross-entropy of its softened answers against the
teacher's (Hinton et al. 2015), or the squared error where the answers are no classes.  It reads the
teacher and public texts, so it is post-processing: nobody's privacy is spent again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.config import Config
from common.data.table import WORD_BREAK
from common.errors import UserError
from common.examples.batch import by_length
from common.files import write_atomic
from common.models.build import encoder_of, layers_of
from common.models.export import save_model
from common.models.mean_pooled import MeanPooledForSequenceClassification
from common.seeds import derive
from inspection.trained import load_config, load_delivered
from server.testset import public_rows

TEMPERATURE = 2.0
TOKENS = 2048
LEAST_TEXTS = 16


@dataclass(frozen=True)
class Distilled:
    """`agreement`: the share of the student's answers on held-out texts that are the teacher's.

    For a number it is None, and `difference` the mean absolute one in the column's units.
    """

    folder: Path
    layers: int
    teacher_layers: int
    parameters: int
    teacher_parameters: int
    texts: int
    held_out: int
    agreement: float | None
    difference: float | None


@dataclass(frozen=True)
class Teaching:
    """How the student is taught."""

    layers: int
    epochs: int = 5
    lr: float = 1e-4
    seed: int = 0


def distill(directory: Path, folder: Path, texts: Sequence[str] | None, how: Teaching) -> Distilled:
    """Teach a student of a run's model and write it to `folder`.

    `texts` are public; by default the server's own validation rows.  The held-out rows are for the
    comparison alone.  Raises UserError when the run has no model or no public rows, `how` does not
    fit them, or `folder` holds something else.
    """
    config = load_config(directory)
    _check(config, folder, how)
    found = public_rows(config)
    if found is None:
        raise UserError(f"{directory}: the run had no public rows (data.test_fraction is 0)")
    held_out, validation = found
    lessons = list(validation.texts if texts is None else texts)
    if len(lessons) < LEAST_TEXTS:
        raise UserError(
            f"distill: {len(lessons)} public texts are too few; give more with --text FILE"
        )
    teacher, tokenizer = load_delivered(directory)
    student = shorter(teacher, how.layers)
    reader = _Reader(tokenizer, config)
    _teach(teacher, student, reader, lessons, how)
    agreement, difference = _compare(teacher, student, reader, list(held_out.texts))
    save_model(student, tokenizer, folder)
    done = Distilled(
        folder,
        how.layers,
        len(layers_of(encoder_of(teacher))),
        sum(p.numel() for p in student.parameters()),
        sum(p.numel() for p in teacher.parameters()),
        len(lessons),
        len(held_out),
        agreement,
        difference,
    )
    write_atomic(folder / "README.md", _card(done, directory.name))
    return done


def _check(config: Config, folder: Path, how: Teaching) -> None:
    if config.task == "mlm":
        raise UserError("distill: a masked language model gives no answers to teach (task=mlm)")
    if how.layers < 1:
        raise UserError(f"--layers: must be at least 1, got {how.layers}")
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"{folder}: exists and holds no model; name a folder that is not there")


def shorter(teacher: PreTrainedModel, layers: int) -> PreTrainedModel:
    """A copy with `layers` of its encoder layers, evenly spread and with the last among them.

    Raises UserError when it has not more, or its head reads more than are left.
    """
    count = len(layers_of(encoder_of(teacher)))
    if layers >= count:
        raise UserError(f"--layers: must be less than the {count} of the model, got {layers}")
    read = getattr(teacher.config, "pooled_layers", 1) - 1
    if layers < read:
        raise UserError(f"--layers: must be at least {read}: so many the head of the model reads")
    student: Any = copy.deepcopy(teacher)
    encoder = encoder_of(student)
    stack = layers_of(encoder)
    for index in sorted(set(range(count)) - set(spread(layers, count)), reverse=True):
        del stack[index]
    encoder.config.num_hidden_layers = layers
    if isinstance(student, MeanPooledForSequenceClassification):
        student.config.encoder = {**student.config.encoder, "num_hidden_layers": layers}
    else:
        student.config.num_hidden_layers = layers
    model: PreTrainedModel = student
    return model


def spread(layers: int, count: int) -> list[int]:
    """Which `layers` of `count` are kept: evenly spread, with the last among them."""
    return [round((i + 1) * count / layers) - 1 for i in range(layers)]


@dataclass(frozen=True)
class _Reader:
    """Texts as batches of token ids and mask, cut as in training."""

    tokenizer: PreTrainedTokenizerBase
    config: Config

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        words = self.config.about.target == "tags"
        given: Any = [text.split(WORD_BREAK) for text in texts] if words else list(texts)
        found = self.tokenizer(
            given, is_split_into_words=words, truncation=True, padding=True, return_tensors="pt"
        )
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}

    def batches(self, texts: Sequence[str]) -> list[list[str]]:
        """Texts of similar length together; characters stand for tokens here."""
        limit = 4 * self.tokenizer.model_max_length
        lengths = np.array([min(len(text), limit) for text in texts], dtype=np.int64)
        return [[texts[i] for i in chosen] for chosen in by_length(lengths, 4 * TOKENS)]


def _answers(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    """Logits [answers, outputs]: of each text, or of each token that is no padding."""
    logits: Tensor = model(**batch).logits
    return logits[batch["attention_mask"].bool()] if logits.ndim == 3 else logits


def _kind(model: PreTrainedModel) -> str:
    return str(model.config.problem_type or "classes")


def _loss(kind: str, wanted: Tensor, given: Tensor) -> Tensor:
    if kind == "regression":
        return nn.functional.mse_loss(given, wanted)
    if kind == "multi_label_classification":
        soft = (wanted / TEMPERATURE).sigmoid()
        return nn.functional.binary_cross_entropy_with_logits(given / TEMPERATURE, soft)
    soft = (wanted / TEMPERATURE).softmax(-1)
    return nn.functional.cross_entropy(given / TEMPERATURE, soft) * TEMPERATURE**2


def _shuffled(batches: Sequence[list[str]], generator: torch.Generator) -> Iterator[list[str]]:
    for index in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[index]


def _teach(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    reader: _Reader,
    texts: Sequence[str],
    how: Teaching,
) -> None:
    generator = torch.Generator().manual_seed(derive(how.seed, "distill"))
    batches, kind = reader.batches(texts), _kind(teacher)
    student.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=how.lr)
    total = how.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total)
    for _ in range(how.epochs):
        for chosen in _shuffled(batches, generator):
            batch = reader.encode(chosen)
            with torch.no_grad():
                wanted = _answers(teacher, batch)
            _loss(kind, wanted, _answers(student, batch)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
    student.eval()


def _compare(
    teacher: PreTrainedModel, student: PreTrainedModel, reader: _Reader, texts: Sequence[str]
) -> tuple[float | None, float | None]:
    """Agreement, or for a number the mean absolute difference, on held-out texts."""
    kind, sums, count = _kind(teacher), 0.0, 0
    for chosen in reader.batches(texts):
        batch = reader.encode(chosen)
        with torch.inference_mode():
            wanted, given = _answers(teacher, batch), _answers(student, batch)
        if kind == "regression":
            found = (wanted - given).abs()
        elif kind == "multi_label_classification":
            found = ((wanted > 0) == (given > 0)).float()
        else:
            found = (wanted.argmax(-1) == given.argmax(-1)).float()
        sums, count = sums + float(found.sum()), count + found.numel()
    mean = sums / max(count, 1)
    return (None, mean) if kind == "regression" else (mean, None)


def told(done: Distilled, teacher: str) -> str:
    """How the student's answers stand to those of `teacher`, as a clause."""
    if done.agreement is not None:
        return f"{done.agreement:.1%} of its answers are the {teacher}'s"
    return f"its answers differ from the {teacher}'s by {done.difference:.3g} on average"


def _card(done: Distilled, run: str) -> str:
    return (
        "---\nlibrary_name: transformers\ntags: [fedaccord, distillation]\n---\n"
        f"# A student with {done.layers} of {done.teacher_layers} layers\n\n"
        f"Taught by the model of the run {run} on {done.texts:,} public texts. It has "
        f"{done.parameters / 1e6:.1f} million parameters instead of "
        f"{done.teacher_parameters / 1e6:.1f}; on {done.held_out:,} held-out texts "
        f"{told(done, 'teacher')}.\n\n"
        "What the teacher's card says of its use, its limits and its privacy holds for the "
        "student: it read the teacher and public texts alone. Its fairness between groups was not "
        "measured.\n"
    )
