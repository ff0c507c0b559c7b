"""Composes Hydra overrides into one typed, validated configuration."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

import conf
from common.config import Config, from_mapping, validate
from common.config_file import read_config
from common.errors import UserError
from common.renamed import renamed

CONF = Path(conf.__file__).parent


def expand(overrides: Sequence[str]) -> list[str]:
    """Replace every `@FILE` by the overrides in that file, one per line; `#` begins a comment.

    Raises:
        UserError: when a file cannot be read.
    """
    expanded: list[str] = []
    for override in overrides:
        if not override.startswith("@"):
            expanded.append(override)
            continue
        try:
            lines = Path(override[1:]).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{override}: cannot be read ({type(error).__name__})") from error
        expanded += [line for line in map(str.strip, lines) if line and not line.startswith("#")]
    return expanded


def as_group_choice(override: str, root: Path = CONF) -> str:
    """Write `strategy.robust=median` as Hydra's group choice `strategy/robust=median`.

    A key is a group when conf/ has a folder of that name; all other overrides, such as
    `strategy.robust.f=2`, are returned unchanged.
    """
    key, equals, value = override.partition("=")
    place = root.joinpath(*key.lstrip("+~").split("."))
    if equals and "." in key and place.is_dir() and not value.startswith("{"):
        return f"{key.replace('.', '/')}={value}"
    return override


def compose_config(overrides: Sequence[str]) -> Config:
    """The configuration that `overrides` describe.

    Args:
        overrides: `KEY=VALUE` and `GROUP=CHOICE`, e.g. `run.rounds=4` and `privacy=none`.

    Raises:
        UserError: one line that names the key.
    """
    refuse_null(overrides)
    GlobalHydra.instance().clear()
    # The types first: every file of conf/ and every override is checked against them.
    ConfigStore.instance().store(name="schema", node=Config)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            tree = compose("config", [as_group_choice(o) for o in overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error)) from error
    return validate(resolved(tree))


def resolved(tree: DictConfig | dict[str, Any]) -> Config:
    """The typed configuration of a tree that Hydra has composed on this machine.

    Interpolations are resolved here and nowhere else: a value that is added to the configuration
    afterwards, such as a label found in the data, is text.

    Raises:
        UserError: one line that names the key.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), tree)
        plain = cast(
            dict[str, Any], OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
        )
    except OmegaConfBaseException as error:
        raise UserError(describe(error)) from error
    # Interpolation has copied strategy.f into every stage that takes it.
    plain["strategy"].pop("f", None)
    return from_mapping(plain)


def describe(error: OmegaConfBaseException) -> str:
    """The first line of an OmegaConf error, with the full key in front."""
    key = error.full_key or "config"
    first = str(error.msg or error).strip().splitlines()[0]
    return f"{key}: {first}"


def refuse_null(overrides: Sequence[str]) -> None:
    """Refuse an override that removes a choice which every run must make.

    Raises:
        UserError: naming the group and its choices.
    """
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        free = group in ("experiment", "sweep", "launch")
        if value == "null" and not free and (CONF / group.replace(".", "/")).is_dir():
            raise UserError(f"{group}: cannot be null; choose one of {_choices(group)}")


def one_line(error: Exception) -> str:
    """An error of Hydra or OmegaConf in one line that names the key and a remedy."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        if (answer := renamed(cause.full_key)) is not None:
            return answer
        near = difflib.get_close_matches(cause.full_key, _keys(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{cause.full_key}: there is no such key{hint}"
    if isinstance(cause, OmegaConfBaseException):
        return describe(cause)
    missing = re.search(r"Could not find '([\w/.-]+)/([^/']*)'", str(error))
    if missing:
        group = missing[1].replace("/", ".")
        return f"{group}: there is no choice '{missing[2]}'; choose one of {_choices(group)}"
    if isinstance(error, OverrideParseException):
        return (
            f"'{error.override}': is not KEY=VALUE; put a value with spaces, umlauts or other "
            "special characters into quotes of its own, e.g. 'data.path=\"my file.csv\"'"
        )
    return " ".join(line.strip() for line in str(error).splitlines()[:2])


def _choices(group: str) -> str:
    return ", ".join(sorted(p.stem for p in (CONF / group.replace(".", "/")).glob("*.yaml")))


def _keys() -> list[str]:
    def walk(tree: DictConfig, prefix: str) -> list[str]:
        names = []
        for key, value in tree.items():
            name = f"{prefix}{key!s}"
            names.append(name)
            if isinstance(value, DictConfig):
                names += walk(value, f"{name}.")
        return names

    return walk(OmegaConf.structured(Config), "")


def load_config(path: Path) -> Config:
    """Read and validate what `write_config` wrote.

    Raises:
        UserError: when it is not the configuration of a run.
    """
    try:
        return validate(read_config(path))
    except UserError as error:
        raise UserError(f"run.resume: not the config.yaml of a run: {error}") from error
