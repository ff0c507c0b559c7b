"""Metrics that may leave a partner: counts and a bounded loss with noise.

One release of validation metrics is the vector of

* the confusion counts of all rows, to which a row adds numbers >= 0 of sum 1 (its one true and
  predicted class; where a task has several decisions a row, each its part: ``common.tasks``),
* the same for each declared value of each group column, and
* the sum of the rows' losses, each clipped to [0, bound], divided by that bound.

Sensitivity, adding or removing one validation record: the overall table changes by numbers of sum
1; in each of G group columns a record has one value, so one table at most changes, by the same; the
scaled loss changes by at most 1.  Numbers >= 0 of sum 1 have an L2 norm of at most 1.  So the L1
sensitivity is at most 2 + G and the L2 sensitivity at most sqrt(2 + G), whatever the model is.
Independent Gaussian noise of z * sqrt(2 + G) on every entry is
the Gaussian mechanism of noise multiplier z: ``Segment(z, 1, 1)`` in the ledger.  A task's other
sums (counts of each label, products of numbers) are not released.

Composition: z is solved for all releases of a run (one a round and the final one), and each is
reserved before it is made.  Validation records are other records than training records, and a
record's side depends on that record alone, so both costs compose in parallel: a record is exposed
to the larger of the two.

The number of training records is private too, and with it the sampling rate, the noise multiplier
and the epsilon, which follow from it.  It is released once a run: L1 and L2 sensitivity 1, Gaussian
noise of COUNT_NOISE records, charged to the training records and composed with training.  All
planning uses the noisy number, and gradients are divided by ``train.batch_size``, a public
constant, so that nothing else that leaves depends on the true number.

Which values a group column can take is declared (``data.group_values``), because that a value
occurs is itself a fact about records.  Rates, means and the values in [0, 1] are post-processing.
Assumes noise that nobody else knows (docs/guarantees.md).
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.accounting import BudgetExceeded, Segment, calibrate
from client.division import TRAIN, VALIDATION, part
from client.ledger import Ledger, Spend
from client.lifetime import noise_within
from client.partner import Partner, check_rows
from common.config import Config, config_hash
from common.evaluation import Evaluation
from common.files import private_directory, sha256_text, write_atomic
from common.grid import ROUNDING, release_counts
from common.groups import group_key
from common.metrics import Counts
from common.randomness import Stream
from common.tasks import LOSS_BOUND

# Standard deviation, in records, of the noise on the number of training records.  With
# delta = 1e-5 it alone costs epsilon = 0.11, and next to training almost nothing.
COUNT_NOISE = 30.0
# Metrics are withheld where earlier runs have left so little that they would need more than this
# times the noise that the run planned for itself.
MOST_NOISE = 2.0


@dataclass(frozen=True)
class Metrics:
    """The metrics in a report, measured on validation examples.

    `noise` is the standard deviation of each count, 0 where counts are exact.
    """

    confusion: Counts
    groups: Mapping[str, Counts]
    loss: float
    noise: float = 0.0
    sums: Counts | None = None


def exact(measured: Evaluation) -> Metrics:
    """Metrics as they are: for simulations, and where the partner's policy allows it."""
    return Metrics(measured.confusion, measured.groups, measured.loss, sums=measured.sums)


def withheld(classes: int) -> Metrics:
    """No metrics: as from a partner without validation rows."""
    return Metrics(np.zeros((classes, classes)), {}, math.nan)


def sensitivity(columns: int) -> float:
    """L2 sensitivity of a release with `columns` group columns; see the module."""
    return math.sqrt(2 + columns)


def release(
    measured: Evaluation,
    group_values: Mapping[str, Sequence[str]],
    noise_multiplier: float,
    stream: Stream,
    loss_bound: float = LOSS_BOUND,
) -> Metrics:
    """Noisy metrics; what leaves is a function of these numbers and of public ones.

    All of it is one release on a public grid (`common.grid`).  Counts may come out negative.  The
    loss is the noisy sum over the noisy number of rows, within [0, loss_bound]; nan where the noisy
    number is not positive.
    """
    shape = measured.confusion.shape
    keys = [group_key(column, value) for column, values in group_values.items() for value in values]
    tables = [measured.confusion, *(measured.groups.get(key, np.zeros(shape)) for key in keys)]
    scaled = measured.loss * measured.rows / loss_bound if measured.rows else 0.0
    exact = np.concatenate([*(table.ravel() for table in tables), [scaled]])
    bound = sensitivity(len(group_values))
    noisy = release_counts(exact, bound, noise_multiplier, stream)
    confusion, *groups = noisy[:-1].reshape(len(tables), *shape)
    rows, loss = float(confusion.sum()), loss_bound * float(noisy[-1])
    mean = min(max(loss / rows, 0.0), loss_bound) if rows > 0 else math.nan
    deviation = noise_multiplier * bound * (1.0 + ROUNDING)
    return Metrics(confusion, dict(zip(keys, groups, strict=True)), mean, deviation)


