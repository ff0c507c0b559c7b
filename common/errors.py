"""The error that a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Input, configuration or environment is wrong, and the message says what to do.

    Commands print the message as one line and exit with code 2.  The message names the file, row,
    column, key or partner, and never the private text, label or group value itself.
    """


class LocalError(UserError):
    """A UserError whose message names files of this machine: for its owner, for nobody afar."""
