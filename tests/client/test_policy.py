from __future__ import annotations

import math
from dataclasses import replace

import pytest

from client.accounting import Budget
from client.policy import Allowed, Policy, PolicyRefusal, PolicyRequest
from client.refusal import public_reason
from common.request import KEYS

REQUEST = PolicyRequest(
    dataset="notes",
    task="classification",
    text=("body",),
    label=("outcome",),
    groups=("ward",),
    private=True,
    exact_metrics=False,
    epsilon=8.0,
    delta=1e-6,
)


@pytest.fixture
def policy() -> Policy:
    return Policy(
        Budget(8.0, 1e-6),
        allow_exact_metrics=True,
        datasets=Allowed(frozenset({"notes"})),
        tasks=Allowed(frozenset({"classification"})),
        text=Allowed(frozenset({"body", "title"})),
        label=Allowed(frozenset({"outcome"})),
        groups=Allowed(frozenset({"ward"})),
    )


def test_what_is_allowed_passes(policy: Policy) -> None:
    policy.check(REQUEST)
    policy.check(replace(REQUEST, exact_metrics=True, groups=()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dataset": "letters"}, "data set 'letters'"),
        ({"task": "tokens"}, "task 'tokens'"),
        ({"text": ("body", "diary")}, "text column 'diary'"),
        ({"label": ("body",)}, "label column 'body'"),
        ({"groups": ("ward", "sex", "age")}, "group column 'age', 'sex'"),
        ({"private": False}, "without differential privacy"),
        ({"personal": True}, "personal models"),
        ({"epsilon": 8.01}, "epsilon 8.01: it is not within the 8"),
        ({"epsilon": math.nan}, "epsilon nan"),
        ({"epsilon": 0.0}, "epsilon 0"),
        ({"delta": 1e-5}, "delta 1e-05: it is not within the 1e-06"),
    ],
)
def test_refused_with_the_reason_for_the_owner_and_the_key_for_others(
    policy: Policy, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(PolicyRefusal) as caught:
        policy.check(replace(REQUEST, **change))  # type: ignore[arg-type]
    assert reason in str(caught.value)
    assert caught.value.key in ("", *KEYS)
    said = public_reason(caught.value)
    assert said == caught.value.reason.sentence(caught.value.key)
    assert not any(character.isdigit() for character in said)


def test_a_personal_model_needs_its_own_switch(policy: Policy) -> None:
    asked = replace(REQUEST, personal=True)
    with pytest.raises(PolicyRefusal, match="personal"):
        replace(policy, allow_non_private=True).check(asked)
    replace(policy, allow_personal_models=True).check(asked)


def test_exact_metrics_are_refused_unless_allowed(policy: Policy) -> None:
    with pytest.raises(PolicyRefusal, match="exact metrics"):
        replace(policy, allow_exact_metrics=False).check(replace(REQUEST, exact_metrics=True))


def test_simulation_allows_everything_within_its_own_budget() -> None:
    policy = Policy.permissive(3.0, 1e-5)
    policy.check(replace(REQUEST, epsilon=3.0, delta=1e-5, exact_metrics=True, task="any"))
    policy.check(replace(REQUEST, private=False, epsilon=0.0, delta=0.0))
    with pytest.raises(PolicyRefusal):
        policy.check(replace(REQUEST, epsilon=3.1, delta=1e-5))
