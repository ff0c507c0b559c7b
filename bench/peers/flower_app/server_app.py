"""The server: Flower's own strategy, and the test rows after every round."""

from __future__ import annotations

from pathlib import Path

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Strategy

from bench.peers import job as jobs
from bench.peers.flower_app.task import read_weights, write_weights
from bench.peers.text import accuracy, build_model, tokenised

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train for all rounds."""
    config = context.run_config
    folder = Path(str(config["job"]))
    job = jobs.read(folder)
    model = build_model(job)
    test = tokenised(job.test, job)

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number == 0:
            return None
        write_weights(model, arrays.to_torch_state_dict())
        share = accuracy(model, test)
        jobs.evaluated(folder, number, share)
        return MetricRecord({"accuracy": share})

    everyone = len(job.partners)
    same = {
        "fraction_train": 1.0,
        "fraction_evaluate": 0.0,
        "min_train_nodes": everyone,
        "min_available_nodes": everyone,
    }
    rate = float(config["server-learning-rate"])
    strategies: dict[str, Strategy] = {
        "fedavg": FedAvg(**same),
        "fedavgm": FedAvgM(**same, server_learning_rate=rate, server_momentum=0.5),
        "fedadam": FedAdam(**same, eta=rate, tau=1e-8),
    }
    strategies[str(config["strategy"])].start(
        grid=grid,
        initial_arrays=ArrayRecord(read_weights(model)),
        num_rounds=job.rounds,
        evaluate_fn=evaluate,
    )
