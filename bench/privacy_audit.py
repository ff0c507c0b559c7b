"""Does the audit keep its word?  Many small trainings at a known epsilon, and some without noise.

``python -m bench.privacy_audit --repeats 100 --json FILE`` audits as many private trainings (one
full-batch step each, which is where a canary shows the most) and a few whose noise was taken away,
and writes the bound of every one.  The bound must not exceed the claimed epsilon in more than one
minus the confidence of the private ones, and must exceed it in those without noise.

The model is a one-layer BERT with random weights and many labels; a canary is a vector along one
axis with one label, so that the gradients of different canaries hardly overlap and none hides
behind the others.  Everything else is the partner's training code.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from client.accounting import calibrate
from client.auditing.canaries import Trial, audit
from client.training import Privacy
from common.config import LoraConfig, ModelConfig, TrainConfig
from common.device import Device
from common.files import write_atomic
from common.model import Network, build
from common.prefix import PrefixExamples

WIDTH = 64
LABELS = 192
OTHERS = 64
LENGTH = 4.0
CLIP = 0.5


def small_network(folder: Path, width: int, labels: int) -> Network:
    """A random one-layer BERT under a head of many labels."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    model = ModelConfig(
        base=str(folder),
        layers=1,
        max_length=8,
        lora=LoraConfig(r=1, alpha=1, targets=["intermediate.dense"], factors="b"),
    )
    return build(model, tuple(f"label{i}" for i in range(labels)), seed=0)


def small_rows(width: int, labels: int, others: int) -> tuple[PrefixExamples, np.ndarray]:
    """One row for every axis and label, then `others` random ones; and the canaries' indices."""
    generator = np.random.default_rng(0)
    axes = np.repeat(np.arange(width), labels)
    vectors = np.zeros((len(axes) + others, width), dtype=np.float32)
    vectors[np.arange(len(axes)), axes] = LENGTH
    vectors[len(axes) :] = generator.standard_normal((others, width))
    classes = np.concatenate([np.tile(np.arange(labels), width), np.arange(others) % labels])
    offsets = np.arange(len(vectors) + 1, dtype=np.int64)
    rows = PrefixExamples(torch.from_numpy(vectors), offsets, classes.astype(np.int64))
    return rows, np.arange(len(axes))


def measure(
    network: Network,
    rows: PrefixExamples,
    canaries: np.ndarray,
    noise_multiplier: float,
    delta: float,
    confidence: float,
    clipping: str,
    seed: int,
) -> dict[str, Any]:
    """One audited training."""
    trial = Trial(
        network=network,
        examples=rows,
        canaries=canaries,
        config=TrainConfig(physical_batch=1024),
        steps=1,
        rate=1.0,
        privacy=Privacy(noise_multiplier, CLIP, clipping),
        device=Device(torch.device("cpu"), torch.float32),
    )
    return {"seed": seed, **asdict(audit(trial, delta, confidence, seed))}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the repeats and write the file as they come."""
    parser = argparse.ArgumentParser(prog="python -m bench.privacy_audit", description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=100, help="private trainings")
    parser.add_argument("--bare", type=int, default=3, help="trainings without noise")
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--delta", type=float, default=1e-6)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--clipping", default="bookkeeping", choices=["hooks", "bookkeeping"])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--labels", type=int, default=LABELS)
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    sigma = calibrate(asked.epsilon, asked.delta, 1.0, 1)
    began = time.perf_counter()
    table: dict[str, Any] = {
        "claimed_epsilon": asked.epsilon,
        "delta": asked.delta,
        "confidence": asked.confidence,
        "noise_multiplier": sigma,
        "private": [],
        "without_noise": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        network = small_network(Path(folder), asked.width, asked.labels)
        rows, canaries = small_rows(asked.width, asked.labels, OTHERS)
        for kind, count, noise in (
            ("without_noise", asked.bare, 0.0),
            ("private", asked.repeats, sigma),
        ):
            for seed in range(count):
                row = measure(
                    network,
                    rows,
                    canaries,
                    noise,
                    asked.delta,
                    asked.confidence,
                    asked.clipping,
                    seed,
                )
                table[kind].append(row)
                print(kind, *row.values(), sep="\t", flush=True)
                write_atomic(asked.json, json.dumps(table, indent=1))
    bounds = [row["epsilon_lower_bound"] for row in table["private"]]
    table["at_most_claimed"] = sum(bound <= asked.epsilon for bound in bounds)
    table["without_noise_above"] = sum(
        row["epsilon_lower_bound"] > asked.epsilon for row in table["without_noise"]
    )
    table["seconds"] = time.perf_counter() - began
    write_atomic(asked.json, json.dumps(table, indent=1))
    print(f"at most epsilon = {asked.epsilon:g}: {table['at_most_claimed']} of {len(bounds)}")


if __name__ == "__main__":
    main()
