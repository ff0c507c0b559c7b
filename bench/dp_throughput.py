"""Examples a second and peak memory of private training, beside the same training without privacy.

``python -m bench.dp_throughput --json FILE`` takes one optimiser step at a time through the
partner's own training code, on the embedded MiniLM and random tokens of full length, for every way
to clip, every trainable set and every length, and writes ``{"rows": [...]}`` after every group.  A
row has ``mode`` (``none``: without privacy), ``trainable``, ``length``, ``examples_per_s`` (the
median), ``peak_mb`` (resident memory of a process that did nothing else) and
``ratio_to_non_private``.

Every configuration has a process of its own; the processes of one group take turns, so that a busy
moment of the machine falls on all of them.  Ways that reach less than half of the plain speed while
they warm up are measured once.

Trainable sets: ``lora`` is r = 8 on query, value and dense of all layers; ``last_k`` the top two
layers, read from the prefix cache; ``full`` all layers (the embeddings stay frozen, as always).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from client.training import LocalTraining, Privacy, train
from common.config import LoraConfig, ModelConfig, TrainConfig
from common.device import pick_device, usable_cores
from common.examples.batch import Examples
from common.examples.frozen_layers import with_frozen_layers
from common.examples.tokens import TokenExamples
from common.files import write_atomic
from common.models.build import build
from common.randomness import SystemStream

MODES = ("none", "hooks", "ghost", "bookkeeping")
LAYERS = {"lora": 0, "last_k": 2, "full": 0}
WARM_UP_ROWS = 64


@dataclass(frozen=True)
class Work:
    """What one process measures."""

    base: str
    trainable: str
    length: int
    mode: str
    batch: int
    physical_batch: int
    precision: str
    threads: int
    cache: str


def step_of(work: Work) -> Callable[[int], float]:
    """A function that takes one step on so many rows and returns its examples a second."""
    torch.set_num_threads(work.threads)
    config = ModelConfig(
        base=work.base,
        drop_layers=0,
        head_scale=6.0,
        lora=LoraConfig(r=8, alpha=16, targets=["query", "value", "dense"], factors="both"),
        trainable=work.trainable,
        layers=LAYERS[work.trainable],
        max_length=work.length,
        precision=work.precision,
    )
    network = build(config, ("negative", "positive"), seed=0)
    device = pick_device(work.precision)
    network.trained.to(device.device)
    random = np.random.default_rng(0)
    size = (network.trained.config.vocab_size, work.batch * work.length)
    rows: Examples = TokenExamples(
        random.integers(0, *size).astype(np.int32),
        np.arange(work.batch + 1, dtype=np.int64) * work.length,
        random.integers(0, 2, work.batch),
        0,
    )
    if network.frozen_layers > 0:
        key = f"{work.trainable}-{work.length}-{work.batch}"
        rows = with_frozen_layers(rows, key, network, device, Path(work.cache))  # type: ignore[arg-type]
    start = network.read()
    privacy = None if work.mode == "none" else Privacy(1.0, 0.1, work.mode)

    def step(count: int) -> float:
        some = rows if count >= work.batch else _first(rows, count)
        settings = TrainConfig(physical_batch=work.physical_batch)
        done = train(
            network,
            some,
            start,
            LocalTraining(settings, 1.0, privacy),
            SystemStream(),
            SystemStream(),
            device,
        )
        return done.examples / done.seconds

    return step


def _first(rows: Any, count: int) -> Any:
    """The first rows of an `Examples`."""
    kind = type(rows)
    fields = dict(vars(rows))
    return kind(**{**fields, "offsets": rows.offsets[: count + 1], "labels": rows.labels[:count]})


def answer(work: Work, asked: Connection) -> None:
    """Answer every number of rows with a speed and the peak memory so far, until a 0 comes."""
    step = step_of(work)
    while rows := asked.recv():
        asked.send({"speed": step(rows), "peak_mb": peak_mb()})


def peak_mb() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


class Child:
    """One measured process: a fork of this one, which has the libraries loaded and did nothing."""

    def __init__(self, work: Work) -> None:
        fork = multiprocessing.get_context("fork")
        self.connection, theirs = fork.Pipe()
        self.process = fork.Process(target=answer, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def step(self, rows: int) -> dict[str, float]:
        """One step on `rows` rows.

        Raises RuntimeError when the process has ended.
        """
        self.connection.send(rows)
        try:
            answer: dict[str, float] = self.connection.recv()
        except EOFError:
            raise RuntimeError("a measuring process has ended early") from None
        return answer

    def end(self) -> None:
        """Let it end, and wait."""
        with contextlib.suppress(BrokenPipeError):
            self.connection.send(0)
        self.process.join()


def measure(works: Sequence[Work], repeats: int) -> list[dict[str, Any]]:
    """Rows of one group: the same trainable set and length in several modes, taking turns."""
    children = {work.mode: Child(work) for work in works}
    try:
        small = min(WARM_UP_ROWS, works[0].batch)
        warm = {mode: one.step(small)["speed"] for mode, one in children.items()}
        slow = {mode for mode in warm if warm[mode] < 0.5 * warm.get("none", 0.0)}
        speeds: dict[str, list[float]] = {mode: [] for mode in children}
        peaks: dict[str, float] = {}
        for repeat in range(repeats):
            for mode, one in children.items():
                if repeat == 0 or mode not in slow:
                    answer = one.step(works[0].batch)
                    speeds[mode].append(answer["speed"])
                    peaks[mode] = answer["peak_mb"]
    finally:
        for one in children.values():
            one.end()
    median = {mode: statistics.median(values) for mode, values in speeds.items()}
    plain = median.get("none")
    return [
        {
            "mode": work.mode,
            "trainable": work.trainable,
            "length": work.length,
            "examples_per_s": round(median[work.mode], 2),
            "peak_mb": round(peaks[work.mode], 1),
            "ratio_to_non_private": round(median[work.mode] / plain, 3) if plain else None,
        }
        for work in works
    ]


def _words(text: str, allowed: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    words = text.split(",")
    if unknown := [word for word in words if word not in allowed]:
        parser.error(f"unknown {unknown[0]}; choose from {', '.join(allowed)}")
    return words


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every group and write the file after each."""
    parser = argparse.ArgumentParser(prog="python -m bench.dp_throughput", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where the rows go")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--trainable", default=",".join(LAYERS))
    parser.add_argument("--lengths", default="64,128")
    parser.add_argument("--batch", type=int, default=256, help="rows of one step")
    parser.add_argument("--physical-batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--base", default="embedded", help="another model than MiniLM")
    asked = parser.parse_args(argv)
    modes = _words(asked.modes, MODES, parser)
    sets = _words(asked.trainable, tuple(LAYERS), parser)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for trainable in sets:
            for length in map(int, asked.lengths.split(",")):
                group = [
                    Work(
                        asked.base,
                        trainable,
                        length,
                        mode,
                        asked.batch,
                        asked.physical_batch,
                        asked.precision,
                        asked.threads,
                        cache,
                    )
                    for mode in modes
                ]
                for row in measure(group, asked.repeats):
                    rows.append(row)
                    print(*row.values(), sep="\t", flush=True)
                write_atomic(asked.json, json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
