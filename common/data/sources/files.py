"""What all sources that read files of this machine have in common."""

from __future__ import annotations

import codecs
import contextlib
import glob
import gzip
import hashlib
import io
import re
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import IO, ClassVar, TextIO, cast

from common.data.batch import Batch
from common.data.schema import DataConfig
from common.data.sources.base import Source
from common.errors import UserError

# What compressed files are called, behind the suffix of their kind.
PACKED = ".gz"
_CONTROLS = re.compile(rb"[\x80-\x9f]")
WORKBOOK = b"PK\x03\x04"
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class FileSource(Source):
    """Files that ``data.path`` names: a file, a folder or a glob.

    Attributes:
        suffixes: What files of this source are called, where a folder is given.
        text: Whether the files are text in ``data.encoding``.
    """

    suffixes: ClassVar[tuple[str, ...]]
    text: ClassVar[bool] = True

    @abstractmethod
    def read_file(self, path: Path, config: DataConfig) -> Iterator[Batch]:
        """The mapped columns of one file, in batches."""

    def read(self, config: DataConfig, test: str | None, downloads: Path | None) -> Iterator[Batch]:
        """The rows of all files, in order of their names; files without rows are passed over.

        Raises:
            UserError: If no file has a row.
        """
        files, empty = self.files(config, test), True
        for path in files:
            for batch in self._read_whole(path, config):
                empty = False
                yield batch
        if empty:
            first = files[0]
            state = "has no data rows" if first.stat().st_size else "is empty"
            more = f", and so have {len(files) - 1} others" if len(files) > 1 else ""
            raise UserError(f"{first} {state}{more}")

    def stamp(self, config: DataConfig, test: str | None) -> str | None:
        """Path and content of every file.

        Size and time are not enough: a copy that keeps times, or a restored backup, changes the
        content of a file and neither.
        """
        return contents(self.files(config, test))

    def local_paths(self, config: DataConfig) -> tuple[str, ...]:
        """Both paths."""
        return ("path", "test_path")

    def files(self, config: DataConfig, test: str | None) -> list[Path]:
        """The files of the rows that are trained on, or of the test set."""
        if test is not None:
            return find_files(test, "data.test_path", self.suffixes)
        if not config.path:
            raise UserError(
                f"data.path is not set: data.source={config.source} needs a file or a glob"
            )
        found = find_files(config.path, "data.path", self.suffixes)
        held_out = self._test_files(config)
        files = [path for path in found if path.resolve() not in held_out]
        if not files:
            raise UserError(f"data.path: all of its {len(found)} files are in data.test_path too")
        return files

    def left_out(self, config: DataConfig, files: Sequence[str]) -> list[str]:
        """Files of the test set, files without rows, and files of a folder that are not read."""
        if not config.path:
            return []
        found = find_files(config.path, "data.path", self.suffixes)
        held_out = self._test_files(config)
        told = [
            f"{path} is not trained on: it is in data.test_path"
            for path in found
            if path.resolve() in held_out
        ]
        told += [
            f"{path} has no data rows"
            for path in found
            if path.resolve() not in held_out and str(path) not in files
        ]
        place = Path(config.path).expanduser()
        return told + unread(place, found, held_out, self.suffixes)

    def _test_files(self, config: DataConfig) -> set[Path]:
        """The files of the test set, as absolute paths without links."""
        test = self.own_test_set(config)
        if test is None:
            return set()
        return {path.resolve() for path in find_files(test, "data.test_path", self.suffixes)}

    def _read_whole(self, path: Path, config: DataConfig) -> Iterator[Batch]:
        try:
            if path.stat().st_size == 0:
                return
            if self.text:
                check_encoding(path, config.encoding)
            yield from self.read_file(path, config)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or 'broken file'}") from None


