"""The aggregation pipeline for other people's Flower apps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from common.errors import UserError
from fedaccord.simulation import Overrides, as_overrides

if TYPE_CHECKING:
    from flwr.app import ArrayRecord

    from strategies.flower import PipelineStrategy

GROUP = "strategy"


def strategy(
    overrides: Overrides = (),
    *,
    evaluate: Callable[[ArrayRecord], float] | None = None,
    reference: Callable[[ArrayRecord], ArrayRecord] | None = None,
    metrics: Mapping[str, str] | None = None,
    seed: int = 0,
    **fedavg: Any,
) -> PipelineStrategy:
    """Build a Flower ``Strategy`` from the names that the command line uses.

    Clients reply as they do to Flower's ``FedAvg``: with the trained model and its metrics.

    Args:
        overrides: Overrides of the group ``strategy``, such as ``["strategy=recommended",
            "strategy.robust=multi_krum"]``, or keys and values; by default plain federated
            averaging with momentum at the server. docs/strategies.md lists the names.
        evaluate: The loss of a model on the server's public data; appeals need it.
        reference: Trains a model on the server's public data; FLTrust needs it.
        metrics: Maps the clients' metric names to ``examples``, ``loss``, ``accuracy`` and
            ``gap``; by default ``num-examples``, ``loss``, ``accuracy`` and ``gap`` map to them.
        seed: The seed of the stages that draw at random.
        **fedavg: Settings of Flower's ``FedAvg``, such as ``fraction_train`` or
            ``min_train_nodes``.

    Returns:
        The strategy; after ``start`` its attribute ``decisions`` holds one record per node and
        round.

    Raises:
        UserError: An override is wrong or is not of the group ``strategy``.

    Example:
        >>> strategy(["strategy.robust=multi_krum", "strategy.robust.f=1"], min_train_nodes=5)
    """
    from scripts.compose import compose_config
    from strategies.build import build
    from strategies.flower import METRICS, PipelineStrategy

    given = as_overrides(overrides)
    for override in given:
        key = override.partition("=")[0].lstrip("+~").replace("/", ".")
        if key.partition(".")[0] != GROUP:
            raise UserError(f"{key}: does not belong to a strategy; use keys of strategy only")
    return PipelineStrategy(
        build(compose_config(given).strategy),
        evaluate=evaluate,
        reference=reference,
        metrics=METRICS if metrics is None else metrics,
        seed=seed,
        **fedavg,
    )
