"""A checkpoint that brings code of its own: the code is not run, whoever sits at the terminal."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path

import pytest

from common.config import ModelConfig
from common.errors import UserError
from common.models.build import build
from common.models.loading import load_tokenizer

CODE = """
from pathlib import Path
from transformers import BertConfig, BertModel, BertTokenizerFast
Path(r"{mark}").write_text("run")
class OddConfig(BertConfig):
    model_type = "odd"
class OddModel(BertModel):
    config_class = OddConfig
class OddTokenizer(BertTokenizerFast):
    pass
"""


@pytest.fixture
def odd(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A model with code, and the file that appears when the code is run."""
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    folder, mark = tmp_path / "odd", tmp_path / "mark"
    shutil.copytree(tiny_bert, folder)
    (folder / "odd.py").write_text(CODE.replace("{mark}", str(mark)))
    settings = json.loads((folder / "config.json").read_text())
    settings |= {
        "model_type": "odd",
        "auto_map": {"AutoConfig": "odd.OddConfig", "AutoModel": "odd.OddModel"},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return folder, mark


def test_a_model_with_code_is_refused_without_a_question(odd: tuple[Path, Path]) -> None:
    folder, mark = odd
    with pytest.raises(UserError, match=r"model\.base.*code of its own") as caught:
        build(ModelConfig(base=str(folder)), ("no", "yes"), seed=0)
    assert "\n" not in str(caught.value)
    assert not mark.exists()


def test_a_tokenizer_with_code_is_not_run(odd: tuple[Path, Path]) -> None:
    folder, mark = odd
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings |= {
        "tokenizer_class": "OddTokenizer",
        "auto_map": {"AutoTokenizer": [None, "odd.OddTokenizer"]},
    }
    path.write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"model\.base"):
        load_tokenizer(ModelConfig(base=str(folder)))
    assert not mark.exists()


def test_a_model_that_finds_names_runs_no_code(odd: tuple[Path, Path]) -> None:
    from common.data.deidentify import _refuse_code

    folder, mark = odd
    with pytest.raises(UserError, match=r"data\.names_model.*code of its own"):
        _refuse_code(str(folder))
    assert not mark.exists()
