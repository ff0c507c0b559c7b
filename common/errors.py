"""The error that a user can mend."""

from __future__ import annotations

import os
import traceback


class UserError(Exception):
    """Input, configuration or environment is wrong, and the message says what to do.

    Commands print the message as one line and exit with code 2.  The message names the file, row,
    column, key or partner, and never the private text, label or group value itself.
    """


class LocalError(UserError):
    """A UserError whose message names files of this machine: for its owner, for nobody afar."""


def described(error: Exception) -> str:
    """One line: the message of a UserError; of any other its type and place alone.

    The text of another error might quote a row.
    """
    if isinstance(error, UserError):
        return " ".join(str(error).splitlines())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {os.path.basename(frame.filename)}:{frame.lineno}"
