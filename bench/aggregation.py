"""Time and memory of every aggregation rule, beside Flower's and ByzFL's own implementations.

``python -m bench.aggregation --json FILE`` runs all three on the same matrix in the same process
and writes ``{"rows": [...]}`` after every row.  A row has the rule, n and d; the best seconds of
ours, Flower's and ByzFL's (null where a peer lacks the rule, or needs more memory or subsets than
there are); ``read_s``, one pass over the matrix; ``gram_s``, one Gram matrix; and
``extra_bytes_ratio``, our peak memory beyond input and output over the input.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import json
import logging
import platform
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from common.errors import UserError
from common.files import write_atomic
from strategies import linalg
from strategies.pre.arc import ARC
from strategies.pre.nnm import NNM
from strategies.pre.static_clipping import StaticClipping
from strategies.robust.bulyan import Bulyan
from strategies.robust.caf import CAF
from strategies.robust.centred_clipping import CentredClipping
from strategies.robust.dnc import DnC
from strategies.robust.fltrust import FLTrust
from strategies.robust.geometric_median import GeometricMedian
from strategies.robust.krum import Krum
from strategies.robust.mda import MDA
from strategies.robust.meamed import MeaMed
from strategies.robust.mean import Mean
from strategies.robust.median import Median
from strategies.robust.monna import MoNNA
from strategies.robust.multi_krum import MultiKrum
from strategies.robust.signguard import SignGuard
from strategies.robust.smea import SMEA
from strategies.robust.trimmed_mean import TrimmedMean
from strategies.rows import Rows
from strategies.stage import Context, RobustRule

SIZES = "20x5000000,50x5000000,20x22700000,50x22700000"
ENOUGH_SECONDS = 3.0


@dataclass(frozen=True)
class Peer:
    """One rule of another library.

    Attributes:
        call: from the matrix to whatever it returns; a fresh closure for every measurement.
        copies: peak memory beyond the input, in copies of the matrix.
        admits: whether it can run at all at n and f.
    """

    call: Callable[[Any, int], Callable[[], object]]
    copies: Callable[[int, int], float]
    admits: Callable[[int, int], bool] = lambda n, f: True


def byzfl(name: str, copies: float | Callable[[int, int], float], **settings: Any) -> Peer:
    """A ByzFL aggregator on numpy arrays or torch tensors, whichever is given."""

    def call(matrix: Tensor, f: int) -> Callable[[], object]:
        takes_f = name not in (
            "Average",
            "Median",
            "GeometricMedian",
            "CenteredClipping",
            "Clipping",
        )
        kind = getattr(byzfl_module("aggregators"), name)
        rule = kind(**({"f": f} if takes_f else {}), **settings)
        return lambda: rule(matrix)

    subsets = (lambda n, f: n <= 20) if name in ("MDA", "SMEA") else (lambda n, f: True)
    return Peer(call, copies if callable(copies) else (lambda n, f: float(copies)), subsets)


def byzfl_module(name: str) -> types.ModuleType:
    """A submodule of ByzFL, without its package's own imports, which need torchvision."""
    if "byzfl" not in sys.modules:
        found = importlib.util.find_spec("byzfl")
        if found is None or found.submodule_search_locations is None:
            raise ImportError("byzfl is not installed: pip install --no-deps byzfl")
        package = types.ModuleType("byzfl")
        package.__spec__ = found
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["byzfl"] = package
    return importlib.import_module(f"byzfl.{name}")


@dataclass(frozen=True)
class _Reply:
    """What Flower's strategies read of a message, which cannot be made outside a run."""

    content: Any

    def has_error(self) -> bool:
        return False


def flower(name: str, settings: Callable[[int, int], dict[str, Any]], copies: float) -> Peer:
    """A Flower strategy's ``aggregate_train`` on the records that clients would have sent."""

    def call(matrix: Tensor, f: int) -> Callable[[], object]:
        from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
        from flwr.serverapp import strategy

        logging.getLogger("flwr").setLevel(logging.ERROR)
        rule = getattr(strategy, name)(**settings(len(matrix), f))
        replies = [
            _Reply(
                RecordDict(
                    {
                        "arrays": ArrayRecord({"w": Array(row.numpy())}),
                        "metrics": MetricRecord({"num-examples": 1}),
                    }
                )
            )
            for row in matrix
        ]
        return lambda: rule.aggregate_train(1, replies)

    return Peer(call, lambda n, f: copies)


