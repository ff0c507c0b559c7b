"""The evaluation of a sweep: settings over their seeds, Pareto front, best setting, importance."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from sweeps.objectives import OBJECTIVES, better, finite, pareto
from sweeps.records import Sweep, override_key

SEED = "run.seed"
# What is compared where a sweep names no objectives of its own.
USUAL = ("accuracy", "worst_partner", "gap", "epsilon")
# Fewer settings say nothing about what matters.
LEAST_SETTINGS = 6


@dataclass(frozen=True)
class Setting:
    """Trials that differ in their seed only.

    Attributes:
        varied: The values of the swept keys, by key.
        trials: The numbers of its finished trials.
        values: The mean of every objective that all of them measured.
        stds: The sample standard deviation over seeds; None for one seed.
    """

    varied: Mapping[str, str]
    trials: tuple[int, ...]
    values: Mapping[str, float]
    stds: Mapping[str, float | None]

    @property
    def name(self) -> str:
        """`privacy=dp strategy.server.lr=0.7`, figures to four digits."""
        return " ".join(f"{k}={short(v)}" for k, v in self.varied.items()) or "as it is"


@dataclass(frozen=True)
class Analysis:
    """The evaluation of a sweep's directory at one moment."""

    sweep: Sweep

    @cached_property
    def settings(self) -> list[Setting]:
        """The settings with a finished trial, in the order of their first trial."""
        groups: dict[tuple[tuple[str, str], ...], dict[int, int]] = {}
        for number in self.sweep.measured:
            varied = tuple(i for i in self.varied(number).items() if i[0] != SEED)
            # A run counts once, however often it was asked for.
            same = self.sweep.trials[number].same_as
            groups.setdefault(varied, {}).setdefault(number if same is None else same, number)
        measured = self.sweep.measured
        return [_setting(dict(k), list(runs.values()), measured) for k, runs in groups.items()]

    @cached_property
    def objectives(self) -> list[str]:
        """The objectives of the comparison: those of the sweep, else the usual ones that differ."""
        found = self.sweep.document.objectives
        measured = [n for n in found or USUAL if all(n in s.values for s in self.settings)]
        differ = [n for n in measured if len({s.values[n] for s in self.settings}) > 1]
        return measured if found else differ or measured[:1]

    @cached_property
    def front(self) -> list[Setting]:
        """The Pareto front: the settings that no other setting dominates."""
        values = {
            number: [setting.values[name] for name in self.objectives]
            for number, setting in enumerate(self.settings)
        }
        return [self.settings[number] for number in pareto(self.objectives, values)]

    @cached_property
    def best(self) -> Setting | None:
        """The best setting by the first objective; of two equal ones the earlier."""
        if not self.settings or not self.objectives:
            return None
        first, found = self.objectives[0], self.settings[0]
        for setting in self.settings[1:]:
            if better(first, setting.values[first], found.values[first]):
                found = setting
        return found

    def varied(self, number: int) -> dict[str, str]:
        """A trial's values of the swept keys, by key."""
        found = self.sweep.varied(self.sweep.trials[number])
        return {override_key(o): o.partition("=")[2] for o in found}

    @cached_property
    def keys(self) -> list[str]:
        """The swept keys, without the seed."""
        return [k for k in self.sweep.document.swept if k != SEED]

    @cached_property
    def importance(self) -> dict[str, float]:
        """The share of each swept key in reaching the best third of the settings; largest first.

        PED-ANOVA (Watanabe et al., "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance
        in Arbitrary Subspaces", 2023) on the first objective.  Empty with too few settings, with
        settings that do not differ, or with one key.
        """
        rows = [s for s in self.settings if all(k in s.varied for k in self.keys)]
        if len(rows) < LEAST_SETTINGS or len(self.keys) < 2 or not self.objectives:
            return {}
        first = self.objectives[0]
        values = [finite(first, s.values[first]) for s in rows]
        if len(set(values)) < 2:
            return {}
        spaces = {key: _space([s.varied[key] for s in rows]) for key in self.keys}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction=OBJECTIVES[first].direction)
        for row, value in zip(rows, values, strict=True):
            params = {
                key: float(row.varied[key])
                if isinstance(space, FloatDistribution)
                else row.varied[key]
                for key, space in spaces.items()
            }
            study.add_trial(create_trial(params=params, distributions=spaces, value=value))
        evaluator = PedAnovaImportanceEvaluator(target_quantile=1 / 3, evaluate_on_local=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(get_param_importances(study, evaluator=evaluator))

    def best_overrides(self) -> list[str]:
        """The overrides of the best setting with the first of its seeds."""
        return [] if self.best is None else self.sweep.trials[self.best.trials[0]].overrides


def _setting(
    varied: Mapping[str, str],
    trials: Sequence[int],
    measured: Mapping[int, Mapping[str, float | None]],
) -> Setting:
    values, stds = {}, {}
    for name in OBJECTIVES:
        found = [v for t in trials if (v := measured[t][name]) is not None and not math.isnan(v)]
        if len(found) == len(trials):
            values[name] = statistics.fmean(found)
            spread = len(found) > 1 and all(map(math.isfinite, found))
            stds[name] = statistics.stdev(found) if spread else None
    return Setting(varied, tuple(trials), values, stds)


def _space(values: Sequence[str]) -> BaseDistribution:
    """A numeric scale for more than four different numbers, else categories."""
    numbers = [n for v in values if (n := number_of(v)) is not None]
    if len(numbers) == len(values) and len(set(values)) > 4:
        low, high = min(numbers), max(numbers)
        return FloatDistribution(low, high, log=low > 0 and high / low > 10)
    return CategoricalDistribution(sorted(set(values)))


def number_of(text: str) -> float | None:
    """The value of an override as a number; None if it is not one."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def short(text: str) -> str:
    """A value as text; numbers with four digits."""
    found = number_of(text)
    return text if found is None or len(text) < 7 else f"{found:.4g}"
