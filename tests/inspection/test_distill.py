"""A student of a delivered model: its layers, what it learns, what is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig

from common.config import Config, ModelConfig
from common.config_file import write_config
from common.errors import UserError
from common.models.build import build, encoder_of, layers_of
from common.models.export import export
from inspection.distill import Teaching, distill, shorter, spread
from inspection.trained import load_config, load_delivered, load_trained
from scripts import cli
from server.testset import public_rows
from tests.conftest import review

HEADS = {
    "classification": "mean",
    "multilabel": "cls",
    "regression": "cls",
    "ner": "token",
}


def teacher(base: Path, directory: Path, task: str = "classification") -> Path:
    """A finished run with a model that tells good reviews from bad ones, on 200 public texts."""
    draw = random.Random(3)
    rows = [(review(bool(i % 2), draw), i % 2) for i in range(200)]
    config = Config(task=task)
    config.model = ModelConfig(
        base=str(base), head=HEADS[task], max_length=24, drop_layers=0, trainable="last_k"
    )
    data = config.data
    data.labels = ["bad", "good"]
    directory.mkdir()
    path = directory / ("rows.conll" if task == "ner" else "rows.csv")
    if task == "ner":
        data.source, data.scheme, data.labels = "conll", "bio", ["X"]
        path.write_text("\n\n".join("\n".join(f"{w} O" for w in t.split()) for t, _ in rows))
    else:
        data.source = "csv"
        values = {"classification": ("bad", "good"), "multilabel": ("", "good;bad")}
        shown = values.get(task, ("1", "9"))
        path.write_text("text,label\n" + "\n".join(f"{t},{shown[v]}" for t, v in rows))
    if task == "multilabel":
        data.target = "labels"
    if task == "regression":
        data.target, data.labels, data.bounds = "number", [], [0.0, 10.0]
    data.path, data.test_fraction = str(path), 0.5
    config.run.cache_dir = str(directory / "cache")
    write_config(config, directory / "config.yaml")
    net = build(config.model, config.outputs, 0, task)
    draws = torch.Generator().manual_seed(0)
    moved = {k: v + 0.2 * torch.randn(v.shape, generator=draws) for k, v in net.read().items()}
    export({**moved, **net.constants()}, config, directory / "model")
    return directory


@pytest.mark.parametrize(
    ("layers", "count", "kept"),
    [(3, 6, [1, 3, 5]), (1, 6, [5]), (2, 5, [1, 4]), (4, 6, [1, 2, 3, 5]), (5, 6, [0, 1, 3, 4, 5])],
)
def test_kept_layers_are_spread_and_hold_the_last(layers: int, count: int, kept: list[int]) -> None:
    found = spread(layers, count)
    assert len(set(found)) == layers
    assert found[-1] == count - 1
    assert found == sorted(kept)


@pytest.mark.parametrize("task", list(HEADS))
def test_a_student_learns_the_teachers_answers(tiny_bert: Path, tmp_path: Path, task: str) -> None:
    run = teacher(tiny_bert, tmp_path / "run", task)
    draw = random.Random(9)
    texts = [review(bool(i % 2), draw) for i in range(300)]
    model, _ = load_delivered(run)
    untaught = distill(run, tmp_path / "untaught", texts, Teaching(2, 1, lr=1e-12))
    taught = distill(run, tmp_path / "student", texts, Teaching(2, 30, lr=3e-3))
    assert (taught.layers, taught.teacher_layers) == (2, 3)
    one = sum(p.numel() for p in layers_of(encoder_of(model))[0].parameters())
    assert taught.teacher_parameters - taught.parameters == one
    if task == "regression":
        assert taught.difference is not None
        assert untaught.difference is not None
        assert taught.difference < untaught.difference / 1.5
    else:
        assert taught.agreement is not None
        assert untaught.agreement is not None
        assert taught.agreement > max(0.8, untaught.agreement - 0.01)
    # What was written is what was compared, and transformers loads it.
    (tmp_path / "as-run").mkdir()
    (tmp_path / "student").rename(tmp_path / "as-run" / "model")
    again, tokenizer = load_delivered(tmp_path / "as-run")
    assert len(layers_of(encoder_of(again))) == 2
    assert AutoConfig.from_pretrained(tmp_path / "as-run" / "model", trust_remote_code=True)
    assert tokenizer.model_max_length == 24
    card = (tmp_path / "as-run" / "model" / "README.md").read_text()
    assert "A student with 2 of 3 layers" in card
    assert f"on {taught.held_out:,} held-out texts" in card


def test_the_command_teaches_on_the_runs_public_rows(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = teacher(tiny_bert, tmp_path / "run")
    assert cli.main(["distill", str(run), "--layers", "1", "--epochs", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{run / 'student'}: 1 of 3 layers, ")
    # About a hundred rows are public; a fifth of them, by a hash, is for lessons.
    held_out = int(said.split("; on ")[1].split()[0])
    lessons = int(said.split("trained on ")[1].split()[0])
    found = public_rows(load_config(run))
    assert found is not None
    assert (held_out, lessons) == (len(found[0]), len(found[1]))
    assert load_trained(run).labels == ("bad", "good")
    first = (run / "student" / "model.safetensors").read_bytes()
    assert cli.main(["distill", str(run), "--layers", "1", "--epochs", "2"]) == 0
    assert (run / "student" / "model.safetensors").read_bytes() == first


def test_what_cannot_be_taught_is_one_line(
    tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = teacher(tiny_bert, tmp_path / "run")
    (tmp_path / "few.txt").write_text("one\n\ntwo\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n" * 30)
    (tmp_path / "mine").mkdir()
    for arguments, problem in (
        (["--layers", "3"], "--layers: must be less than the 3 of the model, got 3"),
        (["--layers", "0"], "--layers: must be at least 1, got 0"),
        (["--layers", "1", "--epochs", "0"], "--epochs: must be at least 1, got 0"),
        (["--layers", "1", "--out", str(tmp_path / "mine")], "exists and holds no model"),
        (["--layers", "1", "--text", str(tmp_path / "few.txt")], "2 public texts are too few"),
        (["--layers", "1", "--text", str(tmp_path / "no.txt")], "cannot be read (No such file"),
        (["--layers", "1", "--text", str(tmp_path / "latin.txt")], "is not UTF-8 at byte 3"),
    ):
        assert cli.main(["distill", str(run), *arguments]) == 2
        said = capsys.readouterr().err
        assert problem in said
        assert said.count("\n") == 1
    assert not (run / "student").exists()


def test_a_head_that_reads_several_layers_keeps_them(tiny_bert: Path, tmp_path: Path) -> None:
    config = Config(model=ModelConfig(base=str(tiny_bert), drop_layers=0, layers=2, max_length=24))
    config.data.labels = ["bad", "good"]
    net = build(config.model, config.outputs, 0)
    export({**net.read(), **net.constants()}, config, tmp_path / "model")
    model, _ = load_delivered(tmp_path)
    assert isinstance(model, nn.Module)
    with pytest.raises(UserError, match="--layers: must be at least 2: so many the head"):
        shorter(model, 1)
    assert len(layers_of(encoder_of(shorter(model, 2)))) == 2
