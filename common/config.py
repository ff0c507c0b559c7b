"""The typed configuration of a run: what Hydra composes and both sides read.

`conf/` holds the values and `common.settings` the types, so that a wrong key or type fails when the
configuration is composed, on the user's machine, and not in round 7 at a partner.  A partner treats
everything here as a request: it never instantiates anything named in the configuration and applies
its own policy first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from common.config_reader import parse_json, read
from common.data.schema import DataConfig
from common.errors import UserError
from common.files import canonical_json, sha256_text
from common.refusals import Reason, Refused
from common.settings import (
    CONFIG_VERSION,
    Config,
    LoraConfig,
    ModelConfig,
    PrivacyConfig,
    RunConfig,
    TrackingConfig,
    TrainConfig,
)
from common.validation import validate

__all__ = [
    "Config",
    "DataConfig",
    "LoraConfig",
    "ModelConfig",
    "PrivacyConfig",
    "RunConfig",
    "TrackingConfig",
    "TrainConfig",
    "config_hash",
    "from_json",
    "from_mapping",
    "malicious",
    "to_json",
    "to_mapping",
    "validate",
]


def from_mapping(tree: object) -> Config:
    """The typed configuration from plain mappings, lists and values; no text is interpreted.

    Raises:
        Refused: naming the key, when a key or a type is wrong.
    """
    config = read(Config, tree)
    if config.version != CONFIG_VERSION:
        raise Refused(
            Reason.VERSION,
            f"version: the configuration has version {config.version}, this is version "
            f"{CONFIG_VERSION}; install the same fedaccord on both sides",
            "version",
        )
    return config


def to_mapping(config: Config) -> dict[str, Any]:
    """The configuration as plain mappings, every value of its declared type.

    Inverse of `from_mapping`.
    """
    return asdict(read(Config, asdict(config)))


def to_json(config: Config) -> str:
    """The configuration as one canonical JSON text, as Flower's run config carries it."""
    return canonical_json(to_mapping(config))


def from_json(text: str) -> Config:
    """Inverse of `to_json`, for the text of a sender who need not be trusted.

    Raises:
        Refused: when `text` is not the JSON of a configuration.
    """
    return from_mapping(parse_json(text))


def config_hash(config: Config) -> str:
    """Identity of what a run computes: every setting but those of its files and its workers."""
    tree = to_mapping(config)
    for key in ("dir", "resume", "cache_dir", "keep_checkpoints"):
        del tree["run"][key]
    for key in ("workers", "gpus_per_worker", "updates_mb"):
        del tree["run"][key]
    if tree["data"]["split_seed"] is None:
        # As before this setting existed, so that runs of that time can be resumed.
        del tree["data"]["split_seed"]
    del tree["tracking"]
    return sha256_text(canonical_json(tree))


def malicious(config: Config, everyone: Sequence[str]) -> list[str]:
    """The partners that attack in a simulation.

    These are `attack.partners`, or the first `attack.count` of `everyone` in the order of names.

    Raises:
        UserError: when a name is not that of a partner, or no partner would stay honest.
    """
    if not config.attack.get("_target_"):
        return []
    named = [str(name) for name in config.attack.get("partners") or []]
    if unknown := sorted(set(named) - set(everyone)):
        raise UserError(
            f"attack.partners: there is no partner {unknown[0]}; "
            f"there are {', '.join(sorted(everyone))}"
        )
    chosen = named or sorted(everyone)[: int(config.attack.get("count") or 0)]
    if len(chosen) >= len(everyone):
        raise UserError("attack.count: at least one partner must stay honest")
    return chosen
