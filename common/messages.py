"""What travels between server and partner, and nothing else does.

A message is a Flower RecordDict: `parameters` (arrays by name) beside one JSON object.  JSON,
because Flower's config records take flat scalars only.  Values are checked on arrival: whoever
sends something else is answered with a reason, not trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

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
    extra: dict[str, float] = field(default_factory=dict)
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
    """The dataclass inside a message.

    Raises MessageError when there is none, its kind is unknown, or a field is missing, unknown or
    of another type than the dataclass says.
    """
    try:
        header = content.config_records[HEADER]
        form, fields = KINDS[str(header["kind"])]
        body = form(**json.loads(str(header["body"])))
        wrong = [name for name, kind in fields.items() if not _is(getattr(body, name), kind)]
        if wrong:
            raise MessageError(f"not a fedaccord message: {wrong[0]} has the wrong type")
        return body
    except MessageError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"not a fedaccord message: {type(error).__name__}") from error


def _is(value: object, kind: Any) -> bool:
    """Whether a JSON value has the type of a field (str, int, float, list[...], dict[str, ...])."""
    inner = get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is(item, inner[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is(item, inner[1]) for item in value.values())
    if isinstance(value, bool):
        return False
    # Integers of JSON have no bound; those of no count and no float would fail in arithmetic.
    if isinstance(value, int) and abs(value) > 2**63:
        return False
    return isinstance(value, (int, float) if kind is float else kind)


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
