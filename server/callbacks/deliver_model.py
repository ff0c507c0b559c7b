"""`model/`: the trained model with its card."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from common.config import Config
from common.errors import described
from common.files import write_atomic
from common.models.export import export
from reporting.card import model_card
from server.callbacks.base import Callback, FinalModel

log = logging.getLogger(__name__)


class DeliverModel(Callback):
    """Writes a folder that transformers loads, and the card of the Hugging Face hub."""

    def __init__(self, folder: Path, config: Config, simulated: bool) -> None:
        self.folder = folder
        self.config = config
        self.simulated = simulated

    def training_ended(self, final: FinalModel) -> None:
        """Write the model."""
        export(final.arrays, self.config, self.folder)

    def finished(self, results: dict[str, Any]) -> None:
        """Write the card; a run that has its model does not fail for the lack of one."""
        try:
            card = model_card(self.config, results, self.simulated)
            write_atomic(self.folder / "README.md", card)
        except Exception as error:
            log.warning("model/README.md: the model card was not written (%s)", described(error))
