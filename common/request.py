"""The configuration that a coordinator sends, as a partner reads it."""

from __future__ import annotations

import re

from common.config import Config, from_json, validate
from common.config_reader import schema_keys
from common.errors import UserError
from common.refusals import Reason, Refused

# The only keys that a refusal may name.
KEYS = schema_keys(Config)
# What no useful run comes near.  Beyond it a request would only keep a partner busy: every step is
# drawn before the first is taken, and every round is accounted for before the first begins.
LARGEST = {"run.rounds": 100_000, "train.local_steps": 10_000, "train.batch_size": 1_000_000_000}


def checked(text: str) -> Config:
    """The configuration of a sender who need not be trusted, completely validated.

    Raises:
        Refused: whose `key` is one of `KEYS` or empty.
    """
    config = from_json(text)
    for key, most in LARGEST.items():
        section, name = key.split(".")
        if getattr(getattr(config, section), name) > most:
            raise Refused(Reason.SETTING, f"{key}: is above {most}; ask for less", key)
    try:
        return validate(config)
    except UserError as error:
        raise Refused(Reason.SETTING, str(error), named_key(str(error))) from error


def named_key(message: str) -> str:
    """The key of the schema with which an error message begins; empty where there is none."""
    start = re.match(r"[a-z_]+(\.[a-z_]+)*", message)
    return start[0] if start and start[0] in KEYS else ""
