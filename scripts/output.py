"""Output files that the user names."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError


def output_file(option: str, text: str | None) -> Path | None:
    """The absolute path of an output file, checked before the work begins.

    Args:
        option: The name of the option, for the error.
        text: The value of the option.

    Returns:
        The path; None where the option was not given.

    Raises:
        UserError: No file can be created there.
    """
    if text is None:
        return None
    path = Path(text).expanduser().absolute()
    if path.is_dir():
        raise UserError(f"{option}: {text} is a folder; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{option}: there is no folder {path.parent}; create it first")
    return path
