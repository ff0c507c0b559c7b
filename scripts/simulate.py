"""`fedaccord simulate`: a whole federation on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from results.run_directory import refuse_finished
from scripts.compose import expand
from scripts.configure import configure
from scripts.console import PlainConsole
from simulation.prepare import ENVIRONMENT, prepare

INTERRUPTED = 130


def main(overrides: Sequence[str], multirun: bool = False, keep_workers: bool = False) -> int:
    """Run one simulation, or with `multirun` a sweep.

    Args:
        overrides: Hydra overrides, or `@FILE` for those in a file.
        multirun: Whether lists of values are swept over.
        keep_workers: Whether the workers stay for the next run of this process.

    Returns:
        The exit code: 0 when the run finished, 130 when it was interrupted.

    Raises:
        UserError: A setting is wrong, or the run cannot be carried out.
    """
    os.environ.update(ENVIRONMENT)
    overrides = expand(overrides)
    if multirun:
        from scripts.sweep import sweep

        return sweep(overrides)
    config = configure(overrides)
    assert config.run.dir is not None
    directory = Path(config.run.dir)
    refuse_finished(directory)
    config = prepare(config)

    from common.data.load import notes
    from scripts.progress import Terminal
    from simulation.run import simulate

    console = PlainConsole()
    console.print(f"run directory: {directory}", soft_wrap=True)
    assert config.run.cache_dir is not None
    for note in notes(config.data, Path(config.run.cache_dir)):
        console.print(f"data: {note}", soft_wrap=True)
    with Terminal(console, config.private) as terminal:
        finished = simulate(config, [terminal], keep_workers=keep_workers)
    if not finished:
        console.print(
            f"stopped; continue with: fedaccord simulate run.resume={directory}", soft_wrap=True
        )
        return INTERRUPTED
    console.print(f"model: {directory / 'model'}", soft_wrap=True)
    console.print(f"report: {directory / 'report.html'}", soft_wrap=True)
    return 0
