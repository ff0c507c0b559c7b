"""Does training keep what its privacy argument says?  Record, replay with one record less, compare.

The argument (client/training.py) rests on facts that can be measured at the very function that
trains: what one record moves, what the noise looks like, how batches are drawn, what divides the
sum, and what the ledger was told.  Each check runs real training at a size of seconds and returns
what it found wrong, in words; an empty list means that nothing was found, which is no proof.

Replay: training is run on records R and on R without its last record, with the same noise stream
and every record in the batch (rate 1), so that everything but that record cancels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from client import training
from client.accounting import epsilon
from client.ledger import Entry, total
from client.training import Privacy, Trained
from common.config import TrainConfig
from common.device import Device
from common.examples.batch import Examples
from common.models.network import Network
from common.randomness import Stream

# A Gaussian's fourth moment, in units of the squared variance, lies within this of 3 for the
# thousands of coordinates that are looked at.
_SIGMAS = 5.0
Sources = Callable[[str], tuple[Stream, Stream]]


def fixed_stream(number: int) -> Stream:
    """A stream that is the same in every check: only made-up records are trained with it."""
    return Stream(hashlib.sha256(f"stream/{number}".encode()).digest())


@dataclass(frozen=True)
class Subject:
    """A network and where it starts, records, the same without the last one, and settings.

    `clip` bounds a record's gradient; training is taken as one step of plain SGD of rate 1.
    """

    network: Network
    start: Mapping[str, Tensor]
    records: Examples
    fewer: Examples
    clip: float
    clipping: str
    device: Device

    def step(
        self,
        records: Examples,
        noise_multiplier: float,
        rate: float,
        batches: int,
        noise: int,
        expected: float = 1.0,
    ) -> Tensor:
        """The change [d], float64, of one step; `batches` and `noise` seed its streams."""
        done: Trained = training.train(
            self.network,
            records,
            self.start,
            training.LocalTraining(
                replace(TrainConfig(), batch_size=1, local_steps=1, optimizer="sgd", lr=1.0),
                rate,
                Privacy(noise_multiplier, self.clip, self.clipping),
                expected_batch_size=expected,
            ),
            fixed_stream(batches),
            fixed_stream(noise),
            self.device,
        )
        return torch.cat([change.flatten() for change in done.delta.values()]).double()


def sensitivity(subject: Subject) -> list[str]:
    """One record may move the sum by at most the clipping norm.

    Catches missing clipping, and division by anything that depends on the records (the number of
    rows in the batch): that scales all other records' part too.
    """
    # So little noise that it is no part of the distance, so much that it is not skipped.
    sums = [
        subject.step(records, 1e-9, 1.0, batches=1, noise=2)
        for records in (subject.records, subject.fewer)
    ]
    moved = float((sums[0] - sums[1]).norm())
    if moved > subject.clip * (1 + 1e-4):
        return [f"one record moved the sum by {moved:.4g}, the clipping norm is {subject.clip:g}"]
    if moved == 0:
        return ["one record more moved nothing: the records do not enter"]
    return []


def divisor(subject: Subject) -> list[str]:
    """The sum must be divided by the constant that was asked for, whatever the batch holds.

    Two batches of other sizes and one noise: the noise, read off a run without it, must have the
    same size in both.
    """
    sizes = []
    for rate, batches in ((1.0, 1), (0.3, 1)):
        runs = [
            subject.step(subject.records, sigma, rate, batches, noise=3, expected=7.0)
            for sigma in (1.0, 1e-12)
        ]
        sizes.append(float((runs[0] - runs[1]).norm()))
    if not math.isclose(sizes[0], sizes[1], rel_tol=1e-3):
        return ["the size of the noise depends on the batch: the sum is divided by its real size"]
    expected = subject.clip / 7.0 * math.sqrt(sum(p.numel() for p in subject.start.values()))
    if not 0.8 < sizes[0] / expected < 1.2:
        return [f"the noise of a step is {sizes[0]:.4g} long, {expected:.4g} was accounted for"]
    return []


def noise(subject: Subject) -> list[str]:
    """Noise of the stated size, normal, and another one whenever the noise stream is another.

    `noise_multiplier * clip / expected` in every coordinate; kurtosis of a normal distribution.
    """
    plain = subject.step(subject.records, 1e-12, 1.0, batches=1, noise=1)
    drawn = [
        subject.step(subject.records, 2.0, 1.0, batches=1, noise=seed) - plain for seed in (4, 5)
    ]
    found, wanted = [], 2.0 * subject.clip
    size = len(plain)
    std = float(drawn[0].std())
    if abs(std / wanted - 1) > _SIGMAS / math.sqrt(2 * size):
        found.append(f"the noise has standard deviation {std:.4g}, {wanted:.4g} was accounted for")
    if std > 0:
        kurtosis = float(((drawn[0] / std) ** 4).mean())
        if abs(kurtosis - 3) > _SIGMAS * math.sqrt(96 / size):
            found.append(f"the noise is not normal: its kurtosis is {kurtosis:.3g}, not 3")
        correlation = float(drawn[0] @ drawn[1] / (drawn[0].norm() * drawn[1].norm() + 1e-300))
        if abs(correlation) > _SIGMAS / math.sqrt(size):
            found.append("two noise streams gave the same noise: it does not come from the stream")
    return found


def secret_noise(sources: Sources) -> list[str]:
    """What the coordinator knows may not give the noise away.

    `sources(step)` makes the batch and noise streams as for a message.  Asked twice for the very
    same message, a deployed partner must answer with other streams: if a function of the message
    and the configuration gave them, the coordinator could compute them too.
    """
    first, second = sources("1/same"), sources("1/same")
    return [
        f"the {name} stream follows from what the coordinator knows"
        for name, a, b in zip(("batch", "noise"), first, second, strict=True)
        if np.array_equal(a.words(64), b.words(64))
    ]


def sampling(subject: Subject, rate: float = 0.3, draws: int = 300) -> list[str]:
    """Batches must be Poisson samples: sizes are binomial, records come independently.

    Catches batches of a fixed size and shuffled epochs, whose amplification the accountant does
    not cover: their sizes vary too little, and a record returns only after all others.
    """
    lengths = np.asarray(subject.records.lengths)
    batches = training.PoissonBatches(lengths, rate, draws, fixed_stream(6))
    taken = np.zeros((draws, len(lengths)))
    for i, rows in enumerate(batches):
        if len(set(rows)) != len(rows):
            return ["a batch holds a record twice"]
        taken[i, rows] = 1
    n, sizes = len(lengths), taken.sum(1)
    found = []
    if abs(sizes.mean() - n * rate) > _SIGMAS * math.sqrt(n * rate * (1 - rate) / draws):
        found.append(f"batches hold {sizes.mean():.4g} records in the mean, not {n * rate:.4g}")
    ratio = sizes.var(ddof=1) / (n * rate * (1 - rate))
    if abs(ratio - 1) > _SIGMAS * math.sqrt(2 / (draws - 1)):
        found.append(
            f"the variance of batch sizes is {ratio:.3g} times that of Poisson sampling: batches "
            "of a fixed size are accounted as Poisson"
        )
    # A record's presence in one batch tells nothing of the next one under Poisson sampling.
    here, then = taken[:-1] - taken.mean(), taken[1:] - taken.mean()
    correlation = float((here * then).mean() / max(taken.var(), 1e-12))
    if abs(correlation) > _SIGMAS / math.sqrt(here.size):
        found.append("whether a record is in a batch depends on the batch before")
    return found


def accounting(
    entries: Sequence[Entry], steps: int, run: str, delta: float, told: float
) -> list[str]:
    """The ledger must hold every step that was taken, and the epsilon told must be their sum.

    `steps` noised steps were taken in `run`, and the partner told the epsilon `told` after them.
    Catches an accountant that begins anew with every round.
    """
    held = [
        segment
        for entry in entries
        if entry.kind == "reserve" and entry.body["run"] == run
        for segment in entry.segments
        if segment.sample_rate < 1
    ]
    found = []
    if (count := sum(segment.steps for segment in held)) != steps:
        found.append(f"{steps} steps were taken and {count} are in the ledger")
    composed = max(total(entries, delta, run).value, epsilon(held, delta).value)
    if told < composed * (1 - 1e-9):
        found.append(f"epsilon {told:.4g} was told, the steps of the run compose to {composed:.4g}")
    return found


def check_training(subject: Subject) -> list[str]:
    """All checks of training itself; what is wrong, in words."""
    return [
        problem for check in (sensitivity, divisor, noise, sampling) for problem in check(subject)
    ]
