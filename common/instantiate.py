"""Settings to objects: the one place that turns `_target_` into code, from named packages only."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import UserError


def instantiate(config: Any, key: str, under: str) -> Any:
    """The object that ``config`` (``_target_`` and settings) describes.

    Args:
        key: where it stands, for messages.
        under: the only package that targets may come from, with a dot at the end.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"{key}: must be a table with _target_, got {config!r}")
    target = config.get("_target_")
    kind = _resolve(target, f"{key}._target_", under)
    known = [f.name for f in dataclasses.fields(kind) if f.init]
    settings = {str(k): _plain(v) for k, v in config.items() if k != "_target_"}
    for name in settings:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes no settings"
            raise UserError(f"{key}.{name}: unknown setting of {kind.__name__}; {takes}")
    for f in dataclasses.fields(kind):
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if f.init and required and f.name not in settings:
            raise UserError(f"{key}.{f.name}: is missing")
    try:
        return kind(**settings)
    except (ValueError, TypeError) as error:
        raise UserError(f"{key}.{error}") from error


def _resolve(target: Any, key: str, under: str) -> type:
    if not isinstance(target, str) or not target.startswith(under) or target.count("..") > 0:
        raise UserError(f"{key}: must name a class under {under.rstrip('.')}, got {target!r}")
    module, _, name = target.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{key}: there is no {target}") from error
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UserError(f"{key}: {target} is not a stage")
    return kind


def _plain(value: Any) -> Any:
    """Lists as tuples, so that settings stay hashable; other values as they are."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple(_plain(item) for item in value)
    return value
