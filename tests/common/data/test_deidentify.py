"""De-identification: what is found, what is left, and that a failed search ends the reading."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

from client.training import LocalTraining, train
from common.config import Config, ModelConfig, TrainConfig
from common.data import deidentify
from common.data.load import training_table
from common.data.records import Batch, build_table
from common.data.schema import DataConfig
from common.data.table import Table
from common.device import Device
from common.errors import UserError
from common.examples.prepare import prepare_table
from common.models.build import build
from common.models.export import export
from simulation.seeded_streams import SeededStream
from tests.conftest import BAD, FILLER, GOOD

pytest.importorskip("presidio_analyzer", reason="the extra deidentify is not installed")
FP32 = Device(torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test, and so no recogniser, may ask a network for anything."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def names(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, as task=ner delivers it, to which every good word is a person."""
    draw = np.random.default_rng(0)
    rows = [list(draw.choice([*GOOD, *BAD, *FILLER], 9)) for _ in range(200)]
    tags = [["B-PER" if word in GOOD else "O" for word in row] for row in rows]
    words = [[str(word) for word in row] for row in rows]
    table = build_table(
        [Batch("made", 1, {"text": words, "label": tags})],
        DataConfig(labels=["PER"], scheme="bio"),
    )
    config = Config(task="ner")
    config.data.labels = ["PER"]
    config.model = ModelConfig(
        base=str(tiny_bert),
        head="token",
        trainable="full",
        max_length=16,
        drop_layers=0,
        stride=2,
        head_scale=6.0,
    )
    folder = tmp_path_factory.mktemp("names")
    net = build(config.model, config.outputs, 0)
    examples = prepare_table(table, net, config.model, FP32, folder / "cache")
    how = TrainConfig(local_steps=90, optimizer="adam", lr=0.005)
    draws = [SeededStream(seed) for seed in (0, 1)]
    train(net, examples, net.read(), LocalTraining(how, 0.3, None), *draws, FP32)
    export({**net.read(), **net.constants()}, config, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def without_names() -> deidentify.Replace:
    """Built once: it takes most of a second."""
    return deidentify.replacer("none")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("write to a.b@example.org now", "write to <EMAIL_ADDRESS> now"),
        ("seen on 12/31/1999 again", "seen on <DATE_TIME> again"),
        ("seen on 3 March 2021 again", "seen on <DATE_TIME> again"),
        ("seen on the 1st of April again", "seen on the <DATE_TIME> again"),
        ("am 3. März 2021 gesehen", "am <DATE_TIME> gesehen"),
        ("le 14 juillet 1789 enfin", "le <DATE_TIME> enfin"),
        ("since March 2021 it hurts", "since <DATE_TIME> it hurts"),
        ("he may go on", "he may go on"),
        ("patient MRN-00123X left", "patient <IDENTIFIER> left"),
        ("file 2021/A17 of ward", "file <IDENTIFIER> of ward"),
        ("blood pressure 120/80 and 1,250.5 ml", "blood pressure <NUMBER> and <NUMBER> ml"),
        ("call (212) 555-0182 today", "call <PHONE_NUMBER> today"),
        ("pay to DE89370400440532013000 soon", "pay to <IBAN_CODE> soon"),
        ("card 4012888888881881 is lost", "card <CREDIT_CARD> is lost"),
        ("from 192.168.0.12 tonight", "from <IP_ADDRESS> tonight"),
        ("nothing to find here", "nothing to find here"),
        ("", ""),
    ],
)
def test_what_has_a_form_is_replaced(
    without_names: deidentify.Replace, text: str, wanted: str
) -> None:
    found, counts = without_names(text)
    assert found == wanted
    assert sum(counts.values()) == wanted.count("<")


def table_of(path: Path, texts: list[str]) -> DataConfig:
    path.write_text(
        "\n".join(json.dumps({"text": t, "label": "ab"[i % 2]}) for i, t in enumerate(texts))
    )
    return DataConfig(
        source="json", path=str(path), labels=["a", "b"], deidentify=True, test_fraction=0.0
    )


def test_names_are_replaced_by_a_model_of_our_own(names: Path, tmp_path: Path) -> None:
    texts = ["the film of lovely was dull", "cold plot 17", "warm and weak " * 30]
    config = table_of(tmp_path / "rows.jsonl", texts)
    config.names_model = str(names)
    table = training_table(config, tmp_path / "cache")
    assert list(table.texts)[:2] == ["the film of <PERSON> was dull", "cold plot <NUMBER>"]
    # Longer than the model takes: every part of it was searched.
    assert table.texts[2] == "<PERSON> and weak " * 30
    assert table.replaced == {"NUMBER": 1, "PERSON": 31}
    plain = training_table(
        DataConfig(**{**vars(config), "deidentify": False, "names_model": None}), tmp_path / "cache"
    )
    np.testing.assert_array_equal(plain.keys, table.keys)
    assert table.select([1]).replaced == table.replaced


