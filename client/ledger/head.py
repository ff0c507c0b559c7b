"""The head file beside a ledger: the number of rows and the last hash.

A chain of hashes alone cannot show that its tail was cut off; the head file can.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from common.files import canonical_json


def head_path(path: Path) -> Path:
    """The head file of the ledger at `path`: for ``x.db`` it is ``x.db.head``."""
    return path.with_name(path.name + ".head")


def head_text(rows: int, last: str) -> str:
    """The content of the head file of a chain of `rows` rows, the last of which has hash `last`."""
    return canonical_json({"rows": rows, "hash": last})


def stored_head(path: Path) -> str | None:
    """The content of the head file of the ledger at `path`; None where there is none."""
    try:
        return head_path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def head_problems(head: Path, hashes: Sequence[str]) -> list[str]:
    """Whether the head file is the chain's last row or an earlier one (a crash before it moved)."""
    try:
        stored = json.loads(head.read_text(encoding="utf-8"))
        rows, last = int(stored["rows"]), str(stored["hash"])
    except FileNotFoundError:
        # Between the genesis and its first head there is nothing to lose yet.
        return [] if len(hashes) <= 1 else [f"the head file {head.name} is missing"]
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError, RecursionError):
        return [f"the head file {head.name} cannot be read"]
    if rows > len(hashes):
        return [f"the tail is cut off: {rows} rows were written, {len(hashes)} are left"]
    if rows < 1 or hashes[rows - 1] != last:
        return [f"row {max(rows, 1) - 1} is not the one that the head file {head.name} names"]
    return []
