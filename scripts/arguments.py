"""Arguments of the commands that run federations and read what they leave."""

from __future__ import annotations

import argparse
from typing import Any

OVERRIDES = "Hydra overrides: KEY=VALUE, or GROUP=CHOICE for a file of conf/"


def add(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """Add a command: `summary` is its line in `fedaccord --help`."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description
    )
    return command


def add_simulate(commands: Any) -> None:
    """Add `simulate`."""
    simulate = add(
        commands,
        "simulate",
        "run a federation on this machine",
        "Run a whole federation on this machine. Examples of overrides: privacy=none, "
        "run.rounds=4, strategy.robust=median, run.dir=DIRECTORY. run.resume=DIRECTORY continues "
        "an interrupted run. @FILE stands for the overrides in a file, one per line. With "
        "--multirun a key can have several values, such as run.seed=0,1,2, or sweep=NAME "
        "chooses a ready sweep.",
    )
    simulate.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    simulate.add_argument(
        "-m",
        "--multirun",
        action="store_true",
        help="run a sweep: every combination of the values, or a search",
    )
    simulate.set_defaults(module="scripts.simulate", arguments=lambda a: (a.overrides, a.multirun))


def add_sweep(commands: Any) -> None:
    """Add `sweep`."""
    sweep = add(
        commands,
        "sweep",
        "show the trials of a sweep, or plot accuracy against ε",
        "`sweep show` prints the trials of a sweep and the best of them. `sweep curve` writes a "
        "table and a figure of accuracy against ε into the sweep's directory.",
    )
    sweep.add_argument("action", choices=["show", "curve"], help="what to do with the sweep")
    sweep.add_argument("directory", help="the directory of the sweep")
    sweep.set_defaults(module="scripts.sweep_show", arguments=lambda a: (a.action, a.directory))


def add_four_way(commands: Any) -> None:
    """Add `four-way`."""
    four_way = add(
        commands,
        "four-way",
        "measure how privacy, an attack and fair weights interact",
        "Run one base configuration eight times for each seed: with privacy, an attack and fair "
        "weights each on and off. Finished runs are kept, and the same command continues an "
        "interrupted study.",
    )
    four_way.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    four_way.add_argument("--dir", required=True, help="the directory of the study")
    four_way.add_argument("--seeds", default="0", help="seeds, such as 0,1,2 (default: 0)")
    for name, subject, value in (
        ("dp", "privacy", "privacy=dp"),
        ("attack", "the attack", "attack=optimal_alie attack.count=2"),
        ("fair", "fair weights", "strategy.fair=qffl"),
    ):
        four_way.add_argument(
            f"--{name}",
            default=value,
            metavar="OVERRIDES",
            help=f"the overrides that switch {subject} on (default: {value})",
        )
    four_way.set_defaults(
        module="scripts.four_way",
        arguments=lambda a: (a.overrides, a.dir, a.seeds, a.dp, a.attack, a.fair),
    )


def add_verify(commands: Any) -> None:
    """Add `verify`."""
    verify = add(
        commands,
        "verify",
        "verify a run directory against its audit log",
        "Verify a run directory against its audit log. The exit code is 1 when a file was changed "
        "or is missing.",
    )
    verify.add_argument("directory", help="the run directory")
    verify.set_defaults(module="scripts.verify", arguments=lambda a: (a.directory,))


def add_audit(commands: Any) -> None:
    """Add `audit`."""
    audit = add(
        commands,
        "audit",
        "estimate privacy leakage (an empirical lower bound on ε)",
        "Estimate privacy leakage. The audit trains as one partner would, on a random half of "
        "made-up canary texts beside the partner's rows, guesses which half it was, and reports "
        "the lower bound on ε that the guesses prove, together with the claimed ε. With --run it "
        "also attacks the model of that run. The exit code is 1 when a bound refutes the claim.",
    )
    audit.add_argument("what", choices=["privacy"], help="the kind of audit")
    audit.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    audit.add_argument("--run", metavar="DIRECTORY", help="the directory of a finished simulation")
    audit.add_argument(
        "--canaries",
        type=int,
        default=500,
        help="the number of canaries; 0 trains none (default: 500)",
    )
    audit.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        help="the confidence with which all bounds hold together (default: 0.95)",
    )
    audit.add_argument("--seed", type=int, default=0, help="the seed of the audit (default: 0)")
    audit.set_defaults(
        module="scripts.audit_privacy",
        arguments=lambda a: (a.overrides, a.run, a.canaries, a.confidence, a.seed),
    )


def add_ledger(commands: Any) -> None:
    """Add `ledger`."""
    ledger = add(
        commands,
        "ledger",
        "show or verify a partner's privacy ledger",
        "`ledger show` prints what each run has spent of the privacy budget. `ledger verify` "
        "checks the ledger's hash chain; its exit code is 1 when the ledger is damaged.",
    )
    ledger.add_argument("action", choices=["show", "verify"], help="what to do with the ledger")
    ledger.add_argument("path", help="the ledger file")
    ledger.set_defaults(module="scripts.ledger", arguments=lambda a: (a.action, a.path))


def add_report(commands: Any) -> None:
    """Add `report`."""
    report = add(
        commands,
        "report",
        "rewrite report.html of a run, a study or a sweep",
        "Rewrite report.html from the files of a run, a four-way study or a sweep.",
    )
    report.add_argument("directory", help="the directory of the run, study or sweep")
    report.set_defaults(module="scripts.report", arguments=lambda a: (a.directory,))
