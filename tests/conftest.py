"""Small real things that tests share: a tiny BERT with its tokenizer, and a table of reviews."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from tests.skips import pytest_make_collect_report, pytest_runtest_makereport

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]

torch.set_num_threads(1)
# A shell that starts the tests in its background has them, and whatever they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
GOOD = ["good", "fine", "great", "lovely", "superb", "warm"]
BAD = ["bad", "dull", "poor", "awful", "weak", "cold"]
FILLER = ["the", "film", "was", "a", "story", "and", "plot", "with", "actors", "scene", "of", "it"]

# A test of a deployment waits for real deadlines and heartbeats, for minutes on a busy machine.
DEPLOYMENT_TIMEOUT_SECONDS = 1800


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deployments come last and in the order of their files: one federation lives through them."""
    story = [item for item in items if item.get_closest_marker("deploy")]
    for item in story:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(DEPLOYMENT_TIMEOUT_SECONDS))
    story.sort(key=lambda item: (item.path, item.reportinfo()[1] or 0))
    items[:] = [item for item in items if item not in story] + story


def review(positive: bool, generator: random.Random) -> str:
    """A made-up review whose words give its label away most of the time."""
    words = generator.choices(FILLER, k=generator.randint(3, 14))
    for _ in range(3):
        pool = GOOD if positive == (generator.random() < 0.9) else BAD
        words.insert(generator.randrange(len(words)), generator.choice(pool))
    return " ".join(words)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a 3-layer BERT of 32 dimensions and a whole-word tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews() -> tuple[list[str], list[int]]:
    """600 made-up reviews and their labels."""
    generator = random.Random(0)
    labels = [generator.randrange(2) for _ in range(600)]
    return [review(bool(label), generator) for label in labels], labels
