"""Runs the code cells of a notebook in order: `python -m tests.notebook FILE.ipynb`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def run_cells(path: Path) -> dict[str, Any]:
    """Execute every code cell in one namespace and return it; an error names its cell."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec(compile(source, f"{path.name}, cell {number}", "exec"), namespace)
    return namespace


if __name__ == "__main__":
    run_cells(Path(sys.argv[1]))
