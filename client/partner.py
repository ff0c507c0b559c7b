"""One partner: its name, its rows, its ledger, its policy.

In a deployment all of it comes from the partner's own machine (`client/deployed.py`), and the
coordinator's configuration is only a request.  In a simulation it follows from the configuration
(`simulation/partner.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from client.accounting import check_delta
from client.policy import Policy
from common.config import Config
from common.data.split import split_partner
from common.data.table import Table
from common.errors import UserError
from common.randomness import Streams, system_streams
from common.refusals import Reason, Refused


@dataclass(frozen=True)
class Partner:
    """What a message handler needs to know of the partner that it works for.

    `seed` is set only in a simulation, where `streams` repeat themselves.  A deployed partner's
    batches and noise come from the operating system.
    """

    name: str
    train: Table
    validation: Table
    directory: Path
    cache: Path
    policy: Policy
    seed: int | None
    streams: Streams = system_streams

    @property
    def ledger(self) -> Path:
        """The file of the privacy ledger of this partner's data set."""
        return self.directory / "ledger.sqlite"


def split_rows(rows: Table, config: Config) -> tuple[Table, Table]:
    """A partner's training and validation rows: disjoint, so that their privacy costs do not add
    up (parallel composition)."""
    parts = split_partner(rows, config.data.validation_fraction, config.split_seed)
    return rows.select(parts.train), rows.select(parts.validation)


def check_rows(name: str, rows: float, config: Config) -> None:
    """Refuse what cannot be trained privately, before anything is trained.

    The true number is named in the error only where metrics are exact; else `rows` is noisy.

    Raises UserError when a batch is larger than the data set or delta is not below 1/N.
    """
    if rows < config.train.batch_size:
        how_many = "too few" if config.private_metrics else f"{rows:.0f}"
        raise Refused(
            Reason.TOO_FEW_ROWS,
            f"partner {name}: has {how_many} training rows, fewer than train.batch_size="
            f"{config.train.batch_size}; lower train.batch_size or give it more rows",
            "train.batch_size",
        )
    if config.private:
        try:
            check_delta(config.privacy.delta, math.ceil(rows))
        except UserError as error:
            raise Refused(
                Reason.TOO_FEW_ROWS, f"partner {name}: {error}", "privacy.delta"
            ) from error


def group_values(table: Table) -> dict[str, np.ndarray]:
    """The group columns of a table, [n] of str each."""
    return {name: np.asarray(values, dtype=str) for name, values in table.groups.items()}
