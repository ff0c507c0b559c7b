"""The configuration that a coordinator asks for, as a partner reads it."""

from __future__ import annotations

import re

from common.config import Config, from_json, validate
from common.config_reader import schema_keys
from common.errors import UserError
from common.refusals import Reason, Refused

# What a refusal may name.
KEYS = schema_keys(Config)


def checked(text: str) -> Config:
    """The config of a sender who need not be trusted, with ranges and combinations checked.

    Raises Refused, whose `key` is one of the schema's.
    """
    config = from_json(text)
    try:
        return validate(config)
    except UserError as error:
        raise Refused(Reason.SETTING, str(error), named_key(str(error))) from error


def named_key(message: str) -> str:
    """The key of the schema that an error message begins with, or nothing."""
    begins = re.match(r"[a-z_]+(\.[a-z_]+)*", message)
    return begins[0] if begins and begins[0] in KEYS else ""
