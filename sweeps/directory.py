"""The folder of a sweep: which one a command continues, and the right to write there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from common.errors import UserError
from common.files import held
from sweeps.records import DOCUMENT, Document, read_sweep, write_document

KEY = "hydra.sweep.dir"
LOCK = ".lock"
ROOT = Path("multirun")


def choose(named: str | None, identity: str) -> Path:
    """The folder of the sweep.

    Args:
        named: The value of `hydra.sweep.dir`, where it was given.
        identity: The identity of the sweep (`sweeps.records.Document`).

    Returns:
        The named folder, else that of the same sweep if it is unfinished, else a new one.
    """
    if named is not None:
        return Path(named.strip("'\"")).expanduser().absolute()
    for path in sorted(ROOT.glob(f"*/*/{DOCUMENT}"), reverse=True):
        try:
            sweep = read_sweep(path.parent)
        except UserError:
            continue
        if sweep.document.identity == identity and not sweep.ended and not _busy(path.parent):
            return path.parent.absolute()
    now = datetime.now()
    directory = (ROOT / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}").absolute()
    number = 1
    while directory.exists():
        number += 1
        directory = directory.with_name(f"{now:%H-%M-%S}-{number}")
    return directory


@contextmanager
def claimed(directory: Path, document: Document) -> Iterator[None]:
    """Reserve the folder for this command, and write `sweep.json` if there is none.

    Args:
        directory: The folder of the sweep; it is created if necessary.
        document: The sweep that this command asks for.

    Raises:
        UserError: The folder holds something else, or another command uses it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / DOCUMENT).exists():
            if read_sweep(directory).document.identity != document.identity:
                raise UserError(f"{KEY}: {directory} holds another sweep; choose a new folder")
        elif any(p.name != LOCK for p in directory.iterdir()):
            raise UserError(f"{KEY}: {directory} holds other files; choose a new folder")
        with held(directory / LOCK, f"{KEY}: another command uses {directory}; wait until it ends"):
            if not (directory / DOCUMENT).exists():
                write_document(directory, document)
            yield
    except PermissionError as error:
        raise UserError(f"{KEY}: {directory} cannot be used: {error.strerror}") from error


def _busy(directory: Path) -> bool:
    try:
        with held(directory / LOCK, "busy"):
            return False
    except (OSError, UserError):
        return True
