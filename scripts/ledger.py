"""``fedaccord ledger show PATH`` and ``fedaccord ledger verify PATH``."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from client import ledger, lifetime
from client.accounting import Budget, epsilon
from scripts.console import PlainConsole


def show(path: Path | str) -> int:
    """Print what is spent and left, per run, in words; exit code 0.

    Raises:
        UserError: if there is no such ledger or it is damaged.
    """
    console = PlainConsole(soft_wrap=True)
    entries = ledger.read(path)
    reserved = ledger.reservations(entries)
    console.print(f"Data set {_plain(repr(entries[0].body['dataset']))}, {len(entries)} rows.")
    if not reserved:
        console.print("Nothing has been spent yet.")
    else:
        budget, delta = _last_cap(entries)
        for line in _spent(entries, delta):
            console.print(line)
        console.print(_left(entries, reserved, budget))
        console.print(_runs(reserved, entries, delta))
        for entry, _ in reserved:
            if entry.exact:
                run, what = _plain(str(entry.body["run"])), _plain(str(entry.body["what"]))
                console.print(f"Left without noise in run {run}: {what}.")
        waiting = sum(not committed and not entry.exact for entry, committed in reserved)
        if waiting:
            console.print(
                f"{waiting} spends were reserved and never confirmed (a run was interrupted or is "
                "still going on); they count as spent."
            )
    refusals = [entry for entry in entries if entry.kind == "refuse"]
    for withheld, words in (
        (False, "requests were refused"),
        (True, "times metrics were withheld, and the rest of the message was answered"),
    ):
        if rows := [entry for entry in refusals if entry.withheld == withheld]:
            last = _plain(rows[-1].body["reason"])
            console.print(f"{len(rows)} {words}; the last because: {last}.")
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


def _spent(entries: list[ledger.Entry], delta: float) -> list[str]:
    """What is spent in all, and, where the sides are apart, on each of them."""
    total = ledger.total(entries, delta)
    lines = [
        f"Spent: epsilon {total.value:.4g} at delta {delta:g} ({total.accountant.upper()})."
        + (f" {_plain(total.note)}." if total.note else "")
    ]
    parts = ledger.compositions(entries)
    sides = {
        part.partition("/")[2]: epsilon(spends, delta) for part, spends in parts.items() if part
    }
    for side in sorted(sides):
        lines.append(f"  {_plain(side)} records: epsilon {sides[side].value:.4g}")
    divisions = {str(e.body.get("part", "")).partition("/")[0] for e in entries} - {""}
    if len(divisions) > 1:
        lines.append(
            f"  Rows were divided in {len(divisions)} ways, so a record may have been on either "
            "side: all spends are added up."
        )
    return lines


def _left(
    entries: list[ledger.Entry],
    reserved: list[tuple[ledger.Entry, bool]],
    budget: Budget | None,
) -> str:
    """What the limit of the last request leaves to the part of the records with the least left."""
    if budget is None:
        return "No limit was set when the last spend was reserved."
    spends = [
        (str(entry.body["run"]), str(entry.body.get("part", "")))
        for entry in {entry.body.get("part", ""): entry for entry, _ in reserved}.values()
    ]
    most = max(
        lifetime.counted(
            ledger.composed_with(entries, part),
            budget,
            planned=ledger.is_planned(entries, run, part),
        )
        for run, part in spends
    )
    return (
        f"Left: epsilon {max(budget.epsilon - most, 0.0):.4g} of {budget.epsilon:.4g} (the limit "
        f"of the last request, against which {most:.4g} counts)."
    )


def _last_cap(entries: list[ledger.Entry]) -> tuple[Budget | None, float]:
    """The limit that the last request came under, and the delta to report at."""
    requests = [e for e in entries if e.kind in ("reserve", "refuse")]
    limited = [e for e in requests if e.body["cap"] is not None]
    if not limited:
        return None, float(requests[-1].body["delta"])
    last = limited[-1]
    budget = Budget(*last.body["cap"])
    return budget, budget.delta


def _runs(
    reserved: list[tuple[ledger.Entry, bool]], entries: list[ledger.Entry], delta: float
) -> Table:
    table = Table("run", "releases", "confirmed", "epsilon alone", "first", "last")
    for run in dict.fromkeys(str(entry.body["run"]) for entry, _ in reserved):
        of_run = [(entry, done) for entry, done in reserved if entry.body["run"] == run]
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
