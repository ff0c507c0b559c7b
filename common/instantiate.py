"""Builds objects from settings: the only place that turns `_target_` into code.

The classes come from packages that the caller names.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from common.errors import UserError


def instantiate(config: Any, key: str, under: str) -> Any:
    """The object that `config` describes.

    Args:
        config: a mapping of `_target_`, the full name of a dataclass, and its settings.
        key: the key of `config`, for messages.
        under: the only package from which classes may come, with a dot at the end.

    Raises:
        UserError: one line that names the key, when the class or a setting is wrong.
    """
    if not isinstance(config, Mapping):
        raise UserError(f"{key}: must be a mapping with _target_, got {config!r}")
    target = config.get("_target_")
    kind = _resolve(target, f"{key}._target_", under)
    known = [f.name for f in dataclasses.fields(kind) if f.init]
    settings = {str(k): _plain(v) for k, v in config.items() if k != "_target_"}
    for name in settings:
        if name not in known:
            choices = f"use one of {', '.join(known)}" if known else "it has no settings; remove it"
            raise UserError(f"{key}.{name}: is not a setting of {kind.__name__}; {choices}")
    for f in dataclasses.fields(kind):
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if f.init and required and f.name not in settings:
            raise UserError(f"{key}.{f.name}: is missing; set it")
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
        raise UserError(f"{key}: there is no class {target}") from error
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise UserError(f"{key}: {target} is not a stage")
    return kind


def _plain(value: Any) -> Any:
    """Sequences as tuples, which are hashable; other values unchanged."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple(_plain(item) for item in value)
    return value
