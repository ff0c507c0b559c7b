"""A coordinator sends what it likes as a configuration: it is data, and the answer gives nothing.

Everything goes through the handler of a deployed partner (`client.session.answer`).
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client import handlers, session
from client.deployed_session import explain, open_session
from common import messages
from common.config import Config, from_json, from_mapping, to_json
from common.config_file import read_config, write_config
from common.config_reader import MAX_DEPTH, MAX_STRING, MAX_TEXT, MAX_VALUES
from common.data.load import resolve_labels
from common.refusals import Reason, Refused
from common.request import KEYS, LARGEST, checked
from results.run_directory import claim

# 20,000 take half a minute: for after a change of the reader.
CASES = int(os.environ.get("FEDACCORD_REQUEST_CASES", "4000"))
PROCESSOR_SECONDS = 5.0
SECRET = "postgresql+psycopg://reader:hunter2@db.local/notes"
# In every value that the coordinator makes up.
CANARY = "c4n4ry"
REASONS = frozenset(reason.sentence(key) for reason in Reason for key in ("", *KEYS))
INTERPOLATIONS = (
    "${oc.env:NOTES_DB}",
    "${oc.env:FEDACCORD_PARTNER}",
    "${oc.decode:${oc.env:NOTES_DB}}",
    "${oc.create:{a: b}}",
    "${model.base}",
    "${.base}",
    "${now:%Y}",
    "${hydra:runtime.cwd}",
    "${",
    "${}",
    "\\${oc.env:NOTES_DB}",
    "\\\\${oc.env:NOTES_DB}",
    "$${oc.env:NOTES_DB}",
    "???",
)
Ask = Callable[[str], str]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ask:
    """What a deployed partner, whose file lies at a secret place, answers to a configuration."""
    monkeypatch.delenv("FEDACCORD_SIMULATION", raising=False)
    monkeypatch.setenv("NOTES_DB", SECRET)
    monkeypatch.setenv("FEDACCORD_PARTNER", str(tmp_path / "hunter2" / "partner.yaml"))
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)

    def answer(config: str) -> str:
        context = Context(1, 2, {}, RecordDict(), {"config": config})
        message = Message(messages.pack(messages.Request("r")), 2, messages.PREPARE)
        reply = session.answer(message, context, handlers.prepare, open_session, explain)
        body = messages.unpack(reply.content)
        assert isinstance(body, messages.Refusal)
        assert body.partner == "?"
        return body.reason

    return answer


def escaped(text: str, generator: random.Random) -> str:
    """The same JSON text with characters written as escapes, by chance."""

    def one(c: str) -> str:
        if c not in "${}:.,_" or generator.random() < 0.5:
            return json.dumps(c)[1:-1]
        return f"\\u{ord(c):04x}" if generator.random() < 0.5 else f"\\u{ord(c):04X}"

    return "".join(map(one, text))


@pytest.mark.parametrize("value", INTERPOLATIONS)
@pytest.mark.parametrize("key", ["model.head", "model.base", "model.revision", "data.labels.0"])
def test_no_escape_makes_a_value_a_program(ask: Ask, key: str, value: str) -> None:
    plain = json.loads(to_json(Config()))
    plain["data"]["labels"] = ["@", "other"]
    first, last = key.split(".")[:2]
    if first == "model":
        plain[first][last] = "@"
        plain["data"]["labels"] = []
    text = json.dumps(plain)
    for seed in range(8):
        reason = ask(text.replace('"@"', f'"{escaped(value, random.Random(seed))}"'))
        assert reason in REASONS
        assert "hunter2" not in reason


def test_the_refusal_names_the_key_alone(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    tree = json.loads(to_json(Config()))
    tree["model"]["head"] = f"{CANARY}\n\x1b[2J\u202e"
    assert ask(json.dumps(tree)) == Reason.SETTING.sentence("model.head")
    # The partner's own log has the value, on one line.
    assert f"{CANARY} ?[2J?" in caplog.text
    assert "\x1b" not in caplog.text
    tree["model"]["head"] = 3
    assert ask(json.dumps(tree)) == Reason.UNREADABLE.sentence("model.head")
    tree["model"] = {CANARY: 1}
    assert ask(json.dumps(tree)) == Reason.UNREADABLE.sentence("model")
    assert ask(to_json(Config())) == Reason.OWN_SETTINGS.sentence()


@pytest.mark.parametrize("key", ["run.rounds", "train.local_steps", "train.batch_size"])
def test_a_request_without_end_is_refused(ask: Ask, key: str) -> None:
    section, name = key.split(".")
    for size in (LARGEST[key], LARGEST[key] + 1, 2**63 - 1):
        tree = json.loads(to_json(Config()))
        tree[section][name] = size
        within = size == LARGEST[key]
        wanted = Reason.OWN_SETTINGS.sentence() if within else Reason.SETTING.sentence(key)
        assert ask(json.dumps(tree)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"text"',
        "{" * 10,
        "[" * (MAX_TEXT // 2),
        '{"model":' * 20_000,
        '{"a": 1, "a": 2}',
        '{"model": {}, "model": {}}',
        '{"privacy": {"epsilon": NaN}}',
        '{"privacy": {"epsilon": -Infinity}}',
        '{"privacy": {"epsilon": 1e999}}',
        '{"privacy": {"epsilon": true}}',
        '{"privacy": {"epsilon": "8"}}',
        '{"run": {"rounds": 1.0}}',
        '{"run": {"rounds": true}}',
        '{"run": {"rounds": 9223372036854775808}}',
        '{"run": {"rounds": ' + "9" * 5000 + "}}",
        '{"strategy": {"x": 1e999}}',
        '{"model": {"base": "\\ud800"}}',
        '{"strategy": {"\\ud800": 1}}',
        '{"version": 2}',
        json.dumps({"model": {"base": "x" * (MAX_STRING + 1)}}),
        json.dumps({"data": {"labels": ["x"] * MAX_VALUES}}),
        json.dumps({"strategy": {"x" * 501: 1}}),
        '{"strategy": {"x": ' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}}",
        " " * (MAX_TEXT + 1),
    ],
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(Refused) as caught:
        from_json(text)
    assert caught.value.reason in (Reason.UNREADABLE, Reason.VERSION)
    assert caught.value.key in ("", *KEYS)
    assert len(str(caught.value)) < 1000


def leaves(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a tree with each of its keys."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in list(pairs):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from leaves(value)


def made_up(generator: random.Random) -> Any:
    """A value that no schema has in mind."""
    text = generator.choice(
        [
            *INTERPOLATIONS,
            *(
                "",
                "\n",
                "\x00",
                "\x1b[2J",
                "\u202e",
                "é",
                "\U0001d4b3",
                "\ufeff",
                "\u2028",
                "%s",
                "{}",
                "/etc",
            ),
            *("simulation.attacks.label_flip.LabelFlip", "os.system", "../" * 9, "*" * 3000),
        ]
    )
    return generator.choice(
        [
            f"{text}{CANARY}",
            *(None, True, False, 0, -1, 2**53, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308, 5e-324),
            *(float("nan"), float("inf"), float("-inf"), [], {}, [[]], [None], {"": {}}),
            [text + CANARY] * generator.randint(1, 40),
            {f"{text}{CANARY}{n}": n for n in range(generator.randint(1, 40))},
            {"_target_": f"os.{CANARY}"},
            nested(generator.choice([2, MAX_DEPTH - 1, MAX_DEPTH, 90])),
        ]
    )


def nested(depth: int) -> Any:
    found: Any = CANARY
    for _ in range(depth):
        found = [found] if depth % 2 else {CANARY: found}
    return found


def mutated(generator: random.Random, base: str) -> str:
    """A configuration with a few changes, as JSON text that may be damaged too."""
    tree = json.loads(base)
    places = list(leaves(tree))
    for holder, key in generator.sample(places, generator.choice([1, 1, 1, 2, 5])):
        if key not in holder if isinstance(holder, dict) else key >= len(holder):
            continue
        change = generator.random()
        if change < 0.75:
            holder[key] = made_up(generator)
        elif change < 0.85 and isinstance(holder, dict):
            holder[f"{CANARY}{key}"] = holder.pop(key)
        elif change < 0.95:
            del holder[key]
        else:
            holder[key] = [f"{CANARY}{n}" for n in range(1000)]
    # json.dumps writes NaN, and numbers of any length.
    text = json.dumps(tree)
    if generator.random() < 0.5:
        text = text.replace("$", generator.choice(["\\u0024", "\\u0024", "\\uff04"]))
    damage = generator.random()
    place = generator.randrange(len(text))
    if damage < 0.03:
        text = text[:place]
    elif damage < 0.06:
        text = text[:place] + generator.choice('{}[]",:\\\x00\n0-') + text[place + 1 :]
    elif damage < 0.08:
        text = text[:-1] + f', "model": {{"base": "{CANARY}"}}}}'
    elif damage < 0.085:
        text = "[" * 100_000 + text
    return text


def test_thousands_of_configurations(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """Each is a config (the partner then looks for its own file) or one line of the fixed list."""
    caplog.set_level(logging.CRITICAL)
    generator = random.Random(0)
    full = Config(strategy={"robust": {"_target_": "strategies.robust.mean.Mean"}, "pre": {}})
    full.data.labels = ["no", "yes"]
    full.data.columns.groups = ["ward"]
    full.data.group_values = {"ward": ["a", "b"]}
    bases = [to_json(config) for config in (Config(), full)]
    accepted, slowest = 0, 0.0
    told: set[str] = set()
    for _ in range(CASES):
        text = mutated(generator, generator.choice(bases))
        began = time.process_time()
        reason = ask(text)
        slowest = max(slowest, time.process_time() - began)
        assert reason in REASONS
        assert not any(word in reason for word in (CANARY, "hunter2", "/"))
        told.add(reason)
        if reason == Reason.OWN_SETTINGS.sentence():
            accepted += 1
            config = checked(text)
            assert to_json(from_json(to_json(config))) == to_json(config)
    assert Reason.INTERNAL.sentence() not in told
    assert slowest < PROCESSOR_SECONDS
    assert CASES // 20 < accepted < CASES // 2
    assert len(told) > 50


@pytest.mark.parametrize("value", INTERPOLATIONS)
def test_text_stays_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str) -> None:
    monkeypatch.setenv("NOTES_DB", SECRET)
    config = Config()
    config.data.labels = [
        value,
        "010",
        "1:30",
        "no",
        "2020-01-01",
        "a\x1b\n\u2028\ud7ff\U0001d4b3: #",
    ]
    config.data.group_values = {value: [value]}
    config.strategy = {"x": [value, {"y": value}], value: None}
    assert from_json(to_json(config)) == config
    write_config(config, tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == config
    assert "hunter2" not in to_json(config) + (tmp_path / "config.yaml").read_text()


def test_labels_found_in_the_data_are_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The way of a simulation: labels are found in the rows, and written into the run's folder."""
    monkeypatch.setenv("NOTES_DB", SECRET)
    rows = tmp_path / "notes.csv"
    rows.write_text("text,label\n" + "so so,${oc.env:NOTES_DB}\nno,bad\n" * 5)
    config = Config()
    config.data.source, config.data.path = "csv", str(rows)
    config.data.labels = resolve_labels(config.data, tmp_path / "cache")
    claim(tmp_path / "run", config)
    assert "hunter2" not in (tmp_path / "run/config.yaml").read_text()
    assert read_config(tmp_path / "run/config.yaml").data.labels == ["${oc.env:NOTES_DB}", "bad"]


