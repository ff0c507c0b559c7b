"""Several labels, and numbers: what is read, learnt, clipped, counted and delivered."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from client.metrics import release
from client.training import LocalTraining, Privacy, train
from common.config import Config, ModelConfig, TrainConfig, validate
from common.data.cache import cached_table
from common.data.reader import read
from common.data.schema import Columns, DataConfig
from common.device import Device
from common.errors import UserError
from common.evaluation import evaluate
from common.examples.prepare import prepare_table
from common.models.build import build
from common.models.export import export
from common.models.network import Network
from common.tasks import TASKS
from inspection.trained import load_trained
from scripts.compose import compose_config
from simulation.seeded_streams import SeededStream
from tests.conftest import BAD, FILLER, GOOD

FP32 = Device(torch.device("cpu"), torch.float32)
LABELS = ["bad", "good", "long"]


def config_of(task: str, path: Path, base: Path, **model: object) -> Config:
    config = Config(task=task)
    columns = Columns(label="kinds" if task == "multilabel" else "stars", groups=["ward"])
    config.data = DataConfig(
        source="json", path=str(path), columns=columns, target=TASKS[task].target
    )
    if task == "multilabel":
        config.data.labels = list(LABELS)
    else:
        config.data.bounds = [1.0, 9.0]
    settings = {"max_length": 24, "layers": 1, **model}
    config.model = ModelConfig(base=str(base), **settings)  # type: ignore[arg-type]
    return validate(config)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 texts with several kinds and a number each."""
    draw, lines = random.Random(1), []
    for number in range(120):
        words = draw.choices([*FILLER, *GOOD, *BAD], k=draw.randint(2, 16))
        kinds = [kind for kind, pool in (("good", GOOD), ("bad", BAD)) if set(pool) & set(words)]
        kinds += ["long"] if len(words) > 9 else []
        stars = 5 + 4 * (len(set(GOOD) & set(words)) - len(set(BAD) & set(words))) / 8
        given: object = kinds if number % 2 else ";".join(kinds)
        row = {"text": " ".join(words), "kinds": given, "ward": "ab"[number % 2]}
        lines.append(json.dumps({**row, "stars": min(max(stars, 1.0), 9.0)}))
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(lines))
    return path


def moved(net: Network, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {k: v + 0.3 * torch.randn(v.shape, generator=draw) for k, v in net.read().items()}


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_targets_survive_the_cache_and_selection(
    rows: Path, tiny_bert: Path, tmp_path: Path, task: str
) -> None:
    data = config_of(task, rows, tiny_bert).data
    first, again = (cached_table(data, tmp_path) for _ in range(2))
    assert first.targets is not None
    assert again.targets is not None
    np.testing.assert_array_equal(first.targets, again.targets)
    assert first.fingerprint() == again.fingerprint()
    raw = [json.loads(line) for line in rows.read_text().splitlines()]
    for index in (3, 4, 77):
        found = first.select([index]).targets
        assert found is not None
        if task == "regression":
            assert found[0, 0] == pytest.approx((raw[index]["stars"] - 5) / 4)
            continue
        kinds = raw[index]["kinds"]
        wanted = kinds if isinstance(kinds, list) else kinds.split(";") if kinds else []
        assert [n for n, has in zip(LABELS, found[0], strict=True) if has] == sorted(wanted)


@pytest.mark.parametrize(
    ("task", "value", "problem"),
    [
        ("multilabel", ["good", "new"], "column 'kinds': the label is not one of the 3"),
        ("multilabel", "good;;bad", "column 'kinds': a label of the list is empty"),
        ("multilabel", "good;good", "column 'kinds': the same label twice"),
        ("multilabel", {"good": 1}, "column 'kinds': the value is neither a string nor a number"),
        ("regression", 9.5, "column 'stars': the number is outside data.bounds"),
        ("regression", "many", "column 'stars': the value is not a number"),
        ("regression", "nan", "column 'stars': the value is not a number"),
        ("regression", None, "column 'stars': the number is missing"),
        ("regression", True, "column 'stars': the value is not a number"),
    ],
)
def test_a_bad_cell_is_one_line_without_its_value(
    tiny_bert: Path, tmp_path: Path, task: str, value: object, problem: str
) -> None:
    path, column = tmp_path / "rows.jsonl", "kinds" if task == "multilabel" else "stars"
    good: object = "good" if task == "multilabel" else 2
    lines = [{"text": "a", "ward": "a", column: v} for v in (good, value)]
    path.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError) as caught:
        read(config_of(task, path, tiny_bert).data)
    assert str(caught.value).startswith(f"{path}: row 2 (line 2), {problem}")
    assert "many" not in str(caught.value)
    assert "new" not in str(caught.value)


