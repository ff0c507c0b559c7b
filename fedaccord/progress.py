"""A progress bar for notebooks and scripts."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from results.history import RoundRecord
from server.callbacks import Callback


class Progress(Callback):
    """One bar over all replies of a run, with the latest round's accuracy and ε.

    It is a bar of text: notebooks show it without further packages.

    Args:
        private: Whether the run has differential privacy.
    """

    def __init__(self, private: bool) -> None:
        self.private = private
        self.bar = tqdm(unit=" replies", file=sys.stdout, dynamic_ncols=True)
        self.bar.set_description("preparing")
        self.partners = 0

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """All partners are ready; sets the length of the bar."""
        self.partners = len(partners)
        self.bar.reset(total=self.partners * rounds)
        self._advance(first_round, 0)

    def replied(self, round_number: int, done: int, total: int) -> None:
        """Advance the bar; a round with a sample of the partners counts as a whole round."""
        self._advance(round_number, round(self.partners * done / total))

    def round_ended(self, record: RoundRecord) -> None:
        """Show the figures of the round."""
        self._advance(record.round, self.partners)
        figures = {} if record.accuracy is None else {"accuracy": f"{record.accuracy:.3f}"}
        if self.private:
            figures["ε"] = f"{record.epsilon_max:.2f}"
        self.bar.set_postfix(figures)

    def finished(self, results: dict[str, Any]) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()

    def _advance(self, round_number: int, done: int) -> None:
        self.bar.set_description(f"round {round_number}", refresh=False)
        self.bar.n = self.partners * (round_number - 1) + done
        self.bar.refresh()
