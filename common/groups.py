"""The key of one group's counts: a column and a value as one text that can be read back.

A key is ``column=value``.  In the column, ``%`` and ``=`` are written ``%25`` and ``%3D``, so the
first ``=`` of a key always ends the column, whatever columns and values are called.
"""

from __future__ import annotations


def group_key(column: str, value: str) -> str:
    """The key of the rows whose ``column`` has ``value``."""
    return f"{column.replace('%', '%25').replace('=', '%3D')}={value}"


def split_group_key(key: str) -> tuple[str, str]:
    """Column and value of a key: the inverse of ``group_key``."""
    column, _, value = key.partition("=")
    return column.replace("%3D", "=").replace("%25", "%"), value
