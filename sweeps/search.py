"""The loop of a search: ask Optuna for trials, launch them, report their results."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState

from sweeps.objectives import finite
from sweeps.study import open_study, sampler_for, space

UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)


def search(
    settings: Mapping[str, Any],
    config: DictConfig,
    context: HydraContext,
    launcher: Launcher,
    arguments: Sequence[str],
) -> optuna.Study:
    """Run trials until the study holds as many as planned.

    Args:
        settings: The settings of `hydra_plugins/fedaccord_sweeper`.
        config: Hydra's configuration of the sweep.
        context: Hydra's context.
        launcher: Hydra's launcher.
        arguments: The overrides that all trials share or that are searched.

    Returns:
        The study.

    Raises:
        UserError: A setting is wrong; nothing has been launched.
    """
    parser = OverridesParser.create(config_loader=context.config_loader)
    params = [f"{key}={value}" for key, value in settings["params"].items()]
    searched, fixed = space(parser.parse_overrides([*params, *arguments]))
    directory = Path(str(config.hydra.sweep.dir)).absolute()
    study = open_study(settings, directory)
    total = int(settings["trials"])
    # A killed search leaves trials without a result: they run first, with their values.
    waiting = [t for t in study.get_trials(deepcopy=False) if t.state in UNFINISHED]
    while True:
        known = len(study.get_trials(deepcopy=False))
        wanted = max(0, min(int(settings["jobs"]) - len(waiting), total - known))
        for number in range(known, known + wanted):
            study.sampler = sampler_for(settings, number)
            waiting.append(_frozen(study, study.ask(searched).number))
        if not waiting:
            return study
        for group in _runs(waiting):
            overrides = [[*fixed, *_overrides(t.params)] for t in group]
            returned = launcher.launch(overrides, initial_job_idx=group[0].number)
            for trial, job in zip(group, returned, strict=True):
                _tell(study, trial.number, job, list(settings["objectives"]))
        waiting = []


def _frozen(study: optuna.Study, number: int) -> FrozenTrial:
    return next(t for t in study.get_trials(deepcopy=False) if t.number == number)


def _overrides(params: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in params.items()]


def _runs(trials: Iterable[FrozenTrial]) -> list[list[FrozenTrial]]:
    """Trials in groups of consecutive numbers, because a launcher counts up from the first."""
    ordered = sorted(trials, key=lambda t: t.number)
    pairs = groupby(enumerate(ordered), key=lambda pair: pair[1].number - pair[0])
    return [[trial for _, trial in group] for _, group in pairs]


def _tell(study: optuna.Study, number: int, job: JobReturn, objectives: Sequence[str]) -> None:
    """Report a trial to the study; a trial that lacks an objective has failed."""
    outcome = job.return_value
    if outcome.state == "pruned":
        study.tell(number, state=TrialState.PRUNED)
        return
    values = [outcome.values.get(name) for name in objectives]
    if any(v is None or math.isnan(v) for v in values):
        study.tell(number, state=TrialState.FAIL)
        return
    study.tell(number, [finite(n, float(v)) for n, v in zip(objectives, values, strict=True)])
