"""What a partner allows to be done with its data: its own file, ``partner.yaml``.

A coordinator's configuration is a request.  The partner checks it against this policy before
anything is computed from its rows for the coordinator, and answers a request that goes too far with
a refusal.  The lifetime budget is enforced by the ledger (``Ledger.reserve`` with
``cap=policy.budget``), because only the ledger knows what earlier runs have spent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from client.accounting import Budget
from common.errors import UserError
from common.refusals import Reason, Refused
from common.strict_yaml import RepeatedKeyError, StrictLoader

POLICY_VERSION = 1
_KEYS = (
    "version",
    "lifetime",
    "allow_non_private",
    "allow_exact_metrics",
    "allow_personal_models",
    "datasets",
    "tasks",
    "columns",
)
_COLUMN_ROLES = ("text", "label", "groups")


class PolicyRefusal(Refused):
    """The partner's policy does not allow the request."""


@dataclass(frozen=True)
class Allowed:
    """A list of names, or anything (``names=None``)."""

    names: frozenset[str] | None = None

    def refused(self, requested: Iterable[str]) -> list[str]:
        """Which of the requested names are not allowed, sorted."""
        return [] if self.names is None else sorted(set(requested) - self.names)


@dataclass(frozen=True)
class PolicyRequest:
    """What a run wants to do, as it concerns the policy.

    ``groups`` are the columns whose values form groups for fairness counts.  ``epsilon`` and
    ``delta`` are those of the whole run and are ignored where ``private`` is False.  ``personal``
    is whether a model without noise is kept at the partner.
    """

    dataset: str
    task: str
    text: tuple[str, ...]
    label: tuple[str, ...]
    groups: tuple[str, ...]
    private: bool
    exact_metrics: bool
    epsilon: float
    delta: float
    personal: bool = False


@dataclass(frozen=True)
class Policy:
    """A partner's rules; ``budget`` holds for each data set over its whole life."""

    budget: Budget
    allow_non_private: bool = False
    allow_exact_metrics: bool = False
    # A switch of its own: a personal model stays here, while allow_non_private would let every
    # update leave without noise.
    allow_personal_models: bool = False
    datasets: Allowed = Allowed()
    tasks: Allowed = Allowed()
    text: Allowed = Allowed()
    label: Allowed = Allowed()
    groups: Allowed = Allowed()

    @classmethod
    def permissive(cls, epsilon: float, delta: float) -> Policy:
        """Everything allowed within one run's own budget: for simulations, which own no data."""
        return cls(
            Budget(epsilon, delta),
            allow_non_private=True,
            allow_exact_metrics=True,
            allow_personal_models=True,
        )

    def check(self, request: PolicyRequest) -> None:
        """Do nothing if the request is allowed.

        Raises:
            PolicyRefusal: its text names setting, columns and figures, for the partner's own log.
        """
        for what, key, allowed, requested in (
            ("data set", "", self.datasets, (request.dataset,)),
            ("task", "task", self.tasks, (request.task,)),
            ("text column", "data.columns", self.text, request.text),
            ("label column", "data.columns", self.label, request.label),
            ("group column", "data.columns", self.groups, request.groups),
        ):
            if refused := allowed.refused(requested):
                listed = ", ".join(repr(name) for name in refused)
                raise _refusal(Reason.POLICY, f"does not allow the {what} {listed}", key)
        if request.exact_metrics and not self.allow_exact_metrics:
            raise _refusal(
                Reason.EXACT_METRICS,
                "does not allow exact metrics, only noisy ones: ask for privacy.metrics=private",
                "privacy.metrics",
            )
        if request.personal and not self.allow_personal_models:
            raise _refusal(
                Reason.PERSONAL,
                "does not allow personal models: they are trained without differential privacy",
                "train.ditto_lambda",
            )
        if not request.private:
            if not self.allow_non_private:
                raise _refusal(
                    Reason.NOT_PRIVATE,
                    "does not allow training without differential privacy",
                    "privacy.mode",
                )
            return
        for key, asked_for, most in (
            ("epsilon", request.epsilon, self.budget.epsilon),
            ("delta", request.delta, self.budget.delta),
        ):
            # Written so that NaN is refused too.
            if not 0 < asked_for <= most:
                raise _refusal(
                    Reason.POLICY,
                    f"does not allow {key} {asked_for:g}: it is not within the {most:g}",
                    f"privacy.{key}",
                )


def _refusal(reason: Reason, what: str, key: str) -> PolicyRefusal:
    return PolicyRefusal(reason, f"the partner's policy {what}", key)


