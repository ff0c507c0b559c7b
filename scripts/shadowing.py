"""Notice that something else is imported in the place of one of fedaccord's packages.

Their names are short: `server`, `client`, `common`.  A folder with such a module that Python
searches before the installation, as it searches the current folder for `python -m`, would have its
module run instead of ours.  This module imports nothing but the standard library.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = (
    "auditing",
    "client",
    "common",
    "conf",
    "deployment",
    "fedaccord",
    "inspection",
    "reporting",
    "results",
    "scripts",
    "server",
    "simulation",
    "strategies",
    "sweeps",
)


def shadowed() -> str | None:
    """One line that names the first package that is not ours, or None."""
    root = Path(__file__).absolute().parent.parent
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None:
            return f"the package {name} is missing; install fedaccord anew"
        place = next(iter(spec.submodule_search_locations or [str(spec.origin)]))
        if Path(place).resolve() != (root / name).resolve():
            return (
                f"{place} is imported in the place of fedaccord's package {name}; start the "
                "command from another folder, and take that one out of PYTHONPATH"
            )
    return None
