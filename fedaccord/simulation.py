"""Simulations from Python."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UserError
from scripts.quoting import quoted

if TYPE_CHECKING:
    from fedaccord.progress import Progress
    from fedaccord.runs import Run

Value = bool | int | float | str | None | Sequence[bool | int | float | str]
Overrides = Sequence[str] | Mapping[str, Value]
# Text that Hydra reads as text without quotes.
_PLAIN = re.compile(r"(?!(?:true|false|null|nan|inf)$)[a-z_/.][a-z0-9_./-]*", re.IGNORECASE)


def simulate(
    overrides: Overrides = (), *, progress: Callable[[bool], Progress] | None = None
) -> Run:
    """Run a federation on this machine to its end.

    A run that was interrupted (in a notebook: *Interrupt kernel*) continues with
    ``simulate(["run.resume=DIRECTORY"])``.

    Args:
        overrides: Hydra overrides as on the command line, such as ``["privacy=none",
            "run.rounds=4"]``, or keys and values, such as ``{"privacy": "none", "run.rounds": 4}``.
        progress: Makes what shows the progress from whether the run is private; by default a
            :class:`fedaccord.Progress`.

    Returns:
        The finished run.

    Raises:
        UserError: A setting is wrong, or the run cannot be carried out; the message is one line.
        KeyboardInterrupt: The run was interrupted.

    Example:
        >>> run = simulate({"experiment": "small", "privacy.epsilon": 3})
        >>> run.results
    """
    if threading.current_thread() is not threading.main_thread():
        raise UserError("simulate: works in the main thread only; call it there")
    from simulation.prepare import ENVIRONMENT, prepare

    os.environ.update(ENVIRONMENT)
    from fedaccord.progress import Progress
    from fedaccord.runs import Run
    from results.run_directory import refuse_finished
    from scripts.compose import expand
    from scripts.configure import configure
    from simulation.run import simulate as run_rounds

    config = configure(expand(as_overrides(overrides)))
    assert config.run.dir is not None
    directory = Path(config.run.dir)
    refuse_finished(directory)
    config = prepare(config)
    with closing((progress or Progress)(config.private)) as bar:
        finished = run_rounds(config, [bar])
    if not finished:
        raise KeyboardInterrupt(f"continue with simulate(['run.resume={directory}'])")
    return Run.load(directory)


def as_overrides(overrides: Overrides) -> list[str]:
    """Hydra overrides from either form.

    Raises:
        UserError: A single text was given instead of a list of overrides.
    """
    if isinstance(overrides, str):
        raise UserError("overrides: must be a list of KEY=VALUE, not one text; write [...]")
    if isinstance(overrides, Mapping):
        return [f"{key}={_text(value)}" for key, value in overrides.items()]
    return list(overrides)


def _text(value: Value) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if not isinstance(value, str):
        return f"[{','.join(_text(item) for item in value)}]"
    if _PLAIN.fullmatch(value):
        return value
    return quoted(value)