def contents(files: Iterable[Path]) -> str:
    """Hex SHA-256 over the paths and the bytes of ``files``."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        name = str(path.resolve()).encode(errors="surrogateescape")
        digest.update(hashlib.sha256(name).digest())
        digest.update(content)
    return digest.hexdigest()


def find_files(pattern: str, key: str, suffixes: tuple[str, ...]) -> list[Path]:
    """The files that ``pattern`` names, sorted.

    It is a path, a folder (whose files with one of ``suffixes`` are taken), or a glob with ** for
    any depth.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(f for f in path.iterdir() if has_suffix(f, suffixes) and f.is_file())
        if not found:
            known = ", ".join(suffixes)
            problem = f"{path} is a folder without files called {known}"
            raise UserError(f"{problem}: set {key} to a file or a glob such as {path}/*")
        return found
    files = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
    if not files:
        raise UserError(f"no file matches {key}: {path}")
    return files


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed where its name ends in .gz.

    Raises:
        UserError: If it is not a whole gzip file.
    """
    opener = gzip.open if path.suffix.lower() == PACKED else open
    try:
        with opener(path, "rb") as file:
            yield cast("IO[bytes]", file)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path} is not a whole gzip file") from None


@contextlib.contextmanager
def open_text(path: Path, encoding: str, errors: str = "strict") -> Iterator[TextIO]:
    """The text of a file, whose line ends are kept as they are."""
    with (
        open_bytes(path) as file,
        io.TextIOWrapper(file, encoding, errors, newline="") as text,
    ):
        yield text


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name ends in one of ``suffixes``, compressed or not."""
    return path.name.lower().removesuffix(PACKED).endswith(suffixes)


def unread(
    place: Path, found: Sequence[Path], held_out: Set[Path], suffixes: tuple[str, ...]
) -> list[str]:
    """What a folder, or the folders of a glob, have beside the files that are read: a line each."""
    if place.is_file():
        return []
    chosen = {path.resolve() for path in found} | held_out
    told = []
    for folder in [place] if place.is_dir() else sorted({path.parent for path in found}):
        others = [p for p in sorted(folder.iterdir()) if p.resolve() not in chosen]
        files = [p.name for p in others if p.is_file() and not p.name.startswith(".")]
        below = [
            p.name
            for p in others
            if p.is_dir() and any(has_suffix(f, suffixes) for f in p.rglob("*"))
        ]
        if files:
            told.append(f"{folder}: {len(files)} files are not read: {_some(files)}")
        if below and place.is_dir():
            told.append(f"{folder}: folders within are not read: {_some(below)}")
    return told


def _some(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def check_encoding(path: Path, encoding: str) -> None:
    """Refuse an encoding that is none, or that the file's own bytes contradict.

    Raises:
        UserError: If the file begins with the mark of UTF-16, is a workbook, or is UTF-8 beyond
            ASCII and would be read as something else: almost every text of a one-byte encoding
            that is not ASCII alone breaks the rules of UTF-8, so one that follows them is UTF-8.
    """
    try:
        "a".encode(encoding)  # also refuses codecs that are not for text, such as base64
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise UserError("data.encoding is not the name of an encoding: try utf-8") from None
    with open_bytes(path) as file:
        start = file.read(4)
    if start.startswith(WORKBOOK):
        raise UserError(f"{path} is a workbook or another archive: save the sheet as CSV")
    if start.startswith(WIDE_MARKS) and not name.startswith(("utf-16", "utf-32")):
        raise UserError(f"{path} begins with the mark of UTF-16: set data.encoding=utf-16")
    if not name.startswith("utf") and _is_utf8(path):
        raise UserError(f"{path} is UTF-8 and not {encoding}: set data.encoding=utf-8")
    if name.startswith("iso8859") and _has_controls(path):
        raise UserError(
            f"{path} has bytes that are no text in {encoding}: try data.encoding=cp1252"
        )


def _has_controls(path: Path) -> bool:
    """Whether a file has bytes that are control characters in every ISO 8859."""
    with open_bytes(path) as file:
        return any(_CONTROLS.search(part) for part in iter(lambda: file.read(1 << 20), b""))


def _is_utf8(path: Path) -> bool:
    """Whether a file is UTF-8 and not ASCII alone."""
    decoder, beyond = codecs.getincrementaldecoder("utf-8")(), False
    try:
        with open_bytes(path) as file:
            while part := file.read(1 << 20):
                beyond = beyond or not part.isascii()
                decoder.decode(part)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return beyond