@dataclass(frozen=True)
class Case:
    """One line of the table: our stage and its peers."""

    ours: Callable[[int], RobustRule | NNM | ARC | StaticClipping]
    flower: Peer | None = None
    byzfl: Peer | None = None
    in_place: bool = False  # writes into its input, so that every run gets a copy of its own


def _none(n: int, f: int) -> dict[str, Any]:
    return {}


CASES: dict[str, Case] = {
    "mean": Case(lambda f: Mean(), flower("FedAvg", _none, 2), byzfl("Average", 0.1)),
    "median": Case(Median, flower("FedMedian", _none, 4), byzfl("Median", 2)),
    "trimmed_mean": Case(
        TrimmedMean,
        flower("FedTrimmedAvg", lambda n, f: {"beta": f / n}, 4),
        byzfl("TrMean", 2),
    ),
    "krum": Case(
        Krum, flower("Krum", lambda n, f: {"num_malicious_nodes": f}, 4), byzfl("Krum", 1)
    ),
    "multi_krum": Case(
        MultiKrum,
        flower(
            "MultiKrum",
            lambda n, f: {"num_malicious_nodes": f, "num_nodes_to_select": n - f},
            4,
        ),
        byzfl("MultiKrum", 1),
    ),
    "bulyan": Case(Bulyan, flower("Bulyan", lambda n, f: {"num_malicious_nodes": f}, 7)),
    "geometric_median": Case(GeometricMedian, None, byzfl("GeometricMedian", 3)),
    "meamed": Case(MeaMed, None, byzfl("Meamed", 7)),
    "monna": Case(lambda f: MoNNA(f, pivot=0), None, byzfl("MoNNA", 1)),
    "mda": Case(MDA, None, byzfl("MDA", 1)),
    "caf": Case(CAF, None, byzfl("CAF", 5)),
    "smea": Case(SMEA, None, byzfl("SMEA", 1)),
    "centred_clipping": Case(
        lambda f: CentredClipping(f, tau=100.0, iterations=1),
        None,
        byzfl("CenteredClipping", 2, tau=100.0, L=1),
    ),
    "dnc": Case(DnC),
    "signguard": Case(SignGuard),
    "fltrust": Case(lambda f: FLTrust()),
    "nnm": Case(NNM, None, byzfl("NNM", lambda n, f: float(n - f + 1)), in_place=True),
    "arc": Case(ARC, None, byzfl("ARC", 1), in_place=True),
    "static_clipping": Case(
        lambda f: StaticClipping(100.0), None, byzfl("Clipping", 4, c=100.0), in_place=True
    ),
}


def make_matrix(n: int, d: int, f: int) -> Tensor:
    """Honest rows around a common direction and f that are far off."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.empty(n, d)
    common = torch.randn(d, generator=generator)
    for i, row in enumerate(matrix):
        row.normal_(generator=generator).add_(common, alpha=0.3)
        if i >= n - f:
            row.mul_(-4)
    return matrix


def best_seconds(prepare: Callable[[], Callable[[], object]], repeats: int) -> float:
    """The fastest of some runs; slow ones are not repeated."""
    best, spent = float("inf"), 0.0
    for _ in range(repeats):
        call = prepare()
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        best, spent = min(best, seconds), spent + seconds
        if spent > ENOUGH_SECONDS:
            break
    return best


def our_call(case: Case, matrix: Tensor, f: int) -> Callable[[], object]:
    """Our stage on the matrix.

    Pre-aggregations are lazy in a pipeline; here their rows are written out, as the peer's are:
    into the input, which a round does not need any more.
    """
    stage = case.ours(f)
    n, d = matrix.shape
    weights = torch.full((n,), 1 / n, dtype=torch.float64)
    reference = matrix[: n - f].mean(0) if isinstance(stage, FLTrust) else None

    def call() -> object:
        context = Context(torch.Generator().manual_seed(0), reference)
        if isinstance(stage, NNM | ARC | StaticClipping):
            return stage.apply(Rows(matrix), weights, context).rows.dense(matrix)
        return stage.apply(Rows(matrix), weights, stage.init(d), context)

    return call


def output_bytes(case: Case, matrix: Tensor) -> int:
    """How many bytes our stage returns in new memory."""
    return 0 if case.in_place else 4 * matrix.shape[1]


def peak_bytes(call: Callable[[], object]) -> int | None:
    """Peak growth of resident memory while ``call`` runs; None where the system cannot say."""
    reset = Path("/proc/self/clear_refs")
    _trim()
    try:
        reset.write_text("5")
    except OSError:
        return None
    before = psutil.Process().memory_info().rss
    result = call()
    status = Path("/proc/self/status").read_text()
    del result
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) * 1024 - before


def _trim() -> None:
    """Give freed memory back to the system, so that reusing it shows as growth."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).malloc_trim(0)


