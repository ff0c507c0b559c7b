"""A run's directory before the run: absolute paths, and the right to write there."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.config import Config, config_hash, validate
from common.config_file import NAME, read_config, write_config
from common.data.sources import source_of
from common.errors import UserError
from common.files import default_cache

RESULTS = "results.json"


def settle(config: Config, directory: Path) -> Config:
    """The config with its run directory, and with absolute paths.

    Workers have another working directory, so no path may be relative.

    Args:
        config: A composed configuration.
        directory: The run directory.
    """
    cache = Path(config.run.cache_dir or default_cache()).expanduser().absolute()
    run = replace(config.run, dir=str(directory.expanduser().absolute()), cache_dir=str(cache))
    data, model = config.data, config.model
    for key in source_of(data).local_paths(data):
        if value := getattr(data, key):
            changed: dict[str, Any] = {key: _absolute(value)}
            data = replace(data, **changed)
    if os.path.isdir(_absolute(model.base)):
        model = replace(model, base=_absolute(model.base))
    return replace(config, run=run, data=data, model=model)


def refuse_finished(directory: Path) -> None:
    """Do nothing unless the directory holds a finished run.

    Raises:
        UserError: It does.
    """
    if (directory / RESULTS).exists():
        raise UserError(f"run.dir: {directory} holds a finished run; choose a new folder")


def claim(directory: Path, config: Config) -> None:
    """Make `directory` this run's own and write its configuration there.

    Args:
        directory: The run directory; it may be missing, empty, or this very run's.
        config: The run's whole configuration.

    Raises:
        UserError: The directory cannot be written or holds something else.
    """
    path = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists() and any(directory.iterdir()):
            raise UserError(f"run.dir: {directory} holds other files; choose a new folder")
        if (directory / "checkpoints").exists() and not _same_run(path, config):
            raise UserError(
                f"run.dir: {directory} holds the checkpoints of another configuration; choose a "
                "new folder, or continue that run with run.resume"
            )
        write_config(config, path)
    except OSError as error:
        raise UserError(f"run.dir: {directory} cannot be used: {error.strerror}") from error


def _same_run(path: Path, config: Config) -> bool:
    return config_hash(validate(read_config(path))) == config_hash(config)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
