"""`audit.jsonl`: a hash chain over everything that the run keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.config import Config
from results.audit import Audit
from results.schema import results_text
from server.callbacks.base import Callback, FinalModel, RoundResult
from server.checkpoint import Checkpoint


class AppendAuditLog(Callback):
    """Logs each event after the files that it speaks of are on disk, and before results.json is.

    So it comes behind the callbacks that write decisions, checkpoints and the model, and before the
    one that writes the results.
    """

    def __init__(self, directory: Path, config: Config) -> None:
        self.log = Audit(directory, config)
        self.final: FinalModel | None = None

    def training_starts(self, current: Checkpoint, partners: Sequence[str]) -> None:
        """Log who takes part and from which checkpoint."""
        self.log.started(current.run_id, current.round, partners)

    def round_completed(self, result: RoundResult) -> None:
        """Log the round's decisions and checkpoint."""
        self.log.round_ended(result.record.round)

    def training_ended(self, final: FinalModel) -> None:
        """Keep the measurements until the results are computed from them."""
        self.final = final

    def finished(self, results: dict[str, Any]) -> None:
        """Log the measurements, the model and the hash that results.json will have."""
        assert self.final is not None
        text, final = results_text(results), self.final
        self.log.finished(text, final.reports, final.test, final.history.cost)
