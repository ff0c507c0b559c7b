"""How a simulation worker opens a session.

A worker serves many partners, and lives for the whole run or for several: it builds the network
once and keeps the latest partners open.
"""

from __future__ import annotations

import os
from functools import lru_cache

import torch
from flwr.app import Context

from client.session import Session, new_session, placed
from common.config import Config, config_hash, from_json, validate
from common.device import Device, usable_cores
from common.models.build import build
from common.models.network import Network
from common.refusals import Reason, Refused
from simulation.partner import simulated

# `fedaccord simulate` sets it for its own workers.  Without it no partner takes its rows from a
# coordinator's configuration or seeds its noise.
SIMULATION_VARIABLE = "FEDACCORD_SIMULATION"
OPEN_PARTNERS = 64
# The configuration that this process serves at the moment.
_serving: list[str] = []


@lru_cache(maxsize=1)
def _network(config_json: str) -> tuple[Network, Device]:
    config = from_json(config_json)
    return placed(build(config.model, config.outputs, config.run.seed, config.task), config)


@lru_cache(maxsize=1)
def _configured(config_json: str) -> tuple[Config, str]:
    config = validate(from_json(config_json))
    return config, config_hash(config)


@lru_cache(maxsize=OPEN_PARTNERS)
def _open(config_json: str, index: int) -> Session:
    config, identity = _configured(config_json)
    torch.set_num_threads(threads_per_worker(config))
    partner = simulated(config, config_json, index)
    return new_session(config, identity, partner, *_network(config_json))


def _forget_others(config_json: str) -> None:
    """Close the partners of an earlier run: sweeps and four-way studies share workers."""
    if _serving[:] != [config_json]:
        _open.cache_clear()
        _serving[:] = [config_json]


def threads_per_worker(config: Config) -> int:
    """Cores divided by worker processes, so that workers do not compete for them."""
    cores = usable_cores()
    return max(1, cores // (config.run.workers or cores))


def open_session(context: Context) -> Session:
    """The session of the simulated partner whose number is in `context`.

    Raises UserError when the configuration is wrong, or when `fedaccord simulate` has not started
    this process.
    """
    if os.environ.get(SIMULATION_VARIABLE) != "1":
        raise Refused(
            Reason.OWN_SETTINGS,
            "this process simulates no partners; start a simulation with `fedaccord simulate`",
        )
    config_json = str(context.run_config.get("config", ""))
    _forget_others(config_json)
    return _open(config_json, int(context.node_config["partition-id"]))
