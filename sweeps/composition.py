"""The ε of a whole sweep: the ledgers of all trials, composed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from client.accounting import Segment, epsilon, worst_rdp_epsilon
from client.ledger import Entry, compositions, read
from common.config import Config, validate
from common.config_file import NAME, read_config
from common.files import canonical_json
from sweeps.privacy import Composed
from sweeps.records import Sweep

# With more kinds of steps than this, PRV would take minutes. The bound by RDP is looser and fast.
PRV_SEGMENTS = 64


@dataclass
class _Ledgers:
    """What has been read from the trials so far.

    Attributes:
        by_shares: The ledger entries by the identity of the shares, then by partner.
        private: The number of trials with privacy.
        without: The number of trials without privacy.
        delta: The largest δ of a trial.
        single: The largest ε of one trial alone.
    """

    by_shares: dict[str, dict[str, list[Entry]]] = field(default_factory=dict)
    private: int = 0
    without: int = 0
    delta: float = 0.0
    single: float = 0.0

    def add(self, config: Config, paths: Sequence[Path]) -> None:
        """Add one trial with privacy."""
        self.private += 1
        self.delta = max(self.delta, config.privacy.delta)
        shares = self.by_shares.setdefault(_shares(config), {})
        for path in paths:
            # As in a report, ε is that of the updates: exact metrics are not part of it.
            entries = [entry for entry in read(path) if entry.kind != "reserve" or not entry.exact]
            shares.setdefault(path.parent.name, []).extend(entries)
            spent = compositions(entries).values()
            self.single = max(self.single, *(epsilon(s, config.privacy.delta).value for s in spent))

    def segments(self) -> list[list[Sequence[Segment]]]:
        """For each group of shares, the compositions that a record may have been part of."""
        return [_compositions(shares) for shares in self.by_shares.values()]


def compose_trials(sweep: Sweep) -> Composed | None:
    """Compose the privacy lost to all trials that have begun.

    Trials with equal shares are composed partner by partner. Where shares differ (another seed or
    partition), a record may have been at any partner. Each group of trials then counts with the
    worst of its partners, order by order of RDP, which holds for every record.

    Args:
        sweep: The sweep's directory.

    Returns:
        The composed privacy; None before the first trial.
    """
    ledgers = _Ledgers()
    for number in sweep.trials:
        directory = sweep.directory / str(number)
        config = _config(directory)
        if config is None:
            continue
        paths = sorted((directory / "partners").glob("*/ledger.sqlite"))
        if not config.private:
            ledgers.without += 1
        elif paths:
            ledgers.add(config, paths)
    if not ledgers.private:
        return Composed(0, ledgers.without, 0.0, 0.0, 0.0, "none") if ledgers.without else None
    value, accountant = _bound(ledgers.segments(), ledgers.delta)
    return Composed(
        ledgers.private,
        ledgers.without,
        max(value, ledgers.single),
        ledgers.delta,
        ledgers.single,
        accountant,
    )


def _compositions(shares: Mapping[str, list[Entry]]) -> list[Sequence[Segment]]:
    return [segments for entries in shares.values() for segments in compositions(entries).values()]


def _bound(groups: Sequence[Sequence[Sequence[Segment]]], delta: float) -> tuple[float, str]:
    if len(groups) == 1 and all(len(set(s)) <= PRV_SEGMENTS for s in groups[0]):
        worst = max((epsilon(segments, delta) for segments in groups[0]), key=lambda e: e.value)
        return worst.value, worst.accountant
    return worst_rdp_epsilon(groups, delta), "rdp"


def _config(directory: Path) -> Config | None:
    """The trial's configuration; None where it has not begun, and so has spent nothing."""
    path = directory / NAME
    return validate(read_config(path)) if path.exists() else None


def _shares(config: Config) -> str:
    """Identifies which partner has which record, and on which side of validation."""
    tree = [asdict(config.data), asdict(config.partition)]
    return canonical_json([*tree, config.run.seed])
