"""What a source yields: raw columns of some consecutive rows, and how their faults are named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.errors import UserError

BATCH_ROWS = 8192


@dataclass(frozen=True)
class Batch:
    """Consecutive data rows of one file, by column.

    Attributes:
        file: Where the rows come from, as messages name it.
        first_row: Number of the first row, counted from 1.
        columns: The mapped columns, one list of n raw values each.
        lines: Line of the file at which each row starts, where the format has lines that differ
            from rows.
    """

    file: str
    first_row: int
    columns: dict[str, list[object]]
    lines: Sequence[int] | None = None

    def place(self, index: int) -> str:
        """Where row ``index`` of the batch is, for messages."""
        line = f" (line {self.lines[index]})" if self.lines is not None else ""
        return f"{self.file}: row {self.first_row + index}{line}"

    def error(self, index: int, column: str, problem: str) -> UserError:
        """The error for one cell; ``problem`` must not contain the value."""
        return UserError(f"{self.place(index)}, column '{column}': {problem}")


def require_columns(file: str, wanted: Iterable[str], have: Sequence[str], hint: str = "") -> None:
    """Raise UserError naming the first wanted column that ``file`` lacks or has twice."""
    for name in wanted:
        if have.count(name) > 1:
            raise UserError(f"{file}: column '{name}' appears {have.count(name)} times")
        if name not in have:
            # In a file without a header the names are a record: do not repeat long ones.
            shown = ", ".join(n if len(n) <= 40 else "(a long name)" for n in have[:30])
            shown = shown.encode("ascii", "backslashreplace").decode()
            raise UserError(
                f"{file}: no column '{name}' (columns: {shown}): set data.columns{hint}"
            )