def test_the_texts_are_searched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = table_of(tmp_path / "rows.jsonl", ["room 12", "room 13", "call x1"])
    config.names_model = "none"
    with caplog.at_level(logging.INFO, logger="fedaccord"):
        first = training_table(config, tmp_path / "cache")
    assert "de-identified 3 texts: 1 identifiers, 2 numbers" in caplog.text
    assert "room" not in caplog.text

    def fail(_: str) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(deidentify, "replacer", fail)
    again = training_table(config, tmp_path / "cache")
    assert list(again.texts) == list(first.texts) == ["room <NUMBER>"] * 2 + ["call <IDENTIFIER>"]
    assert again.replaced == first.replaced
    (tmp_path / "cache").chmod(0o700)
    table_of(tmp_path / "rows.jsonl", ["room 12", "room 13", "call x2"])
    with pytest.raises(AssertionError, match="searched again"):
        training_table(config, tmp_path / "cache")


def test_a_failed_search_names_the_row_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from presidio_analyzer.pattern_recognizer import logger

    real = deidentify.replacer("none")

    def failing(_: str) -> deidentify.Replace:
        def change(text: str) -> object:
            if "secret" in text:
                # As Presidio does it when a pattern or a model fails: a warning, and on it goes.
                alarm = deidentify._Alarm()
                with deidentify._listening(alarm):
                    logger.warning("failed for %s", text)
                if alarm.rung:
                    raise RuntimeError("a recogniser failed")
            return real(text)

        return change  # type: ignore[return-value]

    config = table_of(tmp_path / "rows.jsonl", ["room 12", "a secret", "call x1"])
    config.names_model = "none"
    monkeypatch.setattr(deidentify, "replacer", failing)
    with pytest.raises(UserError) as caught:
        training_table(config, tmp_path / "cache")
    assert str(caught.value) == (
        f"{tmp_path / 'rows.jsonl'}: row 2: the text could not be de-identified (RuntimeError); "
        "leave it out or set data.deidentify=false"
    )
    assert "secret" not in caplog.text
    assert not list((tmp_path / "cache").glob("*deidentified*"))


def test_a_names_model_that_fails_rings_the_alarm(
    names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = deidentify._names

    def broken(model: str) -> object:
        found = real(model)

        def explode(_: str) -> None:
            raise ValueError("text inside")

        explode.tokenizer = found.ner_pipeline.tokenizer  # type: ignore[attr-defined]
        found.ner_pipeline = explode
        return found

    monkeypatch.setattr(deidentify, "_names", broken)
    change = deidentify.replacer(str(names))
    with pytest.raises(RuntimeError, match="a recogniser failed"):
        change("the film was lovely")


def test_what_does_not_fit_is_one_line(tiny_bert: Path, tmp_path: Path, names: Path) -> None:
    config = table_of(tmp_path / "rows.jsonl", ["room 12", "a room"])
    for model, problem in (
        (None, "data.names_model: name a model that tags persons"),
        (str(tmp_path / "nowhere"), "data.names_model: '.*nowhere' cannot be loaded"),
    ):
        config.names_model = model
        with pytest.raises(UserError, match=problem) as caught:
            training_table(config, tmp_path / "cache")
        assert "\n" not in str(caught.value)
    config.deidentify, config.names_model = False, str(names)
    with pytest.raises(UserError, match=r"data\.names_model: goes with data.deidentify=true"):
        training_table(config, tmp_path / "cache")
    tagger = Config(task="ner")
    tagger.data.labels = ["DISEASE"]
    tagger.model = ModelConfig(base=str(tiny_bert), head="token", drop_layers=0, max_length=16)
    net = build(tagger.model, tagger.outputs, 0)
    export({**net.read(), **net.constants()}, tagger, tmp_path / "diseases")
    config.deidentify, config.names_model = True, str(tmp_path / "diseases")
    with pytest.raises(UserError, match="tags no persons"):
        training_table(config, tmp_path / "cache")
    tagged = DataConfig(source="conll", scheme="bio", deidentify=True, names_model="none")
    with pytest.raises(UserError, match=r"data\.deidentify: not with tagged words"):
        training_table(tagged, tmp_path / "cache")


def test_a_table_without_it_says_nothing(tmp_path: Path) -> None:
    config = table_of(tmp_path / "rows.jsonl", ["room 12", "room 13"])
    config.deidentify = False
    table: Table = training_table(config, tmp_path / "cache")
    assert list(table.texts) == ["room 12", "room 13"]
    assert table.replaced is None