def peer_seconds(case: Case, peer: Peer | None, matrix: Tensor, repeats: int) -> float | None:
    """The faster of the peer on torch and on numpy input; None if it cannot run here."""
    n = len(matrix)
    f = n // 5
    if peer is None or not peer.admits(n, f):
        return None
    if (peer.copies(n, f) + case.in_place) * matrix.nbytes > 0.85 * available():
        return None

    def prepare(numpy: bool) -> Callable[[], object]:
        own = matrix.clone() if case.in_place else matrix
        return peer.call(own.numpy() if numpy else own, f)

    found = []
    for numpy in (False, True):
        try:
            found.append(best_seconds(partial(prepare, numpy), repeats))
        except (ImportError, RuntimeError, AttributeError, TypeError, ValueError):
            continue  # not installed, or one of the two kinds of input is not taken
    return min(found) if found else None


def available() -> int:
    """Memory that a process can still take, in bytes."""
    return int(psutil.virtual_memory().available)


def measure(name: str, matrix: Tensor, repeats: int) -> dict[str, Any]:
    """One row of the table, but for the floors."""
    case = CASES[name]
    f = len(matrix) // 5

    def prepare() -> Callable[[], object]:
        return our_call(case, matrix.clone() if case.in_place else matrix, f)

    grown = peak_bytes(prepare())
    extra = None if grown is None else max(0, grown - output_bytes(case, matrix)) / matrix.nbytes
    return {
        "rule": name,
        "n": len(matrix),
        "d": matrix.shape[1],
        "ours_s": best_seconds(prepare, repeats),
        "flower_s": peer_seconds(case, case.flower, matrix, repeats),
        "byzfl_s": peer_seconds(case, case.byzfl, matrix, repeats),
        "extra_bytes_ratio": None if extra is None else round(extra, 4),
    }


def table(sizes: list[tuple[int, int]], rules: list[str], repeats: int, out: Path) -> None:
    """Measure everything and keep ``out`` up to date."""
    rows: list[dict[str, Any]] = []
    about = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    for n, d in sizes:
        f = n // 5
        matrix = make_matrix(n, d, f)
        floors = {
            "read_s": best_seconds(partial(partial, torch.sum, matrix), 3),
            "gram_s": best_seconds(partial(partial, linalg.gram, matrix), 3),
        }
        for name in rules:
            try:
                CASES[name].ours(f).check(n)
            except UserError as error:
                print(f"{name}: left out, {error}", file=sys.stderr, flush=True)
                continue
            rows.append({**measure(name, matrix, repeats), **floors})
            write_atomic(out, json.dumps({"about": about, "rows": rows}, indent=1))
            print(line(rows[-1]), file=sys.stderr, flush=True)
        del matrix


def line(row: dict[str, Any]) -> str:
    """A row in words for the terminal."""

    def seconds(key: str) -> str:
        return "     -  " if row[key] is None else f"{row[key]:8.3f}"

    peers = [row[k] for k in ("flower_s", "byzfl_s") if row[k] is not None]
    ratio = f"{max(peers) / row['ours_s']:7.1f}x" if peers else "       -"
    return (
        f"{row['rule']:17s} n={row['n']:3d} d={row['d']:9d} ours {seconds('ours_s')} "
        f"flower {seconds('flower_s')} byzfl {seconds('byzfl_s')} {ratio} "
        f"gram {row['gram_s']:.3f} extra {row['extra_bytes_ratio']}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True, help="where to write the table")
    parser.add_argument("--sizes", default=SIZES, help="comma-separated NxD")
    parser.add_argument("--rules", default=",".join(CASES), help="comma-separated")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args(arguments)
    sizes = [tuple(map(int, size.split("x"))) for size in chosen.sizes.split(",")]
    rules = chosen.rules.split(",")
    unknown = [rule for rule in rules if rule not in CASES]
    if unknown or any(len(size) != 2 for size in sizes):
        parser.error(f"unknown rules {unknown}" if unknown else "sizes are NxD, as in 20x5000000")
    table([(s[0], s[1]) for s in sizes], rules, chosen.repeats, chosen.json)


if __name__ == "__main__":
    main()
