"""Arguments of the commands of a deployment."""

from __future__ import annotations

from typing import Any

from scripts.arguments import OVERRIDES, add


def add_provision(commands: Any) -> None:
    """Add `provision`."""
    provision = add(
        commands,
        "provision",
        "create keys, certificates and kits for a deployment",
        "Create the authority, the server's certificate and one kit for each partner. Existing "
        "kits stay as they are.",
    )
    provision.add_argument("file", help="federation.yaml")
    provision.add_argument(
        "--out", default="federation", help="the output folder (default: federation)"
    )
    provision.add_argument(
        "--rotate", metavar="NAME", help="create a new key for one partner, or for `server`"
    )
    provision.add_argument("--revoke", metavar="NAME", help="revoke the key of one partner")
    provision.set_defaults(
        module="scripts.provision", arguments=lambda a: (a.file, a.out, a.rotate, a.revoke)
    )


def add_partner(commands: Any) -> None:
    """Add `partner`."""
    partner = add(
        commands,
        "partner",
        "check a partner's installation, or start its service",
        "`partner check` tests everything that a run needs and sends nothing but a TLS handshake. "
        "`partner start` serves the federation until it is stopped.",
    )
    partner.add_argument("action", choices=["check", "start"], help="what to do")
    partner.add_argument("file", help="partner.yaml")
    partner.set_defaults(module="scripts.partner", arguments=lambda a: (a.action, a.file))


def add_coordinator(commands: Any) -> None:
    """Add the commands of the coordinator's machine."""
    server = add(
        commands,
        "server",
        "start the coordinator's server",
        "Run the server until it is stopped. It notices new and deleted partner keys.",
    )
    server.add_argument("action", choices=["start"], help="what to do")
    status = add(
        commands,
        "status",
        "list the partners and the latest runs of the server",
        "List the registered partners, whether they are connected, and the latest runs.",
    )
    submit = add(
        commands,
        "submit",
        "submit a run to the connected partners",
        "Submit a run to the connected partners and show its progress. Ctrl-C leaves the run "
        "going. run.resume=DIRECTORY continues a run that ended early.",
    )
    stop = add(
        commands,
        "stop",
        "stop a submitted run",
        "Stop a submitted run. It can be continued from its last checkpoint with run.resume.",
    )
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
    submit.add_argument("rest", nargs="*", metavar="KEY=VALUE", help=OVERRIDES)
    stop.add_argument(
        "rest", nargs=1, metavar="RUN", help="the number of the run in `fedaccord status`"
    )
