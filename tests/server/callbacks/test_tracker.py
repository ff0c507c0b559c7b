"""What Weights & Biases and MLflow are told, read back from what they wrote; no network."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.config import TrackingConfig
from common.errors import UserError
from results.history import RoundRecord
from scripts.compose import compose_config, load_config
from server.callbacks import tracker
from server.callbacks.tracker import Tracker, check_tracking, settings
from tests.small_run import small_run


def drive(place: Path, service: str, cut: bool = False) -> dict[str, Any]:
    """A tracker through the rounds of a finished run; with `cut` in two processes' stead."""
    config = load_config(place / "config.yaml")
    config.run.dir = str(place)
    config.tracking = TrackingConfig(service=service, group="sweep-7")
    results: dict[str, Any] = json.loads((place / "results.json").read_text())
    found = Tracker(config)
    found.started(["a", "b", "c"], 3, 1)
    for row in results["rounds"]:
        if cut and row["round"] == 2:
            found = Tracker(config)
            found.started(["a", "b", "c"], 3, 2)
        late = {"worst_partner_accuracy": None, "partner_accuracy_std": None}
        found.round_ended(RoundRecord.from_row({**row, **late}))
    found.finished(results)
    assert found.service is not None
    return results


def offline_log(path: Path) -> Iterator[bytes]:
    """The records of an offline run: LevelDB's log format, after seven bytes of a file's own."""
    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (rest := 32768 - place % 32768) < 7:
            place += rest
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        # Whole, or the last of several parts.
        if kind in (1, 4):
            yield whole
            whole = b""


def test_mlflow_holds_settings_rounds_and_files(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    from mlflow import MlflowClient

    for number in range(2):
        results = drive(small_run(tmp_path / str(number)), "mlflow", cut=number == 1)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fedaccord")
    runs = client.search_runs([experiment.experiment_id], "tags.group = 'sweep-7'")
    assert sorted(run.info.run_name for run in runs) == ["0", "1"]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert run.data.params["privacy.epsilon"] == "8.0"
        for name in ("accuracy", "worst_partner_accuracy", "epsilon_max"):
            told = {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}
            rows = results["rounds"]
            assert told == {r["round"]: r[name] for r in rows if r[name] is not None}
        assert run.data.metrics["final/accuracy"] == results["final"]["accuracy"]
        files = {f.path for f in client.list_artifacts(run.info.run_id)}
        assert {"config.yaml", "results.json"} <= files


def test_wandb_holds_settings_rounds_and_files_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="needs the extra wandb")
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    place = small_run(tmp_path / "run")
    results = drive(place, "wandb")
    # The service behind it writes its last records when it ends.
    wandb.teardown()
    (log,) = place.glob("wandb/offline-run-*/*.wandb")
    records = [Record.FromString(data) for data in offline_log(log)]
    kinds = [r.WhichOneof("record_type") for r in records]
    assert kinds.count("artifact") == 1
    (run,) = [r.run for r, kind in zip(records, kinds, strict=True) if kind == "run"][:1]
    assert (run.project, run.run_group) == ("fedaccord", "sweep-7")
    chosen = {u.key or ".".join(u.nested_key): u.value_json for u in run.config.update}
    assert json.loads(chosen["privacy.epsilon"]) == 8.0
    told: dict[int, dict[str, float]] = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            row = {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
            told.setdefault(int(row["round"]), {}).update(row)
    for row in results["rounds"]:
        for name in ("accuracy", "worst_partner_accuracy"):
            assert told[row["round"]].get(name) == row[name]


def test_a_service_that_fails_does_not_end_the_run(tmp_path: Path) -> None:
    class Broken:
        def begin(self, settings: object) -> None:
            raise OSError("no space")

    config = compose_config([])
    config.run.dir = str(tmp_path)
    found = Tracker(config, Broken())  # type: ignore[arg-type]
    found.started(["a"], 1, 1)
    found.round_ended(RoundRecord(1, accuracy=0.5))
    assert found.service is None


def test_nothing_of_the_data_is_told() -> None:
    config = compose_config(["data.labels=[no,yes]"])
    config.run.dir = "/somewhere"
    found = settings(config)
    assert [key for key in found if key.startswith("data")] == ["data.source"]
    assert found["privacy.epsilon"] == 8.0
    assert not [v for v in found.values() if "/somewhere" in str(v)]


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    config = compose_config(["tracking=wandb"])
    with pytest.raises(UserError, match=r"pip install 'fedaccord\[wandb\]'"):
        check_tracking(config.tracking)
    with pytest.raises(UserError, match=r"tracking\.service: must be"):
        compose_config(["tracking.service=comet"])
