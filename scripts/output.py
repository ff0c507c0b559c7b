"""Files that a command writes where the user says."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError


def output_file(option: str, text: str | None) -> Path | None:
    """The absolute path that `option` names, None where it was not given.

    Raises UserError when no file can be made there: better before the work than after it.
    """
    if text is None:
        return None
    path = Path(text).expanduser().absolute()
    if path.is_dir():
        raise UserError(f"{option}: {text} is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{option}: there is no folder {path.parent}")
    return path
