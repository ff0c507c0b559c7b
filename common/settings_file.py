"""YAML files that people write by hand: each is read by one strict pydantic model.

A model refuses unknown keys and converts no types. Every error is one line of the form
``FILE: KEY: problem; remedy``. It never repeats a value of the file.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from common.errors import UserError
from common.printable import short_entry
from common.strict_yaml import RepeatedKeyError, StrictLoader

HIGHEST_PORT = 65535
# Problem and remedy for each kind of error of pydantic that these models can raise.
_PROBLEMS = {
    "missing": "is missing; add it",
    "string_type": "must be text; put the value in quotes",
    "int_type": "must be a whole number; write it in digits and without quotes",
    "bool_type": "must be true or false; write one of them without quotes",
    "list_type": "must be a list; write it as [first, second]",
    "dict_type": "must hold keys and values; write KEY: VALUE lines below it",
    "model_type": "must hold keys and values; write KEY: VALUE lines below it",
    "string_too_short": "must not be empty; fill it in",
    "too_short": "must not be empty; name at least one",
}


class Settings(BaseModel):
    """Base of the models: unknown keys are errors, types are not converted, values are final."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True)


def _port(value: int) -> int:
    if not 0 < value <= HIGHEST_PORT:
        raise ValueError(f"must be a port number; choose one from 1 to {HIGHEST_PORT}")
    return value


Port = Annotated[int, AfterValidator(_port)]
Text = Annotated[str, Field(min_length=1)]
Model = TypeVar("Model", bound=Settings)


def read_settings(path: Path, model: type[Model]) -> Model:
    """Read a YAML file into its model.

    Args:
        path: the file.
        model: the class that declares its keys.

    Returns:
        The validated settings.

    Raises:
        UserError: The file cannot be read, or a key in it is unknown, missing, repeated or wrong.
    """
    tree = _tree(path)
    if not isinstance(tree, dict):
        keys = ", ".join(model.model_fields)
        raise UserError(f"{path}: must hold keys and values; the keys are {keys}")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path}: {_one_line(error, model)}") from None


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Problem and remedy for a key that does not exist.

    Args:
        key: the last part of the key.
        known: the names that are allowed in its place.
    """
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
    return f"there is no such key; {remedy}"


def _tree(path: Path) -> object:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=StrictLoader)
    except RepeatedKeyError as error:
        raise UserError(f"{path}: {error}: is given twice; keep one of the two") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply; start from the file of the kit") from None
    except (OSError, UnicodeDecodeError) as error:
        kind = type(error).__name__
        raise UserError(f"{path}: cannot be read ({kind}); check its name and rights") from error
    except (yaml.YAMLError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where is not None else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise UserError(
            f"{path}: {line}is not YAML ({short_entry(str(problem))}); correct the line"
        ) from None


def _one_line(error: ValidationError, model: type[Settings]) -> str:
    """The first error as `KEY: problem; remedy`; a misspelt key explains a missing one."""
    errors = error.errors(include_url=False, include_input=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = first["loc"]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{short_entry(key.lstrip('.'))}: {_problem(cast(Any, first), place, model)}"


def _problem(error: Mapping[str, Any], place: tuple[int | str, ...], model: type[Settings]) -> str:
    kind = error["type"]
    if kind == "extra_forbidden":
        return unknown_key(str(place[-1]), _fields(model, place[:-1]))
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        return f"must be {error['ctx']['expected']}; install the version that wrote the file"
    return _PROBLEMS.get(kind, f"is not valid ({kind}); see docs/deploy.md")


def _fields(model: type[Settings], place: tuple[int | str, ...]) -> list[str]:
    """The keys that the model allows at `place`."""
    for part in place:
        found = model.model_fields[str(part)].annotation
        if not (isinstance(found, type) and issubclass(found, Settings)):
            return []
        model = found
    return list(model.model_fields)
