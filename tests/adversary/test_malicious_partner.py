"""One malicious partner beside three honest ones, through the coordinator's own code.

Reports go through `read_report`; whole runs through `Server`, whose grid here is a script of four
partners in this process instead of Flower's network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from flwr.app import Array, ConfigRecord, Error, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common import messages
from common.config import Config
from common.config_file import write_config
from common.messages import MessageError, Prepared, Refusal, Report
from inspection.verify import verify
from results.history import History, RoundRecord
from results.partners import pooled
from results.schema import results
from scripts.configure import configure
from scripts.progress import summary
from server.build import build_server
from server.exchange import Answer
from server.reports import Expected, read_report, reply_metrics
from server.rounds import Server
from tests.adversary.test_partner_words import WORDS, harmless, shown

INF, NAN = math.inf, math.nan
HONEST = Report(
    "a",
    [[40.0, 10.0], [10.0, 40.0]],
    {"site=x": [[20.0, 5.0], [5.0, 20.0]], "site=y": [[20.0, 5.0], [5.0, 20.0]]},
    loss=0.5,
    examples=400.0,
    epsilon=1.5,
    delta=1e-5,
    trained_examples=512.0,
    train_seconds=2.0,
    message_seconds=3.0,
)
EXPECTED = Expected(
    classes=2, columns=("site",), epsilon=8.0, delta=1e-5, batch=64.0, trained=512.0, seconds=100.0
)
PRIVATE = replace(EXPECTED, exact=False)
NOISY = replace(HONEST, count_noise=4.0, examples_noise=30.0, train_seconds=0.0)


def read(report: Report, expected: Expected = EXPECTED) -> Report:
    """As it arrives: packed by the partner, unpacked at the door, held against the settings."""
    content = messages.pack(report)
    return read_report(Answer("a", messages.unpack(content), content), expected)


def test_honest_reports_are_read_as_they_are() -> None:
    assert read(HONEST) == HONEST
    assert read(NOISY, PRIVATE) == NOISY
    below = replace(NOISY, confusion=[[40.0, -9.0], [-3.0, 40.0]], groups={})
    assert read(below, PRIVATE) == below
    empty = replace(HONEST, confusion=[[0.0, 0.0], [0.0, 0.0]], groups={}, loss=NAN)
    assert math.isnan(read(empty).loss)
    assert reply_metrics(empty) == {"examples": 400.0}


LIES: list[dict[str, Any]] = [
    *({"examples": x} for x in (1e12, -1.0, 0.0, NAN, INF, 10**30, True)),
    *({"epsilon": x} for x in (-1.0, -1e-9, 81.0, 1e300, NAN, INF, False)),
    *({"delta": x} for x in (-1e-5, 0.5, 1.0, NAN, INF)),
    *({"trained_examples": x} for x in (-1.0, 1e9, NAN, INF)),
    *({"train_seconds": x} for x in (-1.0, 1e6, NAN, INF)),
    *({"frozen_seconds": x} for x in (-1.0, 1e6, NAN, INF)),
    *({"message_seconds": x} for x in (-1.0, 1e6, NAN, INF)),
    *({"count_noise": x} for x in (1.0, -1.0, NAN, INF)),
    *({"examples_noise": x} for x in (30.0, -1.0, NAN, INF)),
    *({"loss": x} for x in (-0.1, 4.1, 1e300, INF, -INF, "0.1", True)),
    *({"confusion": [[x, 1.0], [1.0, 1.0]], "groups": {}} for x in (1e12, -1.0, NAN, INF, True)),
    *({"confusion": x, "groups": {}} for x in ([], [[1.0]], [[1.0, 1.0]], [[1.0], [1.0]])),
    {"confusion": [[0.0, 0.0], [0.0, 0.0]], "groups": {}, "loss": 0.01},
    {"confusion": [[1e9, 1e9], [1e9, 1e9]], "groups": {}},
    {"groups": {"diagnosis=x": [[1.0, 0.0], [0.0, 0.0]]}},
    {"groups": {"site": [[1.0, 0.0]]}},
    {"groups": {"site=x": [[1e8, 0.0], [0.0, 0.0]]}},
    {"groups": {f"site={n}": [[1.0, 0.0], [0.0, 1.0]] for n in range(51)}},
    {"groups": {f"site={n}": [[0.0, 0.0], [0.0, 0.0]] for n in range(1001)}},
    {"sums": [[1.0, 2.0, 3.0]]},
    {"partner": "b"},
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: json.dumps(lie)[:60])
def test_what_no_partner_can_report_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(MessageError) as caught:
        read(replace(HONEST, **lie))
    assert harmless(str(caught.value))


@pytest.mark.parametrize(
    "lie",
    [
        {"count_noise": 0.0},
        {"count_noise": 1e9},
        {"count_noise": NAN},
        {"examples_noise": 1e9},
        {"confusion": [[-100.0, 50.0], [50.0, 50.0]]},
        {"groups": {"site=x": [[1000.0, 0.0], [0.0, 0.0]]}},
    ],
)
def test_what_noise_does_not_explain_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        read(replace(NOISY, **lie), PRIVATE)


def test_sums_are_of_what_was_counted() -> None:
    expected = replace(EXPECTED, sums=(1, 3))
    assert read(replace(HONEST, sums=[[100.0, 0.0, 3.0]]), expected).sums == [[100.0, 0.0, 3.0]]
    for sums in ([], [[1.0]], [[101.0, 0.0, 0.0]], [[-1.0, 0.0, 0.0]], [[NAN, 0.0, 0.0]]):
        with pytest.raises(MessageError, match="sums"):
            read(replace(HONEST, sums=sums), expected)


def test_a_run_without_privacy_reports_no_epsilon() -> None:
    expected = replace(EXPECTED, private=False, epsilon=0.0, delta=0.0)
    with pytest.raises(MessageError, match="epsilon"):
        read(replace(HONEST, delta=0.0), expected)


def test_a_loss_is_not_believed_where_noise_takes_the_counts_below_nothing() -> None:
    few = replace(NOISY, confusion=[[2.0, -9.0], [-3.0, 4.0]], groups={}, loss=0.01)
    assert math.isnan(read(few, PRIVATE).loss)


def honest(name: str, scale: float = 1.0) -> Report:
    counts = [[40.0 * scale, 10.0 * scale], [10.0 * scale, 40.0 * scale]]
    return replace(HONEST, partner=name, confusion=counts, groups={"site=x": counts})


def test_one_partners_counts_do_not_decide_the_federations_accuracy() -> None:
    reports = [honest(name) for name in "abc"]
    wrong = [[0.0, 5e8], [4e8, 0.0]]
    liar = replace(HONEST, partner="d", confusion=wrong, groups={"site=x": wrong})
    alone = results(History(rounds=[RoundRecord(1)]), reports, None, 1, "h")["final"]
    final = results(History(rounds=[RoundRecord(1)]), [*reports, liar], None, 1, "h")["final"]
    assert alone["accuracy"] == pytest.approx(0.8)
    # Three honest partners of a hundred rows; the liar counts for three hundred.
    assert final["accuracy"] == pytest.approx(0.4)
    assert final["groups"]["site=x"]["accuracy"] == pytest.approx(0.4)
    assert final["data"]["measured_rows"] == pytest.approx(600)
    # Within the rule nothing changes.
    assert pooled([honest("a"), honest("b", 3.0)]) == [honest("a"), honest("b", 3.0)]


def test_one_partners_noise_does_not_hide_what_the_others_report() -> None:
    reports = [replace(honest(name), count_noise=4.0) for name in "abc"]
    liar = replace(honest("d"), count_noise=1e6)
    alone = results(History(rounds=[RoundRecord(1)]), reports, None, 1, "h")["final"]
    final = results(History(rounds=[RoundRecord(1)]), [*reports, liar], None, 1, "h")["final"]
    assert final["accuracy_error"] == alone["accuracy_error"]
    assert final["mean_partner_accuracy_error"] <= 0.25
    assert final["loss_error"] <= 1.0


# Whole runs.

NAMES = {1: "honest-1", 2: "honest-2", 3: "honest-3", 4: "liar"}
Spoil = Callable[[Report, dict[str, torch.Tensor]], object]


@dataclass(frozen=True)
class Node:
    node_id: int
    name: str


@dataclass
class Federation:
    """A grid of three honest partners and one that sends what `spoil` makes of an honest reply."""

    fingerprint: str = ""
    spoil: Spoil | None = None
    sent: dict[str, Message] = field(default_factory=dict)

    def get_nodes(self) -> list[Node]:
        return [Node(number, name) for number, name in NAMES.items()]

    def get_node_ids(self) -> list[int]:
        return list(NAMES)

    def push_messages(self, out: Iterable[Message]) -> list[str]:
        ids = []
        for message in out:
            identity = f"{message.metadata.message_type}-{len(self.sent)}"
            message.metadata.__dict__["_message_id"] = identity
            self.sent[identity] = message
            ids.append(identity)
        return ids

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        return [
            Message(self._answer(self.sent[identity]), reply_to=self.sent[identity])
            for identity in ids
        ]

    def _answer(self, question: Message) -> Any:
        name = NAMES[question.metadata.dst_node_id]
        kind = question.metadata.message_type
        if kind == messages.PREPARE:
            return messages.pack(Prepared(name, self.fingerprint, version("fedaccord"), 400.0, 1.0))
        report = replace(HONEST, partner=name, delta=1e-5)
        arrays = {}
        if kind == messages.TRAIN:
            start = messages.arrays(question.content)
            arrays = {n: torch.full_like(t, 0.01) for n, t in start.items() if "head." not in n}
            arrays |= {n: torch.full_like(t, 0.01) for n, t in start.items() if n in self.trained}
        else:
            report = replace(report, trained_examples=0.0)
        if name == "liar" and self.spoil is not None:
            answer = self.spoil(report, arrays)
            return answer if isinstance(answer, (RecordDict, Error)) else messages.pack(answer)
        return messages.pack(report, arrays or None)

    trained: frozenset[str] = frozenset()


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def job(base: Path, directory: Path) -> Config:
    """As `fedaccord submit` composes it."""
    settings = {
        "data": "csv",
        "data.path": "null",
        "data.labels": "[bad,good]",
        "data.columns.groups": "[site]",
        "model.base": base,
        "model.max_length": 16,
        "model.layers": 1,
        "train.batch_size": 64,
        "train.local_steps": 8,
        "run.rounds": 2,
        "run.partners": 4,
        "run.dir": directory,
        "run.deadline_seconds": 30,
        "tracking.tensorboard": "false",
    }
    return configure([f"{key}={value}" for key, value in settings.items()])


def run(base: Path, directory: Path, spoil: Spoil | None) -> tuple[dict[str, Any], Server]:
    directory.mkdir()
    config = job(base, directory)
    write_config(config, directory / "config.yaml")
    federation = Federation(spoil=spoil)
    server = build_server(config, federation, [], Event(), simulated=False)  # type: ignore[arg-type]
    federation.fingerprint = server.model.fingerprint
    federation.trained = frozenset(server.model.read())
    return server.run(), server


def packed(change: dict[str, Any]) -> Spoil:
    return lambda report, arrays: messages.pack(replace(report, **change), arrays or None)


def with_arrays(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(report: Report, arrays: dict[str, torch.Tensor]) -> object:
        if arrays:
            change(arrays)
        return messages.pack(report, arrays or None)

    return spoil


def first(arrays: dict[str, torch.Tensor], tensor: Callable[[torch.Tensor], torch.Tensor]) -> None:
    name = next(iter(arrays))
    arrays[name] = tensor(arrays[name])


def raw(report: Report, arrays: dict[str, torch.Tensor]) -> RecordDict:
    content = messages.pack(report, arrays or {"w": torch.ones(1)})
    record = content.array_records[messages.ARRAYS]
    record[next(iter(record))] = Array("float32", (2,), "numpy.ndarray", b"no array")
    return content


def deep(report: Report, arrays: dict[str, torch.Tensor]) -> RecordDict:
    body = "[" * 100_000
    return RecordDict({messages.HEADER: ConfigRecord({"kind": "Report", "body": body})})


def tensor(change: Callable[[torch.Tensor], torch.Tensor]) -> Spoil:
    return with_arrays(lambda arrays: first(arrays, change))


def refusal(reason: str) -> Spoil:
    return lambda report, arrays: Refusal("liar", reason)


ATTACKS: dict[str, Spoil] = {
    "counts": packed({"confusion": [[0.0, 1e12], [1e12, 0.0]], "groups": {}}),
    "negative epsilon": packed({"epsilon": -5.0}),
    "huge epsilon": packed({"epsilon": 1e9}),
    "loss without counts": packed({"confusion": [[0.0] * 2] * 2, "groups": {}, "loss": 0.0}),
    "endless loss": packed({"loss": INF}),
    "huge examples": packed({"examples": 1e12}),
    "negative seconds": packed({"train_seconds": -1e9}),
    "examples trained": packed({"trained_examples": 1e11}),
    "another's name": packed({"partner": "honest-1"}),
    "groups": packed({"groups": {f"\x1b[2Jx={w}": [[1.0] * 2] * 2 for w in WORDS}}),
    "many groups": packed({"groups": {f"site={n}": [[1e-3] * 2] * 2 for n in range(20_000)}}),
    "float64": tensor(lambda t: torch.full_like(t, 1e300, dtype=torch.float64)),
    "another dtype": tensor(lambda t: t.double()),
    "integers": tensor(lambda t: t.long()),
    "nan": tensor(lambda t: torch.full_like(t, NAN)),
    "largest": tensor(lambda t: torch.full_like(t, 3e38)),
    "shape": tensor(lambda t: torch.zeros(3, 3)),
    "one more": with_arrays(lambda arrays: arrays.update({"[/bold]\x1b[2J": torch.ones(1)})),
    "none": with_arrays(lambda arrays: arrays.clear()),
    "no array": raw,
    "no message": lambda report, arrays: RecordDict(),
    "deep": deep,
    "an introduction": lambda report, arrays: Prepared("liar", "f", "v", 1.0, 1.0),
    "an error": lambda report, arrays: Error(0, "[/bold]\x1b[2J\nINFO all is well"),
    **{f"reason {number}": refusal(word) for number, word in enumerate(WORDS)},
}


# Those that spoil the update alone; the last message measures, and there the partner is honest.
UPDATES = "float64", "another dtype", "integers", "nan", "largest", "shape", "one more", "no array"


@pytest.fixture(scope="module")
def alone(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the three honest partners, whose fourth says no."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_task_id", "_run_id", "_node_id"):
            patch.setattr(TaskIdentity, name, 1)
        place = tmp_path_factory.mktemp("alone") / "run"
        return run(tiny_bert, place, lambda report, arrays: Refusal("liar", "no"))[0]


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_the_run_goes_on_and_the_honest_result_is_unharmed(
    attack: str, alone: dict[str, Any], tiny_bert: Path, tmp_path: Path
) -> None:
    found, _ = run(tiny_bert, tmp_path / "run", ATTACKS[attack])
    honest, final = dict(alone["final"]), dict(found["final"])
    del honest["partners"], final["partners"]
    if attack in UPDATES:
        assert final.pop("data")["partners"] == honest.pop("data")["partners"] + 1
        honest = {key: honest[key] for key in ("accuracy", "loss", "epsilon")}
        final = {key: final[key] for key in honest}
    if attack != "none":
        assert final == honest
        assert [row["refused"] for row in found["rounds"]] == [1, 1]
    lines = (tmp_path / "run/decisions.jsonl").read_text().splitlines()
    decisions = [json.loads(line) for line in lines]
    told = [d for d in decisions if d["partner"] == "liar"]
    assert all(d["outcome"] == "refused" for d in told)
    assert len(told) == 2
    assert all(harmless(d["reason"]) and len(d["reason"]) < 500 for d in decisions)
    assert harmless(shown(summary(found, private=True)))
    page = (tmp_path / "run/report.html").read_text()
    assert not any(c in page for c in "\x1b\x9b\u202e")
    assert verify(tmp_path / "run").problems == []
