"""The `fedaccord` command: reads arguments, calls one function, prints errors in one line."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, cast

from scripts.shadowing import shadowed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedaccord",
        description="Private, robust and fair federated fine-tuning of BERT.",
    )
    parser.add_argument("--version", action="version", version=version("fedaccord"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    simulate = commands.add_parser(
        "simulate",
        help="run a whole federation on this machine",
        description="Run a whole federation on this machine. Overrides are Hydra's: KEY=VALUE "
        "or GROUP=CHOICE, e.g. privacy=none run.rounds=4 strategy.robust=median "
        "run.dir=PATH run.resume=PATH. With --multirun lists are swept over: run.seed=0,1,2 "
        "privacy=epsilon_1,none, or sweep=quick. @FILE stands for the overrides in it, one a line.",
    )
    simulate.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    simulate.add_argument(
        "-m", "--multirun", action="store_true", help="run every combination, or a sweep"
    )
    simulate.set_defaults(module="scripts.simulate", arguments=lambda a: (a.overrides, a.multirun))
    sweep = commands.add_parser("sweep", help="show a sweep, or draw its curve over ε")
    sweep.add_argument("action", choices=["show", "curve"])
    sweep.add_argument("directory", help="the sweep's directory")
    sweep.set_defaults(module="scripts.sweep_show", arguments=lambda a: (a.action, a.directory))
    ledger = commands.add_parser("ledger", help="show or verify a partner's privacy ledger")
    ledger.add_argument("action", choices=["show", "verify"])
    ledger.add_argument("path", help="the ledger file")
    ledger.set_defaults(module="scripts.ledger", arguments=lambda a: (a.action, a.path))
    _add_evidence(commands)
    _add_deliveries(commands)
    _add_deployment(commands)
    return parser


def _add_evidence(commands: Any) -> None:
    """The commands that show what a run did and what it is worth."""
    verify = commands.add_parser("verify", help="hold a run directory against its audit log")
    verify.add_argument("directory", help="the run directory")
    verify.set_defaults(module="scripts.verify", arguments=lambda a: (a.directory,))
    audit = commands.add_parser(
        "audit",
        help="measure how much a training gives away of who took part",
        description="audit privacy: train as one partner would, with made-up rows that are in or "
        "out by a coin, guess which, and report the epsilon that the guesses prove beside the one "
        "that is claimed. With --run also attack that run's model. Overrides are those of "
        "simulate. The exit code is 1 when a claim is refuted.",
    )
    audit.add_argument("what", choices=["privacy"])
    audit.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    audit.add_argument("--run", metavar="RUNDIR", help="a finished simulation")
    audit.add_argument("--canaries", type=int, default=500, help="0: none (default: 500)")
    audit.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        help="with which all reported bounds hold together (default: 0.95)",
    )
    audit.add_argument("--seed", type=int, default=0, help="of the audit's own coins")
    audit.set_defaults(
        module="scripts.audit_privacy",
        arguments=lambda a: (a.overrides, a.run, a.canaries, a.confidence, a.seed),
    )
    report = commands.add_parser(
        "report", help="write report.html of a run, a study or a sweep anew"
    )
    report.add_argument("directory", help="the directory of a run, a four-way study or a sweep")
    report.set_defaults(module="scripts.report", arguments=lambda a: (a.directory,))
    _add_questions(commands)
    four_way = commands.add_parser(
        "four-way",
        help="measure privacy, an attack and fairness on and off, together",
        description="Run one base configuration eight times a seed: privacy, an attack and fair "
        "weights each on and off. What is finished is kept: the same command continues. "
        "Overrides are those of simulate.",
    )
    four_way.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    four_way.add_argument("--dir", required=True, help="the study's folder")
    four_way.add_argument("--seeds", default="0", help="such as 0,1,2 (default: 0)")
    for name, value in (
        ("dp", "privacy=dp"),
        ("attack", "attack=optimal_alie attack.count=2"),
        ("fair", "strategy.fair=qffl"),
    ):
        four_way.add_argument(
            f"--{name}",
            default=value,
            metavar="OVERRIDES",
            help=f"what switches it on (default: {value})",
        )
    four_way.set_defaults(
        module="scripts.four_way",
        arguments=lambda a: (a.overrides, a.dir, a.seeds, a.dp, a.attack, a.fair),
    )


def _add_questions(commands: Any) -> None:
    """The commands that ask the trained model."""
    explain = commands.add_parser("explain", help="show which words carried the model's answer")
    explain.add_argument("directory", help="the run directory")
    explain.add_argument("text", nargs="?")
    explain.add_argument("--label", help="explain this label (default: the predicted one)")
    explain.add_argument("--html", metavar="FILE", help="write a page as well")
    explain.add_argument(
        "--global",
        dest="everywhere",
        action="store_true",
        help="list the words that carry most for each label, over the test rows",
    )
    explain.add_argument("--rows", type=int, default=200, help="at most this many test rows")
    explain.add_argument("--top", type=int, default=15, help="words for each label")
    explain.set_defaults(
        module="scripts.explain",
        arguments=lambda a: (a.directory, a.text, a.label, a.html, a.everywhere, a.rows, a.top),
    )
    probe = commands.add_parser("probe", help="ask the model texts made to find weak places")
    probe.add_argument("directory", help="the run directory")
    probe.add_argument("--suite", metavar="CSV", help="a template suite in HateCheck's form")
    probe.add_argument("--perturb", action="store_true", help="typos and the like on test rows")
    for name, column in (
        ("text", "test_case"),
        ("label", "label_gold"),
        ("group", "target_ident"),
        ("functionality", "functionality"),
    ):
        probe.add_argument(
            f"--{name}", metavar="COLUMN", default=column, help=f"its column (default: {column})"
        )
    probe.add_argument(
        "--map",
        default="",
        metavar="LABEL=SUITE_LABEL,...",
        help="which label of the suite each label of the model stands for",
    )
    probe.add_argument("--rows", type=int, default=2000, help="at most this many test rows")
    probe.add_argument("--seed", type=int, default=0, help="of the perturbations")
    probe.add_argument("--json", metavar="FILE", help="write the figures as well")

    def asked(a: argparse.Namespace) -> tuple[Any, ...]:
        columns = (a.text, a.label, a.group, a.functionality)
        return (a.directory, a.suite, columns, a.map, a.perturb, a.rows, a.seed, a.json)

    probe.set_defaults(module="scripts.probe", arguments=asked)


def _add_deliveries(commands: Any) -> None:
    """The commands that make other forms of the trained model."""
    export = commands.add_parser(
        "export",
        help="write the trained model for another runtime",
        description="Write the trained model of a run as an ONNX file beside its tokenizer, after "
        "its logits were held against the model's own.",
    )
    export.add_argument("directory", help="the run directory")
    export.add_argument("--onnx", action="store_true", required=True, help="as ONNX")
    export.add_argument("--out", metavar="FOLDER", help="default: RUNDIR/onnx")
    export.set_defaults(module="scripts.export", arguments=lambda a: (a.directory, a.out))
    student = commands.add_parser(
        "distill",
        help="teach a smaller student to answer as the trained model does",
        description="Make a student with fewer layers and teach it, on public texts alone, to "
        "answer as the trained model of a run does.",
    )
    student.add_argument("directory", help="the run directory")
    student.add_argument("--layers", type=int, required=True, help="encoder layers of the student")
    student.add_argument("--out", metavar="FOLDER", help="default: RUNDIR/student")
    student.add_argument(
        "--text",
        metavar="FILE",
        help="public texts, one a line, UTF-8 (default: the run's public validation rows)",
    )
    student.add_argument("--epochs", type=int, default=5)
    student.add_argument("--seed", type=int, default=0)
    student.set_defaults(
        module="scripts.distill",
        arguments=lambda a: (a.directory, a.layers, a.out, a.text, a.epochs, a.seed),
    )


def _add_deployment(commands: Any) -> None:
    """The commands of a federation whose partners run on machines of their own."""
    provision = commands.add_parser("provision", help="make keys, certificates and partners' kits")
    provision.add_argument("file", help="federation.yaml")
    provision.add_argument("--out", default="federation", help="folder for the kits")
    provision.add_argument("--rotate", metavar="NAME", help="new key for one partner (or: server)")
    provision.add_argument("--revoke", metavar="NAME", help="take one partner's key away")
    provision.set_defaults(
        module="scripts.provision", arguments=lambda a: (a.file, a.out, a.rotate, a.revoke)
    )
    partner = commands.add_parser("partner", help="check or start this partner")
    partner.add_argument("action", choices=["check", "start"])
    partner.add_argument("file", help="partner.yaml")
    partner.set_defaults(module="scripts.partner", arguments=lambda a: (a.action, a.file))
    server = commands.add_parser("server", help="start the coordinator's server")
    server.add_argument("action", choices=["start"])
    status = commands.add_parser("status", help="show partners and runs at the coordinator")
    submit = commands.add_parser("submit", help="run a federation of the partners that are there")
    stop = commands.add_parser("stop", help="end a submitted run")
    for name, command in (
        ("server", server),
        ("status", status),
        ("submit", submit),
        ("stop", stop),
    ):
        command.add_argument("file", help="coordinator.yaml")
        command.set_defaults(
            module="scripts.coordinator",
            arguments=lambda a, name=name: (name, a.file, getattr(a, "rest", [])),
        )
    submit.add_argument("rest", nargs="*", metavar="KEY=VALUE")
    stop.add_argument("rest", nargs=1, metavar="RUN", help="the run's number, see `status`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 2 when the user can mend what was wrong."""
    if problem := shadowed():
        print(f"fedaccord: {problem}", file=sys.stderr)
        return 2
    # Only now is it certain that these are ours.
    from common.errors import UserError
    from common.printable import printable

    arguments = _parser().parse_args(argv)
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
