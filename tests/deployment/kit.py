"""A small federation for tests, and the content of a partner's kit."""

from __future__ import annotations

import tarfile
from pathlib import Path

FEDERATION = {
    "federation": "test",
    "server": {"host": "server.example.org", "port": 1443, "names": ["10.0.0.7"]},
    "partners": ["north", "south"],
}


def kit(out: Path, name: str) -> dict[str, bytes]:
    with tarfile.open(out / "partners" / f"{name}.tar.gz") as archive:
        found = {}
        for entry in archive.getmembers():
            if entry.isfile():
                assert entry.mode == 0o600
                file = archive.extractfile(entry)
                assert file is not None
                found[entry.name.removeprefix(f"{name}/")] = file.read()
    return found
