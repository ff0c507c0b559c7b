"""Words that a malicious partner invents, on their way to the coordinator's terminal and pages."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from common.config import Config
from common.messages import Report
from reporting.card import model_card
from reporting.page import element
from results.history import History, RoundRecord, rounds_csv
from results.schema import results
from scripts.console import PlainConsole
from scripts.progress import Terminal, summary

WORDS = [
    "[/bold]",
    "[bold",
    "[link=https://example.org]north[/link]",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m",
    "north\u202egnp.exe",
    "ok\n2026-01-01 INFO all is well",
    ":smile: \ud800",
    '=HYPERLINK("https://example.org")',
    "![x](https://example.org/x.png) <img src=x> `a` | b",
]


def shown(*printed: object) -> str:
    console = PlainConsole(file=io.StringIO(), width=400, force_terminal=True, color_system=None)
    for each in printed:
        console.print(each)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def harmless(text: str) -> bool:
    return all(c == "\n" or c.isprintable() for c in text)


@pytest.mark.parametrize("word", WORDS)
def test_the_console_prints_text_and_obeys_nothing(word: str) -> None:
    table = Table(word, title=word, caption=word)
    table.add_row(word)
    found = shown(word, table, Text(word))
    assert harmless(found)
    # Letter by letter what the partner wrote, markup and emoji codes included.
    assert word[:5].split("\x1b")[0].split("\n")[0].split("\x9b")[0] in found


@pytest.mark.parametrize("word", WORDS)
def test_the_table_at_the_end_of_a_run_stands_any_name(word: str) -> None:
    """`[/bold]` ended `fedaccord submit` after the last round."""
    report = Report(
        word, [[9.0, 1.0], [1.0, 9.0]], {f"g={word}": [[9.0, 1.0], [1.0, 9.0]]}, 0.5, 20
    )
    found = results(History(rounds=[RoundRecord(1)]), [report], None, 1, "f" * 64)
    assert harmless(shown(summary(found, private=True)))


def test_progress_stands_any_name() -> None:
    console = PlainConsole(file=io.StringIO(), width=400, force_terminal=False)
    terminal = Terminal(console, private=True)
    terminal.started(WORDS, 3, 1)
    assert isinstance(console.file, io.StringIO)
    assert harmless(console.file.getvalue())
    assert "[/bold]" in console.file.getvalue()


@pytest.mark.parametrize("word", WORDS)
def test_pages_show_letters(word: str) -> None:
    page = str(element("p", word, title=word))
    assert "<img" not in page
    assert not any(c in page for c in "\x1b\x07\x9b\u202e\ud800")


@pytest.mark.parametrize("word", WORDS)
def test_the_model_card_shows_letters(word: str) -> None:
    report = Report("a", [[90.0, 9.0], [9.0, 90.0]], {}, 0.5, 200)
    report.groups.update({f"{word}={word}": report.confusion, f"{word}=b": report.confusion})
    found = results(History(rounds=[RoundRecord(1)]), [report], None, 1, "f" * 64)
    config = Config()
    config.data.labels = ["no", "yes"]
    card = model_card(config, found, simulated=False)
    assert not any(part in card for part in ("](https://example", "<img", "example.org", "`a`"))


def test_cells_of_rounds_csv_are_numbers(tmp_path: Path) -> None:
    """A spreadsheet takes a cell that begins with = or @ for a formula: no text is in the file."""
    history = History(rounds=[RoundRecord(1, accuracy=0.5, epsilon_max=1.5), RoundRecord(2)])
    names, *rows = csv.reader(io.StringIO(rounds_csv(history)))
    assert names == list(RoundRecord(1).row())
    assert all(cell == "" or float(cell) >= 0 for row in rows for cell in row)
