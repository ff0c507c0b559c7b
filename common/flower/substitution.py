"""Replace a name of Flower, and notice when a new version does not have it any more."""

from __future__ import annotations

from typing import Any


def substitute(owner: Any, name: str, value: object) -> None:
    """Set `owner.name`, which must exist, to `value`.

    Args:
        owner: a module or a class of Flower.

    Raises:
        RuntimeError: this version of Flower has no such name.  What was to be guarded would then
            not be.
    """
    if not hasattr(owner, name):
        raise RuntimeError(f"this version of Flower has no {owner.__name__}.{name}")
    setattr(owner, name, value)
