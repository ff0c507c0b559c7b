"""Keys of earlier versions of the configuration, and what they are called now."""

from __future__ import annotations

RENAMED = {
    "privacy.clip": "privacy.max_grad_norm",
    "privacy.normalize": "privacy.clipping",
    "train.batch": "train.batch_size",
    "train.proximal": "train.prox_mu",
    "train.personal": "train.ditto_lambda",
    "train.upload": "train.compression",
}
# Where the values have other names as well.
_VALUES = {"privacy.normalize": "flat is now abadi, auto_s is now automatic"}


def renamed(key: str) -> str | None:
    """One line that answers an old key, such as "train.batch is now train.batch_size".

    Returns:
        None where `key` is not the name of an earlier version.
    """
    if key not in RENAMED:
        return None
    values = f"; {_VALUES[key]}" if key in _VALUES else ""
    return f"{key} is now {RENAMED[key]}{values}"
