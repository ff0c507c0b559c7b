"""`fedaccord export`: the trained model as an ONNX file."""

from __future__ import annotations

from pathlib import Path

from inspection.onnx_file import FILE, export_onnx


def main(directory: str, out: str | None) -> int:
    """Write the ONNX file and print how well its logits agree with the model's.

    Args:
        directory: The run directory.
        out: The output folder; by default `onnx` in the run directory.

    Returns:
        The exit code.

    Raises:
        UserError: The run has no model, or the logits disagree.
    """
    folder = Path(out).expanduser() if out else Path(directory) / "onnx"
    done = export_onnx(Path(directory), folder)
    print(
        f"{done.folder / FILE}: its logits differ from the model's by at most "
        f"{done.difference:.1e} of the largest logit, on {done.rows} made-up texts of up to "
        f"{done.longest} tokens"
    )
    return 0
