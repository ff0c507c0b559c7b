"""The honest ε of a sweep: all ledgers of all trials, composed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from client.accounting import Segment, epsilon, worst_rdp_epsilon
from client.ledger import Entry, compositions, read
from common.config import Config
from common.files import canonical_json
from scripts.compose import load_config
from sweeps.privacy import Composed
from sweeps.records import Sweep

# With more kinds of steps than this PRV would take minutes; RDP's bound is looser and quick.
PRV_SEGMENTS = 64


def compose_trials(sweep: Sweep) -> Composed | None:
    """Privacy lost to all trials that have begun; None before the first.

    Trials of the same shares are composed partner by partner. Where shares differ (another seed
    or partition), a record may have been at any partner: each group of trials then counts with
    the worst of its partners, order by order of RDP, which holds whoever had the record.
    """
    groups: dict[str, dict[str, list[Entry]]] = {}
    private = without = 0
    delta = single = 0.0
    for number in sweep.trials:
        place = sweep.directory / str(number)
        config = _config(place)
        if config is None:
            continue
        ledgers = sorted((place / "partners").glob("*/ledger.sqlite"))
        if not config.private:
            without += 1
            continue
        if not ledgers:
            continue
        private += 1
        delta = max(delta, config.privacy.delta)
        shares = groups.setdefault(_shares(config), {})
        for path in ledgers:
            # As in a report, epsilon is that of the updates: exact metrics are outside of it.
            entries = [entry for entry in read(path) if entry.kind != "reserve" or not entry.exact]
            shares.setdefault(path.parent.name, []).extend(entries)
            found = compositions(entries).values()
            single = max(single, *(epsilon(s, config.privacy.delta).value for s in found))
    if not private and not without:
        return None
    if not private:
        return Composed(0, without, 0.0, 0.0, 0.0, "none")
    candidates = [
        [segments for entries in shares.values() for segments in compositions(entries).values()]
        for shares in groups.values()
    ]
    value, accountant = _bound(candidates, delta)
    return Composed(private, without, max(value, single), delta, single, accountant)


def _bound(groups: Sequence[Sequence[Sequence[Segment]]], delta: float) -> tuple[float, str]:
    if len(groups) == 1 and all(len(set(s)) <= PRV_SEGMENTS for s in groups[0]):
        found = [epsilon(segments, delta) for segments in groups[0]]
        worst = max(found, key=lambda e: e.value)
        return worst.value, worst.accountant
    return worst_rdp_epsilon(groups, delta), "rdp"


def _config(place: Path) -> Config | None:
    """The trial's configuration; None where it has not begun, and so has spent nothing."""
    path = place / "config.yaml"
    return load_config(path) if path.exists() else None


def _shares(config: Config) -> str:
    """What decides which record is whose, and on which side of validation."""
    tree = [asdict(config.data), asdict(config.partition)]
    return canonical_json([*tree, config.run.seed])
