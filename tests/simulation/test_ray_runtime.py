"""Ray is started again when it was not there in time, as on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray

from simulation import ray_runtime
from simulation.ray_runtime import end_ray, start_ray

pytestmark = pytest.mark.e2e
SETTINGS: dict[str, Any] = {
    "num_cpus": 1,
    "log_to_driver": False,
    "logging_level": "error",
    "object_store_memory": 100 << 20,
}


@pytest.fixture(autouse=True)
def no_ray() -> Iterator[None]:
    """None of an earlier test, and none for later ones."""
    end_ray()
    yield
    end_ray()


def test_a_start_that_failed_is_tried_again_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray._private import services

    attempts: list[list[psutil.Process]] = []
    whole = services.get_node

    def late(*arguments: Any) -> Any:
        """Ray's processes run, and the first time its node does not appear."""
        if not attempts:
            attempts.append(ray_runtime._ray_processes())
            raise TimeoutError("the node did not appear in time")
        return whole(*arguments)

    monkeypatch.setattr(services, "get_node", late)
    start_ray(SETTINGS)
    assert ray.is_initialized()
    assert len(attempts[0]) >= 2
    assert not [p for p in attempts[0] if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_settings_that_ray_refuses_are_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    whole = ray.init

    def counted(**settings: Any) -> object:
        calls.append(settings)
        return whole(**settings)

    monkeypatch.setattr(ray, "init", counted)
    with pytest.raises(ValueError, match="object store"):
        start_ray({**SETTINGS, "object_store_memory": 1})
    assert len(calls) == 1
