"""`fedaccord distill`: a smaller student of the trained model."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from inspection.distill import Distilled, Teaching, distill, told


def main(
    directory: str, layers: int, out: str | None, text: str | None, epochs: int, seed: int
) -> int:
    """Teach, write and compare.

    Raises UserError when the run has no model, the file cannot be read or the layers do not fit.
    """
    if epochs < 1:
        raise UserError(f"--epochs: must be at least 1, got {epochs}")
    folder = Path(out).expanduser() if out else Path(directory) / "student"
    texts = None if text is None else read_lines(Path(text).expanduser())
    done = distill(Path(directory), folder, texts, Teaching(layers, epochs, seed=seed))
    print(describe(done))
    return 0


def describe(done: Distilled) -> str:
    """What was made, in a line."""
    return (
        f"{done.folder}: {done.layers} of {done.teacher_layers} layers, "
        f"{done.parameters / 1e6:.1f} of {done.teacher_parameters / 1e6:.1f} million parameters, "
        f"taught on {done.texts:,} public texts; on {done.held_out:,} held-out texts "
        f"{told(done, 'model')}"
    )


def read_lines(file: Path) -> list[str]:
    """A text a line.

    Raises UserError when the file cannot be read as UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--text {file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--text {file}: is not UTF-8 at byte {error.start}") from error
    return [line.strip() for line in lines if line.strip()]
