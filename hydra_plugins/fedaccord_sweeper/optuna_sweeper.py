"""`hydra/sweeper=optuna`: Optuna chooses the trials (Akiba et al. 2019).

Hydra imports every plugin for every composition, so this module imports nothing heavy. Hydra runs
this file before it registers the module, so annotations must not be text.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaSweeperConf:
    """The settings of a search."""

    _target_: str = "hydra_plugins.fedaccord_sweeper.optuna_sweeper.OptunaSweeper"
    # Names of sweeps/objectives.py; the first one selects the best trial.
    objectives: list[str] = field(default_factory=lambda: ["accuracy"])
    # The total number of trials, including pruned and failed ones.
    trials: int = 20
    # Trials that are asked for at once: as many as the launcher runs in parallel.
    jobs: int = 1
    # tpe | random | nsga2
    sampler: str = "tpe"
    # Trials before the sampler and the pruner use results.
    startup: int = 5
    seed: int = 0
    # none | median | halving, by the accuracy after each round; requires objectives=[accuracy].
    pruner: str = "none"
    # The URL of a database; by default SQLite in the sweep's folder.
    storage: str | None = None
    # The search space, as overrides of Hydra's sweep syntax.
    params: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="fedaccord"
)


class OptunaSweeper(Sweeper):
    """Asks the study for trials, launches them and reports their results to the study."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store the context of Hydra and create the launcher."""
        from hydra.core.plugins import Plugins

        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search to its end and return its Optuna study."""
        from sweeps.search import search

        assert self.hydra_context is not None
        assert self.launcher is not None
        assert self.config is not None

        return search(self.settings, self.config, self.hydra_context, self.launcher, arguments)
