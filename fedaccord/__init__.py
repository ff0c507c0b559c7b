"""The Python API of fedaccord.

=========================  =======================================================================
``simulate(overrides)``    runs a federation on this machine and returns its :class:`Run`
``Run.load(directory)``    a finished run: its figures as data frames, and its model
``strategy(overrides)``    the aggregation pipeline as a Flower strategy, for other Flower apps
``Progress``               the progress bar of ``simulate``, to be replaced by another observer
``UserError``              wrong input, with one line that names the problem and the remedy
=========================  =======================================================================

Importing this package imports neither torch nor Flower: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.errors import UserError
    from fedaccord.flower import strategy
    from fedaccord.progress import Progress
    from fedaccord.runs import Run
    from fedaccord.simulation import simulate

__all__ = ["Progress", "Run", "UserError", "__version__", "simulate", "strategy"]
__version__ = version("fedaccord")
_MODULES = {
    "Progress": "fedaccord.progress",
    "Run": "fedaccord.runs",
    "UserError": "common.errors",
    "simulate": "fedaccord.simulation",
    "strategy": "fedaccord.flower",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'fedaccord' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
