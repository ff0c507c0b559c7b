"""`fedaccord probe`: a template suite, or perturbed test rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from common.errors import UserError
from common.files import write_atomic
from inspection.probe.perturb import perturbed
from inspection.probe.suite import Columns, probe, read_mapping, read_suite
from inspection.trained import load_trained, test_rows
from scripts.console import PlainConsole
from scripts.output import output_file


def main(
    directory: str,
    suite: str | None,
    columns: Sequence[str],
    mapping: str,
    perturb: bool,
    rows: int,
    seed: int,
    output: str | None,
) -> int:
    """Print the tables of a probe and, with `output`, write its figures as JSON.

    Args:
        directory: The run directory.
        suite: The CSV file of a template suite; None with `perturb`.
        columns: The suite's columns of text, label, group and functionality.
        mapping: The suite's label for each label of the model, as `LABEL=SUITE_LABEL,...`.
        perturb: Whether the test rows are perturbed instead.
        rows: The largest number of test rows.
        seed: The seed of the perturbations.
        output: A file for the figures.

    Returns:
        The exit code.

    Raises:
        UserError: The run has no model, the suite cannot be read, or an argument is wrong.
    """
    if (suite is None) != perturb:
        raise UserError("probe: needs either --suite CSV or --perturb; give one of them")
    if rows < 1:
        raise UserError("probe: --rows must be at least 1")
    place = output_file("--json", output)
    console = PlainConsole(soft_wrap=True)
    if suite is not None:
        cases = read_suite(Path(suite).expanduser(), Columns(*columns))
        found = probe(load_trained(Path(directory)), cases, read_mapping(mapping))
        for title, key in (
            ("expected label", "labels"),
            ("functionality", "functionalities"),
            ("group", "groups"),
        ):
            console.print(_shares(title, found[key]))
        console.print(f"all {found['overall']['n']} texts: {_accuracy(found['overall'])}")
        console.print(f"* fewer than {found['minimum_rows']} texts: too few for a comparison")
    else:
        table = test_rows(Path(directory), rows)
        trained = load_trained(Path(directory))
        found = perturbed(trained, list(table.texts), table.labels.tolist(), seed)
        console.print(_perturbations(found))
    if place:
        write_atomic(place, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        console.print(f"figures: {output}")
    return 0


def _accuracy(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _shares(title: str, found: Mapping[str, Mapping[str, Any]]) -> Table:
    labels = sorted({name for row in found.values() for name in row.get("by_label", {})})
    table = Table(title, "texts", "accuracy [95 %]", *(f"expected {n}" for n in labels))
    for name, row in found.items():
        cells = [_accuracy(row["by_label"][n]) if n in row["by_label"] else "-" for n in labels]
        mark = " *" if row["small"] else ""
        expected = f" ({', '.join(row['labels'])})" if "labels" in row else ""
        table.add_row(Text(name + expected), f"{row['n']}{mark}", _accuracy(row), *cells)
    return table


def _perturbations(found: Mapping[str, Any]) -> Table:
    table = Table(
        "perturbation",
        "accuracy",
        "points lost [95 %]",
        "right to wrong",
        "wrong to right",
        title=f"{found['rows']} held-out texts, accuracy {100 * found['accuracy']:.1f} %",
        title_justify="left",
    )
    for name, row in found["perturbations"].items():
        low, high = row["interval"]
        table.add_row(
            name,
            f"{100 * row['accuracy']:.1f} %",
            f"{100 * row['lost']:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
            str(row["right_to_wrong"]),
            str(row["wrong_to_right"]),
        )
    return table
