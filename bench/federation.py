"""The same federated job by fedaccord, by a plain Flower app and by pfl, side by side.

``python -m bench.federation --json FILE`` gives every system the same film reviews (Rotten
Tomatoes, eight equal partners), the same MiniLM, the same rounds, the same expected batch (half of
a partner's rows, one step a round) and epsilon = 8 for every partner's rows, and runs each in
processes of its own.  It writes ``{"rows": [...]}`` after each; a system that the file already
holds is not run again.  A row has ``system``, ``wall_s`` (from the start of the process to its
end), ``train_s`` (training steps and frozen layers, summed over partners and rounds; null where it
is not known), ``seconds_to_accuracy`` (from the start of the process to the first round whose model
labels ``--accuracy`` of the test rows rightly; null where none does), ``accuracy`` (of the last
round's model), ``bytes_up_per_partner_round`` and ``peak_mb`` (proportional set size of all
processes, 10^6 bytes).
``details`` has accuracy and time of every round.  A system that is not done after ``--limit``
seconds is ended there: its row then says what it came to, and ``details`` in how many rounds.

The peers are under ``bench/peers``, written as their documentation has it; their clipping norms and
optimisers are the best of those tried on this job (docs/performance.md).  They are given the noise
multiplier, which fedaccord solves for itself within its time.  pfl: ``pip install
'fedaccord[bench]'``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from bench.peers import job as jobs
from bench.peers.job import Job, Rows
from common.files import write_atomic
from server.memory import tree_mb

ROOT = Path(__file__).resolve().parents[1]
# System: variant, and what its program is told.
SYSTEMS: dict[str, tuple[str, dict[str, str]]] = {
    "fedaccord": ("", {}),
    "flower-lora_top": ("lora_top", {}),
    "flower-lora": ("lora", {}),
    "flower-full": ("full", {}),
    "pfl-lora_top": ("lora_top", {}),
    "pfl-lora": ("lora", {}),
    "pfl-full": ("full", {}),
}
LENGTH = 64
PHYSICAL_BATCH = 32
IDLE_FACTOR = 20
PR_SET_CHILD_SUBREAPER = 36


def overrides(rounds: int, partners: int) -> list[str]:
    """fedaccord's configuration but for its batch."""
    return [
        "experiment=rotten_tomatoes",
        # The peers' LoRA has the same size.
        "model.lora.r=8",
        "model.lora.alpha=16",
        f"run.rounds={rounds}",
        f"partition.blocks.partner.partners={partners}",
        f"model.max_length={LENGTH}",
    ]


