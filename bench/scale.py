"""What a simulated federation costs beside training, from a hundred partners to ten thousand.

``python -m bench.scale --json FILE`` runs whole simulations with differential privacy, ledgers and
checkpoints, each in a process of its own, on made-up reviews, and writes ``{"rows": [...]}`` after
every one.  A row has ``partners``, ``per_round``, ``model``, ``overhead_ms_per_message``,
``peak_mb_first_round`` and ``peak_mb_last_round``; ``details`` has the seconds of every phase.

``overhead_ms_per_message`` is what a worker and its share of everything else (Flower, Ray, the
server, the checkpoint) spend on a train message beside the training steps: (wall time of the
rounds x workers - training time of all partners) / messages.  The first round is left out: in it
the workers warm up.  Memory is the proportional set size of every process, Ray's included,
sampled at the end of every round and every few seconds within; a round's peak is the largest
sample in it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.config import Config
from common.files import write_atomic
from results.history import RoundRecord
from server.callbacks import Callback
from server.memory import IDLE_FACTOR, tree_mb

SIZES = ((100, 50), (1_000, 100), (10_000, 100))
MODELS = ("tiny", "minilm")
ROWS_PER_PARTNER = 24
GOOD = ["good", "fine", "great", "lovely", "superb", "warm"]
BAD = ["bad", "dull", "poor", "awful", "weak", "cold"]
FILLER = ["the", "film", "was", "a", "story", "and", "plot", "with", "actors", "scene", "of", "it"]


def write_reviews(path: Path, rows: int) -> None:
    """A file of `rows` made-up reviews of 8 to 20 words with a label."""
    generator = random.Random(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for number in range(rows):
            words = generator.choices(FILLER, k=generator.randint(8, 20))
            words[::4] = generator.choices(GOOD if number % 2 else BAD, k=len(words[::4]))
            writer.writerow([" ".join(words), "good" if number % 2 else "bad"])


def write_tiny_model(folder: Path) -> None:
    """A BERT of two layers and 32 dimensions with a whole-word tokenizer."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *FILLER]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertForSequenceClassification(shape).save_pretrained(folder)


class Watch(Callback):
    """Wall time of every phase and the memory's peak in every round."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.peaks = [0.0]
        self.train_seconds: list[float] = []
        self.prepared = self.ended = time.monotonic()
        self.done = 0.0
        self.seconds: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        pause = 1.0
        while not self._stop.wait(pause):
            began = time.monotonic()
            self.peaks[-1] = max(self.peaks[-1], tree_mb())
            pause = max(1.0, IDLE_FACTOR * (time.monotonic() - began))

    def preparing(self, done: int, total: int) -> None:
        """Preparing takes from the first answer to the last."""
        if done == 1:
            self.prepared = time.monotonic()
        if done == total:
            self.prepared = time.monotonic() - self.prepared

    def started(self, partners: list[str], rounds: int, first_round: int) -> None:
        """The first round begins."""
        self.ended = time.monotonic()
        self.peaks.append(0.0)

    def round_ended(self, record: RoundRecord) -> None:
        """A round's wall time ends with its checkpoint on disk."""
        self.seconds.append(time.monotonic() - self.ended)
        newest = max(self.directory.glob("checkpoints/round-*"))
        cost = json.loads((newest / "run.json").read_text())["history"]["cost"]
        self.train_seconds.append(cost["train_seconds"] + cost["frozen_seconds"])
        self.peaks[-1] = max(self.peaks[-1], tree_mb())
        self.peaks.append(0.0)
        self.ended = time.monotonic()

    def finished(self, results: dict[str, Any]) -> None:
        """The last evaluation and the report took the rest."""
        self.done = time.monotonic() - self.ended
        self._stop.set()
        self._thread.join()


