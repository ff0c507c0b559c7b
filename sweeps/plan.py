"""What a command asks of a sweep: its trials, its swept keys and its identity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.types import RunMode
from omegaconf import OmegaConf

from common.config import Config, config_hash
from common.errors import UserError
from common.files import canonical_json, sha256_text
from sweeps.objectives import check
from sweeps.records import Document


def plan(hydra: Hydra, arguments: Sequence[str], typed: Callable[[Any], Config]) -> Document:
    """Describe the sweep, and check it as far as is possible without the data.

    Args:
        hydra: Hydra with the search path of `conf/`.
        arguments: The overrides of the command.
        typed: Makes the validated configuration from a composed tree.

    Returns:
        The content of `sweep.json`.

    Raises:
        UserError: A setting is wrong; the message names its key.
        HydraException: An override cannot be composed.
    """
    tree = hydra.compose_config("config", list(arguments), RunMode.MULTIRUN, False)
    sweeper: Any = OmegaConf.to_container(tree.hydra.sweeper, resolve=True)
    task: Any = OmegaConf.to_container(tree)
    del task["hydra"]
    base = typed(task)
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    parsed = parser.parse_overrides([*params, *tree.hydra.overrides.task])
    trials = sweeper.get("trials")
    planned = _grid_size(parsed) if trials is None else trials
    # Keys that only trials have are checked with one of their values.
    hydra.config_loader.load_sweep_config(tree, [first_value(o) for o in parsed])
    swept = {o.get_key_element(): o.input_line for o in parsed if o.is_sweep_override()}
    return Document(
        arguments=list(arguments),
        identity=sha256_text(config_hash(base), canonical_json([sweeper, swept])),
        objectives=check(sweeper["objectives"]) if "objectives" in sweeper else [],
        swept=sorted(key.lstrip("+") for key in swept),
        planned=planned,
    )


def first_value(override: Override) -> str:
    """The override with the first of its values."""
    if not override.is_sweep_override():
        return override.input_line or ""
    if override.is_discrete_sweep():
        return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
    return f"{override.get_key_element()}={cast(IntervalSweep, override.value()).start}"


def _grid_size(parsed: Sequence[Override]) -> int:
    """The number of combinations of all values; of a key that is given twice the last counts."""
    size = 1
    for override in {o.get_key_element(): o for o in parsed}.values():
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                raise UserError(
                    f"{override.get_key_element()}: an interval has infinitely many values; add "
                    "hydra/sweeper=optuna"
                )
            size *= len(list(override.sweep_string_iterator()))
    return size
