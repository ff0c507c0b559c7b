"""What a deployed partner tells of an error, and what its own log says of it."""

from __future__ import annotations

import os
import traceback

from common.errors import LocalError, UserError
from common.messages import MessageError
from common.refusals import Reason, Refused
from common.request import KEYS


def told(error: Exception) -> str:
    """The sentence of the fixed list that may be sent for `error`.

    A function of the kind of the error alone, and of the name of a key of our own schema: its text
    is not looked at.
    """
    match error:
        case Refused():
            return error.reason.told(error.key if error.key in KEYS else "")
        case LocalError() | OSError():
            return Reason.OWN_FILES.told()
        case UserError():
            return Reason.OTHER.told()
        case MessageError():
            return Reason.MESSAGE.told()
        case _:
            return Reason.INTERNAL.told()


def described(error: Exception) -> str:
    """`error` for the owner of this machine, in one line.

    Of an unexpected error type and place, and of the system's errors (a full disk) also what: the
    text of another might quote a row.
    """
    if isinstance(error, UserError | MessageError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
    said = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return f"internal error at the partner: {type(error).__name__}{said} at {where}"
