"""How a deployed partner opens a session, and what it tells the coordinator about an error.

A deployed process serves one message.  Everything that is worth keeping is on its disk.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flwr.app import Context

from client.deployed import PARTNER_VARIABLE, open_partner
from client.refusal import described, public_reason
from client.session import Session, new_session, placed
from common.config import config_hash
from common.errors import UserError
from common.models.build import build
from common.printable import short_entry
from common.refusals import Reason, Refused
from common.request import checked

log = logging.getLogger(__name__)


def open_session(context: Context) -> Session:
    """The session of the partner whose file `FEDACCORD_PARTNER` names.

    The configuration in `context` is what the coordinator asks for, not what is done.

    Raises UserError when the request is wrong, or when this partner does not serve it.
    """
    if PARTNER_VARIABLE not in os.environ:
        raise Refused(
            Reason.OWN_SETTINGS,
            "this partner has no partner.yaml: start it with `fedaccord partner start`",
        )
    asked = checked(str(context.run_config.get("config", "")))
    config, partner = open_partner(Path(os.environ[PARTNER_VARIABLE]), asked)
    try:
        # Built with the seed of the run: adapters start from it, and must be the same everywhere.
        network = build(config.model, asked.outputs, asked.run.seed, asked.task)
    except UserError as error:
        raise Refused(Reason.OWN_MODEL, str(error)) from error
    return new_session(config, config_hash(config), partner, *placed(network, config))


def explain(error: Exception) -> str:
    """Log the whole reason here; return the sentence of `common.refusals` for the coordinator."""
    log.error("%s", short_entry(described(error)))
    return public_reason(error)
