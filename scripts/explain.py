"""`fedaccord explain`: token attributions per label."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table
from rich.text import Text

from common.errors import UserError
from common.files import write_atomic
from inspection.explain import Explanation, explain, global_words
from inspection.explanation_page import explanation_page
from inspection.trained import load_trained, test_rows
from scripts.console import PlainConsole
from scripts.output import output_file


def main(
    directory: str,
    text: str | None,
    label: str | None,
    html: str | None,
    everywhere: bool,
    rows: int,
    top: int,
) -> int:
    """Explain the answer for one text, or list the words of each label over the test rows.

    Args:
        directory: The run directory.
        text: The text; None with `everywhere`.
        label: The label to be explained; by default the predicted one.
        html: A file for the explanation as a page.
        everywhere: Whether the test rows are explained instead of one text.
        rows: The largest number of test rows.
        top: The number of words per label.

    Returns:
        The exit code.

    Raises:
        UserError: The run has no model, captum is missing, or an argument is wrong.
    """
    if (text is None) != everywhere:
        raise UserError("explain: needs either a text or --global; give one of them")
    if everywhere and (html or label):
        raise UserError("explain: --html and --label apply to one text; remove --global")
    if rows < 1 or top < 1:
        raise UserError("explain: --rows and --top must be at least 1")
    page = output_file("--html", html)
    console = PlainConsole(soft_wrap=True)
    trained = load_trained(Path(directory))
    if text is None:
        table = test_rows(Path(directory), rows)
        with console.status("") as status:
            found = []
            for number, row in enumerate(table.texts, 1):
                status.update(f"text {number} of {len(table)}")
                found.append(explain(trained, row))
        for name, carriers in global_words(found, top).items():
            listed = Table(
                "word", "mean weight", "occurrences", title=Text(name), title_justify="left"
            )
            for c in carriers:
                listed.add_row(Text(c.word), f"{c.weight:+.3f}", str(c.occurrences))
            console.print(listed)
        console.print(f"Means over {len(table)} held-out texts, grouped by the predicted label.")
        return 0
    one = explain(trained, text, label)
    console.print(_shown(one))
    if page:
        write_atomic(page, explanation_page(one))
        console.print(f"page: {html}")
    return 0


def _shown(found: Explanation) -> Table:
    largest = max(abs(w) for w in found.weights) or 1.0
    table = Table(
        "word",
        "weight",
        "",
        title=Text(f"{found.label} ({100 * found.probability:.1f} %)"),
        title_justify="left",
        caption=f"Sum {sum(found.weights):+.3f} = margin {found.margin:+.3f} of the text - "
        f"{found.blank_margin:+.3f} of a blank one (± {abs(found.error):.3f}).",
        caption_justify="left",
    )
    for word, weight in zip(found.words, found.weights, strict=True):
        bar = ("+" if weight > 0 else "-") * round(24 * abs(weight) / largest)
        colour = "blue" if weight > 0 else "red"
        table.add_row(Text(word), f"{weight:+.3f}", Text(bar, style=colour))
    return table
