"""The `fedaccord` command: reads arguments, calls one function, prints errors in one line."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import cast

from scripts import arguments as run
from scripts import arguments_deployment as deployment
from scripts import arguments_model as model
from scripts.shadowing import shadowed

# In the order of `fedaccord --help`.
ADD = (
    run.add_simulate,
    run.add_sweep,
    run.add_four_way,
    run.add_verify,
    run.add_audit,
    run.add_ledger,
    run.add_report,
    model.add_explain,
    model.add_probe,
    model.add_export,
    model.add_distill,
    deployment.add_provision,
    deployment.add_partner,
    deployment.add_coordinator,
)


def create_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="fedaccord",
        description="Private, robust and fair federated fine-tuning of BERT.",
    )
    parser.add_argument("--version", action="version", version=version("fedaccord"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in ADD:
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments; by default those of the process.

    Returns:
        The exit code; 2 when the user can correct the error.
    """
    if problem := shadowed():
        print(f"fedaccord: {problem}", file=sys.stderr)
        return 2
    # Only now is it certain that these packages are ours.
    from common.errors import UserError
    from common.printable import printable

    arguments = create_parser().parse_args(argv)
    try:
        # Imported only when needed: `fedaccord --help` must answer at once.
        module = importlib.import_module(arguments.module)
        command = cast(Callable[..., int], module.main)
        return command(*arguments.arguments(arguments))
    except UserError as error:
        print(f"fedaccord: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
