"""The configuration that a coordinator sends, as a partner reads it."""

from __future__ import annotations

import re

from common.config import Config, from_json, validate
from common.config_reader import schema_keys
from common.errors import UserError
from common.refusals import Reason, Refused

# The only keys that a refusal may name.
KEYS = schema_keys(Config)


def checked(text: str) -> Config:
    """The configuration of a sender who need not be trusted, completely validated.

    Raises:
        Refused: whose `key` is one of `KEYS` or empty.
    """
    config = from_json(text)
    try:
        return validate(config)
    except UserError as error:
        raise Refused(Reason.SETTING, str(error), named_key(str(error))) from error


def named_key(message: str) -> str:
    """The key of the schema with which an error message begins; empty where there is none."""
    start = re.match(r"[a-z_]+(\.[a-z_]+)*", message)
    return start[0] if start and start[0] in KEYS else ""
