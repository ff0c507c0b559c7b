"""`fedaccord distill`: a smaller student of the trained model."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError
from inspection.distill import Distilled, Teaching, distill, told


def main(
    directory: str, layers: int, out: str | None, text: str | None, epochs: int, seed: int
) -> int:
    """Train a student, write it and compare it with the model.

    Args:
        directory: The run directory.
        layers: The number of encoder layers of the student.
        out: The output folder; by default `student` in the run directory.
        text: A file of public texts, one per line; by default the run's public validation rows.
        epochs: The number of passes over the texts.
        seed: The seed of the training.

    Returns:
        The exit code.

    Raises:
        UserError: The run has no model, the file cannot be read, or an argument is wrong.
    """
    if epochs < 1:
        raise UserError(f"--epochs: must be at least 1, got {epochs}")
    folder = Path(out).expanduser() if out else Path(directory) / "student"
    texts = None if text is None else read_lines(Path(text).expanduser())
    done = distill(Path(directory), folder, texts, Teaching(layers, epochs, seed=seed))
    print(describe(done))
    return 0


def describe(done: Distilled) -> str:
    """One line about the student."""
    return (
        f"{done.folder}: {done.layers} of {done.teacher_layers} layers, "
        f"{done.parameters / 1e6:.1f} of {done.teacher_parameters / 1e6:.1f} million parameters, "
        f"trained on {done.texts:,} public texts; on {done.held_out:,} held-out texts "
        f"{told(done, 'model')}"
    )


def read_lines(file: Path) -> list[str]:
    """The texts of a file with one text per line; blank lines are skipped.

    Raises:
        UserError: The file cannot be read as UTF-8.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"--text {file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"--text {file}: is not UTF-8 at byte {error.start}; convert it to UTF-8"
        ) from error
    return [line.strip() for line in lines if line.strip()]
