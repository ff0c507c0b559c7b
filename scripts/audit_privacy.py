"""`fedaccord audit privacy`: a lower bound on epsilon, measured, beside the one that is claimed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from auditing.bounds import shared_confidence
from common.config import Config
from common.errors import UserError
from common.files import write_atomic
from scripts.compose import load_config
from scripts.configure import configure
from scripts.console import PlainConsole
from simulation.prepare import complete

if TYPE_CHECKING:
    from auditing.canaries import CanaryBounds
    from auditing.membership import MembershipAudit

REPORT = "privacy-audit.json"
# Name in the report of the bound that assumes Gaussian noise.
F_DP = "canaries_f_dp"
# Training without privacy: no gradient is this long.
NO_CLIP = 1e9


def main(
    overrides: Sequence[str], run: str | None, canaries: int, confidence: float, seed: int
) -> int:
    """Audit a finished run and its configuration, or a configuration; 1 when a claim is refuted.

    Raises UserError when there is nothing to audit.
    """
    if not 0.5 < confidence < 1:
        raise UserError("--confidence: must be between 0.5 and 1")
    if run is None and canaries < 1:
        raise UserError("--canaries: must be at least 1, or name a finished --run")
    config = _config_of(run, overrides)
    if config.task != "classification":
        raise UserError(f"task={config.task}: the audit is of classifiers with one label a text")
    assert config.run.dir is not None
    directory = Path(config.run.dir)
    claimed = config.privacy.epsilon if config.private else None
    delta = config.privacy.delta
    report: dict[str, Any] = {
        "claimed_epsilon": claimed,
        "delta": delta,
        "confidence": confidence,
        "seed": seed,
    }
    console = PlainConsole(soft_wrap=True)
    bounds: dict[str, float] = {}
    # All bounds of the report hold together with `confidence`.
    each = shared_confidence(confidence, 2 * (canaries > 0) + (run is not None))
    if canaries > 0:
        found = _canary_audit(config, canaries, each, seed)
        report["canaries"] = asdict(found.epsilon_delta)
        report[F_DP] = asdict(found.f_dp)
        bounds["canaries"] = found.epsilon_delta.epsilon_lower_bound
        bounds[F_DP] = found.f_dp.epsilon_lower_bound
        _tell_canaries(console, found, claimed)
    if run is not None:
        from auditing.membership import membership

        told = membership(config, directory / "model", delta, each, seed)
        report["membership"] = asdict(told)
        bounds["membership"] = told.epsilon_lower_bound
        _tell_membership(console, told, claimed)
    wrong = None if claimed is None else refutation(bounds, claimed, delta)
    report["refuted"] = wrong is not None
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / REPORT, json.dumps(report, indent=1))
    if wrong is not None:
        words = (
            f": {wrong} (unless the audit was unlucky, which happens once in "
            f"{1 / (1 - confidence):.0f})."
        )
        console.print(Text.assemble(("REFUTED", "red"), words))
    if len(bounds) > 1:
        console.print(f"All {len(bounds)} bounds hold together with {confidence:.1%} confidence.")
    console.print(f"report: {directory / REPORT}")
    return 0 if wrong is None else 1


def refutation(bounds: dict[str, float], claimed: float, delta: float) -> str | None:
    """What the lower `bounds` on epsilon, by their names in the report, say is false; or None.

    The bound by f-DP assumes Gaussian noise, so alone it refutes that the noise is as claimed.
    """
    if max(value for name, value in bounds.items() if name != F_DP) > claimed:
        return f"the training is not ({claimed:g}, {delta:g})-private"
    if bounds.get(F_DP, 0.0) > claimed:
        return (
            f"the training is less private than the Gaussian noise of epsilon {claimed:g} at "
            f"delta {delta:g}"
        )
    return None


def _config_of(run: str | None, overrides: Sequence[str]) -> Config:
    """The configuration to audit, with everything that only the data knows filled in."""
    if run is None:
        return complete(configure(overrides))
    if overrides:
        raise UserError(f"--run: a finished run has its configuration; leave out {overrides[0]}")
    directory = Path(run).expanduser().absolute()
    config = load_config(directory / "config.yaml")
    config = replace(config, run=replace(config.run, dir=str(directory)))
    if not (directory / "partners").is_dir() or config.run.cache_dir is None:
        raise UserError(f"--run: {run} is not a simulation, whose partners' rows are here")
    if not (directory / "model").is_dir():
        raise UserError(f"--run: {run} is not finished: it has no model yet")
    return config


def _canary_audit(config: Config, count: int, confidence: float, seed: int) -> CanaryBounds:
    """Train as the first partner would, with `count` made-up rows each in or out by a coin.

    The noise is what the configuration's epsilon asks for; none without privacy.  Each of the two
    bounds holds with `confidence`.
    """
    import numpy as np
    import torch

    from auditing.canaries import Trial, audit, made_up_texts
    from client.accounting import calibrate
    from client.partner import split_rows
    from client.training import Privacy
    from common.device import pick_device, usable_cores
    from common.examples.prepare import prepare
    from common.models.build import build
    from simulation.partner import simulated_shares

    assert config.run.cache_dir is not None
    torch.set_num_threads(usable_cores())
    table, shares = simulated_shares(config)
    rows, _ = split_rows(table.select(shares[0].indices), config)
    network = build(config.model, tuple(config.data.labels), config.run.seed)
    device = pick_device(config.model.precision)
    for part in (network.embeddings, network.shared, network.frozen, network.trained):
        part.to(device.device)
    texts, labels = made_up_texts(network, config.model.max_length, count, seed)
    examples = prepare(
        [*rows.texts, *texts],
        np.concatenate([rows.labels, labels]),
        network,
        config.model,
        device,
        Path(config.run.cache_dir),
    )
    rate = min(1.0, config.train.batch_size / len(rows))
    steps = config.run.rounds * config.train.local_steps
    privacy = config.privacy
    sigma = calibrate(privacy.epsilon, privacy.delta, rate, steps) if config.private else 0.0
    clip = privacy.max_grad_norm if config.private else NO_CLIP
    way = "bookkeeping" if privacy.grad_sample_mode == "auto" else privacy.grad_sample_mode
    trial = Trial(
        network=network,
        examples=examples,
        canaries=np.arange(len(rows), len(examples)),
        config=replace(config.train, local_steps=1),
        steps=steps,
        rate=rate,
        privacy=Privacy(sigma, clip, way, privacy.clipping),
        device=device,
    )
    claimed = privacy.epsilon if config.private else None
    return audit(trial, claimed, privacy.delta, confidence, seed)


def _tell_canaries(console: PlainConsole, found: CanaryBounds, claimed: float | None) -> None:
    plain, f_dp = found.epsilon_delta, found.f_dp
    console.print(
        f"Canaries: {plain.correct} of {plain.guesses} guesses right on {plain.canaries} made-up "
        f"rows (all of them: {plain.accuracy:.1%})."
    )
    _tell_bound(console, plain.epsilon_lower_bound, plain.confidence, plain.delta, claimed)
    noise = f_dp.noise_multiplier_upper_bound
    shown = "nothing is shown" if noise is None else f"noise multiplier below {noise:.3g}"
    console.print(
        f"The same canaries, if the noise is Gaussian (f-DP): {f_dp.correct} of {f_dp.guesses} "
        f"planned guesses right: {shown}."
    )
    _tell_bound(console, f_dp.epsilon_lower_bound, f_dp.confidence, f_dp.delta, claimed)


def _tell_membership(console: PlainConsole, told: MembershipAudit, claimed: float | None) -> None:
    low, high = told.true_positive_interval
    console.print(
        f"Membership by loss: AUC {told.auc:.3f} on {told.members} training and {told.others} "
        f"held-out rows; at a false-positive rate of {told.at_false_positive_rate:.2%} the "
        f"true-positive rate is {told.true_positive_rate:.2%} ({low:.2%} to {high:.2%})."
    )
    _tell_bound(console, told.epsilon_lower_bound, told.confidence, told.delta, claimed)


def _tell_bound(
    console: PlainConsole, bound: float, confidence: float, delta: float, claimed: float | None
) -> None:
    beside = "no privacy is claimed" if claimed is None else f"claimed: {claimed:g}"
    console.print(
        f"  epsilon is at least {bound:.3g} at delta {delta:g}, with {confidence:.1%} confidence "
        f"({beside})."
    )
