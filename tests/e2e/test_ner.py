"""A private run over tagged sentences, from CoNLL files to a tagger that transformers loads."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from transformers import pipeline

from common.errors import UserError
from scripts import cli
from scripts.compose import compose_config
from tests.conftest import BAD, FILLER, GOOD
from tests.e2e.conftest import Run

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def wards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three files of 150 sentences."""
    folder = tmp_path_factory.mktemp("wards")
    draw = random.Random(0)
    for name in ("north", "south", "test"):
        lines = ["-DOCSTART-\tO", ""]
        for _ in range(150):
            for _ in range(draw.randint(2, 30)):
                pool, tag = draw.choice([(FILLER, "O")] * 3 + [(GOOD, "I-GOOD"), (BAD, "I-BAD")])
                lines.append(f"{draw.choice(pool)}\t{tag}")
            lines.append("")
        (folder / f"{name}.conll").write_text("\n".join(lines))
    return folder


def job(tiny_bert: Path, wards: Path) -> list[str]:
    return [
        "task=ner",
        "data=conll",
        f"data.path={wards}",
        "data.scheme=io",
        "data.columns.groups=[file]",
        "+data.test_where.file=test",
        "partition=natural",
        "partition.blocks.partner.by=file",
        f"model.base={tiny_bert}",
        "model.max_length=16",
        "model.stride=4",
        "train.batch_size=48",
        "privacy.delta=1e-4",
        "run.rounds=2",
        "run.workers=1",
    ]


def test_a_private_tagger_from_files_to_pipeline(
    run: Run, tiny_bert: Path, wards: Path, tmp_path: Path
) -> None:
    out = run(*job(tiny_bert, wards), f"run.dir={tmp_path / 'run'}")
    assert "entity F1" in out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    final = results["final"]
    assert sorted(final["partners"]) == ["north", "south"]
    assert 0 < final["epsilon"]["max"] <= 8
    assert {"GOOD", "micro avg", "macro avg", "weighted avg"} <= set(final["entities"])
    assert final["entity_f1"] == pytest.approx(final["entities"]["micro avg"]["f1-score"])
    assert final["worst_partner_entity_f1"] == min(
        row["entity_f1"] for row in final["partners"].values()
    )
    found = pipeline("token-classification", model=str(tmp_path / "run" / "model"))
    assert {row["entity"] for row in found("good film was bad")} <= {
        "O", "B-BAD", "I-BAD", "B-GOOD", "I-GOOD",
    }  # fmt: skip
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "Tagger of named entities" in card
    assert "per sentence" in card


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.stride=14"], "model.stride: must be in [0, 14), got 14"),
        (
            ["privacy.grad_sample_mode=ghost"],
            "privacy.grad_sample_mode: ghost clips windows, not sentences",
        ),
        (["privacy.metrics=private"], "privacy.metrics: private does not support task=ner"),
        (["model.head=mean"], "model.head: must be token with task=ner"),
        (["attack=label_flip"], "attack: label_flip and backdoor poison texts with one label"),
        (["data.scheme=biluo"], "data.scheme"),
    ],
)
def test_what_does_not_go_with_ner_is_one_line(
    tiny_bert: Path, wards: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        compose_config([*job(tiny_bert, wards), *overrides])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a\tO\nb\tX-PER\n", "row 1 (line 2), column 'label': the tag is not O, B-TYPE or I-TYPE"),
        (
            b"a\tO\n\nb\tI-PER\n",
            "row 2 (line 3), column 'label': an I- tag without a B- or I- tag of its type before "
            "it: data.scheme may be iob1 or io",
        ),
        (b"a\tO\nfilm\n", "row 1 (line 2): 1 columns instead of 2"),
        (b"a\tO\r\n\r\nb\tO\tO\r\n", "row 2 (line 3): 3 columns instead of 2"),
        (
            b"a\tO\rb\tO\r",
            "row 1 (line 1): a line break of CR alone: save it with LF or CRLF",
        ),
        (b"a\tO\ncaf\xe9\tO\n", "line 2: bytes that are not in data.encoding (utf-8)"),
        (b"", None),
    ],
    ids=["scheme", "i-first", "ragged", "crlf", "cr", "latin-1", "empty"],
)
def test_a_broken_file_ends_the_command_with_its_place(
    tiny_bert: Path,
    wards: Path,
    tmp_path: Path,
    content: bytes,
    problem: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEDACCORD_CACHE", str(tmp_path / "cache"))
    broken = tmp_path / "broken.conll"
    broken.write_bytes(content)
    where = [f"data.path={broken}", "data.scheme=bio", f"run.dir={tmp_path / 'run'}"]
    assert cli.main(["simulate", *job(tiny_bert, wards), *where]) == 2
    said = f"{broken} is empty" if problem is None else f"{broken}: {problem}"
    assert capsys.readouterr().err == f"fedaccord: {said}\n"
    assert not (tmp_path / "run" / "checkpoints").exists()
