"""``fedaccord ledger show PATH`` and ``fedaccord ledger verify PATH``."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from client import ledger
from client.accounting import Budget
from scripts.console import PlainConsole


def show(path: Path | str) -> int:
    """Print what is spent and left, per run, in words; exit code 0.

    Raises:
        UserError: if there is no such ledger or it is damaged.
    """
    console = PlainConsole(soft_wrap=True)
    entries = ledger.read(path)
    held = ledger.reservations(entries)
    console.print(f"Data set {_plain(repr(entries[0].body['dataset']))}, {len(entries)} rows.")
    if not held:
        console.print("Nothing has been spent yet.")
    else:
        budget, delta = _last_cap(entries)
        total = ledger.total(entries, delta)
        console.print(
            f"Spent: epsilon {total.value:.4g} at delta {delta:g} ({total.accountant.upper()})."
            + (f" {_plain(total.note)}." if total.note else "")
        )
        if budget is None:
            console.print("No limit was set when the last spend was reserved.")
        else:
            left = max(budget.epsilon - total.value, 0.0)
            console.print(
                f"Left: epsilon {left:.4g} of {budget.epsilon:.4g} (the limit of the last request)."
            )
        console.print(_runs(held, entries, delta))
        waiting = sum(not committed for _, committed in held)
        if waiting:
            console.print(
                f"{waiting} spends were reserved and never confirmed (a run was interrupted or is "
                "still going on); they count as spent."
            )
    refusals = [entry for entry in entries if entry.kind == "refuse"]
    if refusals:
        last = _plain(refusals[-1].body["reason"])
        console.print(f"{len(refusals)} requests were refused; the last because: {last}.")
    console.print(f"Last hash (keep a copy elsewhere): {len(entries)} {entries[-1].hash}")
    return 0


def verify(path: Path | str) -> int:
    """Print every problem of the ledger; exit code 0 if there is none, else 1.

    Raises:
        UserError: if there is no such ledger.
    """
    console = PlainConsole(soft_wrap=True)
    problems = ledger.verify(path)
    for problem in problems:
        console.print(Text.assemble(("damaged", "red"), f": {_plain(problem)}"))
    if not problems:
        entries = ledger.read(path)
        console.print(
            f"The ledger is whole: {len(entries)} rows, last hash {entries[-1].hash}. "
            "Compare the hash with a copy kept elsewhere to rule out that all of it was replaced."
        )
    return 1 if problems else 0


def _plain(text: str) -> str:
    """Text for the terminal: the names of runs come from a coordinator, who may try to steer it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _last_cap(entries: list[ledger.Entry]) -> tuple[Budget | None, float]:
    """The limit that the last request came under, and the delta to report at."""
    last = [e for e in entries if e.kind in ("reserve", "refuse")][-1]
    if last.body["cap"] is None:
        return None, float(last.body["delta"])
    budget = Budget(*last.body["cap"])
    return budget, budget.delta


def _runs(
    held: list[tuple[ledger.Entry, bool]], entries: list[ledger.Entry], delta: float
) -> Table:
    table = Table("run", "releases", "confirmed", "epsilon alone", "first", "last")
    for run in dict.fromkeys(str(entry.body["run"]) for entry, _ in held):
        of_run = [(entry, done) for entry, done in held if entry.body["run"] == run]
        table.add_row(
            _plain(run),
            str(len(of_run)),
            str(sum(done for _, done in of_run)),
            f"{ledger.total(entries, delta, run).value:.4g}",
            str(of_run[0][0].body["time"]),
            str(of_run[-1][0].body["time"]),
        )
    return table


def main(action: str, path: Path | str) -> int:
    """Run ``show`` or ``verify``."""
    return show(path) if action == "show" else verify(path)