def test_the_run_directory_of_a_stranger_is_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTES_DB", SECRET)
    path = tmp_path / "config.yaml"
    for text, words in (
        ("model: {base: '${oc.env:NOTES_DB}'}\n", None),
        ("model: {base: !!python/name:os.system x}\n", "not YAML"),
        ("a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n", "no such key"),
        ("strategy: {x: &x [*x]}\n", "nested"),
        (bomb(12), "values"),
        ("model: {}\nmodel: {}\n", "twice"),
        ("strategy: {x: 2020-01-01}\n", "plain value"),
        ("strategy: {1: 2}\n", "keys of text"),
        ("strategy: {x: .nan}\n", "finite"),
        ("[" * 5000, "not YAML"),
        ("# " + "x" * MAX_TEXT, "longer"),
    ):
        path.write_text(text)
        if words is None:
            assert read_config(path).model.base == "${oc.env:NOTES_DB}"
            continue
        with pytest.raises(Exception, match=words) as caught:
            read_config(path)
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)


def bomb(levels: int) -> str:
    """YAML of a few lines that stands for ten to the power of `levels` values."""
    lines = ["  a0: &a0 [1]"]
    for n in range(1, levels):
        lines.append(f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]")
    return "\n".join(["strategy:", *lines]) + "\n"


def test_an_integer_is_a_float_and_nothing_else_is_converted() -> None:
    config = from_mapping({"privacy": {"epsilon": 3, "metrics_epsilon": None}})
    assert type(config.privacy.epsilon) is float
    for wrong in ({"run": {"rounds": True}}, {"run": {"rounds": "3"}}, {"task": 3}):
        with pytest.raises(Refused, match="must be"):
            from_mapping(wrong)
