"""What the server does with a finished run, when part of it fails."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from common.config_file import write_config
from reporting.run import NAME
from server.callbacks.deliver_model import DeliverModel
from server.callbacks.draw_report import DrawReport
from tests.server.scripted import config, honest, server

SCRIPT = {name: honest(name) for name in "abc"}


def test_a_report_that_cannot_be_drawn_is_a_warning_and_the_run_is_finished(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(tmp_path)
    write_config(settings, tmp_path / "config.yaml")
    (tmp_path / NAME).mkdir()
    with caplog.at_level(logging.WARNING):
        results = server(settings, SCRIPT, [DrawReport(tmp_path)]).run()
    assert len(results["rounds"]) == 3
    assert (tmp_path / "results.json").exists()
    (warning,) = caplog.messages
    assert warning.startswith("report.html: the report was not drawn (IsADirectoryError at ")
    assert warning.endswith(f"draw it again with: fedaccord report {tmp_path}")


def test_a_report_is_drawn_again_when_what_was_in_its_way_is_gone(tmp_path: Path) -> None:
    settings = config(tmp_path)
    write_config(settings, tmp_path / "config.yaml")
    server(settings, SCRIPT, [DrawReport(tmp_path)]).run()
    assert "fedaccord report: 3 partners" in (tmp_path / NAME).read_text()


def test_a_card_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = config(tmp_path)
    results = server(settings, SCRIPT).run()
    with caplog.at_level(logging.WARNING):
        DeliverModel(tmp_path / "nowhere", settings, simulated=False).finished(results)
    (warning,) = caplog.messages
    assert warning.startswith("model/README.md: the model card was not written (FileNotFoundError")
