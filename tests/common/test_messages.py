"""What arrives is what was agreed on, or it is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from common import messages
from common.config import Config, from_json, to_json
from common.messages import MessageError, Report, Request

REPORT: dict[str, Any] = {
    "partner": "a",
    "confusion": [[3.0, 1.0], [0.0, 2]],
    "groups": {"g=1": [[1.0, 0.0], [0.0, 0.0]]},
    "loss": 0.5,
    "examples": 100,
}


def packed(kind: str, body: object) -> RecordDict:
    return RecordDict({messages.HEADER: ConfigRecord({"kind": kind, "body": json.dumps(body)})})


def test_round_trip() -> None:
    content = messages.pack(Request("run", 3), {"w": torch.ones(2)})
    assert messages.unpack(content) == Request("run", 3)
    assert torch.equal(messages.arrays(content)["w"], torch.ones(2))
    assert messages.unpack(packed("Report", REPORT)) == Report(**REPORT)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "low"},
        {"loss": None},
        {"loss": True},
        {"loss": 10**400},
        {"partner": 7},
        {"confusion": "none"},
        {"confusion": [["a", "b"], ["c", "d"]]},
        {"confusion": 3},
        {"groups": [[1.0]]},
        {"groups": {"g": 1.0}},
        {"extra": {"gap": 0.1}},
        {"examples": 2**64},
        {"sums": [[True]]},
        {"surprise": 1},
    ],
)
def test_a_field_of_another_type_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        messages.unpack(packed("Report", {**REPORT, **change}))


@pytest.mark.parametrize(
    "body",
    [
        *([], "text", None, {"run": 5}, {"run": "r", "round": 1.5}),
        *({"run": ""}, {"run": "\x1b[2J"}, {"run": "\ud800"}, {"run": "r" * 201}),
    ],
)
def test_other_bodies_are_refused(body: object) -> None:
    with pytest.raises(MessageError):
        messages.unpack(packed("Request", body))


def test_texts_are_cleaned_at_the_door() -> None:
    hostile = "\x1b[2J[/bold]\u202e" + "x" * 300
    report = messages.unpack(
        packed("Report", {**REPORT, "partner": hostile, "groups": {hostile: [[1.0]]}})
    )
    assert report.partner == next(iter(report.groups)) == ("?[2J[/bold]?" + "x" * 300)[:200]
    prepared = {"partner": "a", "examples": 1, "noise_multiplier": 0}
    found = messages.unpack(
        packed("Prepared", {**prepared, "version": hostile, "fingerprint": "\ud800"})
    )
    assert (found.version[:5], found.fingerprint) == ("?[2J[", "?")
    assert isinstance(found.examples, float)
    refusal = messages.unpack(packed("Refusal", {"partner": "a", "reason": "no\nINFO fine\x1b"}))
    assert refusal.reason == "no"


def test_keys_that_become_equal_are_refused() -> None:
    groups = {"g=\x00": [[1.0]], "g=\x01": [[1.0]]}
    with pytest.raises(MessageError, match="groups has the same key twice"):
        messages.unpack(packed("Report", {**REPORT, "groups": groups}))


def test_a_sender_cannot_read_the_receivers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "secret")
    tree = json.loads(to_json(Config()))
    tree["data"]["columns"]["text"] = "${oc.env:A_SECRET}"
    config = from_json(json.dumps(tree))
    assert config.data.columns.text == "${oc.env:A_SECRET}"
    assert "secret" not in to_json(config)
