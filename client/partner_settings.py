"""The keys of `partner.yaml`, as they are written in the file."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from client.accounting import Budget
from client.policy import Allowed, Policy
from common.settings_file import HIGHEST_PORT, Settings, Text

LARGEST_SEED = 2**62


def _number(value: object) -> float:
    """A number; YAML 1.1 reads 1e-6, without a point, as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number; write it in digits and without quotes")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError("must be a number; write it in digits and without quotes") from None


def _above_zero(value: float) -> float:
    # Written so that NaN is refused too.
    if not 0 < value < math.inf:
        raise ValueError("must be a finite number above 0; for example 8.0")
    return value


def _probability(value: float) -> float:
    if not 0 < value < 1:
        raise ValueError("must be a number between 0 and 1; for example 1.0e-5")
    return value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= HIGHEST_PORT:
        raise ValueError("must be HOST:PORT; for example fed.example.org:9443")
    return value


def _seed(value: int) -> int:
    if not 0 <= value <= LARGEST_SEED:
        raise ValueError(f"must be from 0 to {LARGEST_SEED}; never change it after the first run")
    return value


class LifetimeSettings(Settings):
    """The section `policy.lifetime`: the privacy budget over the data set's whole lifetime."""

    epsilon: Annotated[float, BeforeValidator(_number), AfterValidator(_above_zero)]
    delta: Annotated[float, BeforeValidator(_number), AfterValidator(_probability)]


class ColumnSettings(Settings):
    """The section `policy.columns`: the columns that a run may use, for each role."""

    text: list[str]
    label: list[str]
    groups: list[str] = Field(default_factory=list)


class PolicySettings(Settings):
    """The section `policy`. Permissions are off and `datasets` is unrestricted unless given."""

    lifetime: LifetimeSettings
    allow_non_private: bool = False
    allow_exact_metrics: bool = False
    allow_personal_models: bool = False
    datasets: list[str] = Field(default_factory=list)
    tasks: list[str]
    columns: ColumnSettings

    def policy(self) -> Policy:
        """The policy that these settings describe."""
        named = "datasets" in self.model_fields_set
        return Policy(
            Budget(self.lifetime.epsilon, self.lifetime.delta),
            allow_non_private=self.allow_non_private,
            allow_exact_metrics=self.allow_exact_metrics,
            allow_personal_models=self.allow_personal_models,
            datasets=Allowed(frozenset(self.datasets)) if named else Allowed(),
            tasks=Allowed(frozenset(self.tasks)),
            text=Allowed(frozenset(self.columns.text)),
            label=Allowed(frozenset(self.columns.label)),
            groups=Allowed(frozenset(self.columns.groups)),
        )


class PartnerSettings(Settings):
    """The whole file.

    Attributes:
        version: The version of the file's form.
        name: The partner's name in the federation.
        server: HOST:PORT of the federation's server.
        directory: The folder for ledger, caches and identity, relative to the file.
        data: The keys of `common.data.schema.DataConfig`, which have a reader of their own.
        split_seed: Decides together with a row's text whether the row is for validation.
        models: Place by the name that a run requests: `embedded`, a folder or HUB-ID@REVISION.
        policy: What the partner allows.
    """

    version: Literal[1] = 1
    name: Text
    server: Annotated[str, AfterValidator(_address)]
    directory: Text = "state"
    data: dict[str, Any]
    split_seed: Annotated[int, AfterValidator(_seed)] = 0
    models: dict[str, str]
    policy: PolicySettings
