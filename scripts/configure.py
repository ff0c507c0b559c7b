"""From the overrides of a command to the configuration of a new or a resumed run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from common.config import Config
from common.errors import UserError
from results.run_directory import settle
from scripts.compose import compose_config, load_config


def configure(overrides: Sequence[str]) -> Config:
    """Compose the configuration of a new run, or read that of the run to be resumed.

    Args:
        overrides: Hydra overrides; `run.resume=DIRECTORY` excludes all others.

    Returns:
        The configuration, with absolute paths.

    Raises:
        UserError: An override is wrong, or there is no run to be resumed.
    """
    given = [o for o in overrides if o.lstrip("+").startswith("run.resume=")]
    resume = given[-1].partition("=")[2] if given else ""
    if resume not in ("", "null"):
        return _resumed(resume, [o for o in overrides if o not in given])
    config = compose_config(overrides)
    now = datetime.now()
    dated = Path("outputs") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}"
    return settle(config, Path(config.run.dir or dated))


def _resumed(resume: str, others: Sequence[str]) -> Config:
    if others:
        raise UserError(f"run.resume: a resumed run keeps its configuration; remove {others[0]}")
    directory = Path(resume).expanduser().absolute()
    if not directory.is_dir():
        raise UserError(f"run.resume: there is no directory {resume}; check the path")
    config = load_config(directory / "config.yaml")
    return replace(config, run=replace(config.run, dir=str(directory)))