def load(path: Path | str) -> Policy:
    """The policy in a partner's file.

    ``lifetime``, ``tasks`` and ``columns`` must be there; the permissions are off unless given.

    Raises:
        UserError: naming file and key, if the file cannot be read, a key is unknown, missing, given
            twice, or of the wrong type.
    """
    return policy_of(read_file(path))


def read_file(path: Path | str, keys: tuple[str, ...] = _KEYS) -> Reader:
    """A reader of a YAML file with the given keys, whose `version` is the current one.

    Raises UserError naming file and key.
    """
    try:
        tree = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=StrictLoader)
    except RepeatedKeyError as failure:
        raise UserError(f"policy {path}: {failure} is given twice") from failure
    except RecursionError as failure:
        raise UserError(f"policy {path} is not a policy: it is nested too deeply") from failure
    except (OSError, UnicodeDecodeError) as failure:
        raise UserError(f"policy {path} cannot be read: {failure}") from failure
    except (yaml.YAMLError, ValueError) as failure:
        raise UserError(f"policy {path} is not YAML: {' '.join(str(failure).split())}") from failure
    reader = Reader(str(path), "", tree)
    reader.known(keys)
    if (version := reader.get("version", POLICY_VERSION)) != POLICY_VERSION:
        raise UserError(f"policy {path}: version: {version!r} is not {POLICY_VERSION}")
    return reader


def policy_of(reader: Reader) -> Policy:
    """The policy that a file, or one section of a file, holds.

    Raises UserError naming file and key.
    """
    reader.known(_KEYS)
    lifetime, columns = reader.section("lifetime"), reader.section("columns")
    lifetime.known(("epsilon", "delta"))
    columns.known(_COLUMN_ROLES)
    epsilon, delta = lifetime.number("epsilon"), lifetime.number("delta")
    if not 0 < epsilon < float("inf"):
        raise lifetime.wrong("epsilon", "a finite number above 0")
    if not 0 < delta < 1:
        raise lifetime.wrong("delta", "a number between 0 and 1")
    return Policy(
        Budget(epsilon, delta),
        allow_non_private=reader.flag("allow_non_private"),
        allow_exact_metrics=reader.flag("allow_exact_metrics"),
        allow_personal_models=reader.flag("allow_personal_models"),
        datasets=reader.names("datasets") if reader.has("datasets") else Allowed(),
        tasks=reader.names("tasks"),
        text=columns.names("text"),
        label=columns.names("label"),
        groups=columns.names("groups") if columns.has("groups") else Allowed(frozenset()),
    )


@dataclass(frozen=True)
class Reader:
    """One mapping of the file, and how to say where something is wrong in it."""

    path: str
    prefix: str
    tree: Any

    def __post_init__(self) -> None:
        if not isinstance(self.tree, dict):
            where = self.prefix.rstrip(".") or "the file"
            raise UserError(f"policy {self.path}: {where} must be a mapping of keys to values")

    def wrong(self, key: str, wanted: str) -> UserError:
        """An error that names file and key and says what is wanted."""
        return UserError(f"policy {self.path}: {self.prefix}{key} must be {wanted}")

    def known(self, keys: tuple[str, ...]) -> None:
        """Refuse keys that are not in `keys`."""
        for key in self.tree:
            if key not in keys:
                raise UserError(
                    f"policy {self.path}: unknown key {self.prefix}{key}; "
                    f"known are {', '.join(keys)}"
                )

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self.tree

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key that may be missing."""
        return self.tree.get(key, default)

    def required(self, key: str) -> Any:
        """The value of a key; an error when it is missing."""
        if key not in self.tree:
            raise UserError(f"policy {self.path}: {self.prefix}{key} is missing")
        return self.tree[key]

    def section(self, key: str) -> Reader:
        """The mapping under a key."""
        return Reader(self.path, f"{self.prefix}{key}.", self.required(key))

    def number(self, key: str) -> float:
        """The number under a key."""
        value = self.required(key)
        if isinstance(value, bool):
            raise self.wrong(key, "a number")
        try:
            # YAML 1.1 reads 1e-6, without a point, as text.
            return float(value)
        except (TypeError, ValueError, OverflowError):
            raise self.wrong(key, "a number") from None

    def flag(self, key: str) -> bool:
        """The switch under a key, off when missing."""
        value = self.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def names(self, key: str) -> Allowed:
        """The list of names under a key."""
        value = self.required(key)
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.wrong(key, "a list of names")
        return Allowed(frozenset(value))
