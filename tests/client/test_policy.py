from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from client.accounting import Budget
from client.policy import Policy, PolicyRefusal, PolicyRequest, load
from client.refusal import public_reason
from common.errors import UserError
from common.request import KEYS

GOOD = """
version: 1
lifetime:
  epsilon: 8
  delta: 1e-6   # YAML 1.1 reads this as text
allow_exact_metrics: true
datasets: [notes]
tasks: [classification]
columns:
  text: [body, title]
  label: [outcome]
  groups: [ward]
"""
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
def policy(tmp_path: Path) -> Policy:
    path = tmp_path / "partner.yaml"
    path.write_text(GOOD)
    return load(path)


def test_values_of_the_file(policy: Policy) -> None:
    assert policy.budget == Budget(8.0, 1e-6)
    assert policy.allow_exact_metrics
    assert not policy.allow_non_private
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


def test_permissions_are_off_and_no_group_column_is_usable_unless_given(tmp_path: Path) -> None:
    path = tmp_path / "partner.yaml"
    path.write_text(
        "lifetime: {epsilon: 1, delta: 0.000001}\ntasks: [tokens]\n"
        "columns: {text: [tokens], label: [tags]}\n"
    )
    policy = load(path)
    assert not policy.allow_non_private
    assert not policy.allow_exact_metrics
    assert not policy.allow_personal_models
    assert policy.groups.refused(["ward"]) == ["ward"]
    assert policy.datasets.refused(["whatever"]) == []


def test_simulation_allows_everything_within_its_own_budget() -> None:
    policy = Policy.permissive(3.0, 1e-5)
    policy.check(replace(REQUEST, epsilon=3.0, delta=1e-5, exact_metrics=True, task="any"))
    policy.check(replace(REQUEST, private=False, epsilon=0.0, delta=0.0))
    with pytest.raises(PolicyRefusal):
        policy.check(replace(REQUEST, epsilon=3.1, delta=1e-5))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epsilon: 8", "epsilon: lots", "lifetime.epsilon must be a number"),
        ("epsilon: 8", "epsilon: true", "lifetime.epsilon must be a number"),
        ("epsilon: 8", "epsilon: 1:30", "1:30 is not a plain number"),
        ("epsilon: 8", "epsilon: 010", "010 is not a plain number"),
        ("epsilon: 8", f"epsilon: {'9' * 400}", "lifetime.epsilon must be a number"),
        ("epsilon: 8", f"epsilon: {'9' * 5000}", "is not YAML"),
        ("[notes]", "[" * 5000, "nested too deeply"),
        ("[notes]", "!!python/name:os.system x", "is not YAML"),
        ("lifetime:\n", "lifetime:\n  <<: {epsilon: 80}\n", "is not YAML"),
        ("epsilon: 8", "epsilon: -1", "lifetime.epsilon must be a finite number above 0"),
        ("epsilon: 8", "epsilon: .inf", "lifetime.epsilon must be a finite number above 0"),
        ("epsilon: 8", "epsilon: .nan", "lifetime.epsilon must be a finite number above 0"),
        ("  epsilon: 8\n", "", "lifetime.epsilon is missing"),
        ("  epsilon: 8\n", "  epsilon: 8\n  epsilon: 80\n", "'epsilon' is given twice"),
        ("delta: 1e-6", "delta: 1", "lifetime.delta must be a number between 0 and 1"),
        ("delta: 1e-6", "deltas: 1e-6", "unknown key lifetime.deltas"),
        ("allow_exact_metrics: true", "allow_exact_metrics: 'no'", "must be true or false"),
        ("allow_exact_metrics", "allow_exact_metric", "unknown key allow_exact_metric"),
        ("[notes]", "notes", "datasets must be a list of names"),
        ("[ward]", "[1]", "columns.groups must be a list of names"),
        ("tasks: [classification]\n", "", "tasks is missing"),
        ("version: 1", "version: 2", "version: 2 is not 1"),
        ("lifetime:", "lifetime: [", "is not YAML"),
        (GOOD, "[]", "the file must be a mapping of keys to values"),
    ],
)
def test_wrong_file_is_one_line_that_names_file_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "partner.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "partner.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"partner\.yaml cannot be read"):
        load(tmp_path / "partner.yaml")
