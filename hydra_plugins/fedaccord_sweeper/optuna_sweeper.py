"""`hydra/sweeper=optuna`: trials chosen by Optuna, asked and told (Akiba et al. 2019).

Hydra imports every plugin whenever it composes anything: nothing heavy is imported here.
It runs this file before it lists it among the modules, so annotations must not be text.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class OptunaSweeperConf:
    """What a user chooses of a search."""

    _target_: str = "hydra_plugins.fedaccord_sweeper.optuna_sweeper.OptunaSweeper"
    # What is after what, by name (sweeps/objectives.py); the first decides the best.
    objectives: list[str] = field(default_factory=lambda: ["accuracy"])
    # Trials in all, with those that were pruned or failed.
    trials: int = 20
    # Trials asked for at once: as many as the launcher runs side by side.
    jobs: int = 1
    # tpe | random | nsga2
    sampler: str = "tpe"
    # Trials before the sampler learns from results and the pruner compares.
    startup: int = 5
    seed: int = 0
    # none | median | halving, on the accuracy of every round; with one objective only.
    pruner: str = "none"
    # URL of a database; SQLite in the sweep's folder unless given.
    storage: str | None = None
    # The search space, as overrides of Hydra's sweep syntax.
    params: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="fedaccord"
)


class OptunaSweeper(Sweeper):
    """Asks the study, launches, tells the study; what a kill left half done is done first."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra gives and make the launcher."""
        from hydra.core.plugins import Plugins

        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search to its end and return its study."""
        from sweeps.search import search

        assert self.hydra_context is not None
        assert self.launcher is not None
        assert self.config is not None

        return search(self.settings, self.config, self.hydra_context, self.launcher, arguments)
