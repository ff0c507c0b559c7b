"""`fedaccord partner check` and `fedaccord partner start`."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from client.deployed import load_partner_file
from scripts.console import PlainConsole


def main(action: str, path: str) -> int:
    """Check this partner (exit code 1 when a check fails) or start its service.

    Raises:
        UserError: `partner.yaml` is wrong, or the service cannot start.
    """
    own = load_partner_file(Path(path))
    if action == "start":
        from deployment.partner_service import start

        return start(own)
    from deployment.partner_check import check

    console = PlainConsole(soft_wrap=True)
    checks = check(own)
    for one in checks:
        verdict = ("pass", "green") if one.passed else ("FAIL", "red")
        console.print(Text.assemble(verdict, f"  {one.subject}: {one.words}"))
    return 0 if all(one.passed for one in checks) else 1
