"""What leaves a partner without noise is in its ledger, at an infinite epsilon, before it leaves.

Two things can, where the partner's policy allows them: updates trained without privacy
(`privacy.mode=none`), and exact validation metrics (`privacy.metrics=exact`) together with the
exact number of training rows.  Each is one reservation for a run, without a limit, because it is
the policy's permission that allows it: no finite budget could.

The number of training rows is not charged to the training records.  Where it leaves exactly it is
public, and the epsilon of training holds for data sets of that size: a record's presence is
compared with an empty record in its place, which adds nothing to any sum.  The mechanism and its
accounting are the same.
"""

from __future__ import annotations

from client.accounting import Segment
from client.division import TRAIN, VALIDATION, part
from client.ledger import Ledger, Spend
from client.partner import Partner
from common.config import Config

EXACTLY = Segment(noise_multiplier=0.0, sample_rate=1.0, steps=1)
# What this process knows to be on the disk: a simulation's worker answers many messages of a run.
# A file is known by its inode too, so that another one in its place is not taken for it.
_noted: set[tuple[object, ...]] = set()


def note_exact(config: Config, partner: Partner, run: str) -> None:
    """Reserve all that leaves exactly in a run; free where that was done before.

    Raises:
        LedgerError: if the ledger is damaged or cannot be written; nothing may then leave.
    """
    spends = _spends(config)
    if not spends or _key(config, partner, run) in _noted:
        return
    with Ledger.open(partner.ledger, partner.name) as ledger:
        for side, what in spends:
            here = part(config, side)
            ledger.reserve(
                Spend(
                    run=run,
                    # The division too: a partner that changed its file in a run has other sides.
                    release=f"{run}/{here}/exact",
                    segments=[EXACTLY],
                    delta=config.privacy.delta,
                    what=what,
                    part=here,
                ),
                None,
            )
    _noted.add(_key(config, partner, run))


def _spends(config: Config) -> list[tuple[str, str]]:
    """The side that each exact release touches, and what it is, in words."""
    spends = []
    if not config.private:
        spends.append((TRAIN, "training without privacy: updates leave without noise"))
    if not config.private_metrics:
        what = "exact metrics: validation counts and losses, and the number of training rows"
        spends.append((VALIDATION, what))
    return spends


def _key(config: Config, partner: Partner, run: str) -> tuple[object, ...]:
    inode = partner.ledger.stat().st_ino if partner.ledger.exists() else None
    sides = tuple(part(config, side) for side, _ in _spends(config))
    return (str(partner.ledger), inode, run, sides)
