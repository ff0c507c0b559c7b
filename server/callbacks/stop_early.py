"""Early stopping."""

from __future__ import annotations

from server.callbacks.base import Callback
from server.checkpoint import Checkpoint


class StopEarly(Callback):
    """Ends training after `patience` rounds without a better validation loss; 0 never does."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def should_stop(self, current: Checkpoint) -> bool:
        """Whether the loss has been stale for long enough."""
        return 0 < self.patience <= current.stale_rounds
