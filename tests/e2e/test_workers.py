"""Workers that cannot be had.  Ends those that other tests share, so this file comes last."""

from __future__ import annotations

import pytest

from common.errors import UserError
from scripts.compose import compose_config
from simulation.run import await_workers, end_workers, start_workers, with_workers

pytestmark = pytest.mark.e2e


def test_workers_that_cannot_be_had_are_an_error_of_the_user(
    job: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise ValueError("ActorPool is empty")

    end_workers()
    monkeypatch.setattr("simulation.workers.Backend", unavailable)
    config = with_workers(compose_config(job), 2)
    start_workers(config)
    with pytest.raises(UserError, match=r"run\.gpus_per_worker=.*ActorPool is empty"):
        await_workers(config)
