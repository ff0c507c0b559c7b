"""`fedaccord provision FILE`."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from deployment.federation import SERVER, load_federation
from deployment.kits import provision, revoke_partner, rotate_partner, rotate_server


def main(path: str, out: str, rotate: str | None, revoke: str | None) -> int:
    """Create, rotate or revoke keys; prints paths and never a key.

    Raises:
        UserError: The federation's file or an option is wrong.
    """
    file, folder = Path(path), Path(out)
    if rotate is not None and revoke is not None:
        raise UserError("--rotate, --revoke: exclude each other; choose one of them")
    if revoke is not None:
        revoke_partner(folder, revoke)
        print(
            f"revoked: {revoke}. Also remove this name from {path}, or the next "
            "`fedaccord provision` creates a new kit for it."
        )
    elif rotate == SERVER:
        print(f"new server certificate: {rotate_server(load_federation(file), folder)}")
        print("Copy the folder to the server's machine and restart the server.")
    elif rotate is not None:
        print(f"new kit: {rotate_partner(load_federation(file), folder, rotate)}")
    else:
        created = provision(load_federation(file), folder)
        for place in created:
            print(f"created: {place}")
        if not created:
            print(f"Every kit exists already in {folder}; nothing was changed.")
    return 0
