"""Runs a notebook without Jupyter: `python -m tests.notebook FILE.ipynb [--write]`.

The value of each cell's last expression is displayed, as in a notebook. `--write` stores the
outputs in the file.
"""

from __future__ import annotations

import ast
import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

Output = dict[str, Any]


def run(path: Path) -> dict[str, Any]:
    """Execute all code cells in one namespace, and return the notebook with its outputs."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            cell["outputs"] = _execute("".join(cell["source"]), count, namespace)
    return notebook


def _execute(source: str, count: int, namespace: dict[str, Any]) -> list[Output]:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    outputs: list[Output] = []
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, f"cell {count}", "exec"), namespace)
        value = None
        if last is not None:
            assert isinstance(last, ast.Expr)
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), namespace)
    # A progress bar overwrites its line.
    lines = [line.rpartition("\r")[2] for line in printed.getvalue().splitlines(keepends=True)]
    if lines:
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines})
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = value._repr_html_().splitlines(keepends=True)
        result = {"data": data, "execution_count": count, "metadata": {}}
        outputs.append({"output_type": "execute_result", **result})
    return outputs


if __name__ == "__main__":
    file = Path(sys.argv[1])
    executed = run(file)
    if "--write" in sys.argv:
        file.write_text(json.dumps(executed, indent=1, ensure_ascii=False) + "\n", "utf-8")
