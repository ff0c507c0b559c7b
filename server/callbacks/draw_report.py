"""`report.html`: the finished run on one page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from common.errors import described
from reporting.run import NAME, write_report
from server.callbacks.base import Callback

log = logging.getLogger(__name__)


class DrawReport(Callback):
    """Draws the report from the files of the run directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def finished(self, results: dict[str, Any]) -> None:
        """Draw the report; the run is finished without it, and it can be drawn again."""
        try:
            write_report(self.directory)
        except Exception as error:
            log.warning(
                "%s: the report was not drawn (%s); draw it again with: fedaccord report %s",
                NAME,
                described(error),
                self.directory,
            )
