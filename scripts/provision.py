"""`fedaccord provision FILE`: keys, certificates and one kit for each party of a federation.

The output folder belongs to whoever runs the authority:

    authority/        the authority's key; keep it off the server
    coordinator/      what the server machine gets
    partners/NAME.tar.gz   what one partner gets; its private key is nowhere else
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml

from common.authority import KeyPair, new_authority, new_node, new_server
from common.data.sources import SOURCES
from common.errors import UserError
from common.files import private_directory, write_atomic

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
KEYS = ("federation", "server", "partners")
SERVER_KEYS = ("host", "port", "control_port", "names")


@dataclass(frozen=True)
class Federation:
    """`federation.yaml`: who takes part, and where the server is reached."""

    name: str
    host: str
    port: int
    control_port: int
    names: tuple[str, ...]
    partners: tuple[str, ...]


def load_federation(path: Path) -> Federation:
    """Read and check `federation.yaml`.

    Raises UserError naming the key.
    """
    try:
        tree: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("server"), dict):
        raise UserError(f"{path}: must hold federation, server (with host) and partners")
    server = tree["server"]
    unknown = [k for k in tree if k not in KEYS]
    unknown += [f"server.{k}" for k in server if k not in SERVER_KEYS]
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]}")
    partners = tree.get("partners")
    if not isinstance(partners, list) or not partners:
        raise UserError(f"{path}: partners must list at least one name")
    for name in [tree.get("federation"), *partners]:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{path}: a name is missing or not letters, digits, '-', '_' and '.'")
    if len({name.lower() for name in partners}) < len(partners):
        raise UserError(f"{path}: partners holds the same name twice")
    if "server" in partners:
        raise UserError(f"{path}: no partner can be called server")
    names, ports = server.get("names", []), []
    if not isinstance(server.get("host"), str):
        raise UserError(f"{path}: server.host must be the name or address that partners connect to")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise UserError(f"{path}: server.names must be a list of host names")
    for key, default in (("port", 9443), ("control_port", 9444)):
        value = server.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65536:
            raise UserError(f"{path}: server.{key} must be a port number")
        ports.append(value)
    if ports[0] == ports[1]:
        raise UserError(f"{path}: server.port and server.control_port must differ")
    return Federation(
        tree["federation"],
        server["host"],
        ports[0],
        ports[1],
        (server["host"], *names),
        tuple(partners),
    )


def provision(path: Path, out: Path) -> list[str]:
    """Make what is missing in `out`; what is there stays as it is.  Returns what was made."""
    federation = load_federation(path)
    made: list[str] = []
    authority = _authority(federation, out, made)
    coordinator = private_directory(out / "coordinator")
    private_directory(coordinator / "partners")
    private_directory(out / "partners")
    _secret(coordinator / "ca.pem", authority.public)
    if not (coordinator / "server.key").exists():
        rotate_server(federation, out)
        made.append(str(coordinator))
    _secret(coordinator / "coordinator.yaml", _coordinator_file(federation))
    _secret(coordinator / "fedaccord-server.service", SERVER_UNIT)
    _secret(coordinator / "README.txt", SERVER_README)
    for name in federation.partners:
        if not (coordinator / "partners" / f"{name}.pub").exists():
            made.append(str(rotate_partner(federation, out, name)))
    return made


def rotate_partner(federation: Federation, out: Path, name: str) -> Path:
    """A new key pair and kit for one partner; the old key is no longer accepted.

    Raises UserError when there is no such partner or the federation was not provisioned.
    """
    if name not in federation.partners:
        raise UserError(f"there is no partner {name} in the federation's file")
    authority = _read_authority(out)
    pair = new_node(name)
    kit = private_directory(out / "partners") / f"{name}.tar.gz"
    write_atomic(kit, _archive(name, _partner_kit(federation, name, authority, pair)), 0o600)
    _secret(out / "coordinator" / "partners" / f"{name}.pub", pair.public)
    return kit


def revoke_partner(out: Path, name: str) -> Path:
    """Take one partner's key away from the coordinator; a running server notices by itself."""
    public = out / "coordinator" / "partners" / f"{name}.pub"
    if not NAME.fullmatch(name) or not public.exists():
        raise UserError(f"{out}: there is no key of a partner {name}")
    public.unlink()
    (out / "partners" / f"{name}.tar.gz").unlink(missing_ok=True)
    return public


def rotate_server(federation: Federation, out: Path) -> Path:
    """A new key and certificate for the server, signed by the same authority."""
    pair = new_server(_read_authority(out), federation.names)
    _secret(out / "coordinator" / "server.key", pair.private)
    _secret(out / "coordinator" / "server.pem", pair.public)
    return out / "coordinator"


def _authority(federation: Federation, out: Path, made: list[str]) -> KeyPair:
    private_directory(out)
    folder = private_directory(out / "authority")
    if not (folder / "ca.key").exists():
        pair = new_authority(federation.name)
        _secret(folder / "ca.pem", pair.public)
        _secret(folder / "ca.key", pair.private)
        made.append(str(folder))
    return _read_authority(out)


def _read_authority(out: Path) -> KeyPair:
    folder = out / "authority"
    try:
        return KeyPair((folder / "ca.key").read_bytes(), (folder / "ca.pem").read_bytes())
    except OSError as error:
        raise UserError(
            f"{folder} has no authority; run `fedaccord provision` without options"
        ) from error


