"""Loading `model.base` and its tokenizer, with errors in one line."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from common.config import ModelConfig
from common.errors import UserError
from common.models.families import FAMILIES
from common.models.packaged import PACKAGED, packaged_folder


def locate(base: str) -> str:
    """The path or hub id behind a value of `model.base`.

    Raises:
        UserError: The packages of a packaged model are missing or were changed.
    """
    return str(packaged_folder(base)) if base in PACKAGED else base


def load_pretrained(kind: Any, base: str, revision: str | None, **settings: Any) -> Any:
    """`kind.from_pretrained` of a base model; code in a checkpoint is never run.

    Raises:
        UserError: The model cannot be loaded, or needs code of its own.
    """
    path = locate(base)
    try:
        return kind.from_pretrained(path, revision=revision, trust_remote_code=False, **settings)
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
    """The tokenizer of `model.base`, which truncates long texts on the configured side.

    Raises:
        UserError: It cannot be loaded, or the head needs a fast tokenizer and it is none.
    """
    # Without this RoBERTa's tokenizer encodes a word of a list unlike the same word in a text.
    words = {"add_prefix_space": True} if config.head == "token" else {}
    tokenizer: PreTrainedTokenizerBase = load_pretrained(
        AutoTokenizer, config.base, config.revision, **words
    )
    if words and not tokenizer.is_fast:
        raise UserError("model.base: task=ner needs a model with a fast tokenizer (tokenizer.json)")
    tokenizer.truncation_side = config.truncation
    tokenizer.model_max_length = config.max_length
    return tokenizer