def test_labels_are_discovered_in_order(rows: Path, tiny_bert: Path) -> None:
    data = config_of("multilabel", rows, tiny_bert).data
    found = read(replace(data, labels=[]), discover=True)
    assert found.label_names == ("bad", "good", "long")
    wanted = read(data)
    assert found.targets is not None
    assert wanted.targets is not None
    np.testing.assert_array_equal(found.targets, wanted.targets)


@pytest.mark.parametrize("clipping", ["hooks", "ghost", "bookkeeping"])
@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_private_steps_clip_each_record(
    rows: Path, tiny_bert: Path, tmp_path: Path, task: str, clipping: str
) -> None:
    config = config_of(task, rows, tiny_bert)
    net = build(config.model, config.outputs, 0, task)
    table = read(config.data).select(np.arange(12))
    examples = prepare_table(table, net, config.model, FP32, tmp_path)
    start, clip = moved(net), 0.05
    net.write(start)
    total = {k: torch.zeros_like(p) for k, p in net.trainable().items()}
    for index in range(len(examples)):
        batch = examples[index]
        logits = examples.logits(net, batch)
        loss = (
            nn.functional.binary_cross_entropy_with_logits(logits, batch.labels)
            if task == "multilabel"
            else nn.functional.mse_loss(logits, batch.labels)
        )
        found = torch.autograd.grad(loss, list(net.trainable().values()))
        norm = float(torch.sqrt(sum((g**2).sum() for g in found)))
        for sum_, g in zip(total.values(), found, strict=True):
            sum_ += g * min(1.0, clip / (norm + 1e-6))
    trained = train(
        net,
        examples,
        start,
        LocalTraining(TrainConfig(physical_batch=5), 1.0, Privacy(1e-9, clip, clipping)),
        SeededStream(0),
        SeededStream(0),
        FP32,
    )
    for key, change in trained.delta.items():
        torch.testing.assert_close(change, -total[key] / 12, atol=3e-7, rtol=2e-3)


@pytest.mark.parametrize("head", ["mean", "cls"])
def test_several_labels_are_counted_as_sklearn_counts_and_delivered(
    rows: Path, tiny_bert: Path, tmp_path: Path, head: str
) -> None:
    config = config_of("multilabel", rows, tiny_bert, head=head)
    net = build(config.model, config.outputs, 0, "multilabel")
    net.write(moved(net))
    table = read(config.data)
    examples = prepare_table(table, net, config.model, FP32, tmp_path / "cache")
    measured = evaluate(net, examples, {"ward": table.groups["ward"].astype(str)}, FP32)
    truth = table.targets
    assert truth is not None
    with torch.no_grad():
        logits = examples.logits(net, examples.__getitems__(range(len(table)))).numpy()
    said = logits > 0
    task = TASKS["multilabel"]
    figures = task.figures(measured.measured, config.data)
    assert figures["micro_f1"] == pytest.approx(f1_score(truth, said, average="micro"))
    assert figures["macro_f1"] == pytest.approx(
        f1_score(truth, said, average="macro", zero_division=0)
    )
    assert measured.accuracy == pytest.approx(((truth > 0.5) == said).mean())
    assert measured.confusion.sum() == pytest.approx(len(table))
    lines = task.details(measured.measured, {}, config.data)["labels"]
    for index, name in enumerate(LABELS):
        if name in lines:
            wanted = f1_score(truth[:, index], said[:, index], zero_division=0)
            assert lines[name]["f1-score"] == pytest.approx(wanted)
            assert lines[name]["support"] == truth[:, index].sum()
    np.testing.assert_allclose(sum(measured.groups.values()), measured.confusion)
    export(net.read(), config, tmp_path / "run" / "model")
    score = pipeline(
        "text-classification", str(tmp_path / "run" / "model"), top_k=None, trust_remote_code=True
    )
    given = {row["label"]: row["score"] for row in score([table.texts[7]])[0]}
    wanted = 1 / (1 + np.exp(-logits[7]))
    assert [given[name] for name in LABELS] == pytest.approx(wanted.tolist(), abs=1e-4)
    with pytest.raises(UserError, match="asks classifiers with one label"):
        load_trained(tmp_path / "run")


