"""Reads a configuration that somebody else wrote: as data, never as a program.

Nothing in the text is looked up, resolved, imported or opened: no interpolation, no environment, no
file.  `${name}` in a value is text like any other.  The types of the dataclasses decide which value
a key may have.  The size of the text, its depth, the number of its values and the length of each
are bounded.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from common.printable import short_entry
from common.refusals import Reason, Refused
from common.renamed import RENAMED, renamed
from common.strict_yaml import RepeatedKeyError, StrictLoader

MAX_TEXT = 1 << 20  # characters of a whole configuration
MAX_DEPTH = 16  # mappings and lists within each other
MAX_VALUES = 100_000  # values of every kind together
MAX_STRING = 1 << 16  # characters of one value
MAX_NAME = 500  # characters of one key
MAX_INTEGER = 2**63 - 1

Read = TypeVar("Read")


def read(kind: type[Read], tree: object, where: str = "") -> Read:
    """The dataclass `kind` from mappings, lists and plain values.

    Missing keys get their defaults.  An integer is accepted where a float is expected; nothing else
    is converted.

    Args:
        kind: a dataclass.
        tree: what `parse_json` or `parse_yaml` returned.
        where: the key of `tree` itself, for messages.

    Raises:
        Refused: naming the key, when a key is unknown, a value has another type or is not finite,
            or a bound is exceeded.
    """
    _check_bounds(tree)
    return cast(Read, _value(kind, tree, where, where))


def parse_json(text: str) -> object:
    """The value of a JSON text.

    Raises:
        Refused: when the text is not JSON, contains a key twice or NaN, or is too long or too deep.
    """
    _check_length(text)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"config: is not JSON ({type(error).__name__})") from error


def parse_yaml(text: str) -> object:
    """The value of a YAML text of plain values.

    Raises:
        Refused: when the text is not YAML, contains a key twice, or is too long or too deep.
    """
    _check_length(text)
    try:
        return yaml.load(text, Loader=StrictLoader)
    except RepeatedKeyError as error:
        raise _unreadable(f"config: {short_entry(str(error))} is given twice") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(f"config: is not YAML ({type(error).__name__})") from error


def schema_keys(kind: type, prefix: str = "") -> frozenset[str]:
    """All keys of a dataclass and of the dataclasses within it, such as `model.lora.r`."""
    keys: set[str] = set()
    for name, inner in _hints(kind).items():
        keys.add(f"{prefix}{name}")
        if is_dataclass(inner):
            keys |= schema_keys(cast(type, inner), f"{prefix}{name}.")
    return frozenset(keys)


def _unreadable(detail: str, key: str = "") -> Refused:
    return Refused(Reason.UNREADABLE, detail, key)


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise _unreadable(f"config: is longer than {MAX_TEXT} characters")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise _unreadable("config: a key is given twice")
    return mapping


def _no_number(name: str) -> NoReturn:
    raise _unreadable(f"config: contains {name}, which is not a finite number")


def _check_bounds(tree: object) -> None:
    """Refuse a tree that is too deep or too large; a shared branch counts wherever it occurs."""
    level: list[object] = [tree]
    values = 1
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for value in level:
            if isinstance(value, (dict, list)):
                values += len(value)
                if values > MAX_VALUES:
                    raise _unreadable(f"config: contains more than {MAX_VALUES} values")
                below += value.values() if isinstance(value, dict) else value
        if not below:
            return
        level = below
    raise _unreadable(f"config: is nested more than {MAX_DEPTH} deep")


@lru_cache(maxsize=64)
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _value(kind: Any, value: object, where: str, key: str) -> object:
    """`value` as `kind`.

    `where` is its key as it was written, which may contain names that the request made up; `key`
    contains names of the schema only.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        (kind,) = (each for each in inner if each is not NoneType)
        return _value(kind, value, where, key)
    if is_dataclass(kind):
        return _dataclass(cast(type, kind), value, where, key)
    if origin is list:
        return [
            _value(inner[0], item, f"{where}[{place}]", key)
            for place, item in enumerate(_of(list, value, "a list", where, key))
        ]
    if origin is dict:
        mapping = _mapping(value, where, key)
        return {name: _value(inner[1], item, f"{where}.{name}", key) for name, item in mapping}
    if kind is Any:
        return _any(value, where, key)
    return _scalar(kind, value, where, key)


def _dataclass(kind: type, value: object, where: str, key: str) -> object:
    hints = _hints(kind)
    given: dict[str, object] = {}
    for name, item in _mapping(value, where, key):
        full, schema = (f"{prefix}.{name}".lstrip(".") for prefix in (where, key))
        if name not in hints:
            if (answer := renamed(schema)) is not None:
                raise _unreadable(answer, RENAMED[schema])
            raise _unreadable(f"{short_entry(full)}: there is no such key", key)
        given[name] = _value(hints[name], item, full, schema)
    return kind(**given)


def _mapping(value: object, where: str, key: str) -> list[tuple[str, object]]:
    mapping = _of(dict, value, "keys and values", where, key)
    if any(type(name) is not str or len(name) > MAX_NAME for name in mapping):
        raise _wrong(f"keys of text, of at most {MAX_NAME} characters", where, key)
    return [(_text(name, where, key), item) for name, item in mapping.items()]


def _any(value: object, where: str, key: str) -> object:
    """A plain value of any kind, copied."""
    if isinstance(value, dict):
        return {
            name: _any(item, f"{where}.{name}", key) for name, item in _mapping(value, where, key)
        }
    if isinstance(value, list):
        return [_any(item, f"{where}[{place}]", key) for place, item in enumerate(value)]
    if value is None:
        return None
    if type(value) not in (bool, int, float, str):
        raise _wrong("a plain value", where, key)
    return _scalar(type(value), value, where, key)


def _scalar(kind: Any, value: object, where: str, key: str) -> object:
    if kind is bool:
        return _of(bool, value, "true or false", where, key)
    if kind is str:
        return _text(_of(str, value, "a text; put it in quotes", where, key), where, key)
    wanted = "a whole number" if kind is int else "a finite number"
    if type(value) is float and kind is float and math.isfinite(value):
        return value
    number = _of(int, value, wanted, where, key)
    if abs(number) > MAX_INTEGER:
        raise _wrong(f"{wanted} of at most {MAX_INTEGER}", where, key)
    return float(number) if kind is float else number


def _text(value: str, where: str, key: str) -> str:
    if len(value) > MAX_STRING:
        raise _wrong(f"at most {MAX_STRING} characters long", where, key)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong("text that can be written in UTF-8", where, key) from error
    return value


def _of(kind: type[Read], value: object, wanted: str, where: str, key: str) -> Read:
    # Not isinstance: True is an int to Python.
    if type(value) is not kind:
        raise _wrong(wanted, where, key)
    return value


def _wrong(wanted: str, where: str, key: str) -> Refused:
    return _unreadable(f"{short_entry(where) or 'config'}: must be {wanted}", key)
