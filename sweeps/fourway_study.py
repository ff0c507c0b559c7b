"""The folder of a four-way study: its document, its missing runs, its table and figure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.config import malicious
from common.errors import UserError
from common.files import write_atomic
from results.run_directory import RESULTS
from sweeps.fourway import CELLS, Cell, cells_of, markdown
from sweeps.fourway_plan import Compose, cell_overrides
from sweeps.study_page import STUDY, write_study_report


def claim(study: Path, document: Mapping[str, Any]) -> None:
    """Make `study` the folder of this study; the same study may have more or fewer seeds.

    Raises:
        UserError: The folder cannot be used, or holds something else.
    """
    path = study / STUDY
    try:
        study.mkdir(parents=True, exist_ok=True)
        if path.exists():
            found = json.loads(path.read_text())
            if any(found.get(key) != document[key] for key in ("schema_version", "composed")):
                raise UserError(f"--dir: {study} holds another study; choose a new folder")
        elif any(study.iterdir()):
            raise UserError(f"--dir: {study} holds other files; choose a new folder")
        else:
            write_atomic(path, json.dumps(document, indent=2) + "\n")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--dir: {study} cannot be used ({type(error).__name__}); choose another folder"
        ) from error


def has_begun(directory: Path) -> bool:
    """Whether a run of the study can be continued from a checkpoint."""
    return (directory / "checkpoints").exists()


def run_overrides(document: Mapping[str, Any], cell: Cell, seed: int, directory: Path) -> list[str]:
    """The overrides that run a cell, or continue it from its checkpoint."""
    if has_begun(directory):
        return [f"run.resume={directory}"]
    return [*cell_overrides(document, cell), f"run.seed={seed}", f"run.dir={directory}"]


def run_missing(
    document: dict[str, Any],
    study: Path,
    run: Callable[[Cell, int, Path], None],
    compose: Compose,
) -> None:
    """Call `run` for every cell and seed without a result, and write the study after each.

    Args:
        document: The content of `fourway.json`; it is brought up to date.
        study: The study's folder.
        run: Runs a cell with a seed in a directory to its end.
        compose: Makes a configuration from overrides.
    """
    for cell, seed, directory in _runs(document, study):
        if not (directory / RESULTS).exists():
            run(cell, seed, directory)
        _write(study, document, compose)


def _runs(document: Mapping[str, Any], study: Path) -> Iterator[tuple[Cell, int, Path]]:
    for seed in document["seeds"]:
        for cell in CELLS:
            yield cell, seed, study / f"seed-{seed}" / cell.name


def _write(study: Path, document: dict[str, Any], compose: Compose) -> None:
    """Update the document, the table and the figure from the results that exist."""
    found = {
        (cell, seed): json.loads((directory / RESULTS).read_text())
        for cell, seed, directory in _runs(document, study)
        if (directory / RESULTS).exists()
    }
    if not found:
        return
    names = sorted(next(iter(found.values()))["final"]["partners"])
    attacked = compose(cell_overrides(document, Cell(False, True, False)))
    document["attackers"] = malicious(attacked, names)
    document["cells"] = cells_of(found, document["seeds"], document["attackers"])
    write_atomic(study / STUDY, json.dumps(document, indent=2) + "\n")
    write_atomic(study / "fourway.md", markdown(document))
    write_study_report(study)
    if find_spec("matplotlib") is not None:
        from sweeps.fourway_figure import svg

        write_atomic(study / "fourway.svg", svg(document))
