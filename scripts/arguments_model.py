"""Arguments of the commands that examine or convert the trained model."""

from __future__ import annotations

import argparse
from typing import Any

from scripts.arguments import add

RUN_DIRECTORY = "the directory of a finished run"


def add_explain(commands: Any) -> None:
    """Add `explain`."""
    explain = add(
        commands,
        "explain",
        "show token attributions per label",
        "Show how much each word contributed to the model's answer for a text. With --global, "
        "list the words that contribute most to each label, over the test rows.",
    )
    explain.add_argument("directory", help=RUN_DIRECTORY)
    explain.add_argument("text", nargs="?", help="the text to be explained")
    explain.add_argument("--label", help="the label to be explained (default: the predicted one)")
    explain.add_argument("--html", metavar="FILE", help="also write the explanation as a page")
    explain.add_argument(
        "--global",
        dest="everywhere",
        action="store_true",
        help="explain the test rows instead of one text",
    )
    explain.add_argument(
        "--rows", type=int, default=200, help="the largest number of test rows (default: 200)"
    )
    explain.add_argument(
        "--top", type=int, default=15, help="the number of words per label (default: 15)"
    )
    explain.set_defaults(
        module="scripts.explain",
        arguments=lambda a: (
            a.directory,
            a.text,
            a.label,
            a.html,
            a.everywhere,
            a.rows,
            a.top,
        ),
    )


def add_probe(commands: Any) -> None:
    """Add `probe`."""
    probe = add(
        commands,
        "probe",
        "test the model with a template suite or with perturbed texts",
        "Test the trained model with a suite of template texts (--suite), or with the test rows "
        "after typos and similar changes (--perturb).",
    )
    probe.add_argument("directory", help=RUN_DIRECTORY)
    probe.add_argument("--suite", metavar="CSV", help="a template suite in the form of HateCheck")
    probe.add_argument("--perturb", action="store_true", help="perturb the test rows")
    for name, column in (
        ("text", "test_case"),
        ("label", "label_gold"),
        ("group", "target_ident"),
        ("functionality", "functionality"),
    ):
        probe.add_argument(
            f"--{name}",
            metavar="COLUMN",
            default=column,
            help=f"the suite's column of the {name} (default: {column})",
        )
    probe.add_argument(
        "--map",
        default="",
        metavar="LABEL=SUITE_LABEL,...",
        help="the label of the suite for each label of the model",
    )
    probe.add_argument(
        "--rows", type=int, default=2000, help="the largest number of test rows (default: 2000)"
    )
    probe.add_argument(
        "--seed", type=int, default=0, help="the seed of the perturbations (default: 0)"
    )
    probe.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    probe.set_defaults(module="scripts.probe", arguments=_probe_arguments)


def _probe_arguments(a: argparse.Namespace) -> tuple[Any, ...]:
    columns = (a.text, a.label, a.group, a.functionality)
    return (a.directory, a.suite, columns, a.map, a.perturb, a.rows, a.seed, a.json)


def add_export(commands: Any) -> None:
    """Add `export`."""
    export = add(
        commands,
        "export",
        "write the trained model for another runtime",
        "Write the trained model of a run, with its tokenizer, as an ONNX file. Before writing, "
        "the command compares the file's logits with the model's.",
    )
    export.add_argument("directory", help=RUN_DIRECTORY)
    export.add_argument("--onnx", action="store_true", required=True, help="write an ONNX file")
    export.add_argument(
        "--out", metavar="FOLDER", help="the output folder (default: onnx in the run directory)"
    )
    export.set_defaults(module="scripts.export", arguments=lambda a: (a.directory, a.out))


def add_distill(commands: Any) -> None:
    """Add `distill`."""
    student = add(
        commands,
        "distill",
        "train a smaller student of the trained model",
        "Train a student with fewer layers to reproduce the answers of a run's model. The student "
        "sees public texts only.",
    )
    student.add_argument("directory", help=RUN_DIRECTORY)
    student.add_argument(
        "--layers", type=int, required=True, help="the number of encoder layers of the student"
    )
    student.add_argument(
        "--out", metavar="FOLDER", help="the output folder (default: student in the run directory)"
    )
    student.add_argument(
        "--text",
        metavar="FILE",
        help="public texts in UTF-8, one per line (default: the run's public validation rows)",
    )
    student.add_argument("--epochs", type=int, default=5, help="passes over the texts (default: 5)")
    student.add_argument(
        "--seed", type=int, default=0, help="the seed of the training (default: 0)"
    )
    student.set_defaults(
        module="scripts.distill",
        arguments=lambda a: (a.directory, a.layers, a.out, a.text, a.epochs, a.seed),
    )
