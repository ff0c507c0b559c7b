"""Template suites in HateCheck's form (Röttger et al. 2021): by functionality and group."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from inspection.trained import Trained
from results.fairness import MINIMUM, Share, wilson

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Columns:
    """Names of the suite's columns; the defaults are HateCheck's.  `group` may be empty."""

    text: str = "test_case"
    label: str = "label_gold"
    group: str = "target_ident"
    functionality: str = "functionality"


@dataclass(frozen=True)
class Case:
    """One text of a suite; `group` is empty where it is about none."""

    text: str
    label: str
    group: str
    functionality: str


def read_suite(path: Path, columns: Columns) -> list[Case]:
    """Read a suite from CSV.

    Raises UserError naming the file, and the row (from 1, without the header) or the column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = reader.fieldnames or []
            for name in (columns.text, columns.label, columns.functionality, columns.group):
                if name and name not in names:
                    raise UserError(f"{path}: there is no column '{name}'")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({type(error).__name__})") from error
    cases = []
    for number, row in enumerate(rows, 1):
        for name in (columns.text, columns.label, columns.functionality):
            if not (row[name] or "").strip():
                raise UserError(f"{path}: row {number}: column '{name}' is empty")
        group = (row[columns.group] or "").strip() if columns.group else ""
        cases.append(Case(row[columns.text], row[columns.label], group, row[columns.functionality]))
    if not cases:
        raise UserError(f"{path}: holds no rows")
    return cases


def read_mapping(text: str) -> dict[str, str]:
    """`hate=hateful,neither=non-hateful` as {the model's label: the suite's label}.

    Raises UserError when a part has no `=`.
    """
    parts = [part.partition("=") for part in text.split(",") if part]
    if bad := [a for a, equals, b in parts if not (a and equals and b)]:
        raise UserError(f"--map: must be LABEL=SUITE_LABEL,..., got '{bad[0]}'")
    return {a.strip(): b.strip() for a, _, b in parts}


def probe(trained: Trained, cases: Sequence[Case], mapping: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy over all cases, and by functionality, group and expected label (docs/explain.md).

    `mapping` turns the model's labels into the suite's; without one they must be the same.

    Raises UserError when a label has no counterpart.
    """
    known = dict(mapping) or {name: name for name in trained.labels}
    if unknown := sorted(set(known) - set(trained.labels)):
        raise UserError(f"--map: the model has no label '{unknown[0]}'")
    if missing := [name for name in trained.labels if name not in known]:
        raise UserError(f"--map: says nothing of the model's label '{missing[0]}'")
    if len({c.label for c in cases} - set(known.values())):
        raise UserError(
            "--map: the suite expects a label that no label of the model stands for; "
            "use --map LABEL=SUITE_LABEL,..."
        )
    predicted = trained.predict([case.text for case in cases])
    right = [known[trained.labels[p]] == c.label for p, c in zip(predicted, cases, strict=True)]
    marked = list(zip(cases, right, strict=True))

    def by(key: str, among: Sequence[tuple[Case, bool]] = marked) -> dict[str, Any]:
        names = sorted({getattr(case, key) for case, _ in among})
        return {
            n or "(none)": share([ok for case, ok in among if getattr(case, key) == n])
            for n in names
        }

    functionalities = by("functionality")
    for name, found in functionalities.items():
        found["labels"] = sorted({c.label for c in cases if c.functionality == name})
    groups = by("group")
    for name, found in groups.items():
        inside = [(c, ok) for c, ok in marked if (c.group or "(none)") == name]
        found["by_label"] = by("label", inside)
    return {
        "schema_version": SCHEMA_VERSION,
        "overall": share(right),
        "labels": by("label"),
        "functionalities": functionalities,
        "groups": groups,
        "mapping": known,
        "minimum_rows": MINIMUM,
    }


def share(right: Sequence[bool]) -> dict[str, Any]:
    """`n`, `accuracy`, its 95 % interval (Wilson's), and whether there are too few rows to rank."""
    found = Share(float(sum(right)), float(len(right)))
    return {
        "n": len(right),
        "accuracy": found.value,
        "interval": list(wilson(found)),
        "small": found.small,
    }
