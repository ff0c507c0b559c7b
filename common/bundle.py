"""The Flower app bundle of a deployed run: a name, a version and a key for the configuration.

The bundle contains no code: partners and the coordinator run what they installed themselves. Both
check a bundle before Flower unpacks it, and refuse a bundle with any other file.
"""

from __future__ import annotations

import hashlib
import tomllib
import zipfile
from importlib.metadata import version as installed_version
from io import BytesIO

from common.errors import UserError
from common.refusals import Reason, Refused

PROJECT, MANIFEST = "pyproject.toml", ".info/CONTENT"
CONFIG_KEY = "config"
MAX_BYTES = 16_384
_DATE = (2020, 1, 1, 0, 0, 0)
_TEMPLATE = """\
[project]
name = "fedaccord"
version = "{version}"
dependencies = []

[tool.flwr.app]
publisher = "fedaccord"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
config = ""
"""


def build_bundle(version: str | None = None) -> bytes:
    """Build the bundle of this installation.

    Args:
        version: The version of fedaccord; by default the installed one.

    Returns:
        A ZIP archive. The same version always gives the same bytes.
    """
    project = _TEMPLATE.format(version=version or installed_version("fedaccord")).encode()
    digest = hashlib.sha256(project).hexdigest()
    files = {PROJECT: project, MANIFEST: f"{PROJECT},{digest},{8 * len(project)}".encode()}
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)
    return buffer.getvalue()


def check_bundle(content: bytes) -> None:
    """Check that `content` is the bundle of the installed version.

    Args:
        content: A ZIP archive from the coordinator.

    Raises:
        Refused: The bundle is of another version.
        UserError: The bundle contains another file, is too large, or cannot be read.
    """
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            names = {entry.filename for entry in archive.infolist()}
            total = sum(entry.file_size for entry in archive.infolist())
            if extra := sorted(names - {PROJECT, MANIFEST}):
                raise UserError(
                    f"the coordinator's bundle contains {len(extra)} files besides its "
                    "configuration; a deployed partner runs only code that it installed itself"
                )
            if total > MAX_BYTES:
                raise UserError(f"the coordinator's bundle is larger than {MAX_BYTES} bytes")
            project = tomllib.loads(archive.read(PROJECT).decode())
        theirs = str(project["project"]["version"])
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise UserError("the coordinator's bundle cannot be read") from error
    ours = installed_version("fedaccord")
    if theirs != ours:
        raise Refused(
            Reason.VERSION,
            f"the coordinator runs fedaccord {theirs} and this machine {ours}; "
            "install the same version on both sides",
        )
    if project != tomllib.loads(_TEMPLATE.format(version=ours)):
        raise UserError("the coordinator's bundle is not the bundle of a fedaccord run")