@pytest.mark.parametrize("head", ["mean", "cls"])
def test_a_number_is_measured_as_elsewhere_and_delivered_in_its_own_units(
    rows: Path, tiny_bert: Path, tmp_path: Path, head: str
) -> None:
    config = config_of("regression", rows, tiny_bert, head=head)
    net = build(config.model, config.outputs, 0, "regression")
    net.write(moved(net))
    table = read(config.data)
    examples = prepare_table(table, net, config.model, FP32, tmp_path / "cache")
    measured = evaluate(net, examples, {"ward": table.groups["ward"].astype(str)}, FP32)
    assert table.targets is not None
    with torch.no_grad():
        logits = examples.logits(net, examples.__getitems__(range(len(table)))).numpy()[:, 0]
    truth, raw = 5 + 4 * table.targets[:, 0], 5 + 4 * logits
    said = raw.clip(1, 9)
    task = TASKS["regression"]
    figures = task.figures(measured.measured, config.data)
    details = task.details(measured.measured, measured.extra, config.data)
    assert figures["mae"] == pytest.approx(mean_absolute_error(truth, said), abs=1e-5)
    assert figures["rmse"] == pytest.approx(root_mean_squared_error(truth, said), abs=1e-5)
    assert figures["r2"] == pytest.approx(r2_score(truth, said), abs=1e-4)
    assert figures["pearson"] == pytest.approx(pearsonr(truth, said).statistic, abs=1e-4)
    assert details["spearman"] == pytest.approx(spearmanr(truth, said).statistic, abs=1e-4)
    assert measured.loss == pytest.approx(
        np.minimum((logits - table.targets[:, 0]) ** 2, 4).mean(), abs=1e-5
    )
    export(net.read(), config, tmp_path / "run" / "model")
    load = {"trust_remote_code": True}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run" / "model", **load)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    batch = tokenizer(list(table.texts[:9]), return_tensors="pt", padding=True, truncation=True)
    with torch.no_grad():
        number = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    np.testing.assert_allclose(number[:, 0], raw[:9], atol=1e-4)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_one_record_changes_a_release_by_no_more_than_its_sensitivity(
    rows: Path, tiny_bert: Path, tmp_path: Path, task: str
) -> None:
    """All tables and the scaled loss together: L2 at most sqrt(2 + groups); sums do not leave."""
    config = config_of(task, rows, tiny_bert)
    net = build(config.model, config.outputs, 0, task)
    net.write({k: 4 * v for k, v in moved(net).items()})
    told = []
    table = read(config.data)
    for kept in (np.arange(30), *(np.delete(np.arange(30), i) for i in range(6))):
        part = table.select(kept)
        examples = prepare_table(part, net, config.model, FP32, tmp_path)
        found = evaluate(net, examples, {"ward": part.groups["ward"].astype(str)}, FP32)
        values = {"ward": ["a", "b"]}
        noiseless = release(found, values, 0.0, SeededStream(0), TASKS[task].loss_bound)
        assert noiseless.sums is None
        tables = [noiseless.confusion, *noiseless.groups.values()]
        scaled = noiseless.loss * len(part) / TASKS[task].loss_bound
        told.append(np.concatenate([*(t.ravel() for t in tables), [scaled]]))
    moves = [float(np.linalg.norm(told[0] - other)) for other in told[1:]]
    assert 0 < max(moves) <= np.sqrt(3) + 1e-5


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=regression"], "data.bounds: give the least and the largest number"),
        (["task=regression", "data.bounds=[3,1]"], "data.bounds: give the least"),
        (["task=multilabel", "data.target=label"], "data.target: must be labels with task=multi"),
        (["task=multilabel", "model.head=token"], "model.head: must be token with task=ner"),
        (["data.bounds=[0,1]"], "data.bounds: goes with data.target=number"),
        (["task=multilabel", "attack=label_flip"], "attack: label_flip and backdoor poison"),
        (["task=multilabel", "data=demo"], "data.target=labels: the demo's reviews have one"),
        (
            ["task=regression", "data.bounds=[0,1]", "data.labels=[a,b]"],
            "data.labels: task=regression has no labels",
        ),
        (["task=summary"], "task: there is no choice 'summary'"),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_config(["data=json", "data.path=rows.jsonl", *overrides])
    assert str(caught.value).startswith(message)
