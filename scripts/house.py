"""Checks the rules of the source tree: `python -m scripts.house`.

- No file takes part in an import cycle. Imports under TYPE_CHECKING and inside functions count.
- No import points up the layers of pyproject.toml (import-linter's contracts).
- No file is longer than 400 lines, no function is longer than 60, and no function has more than
  eleven parameters.

There is no list of exceptions: a file that breaks a rule is divided.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 11

Sources = Mapping[str, str]
"""Source text by path relative to the project, with forward slashes."""
Graph = Mapping[str, frozenset[str]]
"""The modules that each module imports, by dotted name."""


def read_sources(root: Path) -> dict[str, str]:
    """Reads every Python file of the top-level packages under `root`.

    Args:
        root: The project's folder. A top-level folder counts where it, or a folder in it, is a
            package; hidden folders do not count.

    Returns:
        The text of each file by its path relative to `root`.
    """
    initialisers = [*root.glob("*/__init__.py"), *root.glob("*/*/__init__.py")]
    tops = {path.relative_to(root).parts[0] for path in initialisers}
    files = [path for top in sorted(tops) if top[0] != "." for path in (root / top).rglob("*.py")]
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in sorted(files)}


def module_name(path: str) -> str:
    """The dotted name under which `path` is imported."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def import_graph(sources: Sources) -> dict[str, frozenset[str]]:
    """Finds which of the given files import each other.

    Every import statement counts, wherever it is in the file.

    Args:
        sources: The files to look at; imports of anything else are left out.

    Returns:
        For each module, the modules that it names in an import.
    """
    modules = {module_name(path) for path in sources}
    graph = {}
    for path, text in sources.items():
        module = module_name(path)
        package = module if path.endswith("/__init__.py") else module.rpartition(".")[0]
        named = (
            name
            for node in ast.walk(ast.parse(text, path))
            for name in _imported(node, package, modules)
        )
        graph[module] = frozenset(named) - {module}
    return graph


def _imported(node: ast.AST, package: str, modules: set[str]) -> Iterator[str]:
    """Yields the members of `modules` that one statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    elif isinstance(node, ast.ImportFrom):
        source = node.module or ""
        if node.level:
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1])
            source = f"{base}.{source}".rstrip(".")
        for alias in node.names:
            submodule = f"{source}.{alias.name}"
            if submodule in modules:
                yield submodule
            elif source in modules:
                yield source


def import_cycles(graph: Graph) -> list[list[str]]:
    """Finds the groups of modules that import each other, directly or through others.

    Args:
        graph: The modules that each module imports.

    Returns:
        The strongly connected components of more than one module, each sorted by name.
    """
    backwards: dict[str, set[str]] = {module: set() for module in graph}
    for module, imported in graph.items():
        for other in imported:
            backwards[other].add(module)
    components: list[list[str]] = []
    assigned: set[str] = set()
    # Kosaraju's algorithm: in reverse order of completion, what reaches a module is its component.
    for module in reversed(_completion_order(graph)):
        if module in assigned:
            continue
        component = _reachable(module, backwards, assigned)
        assigned |= component
        if len(component) > 1:
            components.append(sorted(component))
    return sorted(components)


def _completion_order(graph: Graph) -> list[str]:
    """The modules in the order in which a depth-first search leaves them."""
    order: list[str] = []
    seen: set[str] = set()
    for start in sorted(graph):
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(sorted(graph[start])))]
        while stack:
            module, remaining = stack[-1]
            following = next((other for other in remaining if other not in seen), None)
            if following is None:
                order.append(module)
                stack.pop()
            else:
                seen.add(following)
                stack.append((following, iter(sorted(graph[following]))))
    return order


def _reachable(start: str, edges: Mapping[str, set[str]], without: set[str]) -> set[str]:
    found = {start}
    stack = [start]
    while stack:
        new = edges[stack.pop()] - found - without
        found |= new
        stack.extend(new)
    return found


def oversized(sources: Sources) -> list[str]:
    """Finds files and functions that exceed the limits.

    Args:
        sources: The files to measure.

    Returns:
        One line per finding. A function is measured from `def` to its last line; its decorators
        do not count.
    """
    findings = []
    for path, text in sources.items():
        lines = text.count("\n")
        if lines > MAX_FILE_LINES:
            findings.append(f"{path}: {lines} lines; divide it (at most {MAX_FILE_LINES})")
        for node in ast.walk(ast.parse(text, path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                findings.extend(f"{path}:{node.lineno}: {text}" for text in _too_much(node))
    return findings


def _too_much(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    """Yields what exceeds a limit in one function."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if lines > MAX_FUNCTION_LINES:
        yield f"{function.name} has {lines} lines; divide it (at most {MAX_FUNCTION_LINES})"
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    if len(named) > MAX_PARAMETERS:
        yield (
            f"{function.name} has {len(named)} parameters; group them (at most {MAX_PARAMETERS})"
        )


def broken_layers(root: Path) -> list[str]:
    """Runs import-linter on the contracts of pyproject.toml.

    Args:
        root: The project's folder.

    Returns:
        import-linter's report on broken contracts in one item, or nothing if all are kept.
    """
    # A process of its own: import-linter imports the packages from the folder it is started in.
    program = "from importlinter.cli import lint_imports_command as lint; lint()"
    command = [sys.executable, "-c", program, "--no-cache"]
    checked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if checked.returncode == 0:
        return []
    _, heading, broken = checked.stdout.partition("Broken contracts")
    return [f"{heading}{broken}" if heading else checked.stdout + checked.stderr]


def findings(root: Path) -> list[str]:
    """Checks every rule for the project in `root`; one text per broken rule and place."""
    sources = read_sources(root)
    cycles = import_cycles(import_graph(sources))
    return [
        *(f"import cycle; cut one import of: {', '.join(cycle)}" for cycle in cycles),
        *oversized(sources),
        *broken_layers(root),
    ]


def main() -> int:
    """Prints what breaks a rule; the exit status is 1 where anything does."""
    found = findings(Path(__file__).parents[1])
    for finding in found:
        print(finding)
    if not found:
        print("no import cycle, no import up the layers, no file or function too long")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
