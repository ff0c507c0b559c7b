"""`config.yaml` of a run directory, which somebody else may have written."""

from __future__ import annotations

from pathlib import Path

import yaml

from common.config import Config, from_mapping, to_mapping
from common.config_reader import MAX_TEXT, parse_yaml
from common.errors import UserError
from common.files import write_atomic

NAME = "config.yaml"
MAX_BYTES = 4 * MAX_TEXT


def write_config(config: Config, path: Path) -> None:
    """Write the configuration as YAML; text is quoted where YAML would read it as another type."""
    text = yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True)
    write_atomic(path, text)


def read_config(path: Path) -> Config:
    """Read what `write_config` wrote.

    Raises:
        UserError: naming the file, and the key where one is wrong.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({type(error).__name__})") from error
    try:
        return from_mapping(parse_yaml(text))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
