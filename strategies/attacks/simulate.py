"""Run an attack on the replies of a simulated round, just before screening."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Generator

from common.instantiate import instantiate
from strategies.attacks.kinds import Aggregate, Attack, MetricsAttack, UpdateAttack
from strategies.updates import Layout, Reply


def build_attack(config: Mapping[str, Any] | None) -> Attack | None:
    """The attack on updates or metrics that the tree under ``attack`` describes.

    None where nobody attacks, or where the attack poisons data and so belongs to the partners.
    ``partners`` and ``count`` say who attacks and are left to the caller.
    """
    if not config or not str(config.get("_target_")).startswith("strategies."):
        return None
    settings = {k: v for k, v in config.items() if k not in ("partners", "count")}
    attack: Attack = instantiate(settings, "attack", "strategies.attacks.")
    return attack


def corrupt(
    attack: Attack,
    replies: Sequence[Reply],
    malicious: Collection[str],
    layout: Layout,
    rule: Callable[[Sequence[Reply]], Aggregate],
    generator: Generator,
) -> list[Reply]:
    """The replies with those of ``malicious`` partners as the attack makes them.

    An attack on updates needs at least one honest reply.

    Args:
        rule: the rule in use, for rows that belong to these replies in this order.
    """
    bad = [r for r in replies if r.partner in malicious]
    good = [r for r in replies if r.partner not in malicious]
    forged = {r.partner: r for r in bad}
    if bad and good and isinstance(attack, UpdateAttack):
        honest = torch.stack([layout.flatten(r.delta) for r in good])
        own = torch.stack([layout.flatten(r.delta) for r in bad])
        rows = attack.craft(honest, own, rule([*good, *bad]), generator)
        for reply, row in zip(bad, rows, strict=True):
            forged[reply.partner] = replace(reply, delta=layout.unflatten(row))
    if isinstance(attack, MetricsAttack):
        for name, reply in forged.items():
            forged[name] = replace(reply, metrics=attack.metrics(reply.metrics))
    return [forged.get(reply.partner, reply) for reply in replies]