def configure(folder: Path, partners: int, per_round: int, model: str, rounds: int) -> Config:
    """The run of one row, ready to start."""
    from results.run_directory import settle
    from scripts.compose import compose_config
    from simulation.prepare import ENVIRONMENT, prepare

    os.environ.update(ENVIRONMENT)
    write_reviews(folder / "reviews.csv", partners * ROWS_PER_PARTNER + 200)
    base = "embedded"
    if model == "tiny":
        base = str(folder / "model")
        Path(base).mkdir()
        write_tiny_model(Path(base))
    overrides = [
        "data=csv",
        f"data.path={folder / 'reviews.csv'}",
        "data.columns.text=text",
        "data.columns.label=label",
        "data.labels=[bad,good]",
        "data.test_rows=200",
        "partition=iid",
        f"partition.blocks.partner.partners={partners}",
        f"model.base={base}",
        f"model.drop_layers={0 if model == 'tiny' else 1}",
        "model.max_length=32",
        "train.batch_size=8",
        f"run.rounds={rounds}",
        f"run.fraction={per_round / partners}",
        f"run.cache_dir={folder / 'cache'}",
        "tracking.tensorboard=false",
    ]
    return prepare(settle(compose_config(overrides), folder / "run"))


def measure(partners: int, per_round: int, model: str, rounds: int) -> dict[str, Any]:
    """One row, in this process, and what else was measured on the way."""
    from simulation.run import simulate

    with tempfile.TemporaryDirectory(prefix="fedaccord-scale-") as name:
        began = time.monotonic()
        config = configure(Path(name), partners, per_round, model, rounds)
        composed = time.monotonic() - began
        watch = Watch(Path(str(config.run.dir)))
        if not simulate(config, [watch]):
            raise SystemExit("interrupted")
    workers = config.run.workers
    messages = per_round * (rounds - 1)
    wall = sum(watch.seconds[1:])
    trained = watch.train_seconds[-1] - watch.train_seconds[0]
    return {
        "row": {
            "partners": partners,
            "per_round": per_round,
            "model": model,
            "overhead_ms_per_message": round(1e3 * (wall * workers - trained) / messages, 2),
            "peak_mb_first_round": round(watch.peaks[1], 1),
            "peak_mb_last_round": round(watch.peaks[rounds], 1),
        },
        "detail": {
            "partners": partners,
            "model": model,
            "rounds": rounds,
            "workers": workers,
            "wall_ms_per_message": round(1e3 * wall / messages, 2),
            "train_ms_per_message": round(1e3 * trained / messages, 2),
            "compose_seconds": round(composed, 2),
            "prepare_seconds": round(watch.prepared, 2),
            "round_seconds": [round(seconds, 2) for seconds in watch.seconds],
            "finish_seconds": round(watch.done, 2),
            "peak_mb": round(max(watch.peaks), 1),
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every size and model, each in its own process, and write the file after each."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--json", type=Path, help="where the rows go")
    sizes = ",".join(f"{partners}/{per_round}" for partners, per_round in SIZES)
    parser.add_argument("--sizes", default=sizes, help="partners/partners a round, with commas")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args(argv)
    if asked.child:
        print(json.dumps(measure(**json.loads(asked.child))))
        return
    if asked.json is None:
        parser.error("--json is needed")
    if asked.rounds < 2:
        parser.error("--rounds: at least 2, because the first one warms up")
    models = asked.models.split(",")
    if unknown := [model for model in models if model not in MODELS]:
        parser.error(f"unknown {unknown[0]}; choose from {', '.join(MODELS)}")
    found: dict[str, list[dict[str, Any]]] = {"rows": [], "details": []}
    for size in asked.sizes.split(","):
        partners, per_round = map(int, size.split("/"))
        for model in models:
            work = {"partners": partners, "per_round": per_round, "model": model}
            child = subprocess.run(
                [
                    *(sys.executable, "-m", "bench.scale", "--child"),
                    json.dumps({**work, "rounds": asked.rounds}),
                ],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            measured = json.loads(child.stdout.splitlines()[-1])
            found["rows"].append(measured["row"])
            found["details"].append(measured["detail"])
            print(*measured["row"].values(), sep="\t", flush=True)
            write_atomic(asked.json, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
