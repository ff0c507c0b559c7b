"""What a partner allows to be done with its data: its own file, ``partner.yaml``.

A coordinator's configuration is a request.  The partner checks it against this policy before
anything is computed from its rows for the coordinator, and answers a request that goes too far with
a refusal.  The lifetime budget is enforced by the ledger (``Ledger.reserve`` with
``cap=policy.budget``), because only the ledger knows what earlier runs have spent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from client.accounting import Budget
from common.refusals import Reason, Refused


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
