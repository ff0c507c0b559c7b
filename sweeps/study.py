"""A sweep as an Optuna study: its storage, search space, sampler and pruner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.types import (
    ChoiceSweep,
    IntervalSweep,
    Override,
    RangeSweep,
    Transformer,
)
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from common.errors import UserError
from common.seeds import derive
from sweeps.objectives import OBJECTIVES, check

NAME = "sweep"
DATABASE = "optuna.db"
SAMPLERS = ("tpe", "random", "nsga2")
PRUNERS = ("none", "median", "halving")


def storage_of(sweeper: Mapping[str, Any], sweep: Path) -> str:
    """The URL of the study's storage; by default SQLite in the sweep's folder."""
    return str(sweeper.get("storage") or f"sqlite:///{sweep / DATABASE}")


def open_study(sweeper: Mapping[str, Any], sweep: Path) -> optuna.Study:
    """Open the sweep's study, or create it.

    Args:
        sweeper: Hydra's configuration of the sweeper.
        sweep: The folder of the sweep.

    Raises:
        UserError: A name is unknown, or a search with several objectives is to be pruned.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = check(list(sweeper["objectives"]))
    if sweeper["pruner"] != "none" and objectives != ["accuracy"]:
        raise UserError(
            "hydra.sweeper.pruner: compares the accuracy after each round; use it with "
            f"hydra.sweeper.objectives=[accuracy], not [{','.join(objectives)}]"
        )
    return optuna.create_study(
        storage=storage_of(sweeper, sweep),
        study_name=NAME if not sweeper.get("storage") else f"{NAME}-{sweep}",
        directions=[OBJECTIVES[name].direction for name in objectives],
        sampler=sampler_for(sweeper, 0),
        pruner=_pruner(str(sweeper["pruner"]), int(sweeper["startup"])),
        load_if_exists=True,
    )


def trial_of(study: optuna.Study, number: int) -> optuna.trial.Trial:
    """Trial `number`, also in a process that did not ask for it."""
    found = next(t for t in study.get_trials(deepcopy=False) if t.number == number)
    return optuna.trial.Trial(study, found._trial_id)


def sampler_for(sweeper: Mapping[str, Any], number: int) -> optuna.samplers.BaseSampler:
    """The sampler that chooses trial `number`.

    Each trial has its own seed, so that an interrupted search continues as it would have continued
    and does not draw its first trials again.

    Raises:
        UserError: There is no such sampler.
    """
    name, startup = str(sweeper["sampler"]), int(sweeper["startup"])
    seed = derive(int(sweeper["seed"]), "sweep", number) % 2**32
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, startup))
    raise UserError(f"hydra.sweeper.sampler: must be one of {', '.join(SAMPLERS)}, got '{name}'")


def _pruner(name: str, startup: int) -> optuna.pruners.BasePruner:
    if name == "none":
        return optuna.pruners.NopPruner()
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=2)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    raise UserError(f"hydra.sweeper.pruner: must be one of {', '.join(PRUNERS)}, got '{name}'")


def space(overrides: Sequence[Override]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """The search space that Hydra's sweep syntax describes, and the overrides that stay fixed.

    `a=1,2`, `a=choice(…)`, `a=range(1,9,2)` and `a=interval(1,2)` are searched. `int(interval(…))`
    means whole numbers and `tag(log, interval(…))` a logarithmic scale.

    Raises:
        UserError: A range is empty, or a logarithmic one does not begin above 0.
    """
    found: dict[str, BaseDistribution] = {}
    fixed: dict[str, str] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            try:
                found[key] = distribution(override)
            except ValueError as error:
                raise UserError(f"{key}: {error}") from error
            fixed.pop(key, None)
        else:
            fixed[key] = f"{key}={override.get_value_element_as_str()}"
            found.pop(key, None)
    return found, list(fixed.values())


def distribution(override: Override) -> BaseDistribution:
    """Optuna's distribution for one swept override.

    Raises:
        ValueError: It has no values.
    """
    value = override.value()
    log = isinstance(value, IntervalSweep | RangeSweep | ChoiceSweep) and "log" in value.tags
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        steps = sorted(float(str(x)) for x in value.range())
        if not steps:
            raise ValueError("the range is empty")
        if all(step.is_integer() for step in steps):
            return IntDistribution(int(steps[0]), int(steps[-1]), step=abs(int(value.step)))
        return FloatDistribution(steps[0], steps[-1], step=abs(float(value.step)))
    # As text: the value goes back into an override as it was written.
    return CategoricalDistribution([str(x) for x in override.sweep_iterator(Transformer.str)])
