"""What a deployed partner answers after an error, and what its own log says about it."""

from __future__ import annotations

from common import errors
from common.errors import LocalError, UserError
from common.messages import MessageError
from common.refusals import Reason, Refused
from common.request import KEYS


def public_reason(error: Exception) -> str:
    """The sentence of the fixed list that may be sent for `error`.

    A function of the kind of the error alone, and of the name of a key of our own schema: its text
    is not looked at.
    """
    match error:
        case Refused():
            return error.reason.sentence(error.key if error.key in KEYS else "")
        case LocalError() | OSError():
            return Reason.OWN_FILES.sentence()
        case UserError():
            return Reason.OTHER.sentence()
        case MessageError():
            return Reason.MESSAGE.sentence()
        case _:
            return Reason.INTERNAL.sentence()


def described(error: Exception) -> str:
    """The error in one line, for the log of the machine's owner.

    An error of the system (a full disk) also gives its own words; any other unexpected error gives
    its type and place alone, because its text might quote an example.
    """
    if isinstance(error, MessageError):
        return str(error)
    if isinstance(error, UserError):
        return errors.described(error)
    cause = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return f"internal error at the partner: {errors.described(error)}{cause}"