def _secret(path: Path, content: bytes | str) -> None:
    write_atomic(path, content, 0o600)


def _archive(name: str, files: dict[str, bytes]) -> bytes:
    """A tar.gz of `files` in the folder `name`, all readable by their owner alone."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        for file, content in files.items():
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size, entry.mode = len(content), 0o600
            archive.addfile(entry, BytesIO(content))
    return buffer.getvalue()


def _partner_kit(
    federation: Federation, name: str, authority: KeyPair, pair: KeyPair
) -> dict[str, bytes]:
    server = f"{federation.host}:{federation.port}"
    return {
        "ca.pem": authority.public,
        "node.key": pair.private,
        "partner.yaml": PARTNER_FILE.format(
            name=name, server=server, sources=", ".join(SOURCES)
        ).encode(),
        "fedaccord-partner.service": PARTNER_UNIT.encode(),
        "README.txt": PARTNER_README.format(name=name, server=server).encode(),
    }


def _coordinator_file(federation: Federation) -> str:
    return COORDINATOR_FILE.format(port=federation.port, control_port=federation.control_port)


COORDINATOR_FILE = """\
# The coordinator's own settings.  Partners reach `port`; `control_port` serves this machine only.
version: 1
host: 0.0.0.0
port: {port}
control_port: {control_port}
directory: state
"""

PARTNER_FILE = """\
# This partner's own file.  Nothing in it leaves this machine, and nobody else can change it.
version: 1
name: {name}
server: {server}
# Ledger, caches and identity; relative to this file.  Back up the ledger.
directory: state
# Where the texts are: {sources}.  See docs/data.md.
data:
  source: csv
  path: FILL-IN.csv
  columns:
    text: text
    label: label
    groups: []
  labels: [negative, positive]
  validation_fraction: 0.1
# Which rows validate is a function of the text and of this number; never change it.
split_seed: 0
# The models that may be trained: the name a run asks for, and where it lies on this machine
# (`embedded` for the packaged MiniLM, a folder, or a hub id as NAME@REVISION: only that revision
# is downloaded, whatever a run asks for).
models:
  embedded: embedded
policy:
  # The privacy budget of this data set over its whole life, whatever the runs are.
  lifetime: {{epsilon: 8.0, delta: 1.0e-5}}
  allow_non_private: false
  allow_exact_metrics: false
  # Models without noise (train.ditto_lambda) that stay on this machine.
  allow_personal_models: false
  tasks: [classification]
  columns:
    text: [text]
    label: [label]
    groups: []
"""

PARTNER_UNIT = """\
# Copy to /etc/systemd/system/, put the kit into /etc/fedaccord, create the user `fedaccord`.
[Unit]
Description=fedaccord partner
After=network-online.target
Wants=network-online.target

[Service]
User=fedaccord
# Where fedaccord is in a virtual environment, give its full path.
ExecStart=/usr/bin/env fedaccord partner start /etc/fedaccord/partner.yaml
EnvironmentFile=-/etc/fedaccord/environment
Restart=on-failure
RestartSec=30
KillMode=mixed
TimeoutStopSec=60
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=/etc/fedaccord

[Install]
WantedBy=multi-user.target
"""

SERVER_UNIT = """\
# Copy to /etc/systemd/system/, put this folder into /etc/fedaccord, create the user `fedaccord`.
[Unit]
Description=fedaccord coordinator
After=network-online.target
Wants=network-online.target

[Service]
User=fedaccord
# Where fedaccord is in a virtual environment, give its full path.
ExecStart=/usr/bin/env fedaccord server start /etc/fedaccord/coordinator.yaml
Restart=on-failure
RestartSec=10
KillMode=mixed
TimeoutStopSec=60
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=/etc/fedaccord

[Install]
WantedBy=multi-user.target
"""

PARTNER_README = """\
Kit of the partner {name}.  node.key is secret: whoever has it can speak as {name}.

1. Unpack this archive where only the service's user can read it.
2. Fill in partner.yaml: where the texts are, and what you allow.
3. fedaccord partner check partner.yaml
4. fedaccord partner start partner.yaml      (or install fedaccord-partner.service)

Outgoing connections to {server} (TCP) are all it needs; nothing listens to the outside.
"""

SERVER_README = """\
The coordinator's kit.  server.key is secret.  The authority's key is not in here: keep it apart.

1. fedaccord server start coordinator.yaml     (or install fedaccord-server.service)
2. fedaccord status coordinator.yaml
3. fedaccord submit coordinator.yaml [KEY=VALUE ...]

Partners need to reach `port`; `control_port` listens on this machine only.
"""


def main(path: str, out: str, rotate: str | None, revoke: str | None) -> int:
    """Make, rotate or revoke; prints paths and never a key."""
    folder = Path(out)
    if rotate is not None and revoke is not None:
        raise UserError("choose one of --rotate and --revoke")
    if revoke is not None:
        revoke_partner(folder, revoke)
        print(f"revoked {revoke}; also take it out of {path}, or the next run makes a new kit")
    elif rotate == "server":
        print(f"new server certificate in {rotate_server(load_federation(Path(path)), folder)}")
        print("restart the server to use it")
    elif rotate is not None:
        print(f"new kit: {rotate_partner(load_federation(Path(path)), folder, rotate)}")
    else:
        made = provision(Path(path), folder)
        for place in made:
            print(f"made {place}")
        if not made:
            print("nothing to make: every kit is there")
    return 0
