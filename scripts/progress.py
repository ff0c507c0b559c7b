"""The progress of a run in the terminal, and the table at its end."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from common.figures import ACCURACY
from common.tasks import TASKS
from results.history import RoundRecord
from scripts.console import PlainConsole
from server.callbacks import Callback

# The figures beside the accuracy, one for each task that has one.
HEADLINES = tuple(task.headline for task in TASKS.values() if task.headline is not None)
percent = ACCURACY.show


class Terminal(Callback):
    """Shows a bar for the current round, a line for each finished round, and the final table."""

    def __init__(self, console: PlainConsole, private: bool) -> None:
        self.console = console
        self.private = private
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("partners"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("starting workers", total=None, left="")
        self.rounds = 0
        self.first = 1
        self.began = 0.0

    def __enter__(self) -> Terminal:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def preparing(self, done: int, total: int) -> None:
        """Partners read their data and fill their caches."""
        self.progress.update(self.task, description="preparing", completed=done, total=total)

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """All partners are ready."""
        self.rounds, self.first, self.began = rounds, first_round, time.monotonic()
        self.progress.reset(self.task, total=len(partners), description=f"round {first_round}")
        self.console.print(f"{len(partners)} partners ready: {', '.join(partners)}")

    def replied(self, round_number: int, done: int, total: int) -> None:
        """One more partner of this round has answered."""
        self.progress.update(self.task, completed=done, total=total)

    def round_ended(self, record: RoundRecord) -> None:
        """Print one line about the round and estimate the remaining time."""
        spent = f"  ε {record.epsilon_max:.2f}" if self.private else ""
        refused = f"  refused {record.refused}" if record.refused else ""
        missing = f"  missing {record.missing}" if record.missing else ""
        found = "".join(
            f"  {figure.words} {figure.show(value)}"
            for figure in HEADLINES
            if (value := record.figures.get(figure.name)) is not None
        )
        self.console.print(
            f"round {record.round:>3}/{self.rounds}  accuracy {percent(record.accuracy)}{found}"
            f"{spent}  {record.seconds:.1f} s{refused}{missing}"
        )
        done = record.round - self.first + 1
        left = (time.monotonic() - self.began) / done * (self.rounds - record.round)
        following = record.round + 1
        self.progress.reset(
            self.task,
            description=f"round {following}" if following <= self.rounds else "final evaluation",
            left=f"about {left:.0f} s left",
        )

    def finished(self, results: dict[str, Any]) -> None:
        """The table at the end."""
        self.progress.stop()
        self.console.print(summary(results, self.private))


def noise(error: float | None) -> str:
    """The standard error of a share due to privacy noise, as text behind the share."""
    return f" (noise ±{100 * error:.1f})" if error else ""


def summary(results: dict[str, Any], private: bool) -> Table:
    """The table at the end of a run."""
    final, cost = results["final"], results["cost"]
    table = Table(title="Result", title_justify="left")
    table.add_column("partner", no_wrap=True)
    for name in ("accuracy", "ε spent", "weight", "refused"):
        table.add_column(name, justify="right")
    for name, row in final["partners"].items():
        table.add_row(
            name,
            percent(row["accuracy"]) + noise(row.get("accuracy_error")),
            f"{row['epsilon']:.2f}" if private else "none",
            percent(row["weight_share"]),
            str(row["refused_rounds"]),
        )
    table.add_section()
    table.add_row(
        "mean ± std of partners",
        f"{percent(final['mean_partner_accuracy'])} ± {percent(final['partner_accuracy_std'])}"
        + noise(final.get("mean_partner_accuracy_error")),
    )
    table.add_row(
        "worst partner",
        percent(final["worst_partner_accuracy"]) + noise(final.get("worst_partner_accuracy_error")),
    )
    where = "held-out test set" if final["data"]["measured_on"] == "test" else "validation rows"
    table.add_row(where, percent(final["accuracy"]) + noise(final.get("accuracy_error")))
    for name, row in final["groups"].items():
        table.add_row(f"  {name}", percent(row["accuracy"]) + noise(row.get("accuracy_error")))
    for figure in HEADLINES:
        if figure.name in final:
            worst = final[f"worst_partner_{figure.name}"]
            table.add_section()
            table.add_row(figure.words, figure.show(final[figure.name]))
            table.add_row(f"worst partner's {figure.words}", figure.show(worst))
    table.caption = (
        f"{cost['wall_seconds']:.0f} s, {cost['train_examples_per_second']:.0f} examples/s in "
        f"training, {cost['bytes_up_per_partner_round'] / 1e3:.0f} kB up per partner and round, "
        f"{cost['peak_rss_mb'] / 1e3:.1f} GB at the peak"
    )
    return table
