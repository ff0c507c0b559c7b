"""`privacy.grad_sample_mode: auto`: the faster of the modes that a partner may use, measured once.

Measured on made-up examples of full length, so that neither the choice nor the time it takes
depends on anybody's data, and remembered on disk under a hash of all that the speed depends on.
Ghost is no candidate: a crafted model could turn its sum into NaN, and book-keeping does the same
with less.
"""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from client.training import LocalTraining, Privacy, train
from common.config import TrainConfig
from common.device import Device
from common.examples.batch import Examples
from common.examples.frozen_layers import FrozenLayerExamples
from common.examples.tokens import TokenExamples
from common.files import built_once, canonical_json, private_directory, sha256_text
from common.models.network import Network
from common.randomness import SystemStream

log = logging.getLogger("fedaccord")

CANDIDATES = ("hooks", "bookkeeping")
REPEATS = 3
# Of what is measured: raised where a way of clipping becomes faster or slower.
VERSION = 3
# Rows of one measured step: enough for a physical batch to work at its usual speed.
ROWS = 32


def choose(
    network: Network,
    examples: Examples,
    length: int,
    config: TrainConfig,
    privacy: Privacy,
    device: Device,
    cache: Path,
) -> Privacy:
    """`privacy` with `auto` replaced by what measures fastest for this model and `length` tokens.

    Only the kind of `examples` is looked at (token ids or prefix vectors), never an example.
    """
    if privacy.grad_sample_mode != "auto":
        return privacy
    cached = isinstance(examples, FrozenLayerExamples)
    shapes = {name: list(p.shape) for name, p in network.trainable().items()}
    what = {
        "fingerprint": network.fingerprint,
        "trainable": shapes,
        "frozen": network.frozen_depth,
        "length": length,
        "prefix": cached,
        "rows": min(config.physical_batch, ROWS),
        "clipping": privacy.clipping,
        "task": network.task.name,
        "device": [str(device.device), str(device.dtype), torch.get_num_threads()],
        "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "version": VERSION,
        "libraries": [version("torch"), version("opacus"), version("transformers")],
    }

    def measure(folder: Path) -> None:
        rows = _made_up(network, length, int(what["rows"]), cached, device)  # type: ignore[call-overload]
        speeds = _examples_per_second(network, rows, config, privacy, device)
        (folder / "speeds.json").write_text(json.dumps(speeds))

    key = sha256_text("clipping", canonical_json(what))[:32]
    folder = built_once(private_directory(cache) / f"clipping-{key}", measure)
    speeds: dict[str, float] = json.loads((folder / "speeds.json").read_text())
    picked = max(CANDIDATES, key=lambda mode: speeds[mode])
    measured = ", ".join(f"{mode} {speed:.1f}" for mode, speed in speeds.items())
    log.info("privacy.grad_sample_mode: auto picked %s (examples/s: %s)", picked, measured)
    return replace(privacy, grad_sample_mode=picked)


def _made_up(
    network: Network, length: int, rows: int, cached: bool, device: Device
) -> FrozenLayerExamples | TokenExamples:
    """Random examples of full length, from a fixed seed."""
    generator = np.random.default_rng(0)
    offsets = np.arange(rows + 1, dtype=np.int64) * length
    labels = network.task.made_up(rows, len(network.labels))
    if cached:
        shape = (rows * length, network.trained.config.hidden_size)
        vectors = torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
        entered = torch.zeros(rows, shape[1]) if network.freezes_attention else None
        return FrozenLayerExamples(vectors.to(device.dtype), offsets, labels, entered)
    vocabulary = network.trained.config.vocab_size
    ids = generator.integers(0, vocabulary, rows * length).astype(np.int32)
    return TokenExamples(ids, offsets, labels, 0)


def _examples_per_second(
    network: Network, rows: Examples, config: TrainConfig, privacy: Privacy, device: Device
) -> dict[str, float]:
    """The best of interleaved repeats of one step on all `rows`, after one that warms up."""
    start = network.read()
    step = replace(config, local_steps=1)
    best = dict.fromkeys(CANDIDATES, 0.0)
    for repeat in range(REPEATS + 1):
        for mode in CANDIDATES:
            how = replace(privacy, grad_sample_mode=mode)
            done = train(
                network,
                rows,
                start,
                LocalTraining(step, 1.0, how),
                SystemStream(),
                SystemStream(),
                device,
            )
            if repeat > 0:
                best[mode] = max(best[mode], done.examples / done.seconds)
    network.write(start)
    return best
