"""Why a deployed partner refuses: a fixed list of reasons, so that a refusal carries nothing else.

A coordinator that may ask what it likes must not learn from the answers.  So a refusal that leaves
a partner is one sentence of `Reason`, and at most the name of a key of the configuration's own
schema: no value of the request, and nothing of the partner's files, environment, columns or ledger.
What exactly was wrong goes into the partner's own log.
"""

from __future__ import annotations

from enum import Enum

from common.errors import UserError


class Reason(Enum):
    """Every sentence that a deployed partner can refuse with."""

    UNREADABLE = "the configuration does not have the form that this version reads"
    SETTING = "the value, or its combination with other settings, is not valid"
    VERSION = "the coordinator runs another version of fedaccord; install the same on both sides"
    BUNDLE = "the coordinator's bundle is not that of a fedaccord run"
    MESSAGE = "the message does not have the agreed form"
    PARAMETERS = "the incoming parameters are not usable"
    ROUND = "the round is not one of the run's rounds"
    EXPIRED = "the message expired before it was answered"
    ATTACK = "attacks belong into simulations; this partner runs none"
    MODEL = "the model is not in the list of this partner's file"
    MODEL_PARTS = "no gradient reaches some part of the model that is to be trained"
    REVISION = "the revision is not the one that this partner's file names"
    OTHER_DATA = "the value differs from this partner's file"
    CLIPPING = "ghost clipping is for simulations only; use hooks, bookkeeping or auto"
    GROUP_VALUES = "this partner's file does not declare the values of its group columns"
    POLICY = "this partner's policy does not allow it"
    EXACT_METRICS = "this partner's policy allows noisy metrics only; use privacy.metrics=private"
    NOT_PRIVATE = "this partner's policy does not allow training without differential privacy"
    PERSONAL = "this partner's policy does not allow personal models, which are trained without it"
    BUDGET = "the run does not fit into what this partner's privacy budget has left"
    TOO_MUCH_NOISE = "the budget cannot be met with a useful amount of noise; ask for fewer steps"
    TOO_FEW_ROWS = "this partner has too few training rows for it"
    OWN_SETTINGS = "this partner has to look at its own log: its settings cannot be used"
    OWN_DATA = "this partner has to look at its own log: its data cannot be used"
    OWN_MODEL = "this partner has to look at its own log: its model cannot be used"
    OWN_FILES = "this partner has to look at its own log: its files cannot be used"
    OTHER = "this partner cannot do what was asked; its own log says why"
    INTERNAL = "internal error at the partner; its own log says where"

    def sentence(self, key: str = "") -> str:
        """The sentence, after the name of the key that it is about."""
        return f"{key}: {self.value}" if key else self.value


class Refused(UserError):
    """A UserError, with the sentence about it that may leave the partner.

    `str()` is for the owner of the machine: its log, its terminal, its own simulation.  The
    coordinator gets `sentence`.

    Args:
        reason: one of the fixed list.
        detail: what exactly is wrong, in one line; never sent.
        key: the name of a key of the configuration's schema, never one that a request made up.
    """

    def __init__(self, reason: Reason, detail: str, key: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.key = key

    @property
    def sentence(self) -> str:
        """What a deployed partner answers."""
        return self.reason.sentence(self.key)
