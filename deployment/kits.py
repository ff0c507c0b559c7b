"""Keys, certificates and one kit for each party of a federation.

The output folder belongs to whoever runs the authority::

    authority/             the authority's key; keep it off the server
    coordinator/           the files of the server machine
    partners/NAME.tar.gz   the kit of one partner, with the only copy of its private key
"""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path

from common.data.sources import SOURCES
from common.errors import UserError
from common.files import private_directory, write_atomic
from deployment import templates
from deployment.federation import NAME, Federation
from deployment.pki import KeyPair, new_authority, new_node, new_server

SECRET_MODE = 0o600


def provision(federation: Federation, out: Path) -> list[Path]:
    """Create what is missing in `out`, and leave existing files as they are.

    Args:
        federation: The content of `federation.yaml`.
        out: The output folder.

    Returns:
        The paths that were created.

    Raises:
        UserError: The authority's key is unreadable.
    """
    created = _ensure_authority(federation, out)
    authority = _read_authority(out)
    coordinator = private_directory(out / "coordinator")
    private_directory(coordinator / "partners")
    private_directory(out / "partners")
    _write(coordinator / "ca.pem", authority.public)
    if not (coordinator / "server.key").exists():
        created.append(rotate_server(federation, out))
    _write(coordinator / "coordinator.yaml", _coordinator_file(federation))
    _write(coordinator / "fedaccord-server.service", templates.SERVER_UNIT)
    _write(coordinator / "README.txt", templates.SERVER_README)
    for name in federation.partners:
        if not (coordinator / "partners" / f"{name}.pub").exists():
            created.append(rotate_partner(federation, out, name))
    return created


def rotate_partner(federation: Federation, out: Path, name: str) -> Path:
    """Create a new key pair and kit for one partner, whose old key becomes invalid.

    Args:
        federation: The content of `federation.yaml`.
        out: The output folder of an earlier `provision`.
        name: The partner.

    Returns:
        The path of the kit.

    Raises:
        UserError: The federation has no such partner, or `out` has no authority.
    """
    if name not in federation.partners:
        raise UserError(
            f"--rotate: the federation has no partner {name}; its partners are "
            f"{', '.join(federation.partners)}"
        )
    authority = _read_authority(out)
    pair = new_node(name)
    kit = private_directory(out / "partners") / f"{name}.tar.gz"
    write_atomic(kit, _archive(name, _partner_kit(federation, name, authority, pair)), SECRET_MODE)
    _write(out / "coordinator" / "partners" / f"{name}.pub", pair.public)
    return kit


def revoke_partner(out: Path, name: str) -> Path:
    """Delete one partner's public key from the coordinator's kit, and the partner's own kit.

    A running server notices the deletion by itself.

    Args:
        out: The output folder of an earlier `provision`.
        name: The partner.

    Returns:
        The path of the deleted public key.

    Raises:
        UserError: There is no such key.
    """
    public = out / "coordinator" / "partners" / f"{name}.pub"
    if not NAME.fullmatch(name) or not public.exists():
        raise UserError(f"--revoke: {out} has no key of a partner {name}; check --out and the name")
    public.unlink()
    (out / "partners" / f"{name}.tar.gz").unlink(missing_ok=True)
    return public


def rotate_server(federation: Federation, out: Path) -> Path:
    """Create a new key and certificate for the server, signed by the same authority.

    Returns:
        The coordinator's folder.

    Raises:
        UserError: `out` has no authority.
    """
    names = (federation.server.host, *federation.server.names)
    pair = new_server(_read_authority(out), names)
    _write(out / "coordinator" / "server.key", pair.private)
    _write(out / "coordinator" / "server.pem", pair.public)
    return out / "coordinator"


def _ensure_authority(federation: Federation, out: Path) -> list[Path]:
    """Create the authority if there is none; returns the folders that were created."""
    private_directory(out)
    folder = private_directory(out / "authority")
    if (folder / "ca.key").exists():
        return []
    pair = new_authority(federation.federation)
    _write(folder / "ca.pem", pair.public)
    _write(folder / "ca.key", pair.private)
    return [folder]


def _read_authority(out: Path) -> KeyPair:
    folder = out / "authority"
    try:
        return KeyPair((folder / "ca.key").read_bytes(), (folder / "ca.pem").read_bytes())
    except OSError as error:
        raise UserError(
            f"--out: {folder} has no authority; run `fedaccord provision` without --rotate first"
        ) from error


def _write(path: Path, content: bytes | str) -> None:
    write_atomic(path, content, SECRET_MODE)


def _archive(name: str, files: dict[str, bytes]) -> bytes:
    """A tar.gz of `files` in the folder `name`, readable by their owner alone."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size, entry.mode = len(content), SECRET_MODE
            archive.addfile(entry, BytesIO(content))
    return buffer.getvalue()


def _partner_kit(
    federation: Federation, name: str, authority: KeyPair, pair: KeyPair
) -> dict[str, bytes]:
    filled = {"name": name, "server": federation.address, "sources": ", ".join(SOURCES)}
    return {
        "ca.pem": authority.public,
        "node.key": pair.private,
        "partner.yaml": templates.PARTNER_FILE.format(**filled).encode(),
        "fedaccord-partner.service": templates.PARTNER_UNIT.encode(),
        "README.txt": templates.PARTNER_README.format(**filled).encode(),
    }


def _coordinator_file(federation: Federation) -> str:
    server = federation.server
    return templates.COORDINATOR_FILE.format(port=server.port, control_port=server.control_port)
