"""Which nodes take part, and why others do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from common.errors import UserError
from common.messages import Refusal
from server.callbacks import Callback
from server.registration import Registration, unfit
from tests.server.scripted import FINGERPRINT, ScriptedGrid, config, honest, prepared

READY = prepared("a")


@pytest.mark.parametrize(
    ("body", "registered", "ready", "reason"),
    [
        (READY, "a", {}, None),
        (READY, None, {}, None),
        (Refusal("a", "no budget is left"), "a", {}, "no budget is left"),
        ("a text", "a", {}, "a partner answered with something that is not an introduction"),
        (READY, "b", {}, "partner b: its partner.yaml gives another name than its key"),
        (replace(READY, version="0"), "a", {}, "partner a: runs another version of fedaccord"),
        (READY, "a", {"a": 7}, "partner a: another node registered under the same name"),
        (replace(READY, fingerprint="g"), "a", {}, "partner a: its copy of model.base=bert"),
    ],
)
def test_reasons(
    body: object, registered: str | None, ready: dict[str, int], reason: str | None
) -> None:
    found = unfit(body, registered, ready, FINGERPRINT, "bert")
    assert found == reason or (found is not None and reason and found.startswith(reason))


def refuses(name: str) -> object:
    return lambda kind, number, arrays: Refusal(name, "no budget is left")


def registration(tmp_path: Path, wanted: int, simulated: bool) -> Registration:
    settings = config(tmp_path, partners=wanted)
    grid = ScriptedGrid({"a": honest("a"), "b": refuses("b"), "c": honest("c")})  # type: ignore[dict-item]
    return Registration(settings, grid, FINGERPRINT, simulated)


def test_a_deployment_goes_on_without_a_partner_that_refuses(tmp_path: Path) -> None:
    found = registration(tmp_path, 2, simulated=False).register("run", Event(), Callback())
    assert found == {"a": 1, "c": 3}


def test_too_few_partners_are_an_error_with_their_reasons(tmp_path: Path) -> None:
    wanted = r"2 of 3 partners are ready \(0 did not answer, 1 refused\); b: no budget is left"
    with pytest.raises(UserError, match=wanted):
        registration(tmp_path, 3, simulated=False).register("run", Event(), Callback())


def test_a_simulation_ends_at_the_first_refusal(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^no budget is left$"):
        registration(tmp_path, 2, simulated=True).register("run", Event(), Callback())
