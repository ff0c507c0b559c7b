"""What travels between server and partner, and nothing else does.

A message is a Flower RecordDict: `parameters` (arrays by name) beside one JSON object.  JSON,
because Flower's config records take flat scalars only.  Values are checked on arrival: whoever
sends something else is answered with a reason, not trusted.

Texts are cleaned on arrival too, in `unpack` and nowhere else: a name has at most 200 printable
characters and a reason is one line of at most 400, so that no later code has to think of what a
partner might make a terminal, a log or a page do.  They are cleaned and not refused, because a
group value may hold a tab or a soft hyphen without anybody meaning harm; a message in which two
keys become equal is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from common.printable import short_name, short_reason

PREPARE = "query.prepare"
TRAIN = "train"
EVALUATE = "evaluate"
ARRAYS = "parameters"
HEADER = "fedaccord"


class MessageError(ValueError):
    """A message does not have the agreed form."""


@dataclass(frozen=True)
class Request:
    """What the server asks: the round, and the run it belongs to (its id survives a resume).

    The run's name goes into the partner's ledger, where people read it: a short printable text.
    """

    run: str
    round: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.run, str) and not (self.run.isprintable() and 0 < len(self.run) <= 200):
            raise ValueError("run is not the name of a run")


@dataclass(frozen=True)
class Prepared:
    """A partner is ready: its stable name, and what the server must know to plan."""

    partner: str
    fingerprint: str
    version: str
    examples: float
    noise_multiplier: float


@dataclass(frozen=True)
class Refusal:
    """A partner will not take part, and says why in words without private values."""

    partner: str
    reason: str


@dataclass(frozen=True)
class Report:
    """Metrics of the incoming global model at a partner, and the cost of its training.

    `confusion` [true][predicted] and `groups` hold counts: exact where the partner's policy allows
    it, else with noise of standard deviation `count_noise` each, and all zero where they are
    withheld.  `examples` has noise of standard deviation `examples_noise`.  `epsilon` is what the
    partner's ledger holds for this run.  `train_seconds` of the steps, `frozen_seconds` of the
    frozen layers of rows that no batch had drawn before, `message_seconds` of both and all else.
    """

    partner: str
    confusion: list[list[float]]
    groups: dict[str, list[list[float]]]
    loss: float
    examples: float
    epsilon: float = 0.0
    delta: float = 0.0
    trained_examples: float = 0.0
    train_seconds: float = 0.0
    frozen_seconds: float = 0.0
    message_seconds: float = 0.0
    count_noise: float = 0.0
    examples_noise: float = 0.0
    # The task's own exact sums (`common.tasks`); none where metrics are private.
    sums: list[list[float]] = field(default_factory=list)


# What may be in a message, by its name, and the types of its fields.
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    kind.__name__: (kind, get_type_hints(kind)) for kind in (Request, Prepared, Refusal, Report)
}


def pack(body: Any, arrays: Mapping[str, Tensor] | None = None) -> RecordDict:
    """A RecordDict from one of the dataclasses above and, optionally, named float tensors."""
    header: dict[str, Any] = {"kind": type(body).__name__, "body": json.dumps(vars(body))}
    content = RecordDict({HEADER: ConfigRecord(header)})
    if arrays is not None:
        content[ARRAYS] = ArrayRecord(
            {name: Array(tensor.detach().cpu().numpy()) for name, tensor in arrays.items()}
        )
    return content


def put_seconds(content: RecordDict, seconds: float) -> None:
    """Write into our own report what its message took; nothing into another message."""
    header = content.config_records[HEADER]
    if header["kind"] == Report.__name__:
        body = json.loads(str(header["body"]))
        header["body"] = json.dumps({**body, "message_seconds": seconds})


def unpack(content: RecordDict) -> Any:
    """The dataclass inside a message, its texts printable and its numbers floats where they may be.

    Raises MessageError when there is none, its kind is unknown, or a field is missing, unknown or
    of another type than the dataclass says.
    """
    try:
        header = content.config_records[HEADER]
        form, fields = KINDS[str(header["kind"])]
        body = form(**json.loads(str(header["body"])))
        return replace(
            body, **{name: _clean(name, getattr(body, name), kind) for name, kind in fields.items()}
        )
    except MessageError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"not a fedaccord message: {type(error).__name__}") from error


def _clean(field: str, value: object, kind: Any) -> Any:
    """A JSON value as its field's type (str, int, float, list[...], dict[str, ...]).

    Raises MessageError naming the field when it is of another type.
    """
    inner = get_args(kind)
    if get_origin(kind) is list and isinstance(value, list):
        return [_clean(field, item, inner[0]) for item in value]
    if get_origin(kind) is dict and isinstance(value, dict):
        cleaned = {short_name(key): _clean(field, item, inner[1]) for key, item in value.items()}
        if len(cleaned) < len(value):
            raise MessageError(f"not a fedaccord message: {field} has the same key twice")
        return cleaned
    if kind is str and isinstance(value, str):
        return short_reason(value) if field == "reason" else short_name(value)
    if isinstance(value, bool) or kind not in (int, float):
        raise MessageError(f"not a fedaccord message: {field} has the wrong type")
    # Integers of JSON have no bound; those of no count and no float would fail in arithmetic.
    if isinstance(value, int) and abs(value) <= 2**63:
        return kind(value)
    if isinstance(value, float) and kind is float:
        return value
    raise MessageError(f"not a fedaccord message: {field} has the wrong type")


def arrays(content: RecordDict) -> dict[str, Tensor]:
    """The tensors inside a message, in the dtype they came in.

    Raises MessageError when there are none or one cannot be read.
    """
    try:
        record = content.array_records[ARRAYS]
        return {name: _tensor(array) for name, array in record.items()}
    except Exception as error:
        # Whatever NumPy makes of a stranger's bytes: EOFError, MemoryError, OverflowError, …
        raise MessageError(f"unreadable parameters: {type(error).__name__}") from error


def _tensor(array: Array) -> Tensor:
    loaded: object = array.numpy()
    # NumPy also opens zip files, as a folder of arrays.
    if not isinstance(loaded, np.ndarray):
        raise TypeError("not an array")
    return torch.from_numpy(np.array(loaded))


def array_bytes(content: RecordDict) -> int:
    """Bytes of parameters in a message."""
    record = content.array_records.get(ARRAYS)
    return 0 if record is None else sum(len(array.data) for array in record.values())


def array_count(content: RecordDict) -> int:
    """Number of parameters' arrays in a message."""
    return len(content.array_records.get(ARRAYS) or ())
