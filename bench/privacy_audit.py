"""Does the audit keep its word?  Many small trainings at a known epsilon, and some without noise.

``python -m bench.privacy_audit --repeats 100 --json FILE`` audits as many private trainings (one
full-batch step each, which is where a canary shows the most) and a few whose noise was taken away,
and writes the two bounds of every one: from (epsilon, delta) alone, and from the trade-off
function of Gaussian noise.  Both hold together with the confidence.  In no more than one minus the
confidence of the private trainings may either exceed the claimed epsilon, and in those without
noise one must.

The model is a one-layer BERT with random weights and many labels; a canary is a vector along one
axis with one label.  Its gradient lies along one weight of the head but for a little, and is
clipped, so that the canaries' gradients have the full norm each, are orthogonal but for a little,
and none hides behind the others.  Everything else is the partner's training code.
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

from auditing.bounds import shared_confidence
from auditing.canaries import Trial, audit
from client.accounting import calibrate
from client.training import Privacy
from common.config import LoraConfig, ModelConfig, TrainConfig
from common.device import Device
from common.examples.frozen_layers import FrozenLayerExamples
from common.files import write_atomic
from common.models.build import build
from common.models.network import Network

WIDTH = 64
LABELS = 192
OTHERS = 64
LENGTH = 4.0
CLIP = 0.5
BOUNDS = ("epsilon_delta", "f_dp")


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
        drop_layers=0,
        head_scale=6.0,
        layers=1,
        max_length=8,
        lora=LoraConfig(r=1, alpha=1, targets=["intermediate.dense"], factors="b"),
    )
    return build(model, tuple(f"label{i}" for i in range(labels)), seed=0)


def small_rows(width: int, labels: int, others: int) -> tuple[FrozenLayerExamples, np.ndarray]:
    """One row for every axis and label, then `others` random ones; and the canaries' indices."""
    generator = np.random.default_rng(0)
    axes = np.repeat(np.arange(width), labels)
    vectors = np.zeros((len(axes) + others, width), dtype=np.float32)
    vectors[np.arange(len(axes)), axes] = LENGTH
    vectors[len(axes) :] = generator.standard_normal((others, width))
    classes = np.concatenate([np.tile(np.arange(labels), width), np.arange(others) % labels])
    offsets = np.arange(len(vectors) + 1, dtype=np.int64)
    rows = FrozenLayerExamples(torch.from_numpy(vectors), offsets, classes.astype(np.int64))
    return rows, np.arange(len(axes))


def measure(
    network: Network,
    rows: FrozenLayerExamples,
    canaries: np.ndarray,
    noise_multiplier: float,
    claimed: float,
    delta: float,
    confidence: float,
    clipping: str,
    seed: int,
) -> dict[str, Any]:
    """One audited training; each bound holds with `confidence`."""
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
    return {"seed": seed, **asdict(audit(trial, claimed, delta, confidence, seed))}


def bounds_of(row: dict[str, Any]) -> list[float]:
    """The bounds of one audited training, in the order of `BOUNDS`."""
    return [row[name]["epsilon_lower_bound"] for name in BOUNDS]


def summary(table: dict[str, Any]) -> dict[str, Any]:
    """Smallest, median and largest bound, and how often the audit kept its word."""
    claimed = table["claimed_epsilon"]
    columns: dict[str, Any] = {}
    for kind in ("private", "without_noise"):
        found = np.array([bounds_of(row) for row in table[kind]])
        quantiles = np.quantile(found, [0.0, 0.5, 1.0], axis=0).T if len(found) else []
        columns[f"{kind}_quantiles"] = {
            name: [round(float(value), 4) for value in three]
            for name, three in zip(BOUNDS, quantiles, strict=False)
        }
    return columns | {
        "at_most_claimed": sum(max(bounds_of(row)) <= claimed for row in table["private"]),
        "without_noise_above": sum(max(bounds_of(row)) > claimed for row in table["without_noise"]),
    }


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
    each = shared_confidence(asked.confidence, len(BOUNDS))
    began = time.perf_counter()
    table: dict[str, Any] = {
        "claimed_epsilon": asked.epsilon,
        "delta": asked.delta,
        "confidence": asked.confidence,
        "confidence_of_each_bound": each,
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
                    asked.epsilon,
                    asked.delta,
                    each,
                    asked.clipping,
                    seed,
                )
                table[kind].append(row)
                print(kind, seed, *bounds_of(row), sep="\t", flush=True)
                write_atomic(asked.json, json.dumps(table, indent=1))
    table |= summary(table)
    table["seconds"] = time.perf_counter() - began
    write_atomic(asked.json, json.dumps(table, indent=1))
    for name in BOUNDS:
        print(name, *table["private_quantiles"].get(name, []), sep="\t")
    print(f"at most epsilon = {asked.epsilon:g}: {table['at_most_claimed']} of {asked.repeats}")


if __name__ == "__main__":
    main()
