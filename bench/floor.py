"""How far the training of a finished simulation is from what the machine could do.

``python -m bench.floor RUNDIR [--json FILE]`` counts the arithmetic that training cannot do
without (forward and backward through the trained layers, for the rows that the run drew, without
padding, clipping or noise) and the bytes that it must read (the cached vectors of those rows, and
the trained layers' weights once for every physical batch), measures how fast this machine
multiplies matrices of that kind and copies memory, and prints both times, the larger of them (the
*floor*) and how often it fits into the time that training took.  The run's cache must be there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from client.partner import split_rows
from common.config import Config
from common.device import Device, pick_device, usable_cores
from common.examples.batch import Examples
from common.examples.frozen_layers import FrozenLayerExamples
from common.examples.prepare import prepare_table
from common.files import write_atomic
from common.models.build import build
from common.models.network import Network
from inspection.trained import load_config
from simulation.partner import simulated_shares

SECONDS = 1.0
COPIED_BYTES = 1 << 28


@dataclass(frozen=True)
class Floor:
    """Times are wall seconds with all workers at work."""

    rows: float
    tokens_per_row: float
    mflop_per_row: float
    machine_gflops: float
    machine_gb_per_s: float
    arithmetic_s: float
    bytes_s: float
    floor_s: float
    trained_s: float
    ratio: float


def rate(work: Callable[[], object], amount: float) -> float:
    """The best `amount` a second of repeats that take `SECONDS`, after one that warms up."""
    work()
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return amount / best


def flops_of_a_row(network: Network, device: Device, tokens: int, rows: int) -> float:
    """Forward and backward through the trained layers, of one of `rows` rows of `tokens` vectors.

    torch does not count the products of tokens with tokens on a processor.
    """
    width = network.trained.config.hidden_size
    hidden = torch.randn(rows, tokens, width).to(device.dtype)
    mask = torch.ones(rows, tokens, dtype=torch.long)
    entered = torch.zeros(rows, width) if network.freezes_attention else None
    counter = FlopCounterMode(display=False)
    with counter:
        with device.autocast():
            logits: Tensor = network.trained(hidden, mask, entered)
        logits.float().sum().backward()
    return counter.get_total_flops() / rows


def trained_rows(config: Config, network: Network, device: Device) -> list[Examples]:
    """Every partner's training rows, from the run's cache."""
    cache = Path(str(config.run.cache_dir))
    table, shares = simulated_shares(config)
    parts = [split_rows(table.select(share.indices), config)[0] for share in shares]
    return [prepare_table(rows, network, config.model, device, cache) for rows in parts]


def measure(directory: Path) -> Floor:
    """The floor of the run in `directory`."""
    config = load_config(directory)
    cost = json.loads((directory / "results.json").read_text())["cost"]
    device = pick_device(config.model.precision)
    if device.device.type != "cpu":
        raise SystemExit("bench.floor: measures processors; hide the GPU (CUDA_VISIBLE_DEVICES=)")
    network = build(config.model, config.outputs, config.run.seed, config.task)
    examples = trained_rows(config, network, device)
    tokens = float(np.mean(np.concatenate([rows.lengths for rows in examples])))
    drawn = cost["train_examples_per_second"] * cost["train_seconds"]

    torch.set_num_threads(usable_cores())
    batch = config.train.physical_batch
    # Rows of whole tokens; what a row costs is all but proportional to them.
    whole = max(1, round(tokens))
    flops = flops_of_a_row(network, device, whole, batch) * tokens / whole
    width, wide = network.trained.config.hidden_size, network.trained.config.intermediate_size
    a, b = (torch.randn(n, m).to(device.dtype) for n, m in ((batch * whole, width), (width, wide)))
    gflops = rate(lambda: a @ b, 2e-9 * a.shape[0] * width * wide)
    source = torch.zeros(COPIED_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    gigabytes = rate(lambda: target.copy_(source), 2e-9 * COPIED_BYTES)

    cached = isinstance(getattr(examples[0], "inner", examples[0]), FrozenLayerExamples)
    of_rows = tokens * width * device.dtype.itemsize if cached else 4 * tokens
    of_batch = _bytes_of(network.trained)
    arithmetic = drawn * flops / (gflops * 1e9)
    moved = drawn * (of_rows + of_batch / batch) / (gigabytes * 1e9)
    trained = cost["train_seconds"] / config.run.workers
    floor = max(arithmetic, moved)
    return Floor(
        rows=round(drawn),
        tokens_per_row=round(tokens, 1),
        mflop_per_row=round(flops / 1e6, 1),
        machine_gflops=round(gflops, 1),
        machine_gb_per_s=round(gigabytes, 1),
        arithmetic_s=round(arithmetic, 2),
        bytes_s=round(moved, 2),
        floor_s=round(floor, 2),
        trained_s=round(trained, 2),
        ratio=round(trained / floor, 2),
    )


def _bytes_of(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def main(argv: Sequence[str] | None = None) -> None:
    """Print the floor of a run, and write it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description=__doc__)
    parser.add_argument("directory", type=Path, metavar="RUNDIR")
    parser.add_argument("--json", type=Path, help="where the figures go")
    asked = parser.parse_args(argv)
    found = asdict(measure(asked.directory))
    for name, value in found.items():
        print(name, value, sep="\t")
    if asked.json:
        write_atomic(asked.json, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