def metrics_noise_multiplier(config: Config, partner: Partner, run: str, ledger: Ledger) -> float:
    """Noise for the worst case: metrics of every round and of the final model.

    Solved, like that of training, for the run's own epsilon and for what other runs have left of
    the validation records' lifetime budget; the larger noise is used.

    Raises:
        BudgetExceeded: if that would be more than MOST_NOISE times what the run asked for by
            itself: such counts say nothing, and what is left is better kept.
    """
    target, delta = config.metrics_epsilon, config.privacy.delta
    releases, name = config.run.rounds + 1, partner.name
    own = calibrate(target, delta, 1.0, releases, dataset=name)
    here, limit = part(config, VALIDATION), partner.policy.budget
    others = ledger.composed_with(here, other_than=run)
    if not others and limit.epsilon >= target and limit.delta / 2 >= delta:
        return own
    planned = ledger.planned(run, here)
    left = noise_within(limit, 1.0, releases, others, planned=planned, dataset=name)
    if left > MOST_NOISE * own:
        raise BudgetExceeded(
            f"data set {name!r}: what is left for validation metrics needs a noise multiplier of "
            f"{left:.4g}, more than {MOST_NOISE:g} times the {own:.4g} that the run planned"
        )
    return max(own, left)


def release_metrics(
    config: Config, partner: Partner, measured: Evaluation, run: str, step: str
) -> Metrics:
    """Reserve, release, commit.  `step` names the model that was measured.

    Withheld where the run has had all the releases that its noise was solved for (a round that was
    asked for again in a deployment takes one more), or where what is left of the lifetime budget
    would drown them in noise.  Training goes on in either case: its records are others.
    """
    here, delta = part(config, VALIDATION), config.privacy.delta
    what = f"validation metrics, {step.partition('/')[0]}"
    name = _release_name(partner, run, f"metrics/{step}")
    with Ledger.open(partner.ledger, partner.name) as ledger:
        if ledger.releases(run, here, other_than=name) > config.run.rounds:
            ledger.note_withheld(run, what, delta, here, "all planned releases were made")
            return withheld(len(measured.confusion))
        try:
            sigma = metrics_noise_multiplier(config, partner, run, ledger)
        except BudgetExceeded as error:
            ledger.note_withheld(run, what, delta, here, error.detail)
            return withheld(len(measured.confusion))
        try:
            reservation = ledger.reserve(
                Spend(
                    run=run,
                    release=name,
                    segments=[Segment(sigma, 1.0, 1)],
                    delta=delta,
                    what=what,
                    part=here,
                ),
                partner.policy.budget,
                withhold=True,
            )
        except BudgetExceeded:
            return withheld(len(measured.confusion))
        noisy = _noisy(config, partner, measured, sigma, step)
        ledger.commit(reservation)
    return noisy


def _noisy(
    config: Config, partner: Partner, measured: Evaluation, sigma: float, step: str
) -> Metrics:
    """The noisy metrics of a reserved release, of the model that `step` names."""
    stream = partner.streams("metrics", f"{config_hash(config)}/{step}")
    values = config.data.group_values
    declared = {column: values[column] for column in config.data.columns.groups}
    noisy = release(measured, declared, sigma, stream, config.about.loss_bound)
    if not config.about.classes:
        # Nothing is ever counted in the first row: it contains noise alone.
        for table in (noisy.confusion, *noisy.groups.values()):
            table[0] = 0.0
    return noisy


def training_rows(config: Config, partner: Partner, run: str) -> float:
    """The number of training rows that everything outside training may depend on.

    The true one where metrics are exact.  Else the noisy one of this run, drawn once and kept in
    the partner's own directory (mode 0600), because asking again must not average the noise away.

    Raises UserError when the run cannot be trained on that many.
    """
    rows = float(len(partner.train))
    if config.private_metrics:
        path = private_directory(partner.directory / "counts") / f"{sha256_text(run)[:32]}.json"
        if not path.exists():
            _release_count(config, partner, run, path)
        rows = float(json.loads(path.read_text(encoding="utf-8"))["training_rows"])
    check_rows(partner.name, rows, config)
    return rows


def count_segment(config: Config) -> tuple[Segment, ...]:
    """What `training_rows` costs the training records in a run."""
    return (Segment(COUNT_NOISE, 1.0, 1),) if config.private_metrics else ()


def _release_count(config: Config, partner: Partner, run: str, path: Path) -> None:
    with Ledger.open(partner.ledger, partner.name) as ledger:
        reservation = ledger.reserve(
            Spend(
                run=run,
                release=_release_name(partner, run, "examples"),
                segments=count_segment(config),
                delta=config.privacy.delta,
                what="number of training rows",
                part=part(config, TRAIN),
            ),
            partner.policy.budget,
        )
        stream = partner.streams("examples", config_hash(config))
        noisy = float(release_counts(np.array([len(partner.train)]), 1.0, COUNT_NOISE, stream)[0])
        write_atomic(path, json.dumps({"training_rows": noisy}), mode=0o600)
        ledger.commit(reservation)


def _release_name(partner: Partner, run: str, what: str) -> str:
    """A name for the ledger: fresh in deployment, where noise is new each time."""
    nonce = "" if partner.seed is not None else f"/{secrets.token_hex(16)}"
    return f"{run}/{what}{nonce}"
