"""`fedaccord simulate --multirun`: many trials by Hydra's sweepers and launchers."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from hydra.types import RunMode
from hydra.version import setbase
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.config import Config, config_hash, validate
from common.errors import UserError
from common.files import canonical_json, held, sha256_text
from scripts.compose import CONF, as_group_choice, one_line, refuse_null, resolved
from scripts.console import PlainConsole
from scripts.trial import run_trial
from sweeps.objectives import check
from sweeps.records import DOCUMENT, Document, read_sweep, write_document

OWN = ("run.dir", "run.resume")
PLACE = "hydra.sweep.dir"
LOCK = ".lock"
ROOT = Path("multirun")


def sweep(overrides: Sequence[str]) -> int:
    """Run what is missing of a sweep; the same command continues one that was cut off.

    Exit code 0 when every trial has a result, 1 when one failed, 130 when interrupted.

    Raises UserError before anything is run when a setting is wrong.
    """
    console = PlainConsole(soft_wrap=True)
    place = [o for o in overrides if o.startswith(f"{PLACE}=")]
    arguments = [as_group_choice(o) for o in overrides if o not in place]
    for override in arguments:
        if (key := override.partition("=")[0].lstrip("+~")) in OWN:
            raise UserError(f"{key}: is set by the sweep; use {PLACE}")
    refuse_null(arguments)
    hydra = _hydra()
    try:
        document = _document(hydra, arguments)
        directory = _directory(place, document.identity)
        with _claimed(directory, document):
            console.print(f"sweep directory: {directory}")
            _go(hydra, arguments, directory)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error
    except KeyboardInterrupt:
        _close(directory, console)
        console.print("stopped; the same command continues")
        return 130
    return _close(directory, console)


def _hydra() -> Hydra:
    setbase("1.3")
    GlobalHydra.instance().clear()
    ConfigStore.instance().store(name="schema", node=Config)
    return Hydra.create_main_hydra2("fedaccord", create_config_search_path(str(CONF)))


def _document(hydra: Hydra, arguments: Sequence[str]) -> Document:
    """What `arguments` ask for, checked as far as that is possible without the data."""
    tree = hydra.compose_config("config", list(arguments), RunMode.MULTIRUN, False)
    sweeper: Any = OmegaConf.to_container(tree.hydra.sweeper, resolve=True)
    base = validate(resolved(_task(tree)))
    params = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    parsed = parser.parse_overrides([*params, *tree.hydra.overrides.task])
    planned = sweeper.get("trials")
    if planned is None:
        planned = 1
        for override in {o.get_key_element(): o for o in parsed}.values():
            if override.is_sweep_override():
                if not override.is_discrete_sweep():
                    raise UserError(
                        f"{override.get_key_element()}: an interval has no end of values; "
                        "add hydra/sweeper=optuna"
                    )
                planned *= len(list(override.sweep_string_iterator()))
    # Keys that only trials have are checked with one of their values.
    hydra.config_loader.load_sweep_config(tree, [_first(o) for o in parsed])
    swept = {o.get_key_element(): o.input_line for o in parsed if o.is_sweep_override()}
    return Document(
        arguments=list(arguments),
        identity=sha256_text(config_hash(base), canonical_json([sweeper, swept])),
        objectives=check(sweeper["objectives"]) if "objectives" in sweeper else [],
        swept=sorted(key.lstrip("+") for key in swept),
        planned=planned,
    )


def _first(override: Override) -> str:
    """The override with the first of its values."""
    if not override.is_sweep_override():
        return override.input_line or ""
    if override.is_discrete_sweep():
        return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
    return f"{override.get_key_element()}={cast(IntervalSweep, override.value()).start}"


def _task(tree: DictConfig) -> Any:
    found: Any = OmegaConf.to_container(tree)
    del found["hydra"]
    return found


def _directory(place: Sequence[str], identity: str) -> Path:
    """The folder that was named, that of the same sweep where one is unfinished, or a new one."""
    if place:
        return Path(place[-1].partition("=")[2].strip("'\"")).expanduser().absolute()
    for path in sorted(ROOT.glob(f"*/*/{DOCUMENT}"), reverse=True):
        try:
            found = read_sweep(path.parent)
        except UserError:
            continue
        if found.document.identity == identity and not found.ended and not _busy(path.parent):
            return path.parent.absolute()
    now = datetime.now()
    wished = (ROOT / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}").absolute()
    number = 1
    while wished.exists():
        number += 1
        wished = wished.with_name(f"{now:%H-%M-%S}-{number}")
    return wished


def _busy(directory: Path) -> bool:
    try:
        with held(directory / LOCK, "busy"):
            return False
    except (OSError, UserError):
        return True


@contextmanager
def _claimed(directory: Path, document: Document) -> Iterator[None]:
    """Hold `directory` as this command's own.

    Raises UserError when it holds something else, or another command is at work in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / DOCUMENT).exists():
            if read_sweep(directory).document.identity != document.identity:
                raise UserError(f"{PLACE}: {directory} holds another sweep; choose a new folder")
        elif any(p.name != LOCK for p in directory.iterdir()):
            raise UserError(f"{PLACE}: {directory} holds other files; choose a new folder")
        with held(directory / LOCK, f"{PLACE}: another command is at work in {directory}"):
            if not (directory / DOCUMENT).exists():
                write_document(directory, document)
            yield
    except PermissionError as error:
        raise UserError(f"{PLACE}: {directory} cannot be used: {error.strerror}") from error


def _go(hydra: Hydra, arguments: Sequence[str], directory: Path) -> None:
    """Hand over to Hydra: its sweeper makes the trials, its launcher runs them."""
    from simulation import workers as runtime

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    escaped = str(directory).replace("\\", "\\\\").replace("'", "\\'")
    try:
        hydra.multirun(
            "config", run_trial, [*arguments, f"{PLACE}='{escaped}'"], with_log_configuration=False
        )
    finally:
        signal.signal(signal.SIGTERM, before)
        runtime.end()


def _close(directory: Path, console: PlainConsole) -> int:
    """Write the report of what there is now, and say where."""
    from scripts.sweep_privacy import compose_trials
    from sweeps.page import write_sweep_report

    found = read_sweep(directory)
    failed = [t for t in found.trials.values() if t.state == "failed"]
    for trial in failed:
        console.print(f"trial {trial.number} failed: {trial.reason}")
    path = write_sweep_report(found, compose_trials(found))
    console.print(f"report: {path}")
    return 1 if failed else 0
