"""What private noise costs beside the training step that it protects.

``python -m bench.noise --json FILE`` takes private steps of the default job's model and of full
fine-tuning of MiniLM through the partner's own training code, on made-up tokens, and draws the
noise of as many steps alone.  Both take turns in one process; a row has the medians in seconds and
``share``, noise over step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.training import LocalTraining, Privacy, train
from common.config import Config, ModelConfig
from common.device import pick_device, usable_cores
from common.examples.batch import Examples
from common.examples.frozen_layers import with_frozen_layers
from common.examples.tokens import TokenExamples
from common.files import write_atomic
from common.grid import GaussianMechanism
from common.models.build import build
from common.randomness import SystemStream
from scripts.compose import compose_config

FULL = ("model.trainable=full", "model.layers=0")


def measure(config: Config, rows: int, repeats: int, cache: Path) -> dict[str, Any]:
    """Medians of a private step on `rows` made-up rows of full length, and of its noise alone."""
    model: ModelConfig = config.model
    network = build(model, ("negative", "positive"), seed=0)
    device = pick_device(model.precision)
    network.trained.to(device.device)
    random = np.random.default_rng(0)
    ids = random.integers(0, network.trained.config.vocab_size, rows * model.max_length)
    offsets = np.arange(rows + 1, dtype=np.int64) * model.max_length
    examples: Examples = TokenExamples(
        ids.astype(np.int32), offsets, random.integers(0, 2, rows), 0
    )
    if network.frozen_layers > 0:
        examples = with_frozen_layers(examples, "noise", network, device, cache)  # type: ignore[arg-type]
    start = network.read()
    privacy = Privacy(0.7, config.privacy.max_grad_norm, config.privacy.grad_sample_mode)
    settings = replace(config.train, local_steps=1)
    size = sum(tensor.numel() for tensor in start.values())
    steps, noises = [], []
    for repeat in range(repeats + 1):
        streams = SystemStream(), SystemStream()
        done = train(
            network, examples, start, LocalTraining(settings, 1.0, privacy), *streams, device
        )
        began = time.perf_counter()
        mechanism = GaussianMechanism(
            privacy.max_grad_norm, privacy.noise_multiplier, size, SystemStream()
        )
        for tensor in start.values():
            mechanism.release(torch.zeros_like(tensor, dtype=torch.float64))
        if repeat > 0:
            noises.append(time.perf_counter() - began)
            steps.append(done.seconds)
    step, noise = statistics.median(steps), statistics.median(noises)
    return {
        "trainable": model.trainable,
        "numbers": size,
        "rows": rows,
        "step_seconds": round(step, 4),
        "noise_seconds": round(noise, 5),
        "share": round(noise / step, 4),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both and write the file."""
    parser = argparse.ArgumentParser(prog="python -m bench.noise", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where the rows go")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--full-rows", type=int, default=256, help="rows of a full step")
    asked = parser.parse_args(argv)
    torch.set_num_threads(usable_cores())
    found = []
    for overrides, full in (((), False), (FULL, True)):
        config = compose_config(list(overrides))
        rows = asked.full_rows if full else config.train.batch_size
        with tempfile.TemporaryDirectory() as cache:
            row = measure(config, rows, 1 if full else asked.repeats, Path(cache))
        found.append(row)
        print(*row.values(), sep="\t", flush=True)
        write_atomic(asked.json, json.dumps({"rows": found}, indent=1))


if __name__ == "__main__":
    main()
