"""Which rows of one table belong to which simulated partner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PartnerShare:
    """A partner's stable, file-safe name and the ascending positions of its rows in the table."""

    name: str
    indices: NDArray[np.int64]
