"""Explanations and probes of a tiny model."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from common.config import Config, ModelConfig
from common.errors import UserError
from common.models.export import export
from inspection import explain as explaining
from inspection.explain import Explanation, explain, global_words
from inspection.explanation_page import explanation_page
from inspection.probe.perturb import (
    PERTURBATIONS,
    case,
    paired_interval,
    perturbed,
    swaps,
    whitespace,
)
from inspection.probe.suite import Columns, probe, read_mapping, read_suite
from inspection.trained import Trained, load_trained
from scripts import cli

TEXT = "the film was superb but a dull story with weak actors"


@pytest.fixture(scope="module", params=["mean", "cls"])
def trained(
    request: pytest.FixtureRequest,
    tiny_bert: Path,
    reviews: tuple[list[str], list[int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """An exported model with a random head that answers differently for different texts."""
    from common.models.build import build

    directory = tmp_path_factory.mktemp("trained")
    base = tmp_path_factory.mktemp("base")
    settings = BertConfig.from_pretrained(tiny_bert, num_labels=3)
    BertForSequenceClassification(settings).save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(base)
    model = ModelConfig(base=str(base), head=request.param, max_length=24)
    config = Config(model=model)
    config.data.labels = ["bad", "good", "mixed"]
    network = build(model, tuple(config.data.labels), 0)
    generator = torch.Generator().manual_seed(1)
    parameters = {
        name: torch.randn(p.shape, generator=generator) * 0.3 for name, p in network.read().items()
    }
    export({**parameters, **network.constants()}, config, directory / "model")
    found = load_trained(directory)
    last = [m for m in found.model.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.bias -= found.model(**found.encode(reviews[0][:50])).logits.mean(0)
    return found


@pytest.mark.parametrize("label", [None, "bad", "mixed"])
def test_the_weights_add_up_to_the_margin(trained: Trained, label: str | None) -> None:
    pytest.importorskip("captum")
    found = explain(trained, TEXT, label)
    tokenizer = trained.tokenizer
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    blank = ids.clone()
    blank[0, 1:-1] = tokenizer.pad_token_id
    target = trained.labels.index(found.label)
    with torch.no_grad():
        logits = trained.model(input_ids=torch.cat([ids, blank])).logits
    others = [i for i in range(3) if i != target]
    here, there = (logits[:, target] - logits[:, others].mean(1)).tolist()
    assert found.margin == pytest.approx(here, abs=1e-4)
    assert found.blank_margin == pytest.approx(there, abs=0.02)
    assert sum(found.weights) == pytest.approx(here - there, abs=0.02 * max(1, abs(here - there)))
    assert abs(here - there) > 0.05, "the model must answer the two differently"
    assert label is None or found.label == label
    assert found.words[1:-1] == TEXT.split()
    assert found.special == [True, *[False] * len(TEXT.split()), True]
    # Special tokens are the same on both ends of the path.
    assert [found.weights[0], found.weights[-1]] == [0.0, 0.0]


def test_the_explanation_as_a_page_is_escaped() -> None:
    found = Explanation(
        ["[·]", "<script>", "good"], [0.0, -1.0, 2.5], [True, False, False], "a<b", 0.7, 1, -0.5, 0
    )
    page = explanation_page(found)
    assert "<script>" not in page.replace("<script>\nfor (const map", "")
    assert "+2.5000" in page
    assert "-1.0000" in page
    assert "a&lt;b" in page


def test_without_captum_it_is_one_line(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"fedaccord\[explain\]"):
        explain(trained, TEXT)
    monkeypatch.undo()
    with pytest.raises(UserError, match="no label 'nice'"):
        explain(trained, TEXT, "nice")


def test_words_that_carry_most_are_means_over_enough_occurrences() -> None:
    def of(label: str, **weights: float) -> Explanation:
        words = [*weights, "!", "[·]"]
        values = [*weights.values(), 9.0, 9.0]
        special = [False] * (len(words) - 1) + [True]
        return Explanation(words, values, special, label, 0.9, 1.0, 0.0, 0.0)

    found = global_words(
        [of("a", Fine=1.0, dull=-1.0), of("a", fine=3.0, dull=-1.0, rare=9.0), of("b", dull=2.0)],
        most=5,
        least=2,
    )
    assert [(c.word, c.weight, c.occurrences) for c in found["a"]] == [
        ("fine", 2.0, 2),
        ("dull", -1.0, 2),
    ]
    assert found["b"] == []
    assert explaining.LEAST_OCCURRENCES >= 3


def test_predictions_equal_those_of_transformers(
    trained: Trained, reviews: tuple[list[str], list[int]]
) -> None:
    texts = [*reviews[0][:60], "", "good " * 200]
    with torch.no_grad():
        single = [int(trained.model(**trained.encode([text])).logits.argmax()) for text in texts]
    assert trained.predict(texts).tolist() == single
    assert len(set(single)) > 1


def test_loading_runs_no_code_of_the_folder(
    trained: Trained, tmp_path: Path, tiny_bert: Path
) -> None:
    model = ModelConfig(base=str(tiny_bert), head="mean", max_length=24)
    config = Config(model=model)
    config.data.labels = ["bad", "good"]
    from common.models.build import build

    network = build(model, ("bad", "good"), 0)
    export({**network.read(), **network.constants()}, config, tmp_path / "model")
    (tmp_path / "model" / "mean_pooled.py").write_text("raise SystemExit('ran')\n")
    assert load_trained(tmp_path).labels == ("bad", "good")
    with pytest.raises(UserError, match="no trained model"):
        load_trained(tmp_path / "model")


SUITE = """functionality,test_case,label_gold,target_ident
insult,the film was bad,hateful,women
insult,the film was awful,hateful,
praise,the film was lovely,fine,women
praise,a warm story,fine,men
"""


def test_a_suite_by_functionality_group_and_label(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "suite.csv"
    path.write_text(SUITE)
    cases = read_suite(path, Columns())
    mapping = read_mapping("bad=hateful,good=fine,mixed=fine")
    found = probe(trained, cases, mapping)
    answers = [mapping[trained.labels[int(p)]] for p in trained.predict([c.text for c in cases])]
    right = [a == c.label for a, c in zip(answers, cases, strict=True)]
    assert found["overall"]["accuracy"] == np.mean(right)
    assert found["functionalities"]["insult"]["accuracy"] == np.mean(right[:2])
    assert found["functionalities"]["praise"]["labels"] == ["fine"]
    assert found["groups"]["women"]["accuracy"] == np.mean([right[0], right[2]])
    assert found["groups"]["women"]["by_label"]["fine"]["n"] == 1
    assert found["groups"]["(none)"]["n"] == 1
    assert found["labels"]["fine"]["accuracy"] == np.mean(right[2:])
    assert found["overall"]["small"]


@pytest.mark.parametrize(
    ("mapping", "why"),
    [
        ("", "no label of the model stands for"),
        ("bad=hateful", "says nothing of the model's label 'good'"),
        ("bad=hateful,good=fine,mixed=fine,x=fine", "no label 'x'"),
    ],
)
def test_a_mapping_that_leaves_something_open(
    trained: Trained, tmp_path: Path, mapping: str, why: str
) -> None:
    (tmp_path / "suite.csv").write_text(SUITE)
    with pytest.raises(UserError, match=why):
        probe(trained, read_suite(tmp_path / "suite.csv", Columns()), read_mapping(mapping))


@pytest.mark.parametrize(
    ("text", "columns", "why"),
    [
        (SUITE, Columns(text="tweet"), "no column 'tweet'"),
        (SUITE.replace("hateful", ""), Columns(), "row 1: column 'label_gold' is empty"),
        ("functionality,test_case,label_gold\n", Columns(group=""), "holds no rows"),
    ],
)
def test_a_suite_that_cannot_be_used(tmp_path: Path, text: str, columns: Columns, why: str) -> None:
    (tmp_path / "suite.csv").write_text(text)
    with pytest.raises(UserError, match=why):
        read_suite(tmp_path / "suite.csv", columns)


@pytest.mark.parametrize(
    "command",
    [["probe", "RUN", "--perturb", "--json"], ["explain", "RUN", "a fine film", "--html"]],
)
def test_a_place_for_the_figures_is_looked_at_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, words in ((tmp_path, "is a folder"), (tmp_path / "no" / "file", "no folder")):
        assert cli.main([*command, str(place)]) == 2
        assert words in capsys.readouterr().err


def test_perturbations_keep_what_they_promise() -> None:
    text = "Das Pferd frisst keinen Gurkensalat, said the well-known inventor of telephones " * 20
    for name, change in PERTURBATIONS.items():
        assert change(text, Random(1)) == change(text, Random(1)), name
        assert change(text, Random(1)) != text, name
        assert change("", Random(1)) == "", name
    typed = PERTURBATIONS["typos"](text, Random(2))
    assert len(typed) == len(text)
    wrong = [(a, b) for a, b in zip(text.split(), typed.split(), strict=True) if a != b]
    assert all(sum(x != y for x, y in zip(a, b, strict=True)) in (1, 2) for a, b in wrong)
    share = len(wrong) / len(text.split())
    assert 0.1 < share < 0.3
    swapped = swaps(text, Random(3))
    for a, b in zip(text.split(), swapped.split(), strict=True):
        assert sorted(a) == sorted(b)
        assert a[0] == b[0]
    assert case(text, Random(4)).lower() == text.lower()
    assert whitespace(text, Random(5)).replace(" ", "") == text.replace(" ", "")


def test_accuracy_lost_is_counted_over_the_same_rows(
    trained: Trained, reviews: tuple[list[str], list[int]]
) -> None:
    texts, labels = reviews[0][:120], reviews[1][:120]
    found = perturbed(trained, texts, labels, seed=7)
    assert found == perturbed(trained, texts, labels, seed=7)
    for name, row in found["perturbations"].items():
        changed = [PERTURBATIONS[name](t, r) for r in [Random(f"7/{name}")] for t in texts]
        right = trained.predict(changed) == np.array(labels)
        assert row["accuracy"] == right.mean()
        net = row["right_to_wrong"] - row["wrong_to_right"]
        assert row["lost"] == pytest.approx(net / len(texts))
        assert row["interval"][0] <= row["lost"] <= row["interval"][1]
    assert found["accuracy"] == (trained.predict(texts) == np.array(labels)).mean()


def test_the_paired_interval_against_a_published_one() -> None:
    # Agresti, Categorical Data Analysis, section 10.1: 150 and 86 of 1600 answers changed sides;
    # 0.04 with a standard error of 0.0095.
    low, high = paired_interval(150, 86, 1600)
    assert (low, high) == pytest.approx((0.04 - 1.96 * 0.0095, 0.04 + 1.96 * 0.0095), abs=5e-4)
    assert paired_interval(0, 0, 10)[0] < 0 < paired_interval(0, 0, 10)[1]


def test_a_stock_head_is_loaded_as_transformers_loads_it(
    trained: Trained, tiny_bert: Path, tmp_path: Path
) -> None:
    stock = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    stock.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(tmp_path / "model")
    loaded = load_trained(tmp_path)
    coded = loaded.encode([TEXT])
    with torch.no_grad():
        assert torch.equal(loaded.model(**coded).logits, stock.eval()(**coded).logits)
