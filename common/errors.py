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
    """The error in one line.

    A UserError gives its message.  Any other error gives its type and the line of code that raised
    it, because its text might quote an example.
    """
    if isinstance(error, UserError):
        return " ".join(str(error).splitlines())
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {where}"
