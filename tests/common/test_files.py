"""Files appear whole or not at all; a lock has one holder."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import UserError
from common.files import atomic_directory, built_once, held, sha256_text, write_atomic


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_atomic(target, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(target, "\ud800")
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_directory_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_directory(tmp_path / "d") as folder:
            (folder / "x").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_built_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def build(folder: Path) -> None:
        calls.append(folder)
        (folder / "x").write_text("1")

    for _ in range(2):
        assert (built_once(tmp_path / "d", build) / "x").read_text() == "1"
    assert len(calls) == 1
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700


def test_a_lock_has_one_holder_and_is_free_after_it(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with held(lock, "first"), pytest.raises(UserError, match="taken"), held(lock, "taken"):
        pass
    # Another error of the block is its own.
    with pytest.raises(BlockingIOError), held(lock, "second"):
        raise BlockingIOError
    with held(lock, "third"):
        pass


def test_hash_separates_its_parts() -> None:
    assert sha256_text("ab", "c") != sha256_text("a", "bc")
