"""The adapter: the example of the documentation in Flower's simulation, and single rounds."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from common.errors import UserError
from strategies.appeal import Appeal
from strategies.client_level import ClientLevel
from strategies.fair.qffl import QFFL
from strategies.fair.uniform import Uniform
from strategies.flower import PipelineStrategy
from strategies.optimizers.fedavg import FedAvg
from strategies.pipeline import Pipeline
from strategies.robust.fltrust import FLTrust
from strategies.robust.mean import Mean
from strategies.robust.trimmed_mean import TrimmedMean
from strategies.screening import Screening

ROOT = Path(__file__).parents[2]
CLIENTS = """
import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.simulation import run_simulation

initial_arrays = ArrayRecord({"w": Array(np.zeros(4, np.float32)), "steps": Array(np.array(7))})
client = ClientApp()


@client.train()
def train(message, context):
    # Four of five move half of the way to one; the last flies away.
    arrays = message.content["arrays"]
    w = arrays["w"].numpy()
    bad = context.node_config["partition-id"] == 4
    w = w + (1e6 if bad else 0.5 * (1 - w))
    record = ArrayRecord({"w": Array(w.astype(np.float32)), "steps": arrays["steps"]})
    metrics = MetricRecord({"num-examples": 10, "loss": float(((1 - w) ** 2).mean()) % 10})
    return Message(RecordDict({"arrays": record, "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message, context):
    w = message.content["arrays"]["w"].numpy()
    print("WEIGHTS", *w, int(message.content["arrays"]["steps"].numpy()), flush=True)
    metrics = MetricRecord({"num-examples": 10, "loss": 0.0})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
"""


@pytest.mark.e2e
def test_the_documented_example_runs_in_flowers_simulation(tmp_path):
    text = (ROOT / "docs/strategies.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    script = tmp_path / "app.py"
    start = 'run_simulation(app, client, 5, backend_config={"client_resources": {"num_cpus": 1}})'
    script.write_text(f"{CLIENTS}\n{example}\nif __name__ == '__main__':\n    {start}\n")
    run = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0",
             "FLWR_HOME": str(tmp_path), "RAY_DEDUP_LOGS": "0", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    decisions = re.findall(r"Decision\(partner='(\d+)', round=(\d), outcome='([\w-]+)'", run.stdout)
    assert len(decisions) == 15
    assert {r for _, r, _ in decisions} == {"1", "2", "3"}
    assert sum(outcome in ("dropped", "down-weighted") for *_, outcome in decisions) >= 3
    weights = re.findall(r"WEIGHTS (\S+) \S+ \S+ \S+ 7", run.stdout + run.stderr)
    # 1 - 0.5^3: three rounds of half the way, and the counter is left alone.
    assert float(weights[-1]) == pytest.approx(0.875, abs=0.01)


@dataclass
class Reply:
    """What a strategy reads of a message, which only a run can make."""

    node: int
    content: RecordDict | None
    error: SimpleNamespace | None = None

    @property
    def metadata(self):
        return SimpleNamespace(src_node_id=self.node)

    def has_error(self):
        return self.error is not None


def model(*values: float) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.array(values, np.float32)), "n": Array(np.array(3))})


def reply(node: int, *values: float, **metrics: float) -> Reply:
    report = MetricRecord({"num-examples": 10, **metrics})
    return Reply(node, RecordDict({"arrays": model(*values), "metrics": report}))


def strategy(robust=None, fair=None, appeal=None, **settings) -> PipelineStrategy:
    pipeline = Pipeline(Screening(), {}, fair or Uniform(), robust or Mean(), appeal, FedAvg())
    made = PipelineStrategy(pipeline, min_train_nodes=5, min_available_nodes=5, **settings)
    # The messages need a run; that the model is remembered does not.
    made._arrays = model(1.0, 2.0)
    return made


def test_deltas_are_merged_into_the_model_and_counters_left_alone():
    s = strategy()
    arrays, metrics = s.aggregate_train(
        1, [reply(1, 2.0, 2.0, loss=1.0, hits=4.0), reply(2, 1.0, 6.0, hits=2.0)]
    )
    assert arrays["w"].numpy().tolist() == [1.5, 4.0]
    assert arrays["w"].numpy().dtype == np.float32
    assert int(arrays["n"].numpy()) == 3
    assert dict(metrics) == {"hits": 3.0}
    assert [d.outcome for d in s.decisions] == ["merged", "merged"]


def test_a_bad_reply_is_refused_and_the_round_goes_on():
    s = strategy(fair=QFFL())
    failed = Reply(5, None, SimpleNamespace(reason="out of memory", code=1))
    extra = reply(4, 1.0, 1.0, loss=0.5)
    extra.content["more"] = MetricRecord({"a": 1})
    arrays, _ = s.aggregate_train(
        1,
        [
            reply(3, float("nan"), 0.0, loss=0.5),
            failed,
            extra,
            reply(2, 1.0, 2.0),
            reply(1, 2.0, 3.0, loss=0.5),
        ],
    )
    assert arrays["w"].numpy().tolist() == [2.0, 3.0]
    found = {d.partner: (d.outcome, d.reason) for d in s.decisions}
    assert found["1"][0] == "merged"
    assert found["2"] == (
        "refused", "Refused: the metric loss is missing, and the weights need it."
    )  # fmt: skip
    assert "NaN" in found["3"][1]
    assert "one MetricRecord" in found["4"][1]
    assert found["5"] == ("missing", "No update: the node failed (out of memory).")


def test_too_few_replies_merge_nothing():
    s = strategy(TrimmedMean(2))
    assert s.aggregate_train(1, [reply(1, 2.0, 2.0)]) == (None, None)
    assert s.aggregate_train(1, []) == (None, None)
    assert [(d.partner, d.outcome) for d in s.decisions] == [("1", "dropped")]
    assert "merged nothing: trimmed_mean needs n > 2f" in s.decisions[0].reason


def test_a_round_whose_updates_are_all_refused_is_an_error_in_the_log(caplog):
    s = strategy()
    replies = [reply(i, 1.0, 2.0, loss=25.0) for i in range(3)]
    assert s.aggregate_train(4, replies) == (None, None)
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "Round 4: none of 3 updates was usable" in errors[0]
    assert "the metric loss is 25, outside [0, 20]" in errors[0]
    caplog.clear()
    s.aggregate_train(5, [*replies, reply(9, 1.0, 2.0, loss=1.0)])
    assert not [r for r in caplog.records if r.levelno == logging.ERROR]


class ScriptedGrid:
    """A grid whose five nodes answer every training request with the same loss."""

    def __init__(self, losses):
        self.losses = losses
        self.asked = 0

    def send_and_receive(self, messages, *, timeout=None):
        # Flower asks for evaluation too, to which nobody replies.
        self.asked += 1
        if self.asked % 2 == 0:
            return []
        loss = self.losses.pop(0)
        return [reply(i, 2.0, 2.0, loss=loss) for i in range(5)]


class WithoutMessages(PipelineStrategy):
    """Sends nothing: Flower's messages can be made only inside a run."""

    def configure_train(self, server_round, arrays, config, grid):
        self._arrays = arrays
        return []

    def configure_evaluate(self, server_round, arrays, config, grid):
        return []

    def aggregate_evaluate(self, server_round, replies):
        return None


def test_a_run_that_merged_nothing_does_not_end_as_if_it_had_trained():
    pipeline = Pipeline(Screening(), {}, Uniform(), Mean(), None, FedAvg())
    s = WithoutMessages(pipeline)
    with pytest.raises(UserError, match=r"no round merged an update.*loss is 30, outside"):
        s.start(ScriptedGrid([25.0, 30.0]), model(1.0, 2.0), num_rounds=2)
    arrays = (
        WithoutMessages(pipeline)
        .start(ScriptedGrid([25.0, 1.0]), model(1.0, 2.0), num_rounds=2)
        .arrays
    )
    assert arrays["w"].numpy().tolist() == [2.0, 2.0]


def test_a_failed_nodes_traceback_stays_out_of_its_record():
    s = strategy()
    trace = (
        "\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=7, ip=10.0.0.7, actor_id=a)\n"
        '  File "app.py", line 3, in train\nValueError: a private text'
    )
    failed = Reply(5, None, SimpleNamespace(reason=trace, code=1))
    s.aggregate_train(1, [failed, reply(1, 2.0, 2.0)])
    (found,) = [d.reason for d in s.decisions if d.partner == "5"]
    assert found == "No update: the node failed (ray::ClientAppActor.run())."


def test_arrays_that_cannot_be_read_are_refused():
    s = strategy()
    bad = []
    for node, array in enumerate(
        [
            Array("float32", (2,), "numpy.ndarray", b"no array"),
            Array("float32", (2,), "other", b""),
            Array(np.array(["a", "b"])),
        ],
        start=2,
    ):
        message = reply(node, 1.0, 1.0)
        message.content["arrays"] = ArrayRecord({"w": array, "n": Array(np.array(3))})
        bad.append(message)
    arrays, _ = s.aggregate_train(1, [reply(1, 2.0, 3.0), *bad])
    assert arrays["w"].numpy().tolist() == [2.0, 3.0]
    refusals = [d.reason for d in s.decisions if d.outcome == "refused"]
    assert len(refusals) == 3
    assert all("arrays cannot be read" in reason for reason in refusals)


@pytest.mark.parametrize("second", [{"num-examples": -10}, {"hits": [1.0, 2.0]}], ids=str)
def test_metrics_that_do_not_average_do_not_end_the_run(second):
    s = strategy()
    replies = [reply(1, 2.0, 3.0, hits=1.0), reply(2, 2.0, 3.0, **{"hits": 1.0, **second})]
    arrays, metrics = s.aggregate_train(1, replies)
    assert metrics is None
    assert arrays["w"].numpy().tolist() == [2.0, 3.0]


def test_what_a_pipeline_lacks_is_told_when_it_is_made():
    with pytest.raises(UserError, match="give evaluate="):
        strategy(appeal=Appeal())
    with pytest.raises(UserError, match="give reference="):
        strategy(FLTrust())
    private = Pipeline(Screening(), {}, Uniform(), Mean(), None, FedAvg(), ClientLevel())
    with pytest.raises(UserError, match="client_level"):
        PipelineStrategy(private)


def test_appeals_see_whole_models():
    seen = []

    def evaluate(arrays: ArrayRecord) -> float:
        seen.append(arrays["w"].numpy().tolist())
        return float(np.square(arrays["w"].numpy() - [2.0, 3.0]).sum())

    s = strategy(TrimmedMean(1), appeal=Appeal(), evaluate=evaluate)
    replies = [reply(i, 1.1, 2.0) for i in range(4)] + [reply(9, 1.0, 40.0)]
    s.aggregate_train(1, replies)
    assert seen
    assert all(len(w) == 2 for w in seen)
    assert {d.outcome for d in s.decisions} >= {"merged"}


def test_fltrust_takes_the_servers_own_model():
    s = strategy(FLTrust(), reference=lambda arrays: model(2.0, 2.0))
    arrays, _ = s.aggregate_train(1, [reply(1, 11.0, 2.0), reply(2, -9.0, 2.0)])
    assert arrays["w"].numpy().tolist() == [2.0, 2.0]
