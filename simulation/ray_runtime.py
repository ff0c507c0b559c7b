"""The Ray in which simulated partners run: how it is started and ended.

Ray's workers look for modules where Ray tells them to, and by default it names the current folder
first.  A `server.py` or `common.py` in it would then be imported in the place of ours.  Here they
look where this process has found fedaccord, and nowhere else.
"""

from __future__ import annotations

import logging
import signal
import site
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.job_config import JobConfig

log = logging.getLogger(__name__)
# Ray gives up when its node is not there 30 s after it was started, which a busy machine can take.
TRIES = 3
END_SECONDS = 10.0


def hosted() -> bool:
    """Whether this process is itself a worker of a Ray that somebody else started and ends."""
    return bool(ray.is_initialized()) and ray.get_runtime_context().worker.mode == ray.WORKER_MODE


def start_ray(settings: dict[str, Any]) -> None:
    """Start a Ray, unless this process already has one.

    Args:
        settings: arguments of `ray.init`.

    Raises:
        ValueError: Ray does not accept the settings.
        Exception: Ray's last error, when it does not start after `TRIES` attempts.
    """
    if ray.is_initialized():
        return
    for attempt in range(1, TRIES + 1):
        earlier = {child.pid for child in _ray_processes()}
        try:
            with _own_signals():
                ray.init(job_config=_job(), include_dashboard=False, **settings)
            return
        except ValueError:
            raise
        except Exception as error:
            _abandon(earlier)
            if attempt == TRIES:
                raise
            log.warning("Ray did not start (%s); trying again", type(error).__name__)


def end_ray() -> None:
    """End the Ray that this process started, if there is one."""
    if ray.is_initialized() and not hosted():
        ray.shutdown()


def _job() -> JobConfig:
    """A job whose workers get no folder but that of fedaccord.

    Only jobs of Ray's remote clients are spared the current folder, hence `_client_job`.
    """
    folder = str(Path(__file__).absolute().parent.parent)
    installed = {*site.getsitepackages(), site.getusersitepackages()}
    # Workers find installed packages anyway; before the standard library they could hide it.
    paths = [] if folder in installed else [folder]
    return JobConfig(_client_job=True, _py_driver_sys_path=paths)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the handler of SIGTERM: Ray's start replaces it by one that exits with code 0."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ray_processes() -> list[psutil.Process]:
    """The child processes of this one that Ray has started."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any(Path(ray.__file__).parent.as_posix() in part for part in child.cmdline()):
                found.append(child)
    return found


def _abandon(earlier: set[int]) -> None:
    """End what an attempt that failed has left, so that it does not slow down the next one."""
    with suppress(Exception):
        ray.shutdown()
    left = [child for child in _ray_processes() if child.pid not in earlier]
    for child in left:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(left, END_SECONDS)
