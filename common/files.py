"""Files that are either whole or not there: write to a neighbour, fsync, rename; and locks."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import UserError


@contextmanager
def held(lock: Path, taken: str) -> Iterator[None]:
    """Hold the file `lock`, which is made if need be, as this process's own.

    Raises UserError with the text `taken` when another process holds it.
    """
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(taken) from None
        yield


def fsync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flush what was written to `path` to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


@contextmanager
def atomic_directory(path: Path, mode: int = 0o755) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    If `path` appears in the meantime (another process made the same thing) the temporary folder is
    dropped: callers use this for content-addressed folders and numbered checkpoints only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    temporary.chmod(mode)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                fsync_file(file)
        fsync_directory(temporary)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
            shutil.rmtree(temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_directory(path.parent)


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces.  Used wherever a hash is taken."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_text(*parts: str | bytes) -> str:
    """Hex SHA-256 over length-prefixed parts, so that ("ab","c") and ("a","bc") differ."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def default_cache() -> Path:
    """The folder for what can be made again, such as tokenised texts and joined models.

    It is `fedaccord` in the folder that FEDACCORD_CACHE names, or in the user's cache.
    """
    return Path(os.environ.get("FEDACCORD_CACHE") or Path.home() / ".cache") / "fedaccord"


def private_directory(path: Path) -> Path:
    """Create `path` (and parents) readable by this user only, and return it."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def built_once(path: Path, build: Callable[[Path], None], mode: int = 0o700) -> Path:
    """Return the folder `path`, calling `build(temporary folder)` first if it does not exist."""
    if not path.is_dir():
        with atomic_directory(path, mode) as temporary:
            build(temporary)
    return path


def append_lines(path: Path, *records: Mapping[str, Any]) -> None:
    """Append a JSON line for each record and flush them to the disk."""
    lines = [json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n" for record in records]
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())
