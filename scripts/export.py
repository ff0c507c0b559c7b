"""`fedaccord export`: the trained model for another runtime."""

from __future__ import annotations

from pathlib import Path

from inspection.onnx_file import FILE, export_onnx


def main(directory: str, out: str | None) -> int:
    """Write the ONNX file of a run's model and say how well it agrees.

    Raises UserError when the run has no model or the file would not agree.
    """
    folder = Path(out).expanduser() if out else Path(directory) / "onnx"
    done = export_onnx(Path(directory), folder)
    print(
        f"{done.folder / FILE}: its logits are the model's to {done.difference:.1e} of the "
        f"largest, on {done.rows} made-up texts of up to {done.longest} tokens"
    )
    return 0