def make_job(rounds: int, partners: int, cache: Path) -> Job:
    """The job as the peers get it: the very rows that fedaccord's partners train on."""
    from opacus.accountants.utils import get_noise_multiplier

    from client.partner import split_rows
    from common.data.load import resolve_labels, test_table
    from common.models.loading import locate
    from scripts.compose import compose_config
    from simulation.partner import simulated_shares

    config = compose_config(overrides(rounds, partners))
    labels = resolve_labels(config.data, cache)
    config = replace(
        config,
        data=replace(config.data, labels=labels),
        run=replace(config.run, cache_dir=str(cache)),
    )
    table, shares = simulated_shares(config)
    trains = [split_rows(table.select(share.indices), config)[0] for share in shares]
    test = test_table(config.data, cache)
    batch = min(len(rows) for rows in trains) // 2
    privacy = config.privacy

    def noise(rows: int) -> float:
        steps = -(-rows // batch)
        return float(
            get_noise_multiplier(
                target_epsilon=privacy.epsilon,
                target_delta=privacy.delta,
                sample_rate=1 / steps,
                steps=rounds,
            )
        )

    kinds = {rows: noise(rows) for rows in {len(rows) for rows in trains}}
    return Job(
        base=str(locate("embedded")),
        variant="",
        partners=[Rows(list(rows.texts), [int(x) for x in rows.labels]) for rows in trains],
        test=Rows(list(test.texts), [int(x) for x in test.labels]),
        noise=[kinds[len(rows)] for rows in trains],
        rounds=rounds,
        batch=batch,
        physical_batch=PHYSICAL_BATCH,
        length=LENGTH,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        seed=0,
    )


def command(name: str, folder: Path, job: Job, workers: int) -> tuple[list[str], dict[str, str]]:
    """How a system is started on the job in `folder`, and what its environment has beside ours."""
    _, told = SYSTEMS[name]
    kind = name.split("-")[0]
    python = Path(sys.executable)
    if kind == "fedaccord":
        return [str(python), "-m", "bench.peers.fedaccord_job", str(folder)], {}
    if kind == "pfl":
        flags = [f"--{key}={value}" for key, value in told.items()]
        spread = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={workers}"]
        program = ["-m", "bench.peers.pfl_job", str(folder), *flags]
        return [str(python), *spread, *program], {"OMP_NUM_THREADS": "1"}
    home = folder / "flower"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = ":local:"\n'
        f"options.num-supernodes = {len(job.partners)}\n"
        f"options.backend.init-args.num-cpus = {workers}\n"
        "options.backend.client-resources.num-cpus = 1\n"
    )
    settings = " ".join([f'job="{folder}"', *(f"{key}={value}" for key, value in told.items())])
    app = str(ROOT / "bench" / "peers" / "flower_app")
    environment = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_CONTROL_API_PORT": str(_free_port()),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(_free_port()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    program = [str(python.parent / "flwr"), "run", app, "--stream", "--run-config", settings]
    return program, environment


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _no_process_left() -> Iterator[None]:
    """End what a system leaves running: `flwr run` leaves its SuperLink to the next run.

    Orphans become children of this process (Linux), so that they are found and measured.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        left = psutil.Process().children(recursive=True)
        for process in left:
            if process.is_running():
                process.terminate()
        _, stubborn = psutil.wait_procs(left, timeout=10)
        for process in stubborn:
            process.kill()


class Peak:
    """The largest memory of this process's descendants, sampled up to four times a second.

    A look walks the page tables of every process, for as much as a seventh of a second of the very
    processors that are measured: the watch sleeps twenty times as long.
    """

    def __init__(self) -> None:
        self.own = tree_mb()
        self.mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        pause = 0.25
        while not self._stop.wait(pause):
            began = time.monotonic()
            self.mb = max(self.mb, tree_mb() - self.own)
            pause = max(0.25, IDLE_FACTOR * (time.monotonic() - began))

    def stop(self) -> float:
        """The peak in MB."""
        self._stop.set()
        self._thread.join()
        return self.mb


def run(
    name: str, job: Job, workers: int, accuracy: float, log: Path, limit: float | None = None
) -> dict[str, Any]:
    """One system's row and detail; `limit` in seconds.

    Raises SystemExit when it fails, or has not done one round by then; `log` holds what it said.
    fedaccord tells what partners did at its end only: of a run that is cut off that is not known.
    """
    variant, _ = SYSTEMS[name]
    with tempfile.TemporaryDirectory(prefix="fedaccord-federation-") as place:
        folder = Path(place)
        replace(job, variant=variant).write(folder)
        program, environment = command(name, folder, job, workers)
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        with _no_process_left(), log.open("a") as said:
            peak = Peak()
            began = time.time()
            environment = {**os.environ, "PYTHONPATH": paths, **environment}
            process = subprocess.Popen(
                program, env=environment, stdout=said, stderr=said, cwd=folder
            )
            try:
                code: int | None = process.wait(limit)
            except subprocess.TimeoutExpired:
                code = None
            wall = time.time() - began
            peak_mb = peak.stop()
        rounds = jobs.lines(folder / "progress.jsonl")
        trained = jobs.lines(folder / "train.jsonl")
    cut_off = code is None and len(rounds) > 0
    if not cut_off and (code, len(rounds)) != (0, job.rounds):
        raise SystemExit(f"{name}: ended with {code} after {len(rounds)} rounds; see {log}")
    there = [entry["at"] - began for entry in rounds if entry["accuracy"] >= accuracy]
    return {
        "row": {
            "system": name,
            "wall_s": round(wall, 2),
            "train_s": round(sum(entry["seconds"] for entry in trained), 2) if trained else None,
            "seconds_to_accuracy": round(there[0], 2) if there else None,
            "accuracy": round(rounds[-1]["accuracy"], 4),
            "bytes_up_per_partner_round": (
                round(sum(entry["bytes"] for entry in trained) / len(trained)) if trained else None
            ),
            "peak_mb": round(peak_mb, 1),
        },
        "detail": {
            "system": name,
            "rounds": len(rounds),
            "batch": job.batch,
            "accuracies": [round(entry["accuracy"], 4) for entry in rounds],
            "seconds": [round(entry["at"] - began, 2) for entry in rounds],
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every system that the file lacks, and write the file after each."""
    parser = argparse.ArgumentParser(prog="python -m bench.federation", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where the rows go")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--partners", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--accuracy", type=float, default=0.7, help="to measure the time to")
    parser.add_argument("--limit", type=float, help="seconds after which a system is ended")
    asked = parser.parse_args(argv)
    names = asked.systems.split(",")
    if unknown := [name for name in names if name not in SYSTEMS]:
        parser.error(f"--systems: unknown {unknown[0]}; choose from {', '.join(SYSTEMS)}")
    if min(asked.rounds, asked.partners, asked.workers) < 1:
        parser.error("--rounds, --partners, --workers: at least 1")
    found: dict[str, Any] = {"rows": [], "details": []}
    if asked.json.exists():
        found = json.loads(asked.json.read_text())
    done = {row["system"] for row in found["rows"]}
    if not (missing := [name for name in names if name not in done]):
        return
    with tempfile.TemporaryDirectory(prefix="fedaccord-federation-") as cache:
        job = make_job(asked.rounds, asked.partners, Path(cache))
    log = asked.json.with_suffix(".log")
    for name in missing:
        measured = run(name, job, asked.workers, asked.accuracy, log, asked.limit)
        found["rows"].append(measured["row"])
        found["details"].append(measured["detail"])
        print(*measured["row"].values(), sep="\t", flush=True)
        write_atomic(asked.json, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
