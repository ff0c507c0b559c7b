"""The ONNX file of a delivered model, run by onnxruntime."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from common.config import Config, ModelConfig
from common.errors import UserError
from common.models.build import build
from common.models.export import export
from inspection import onnx_file
from inspection.trained import load_delivered
from scripts import cli


def delivered(base: Path, directory: Path, task: str, head: str) -> Path:
    """A run directory that holds a model with moved parameters, and nothing else."""
    config = Config(task=task)
    config.data.labels = [] if task == "mlm" else ["a", "b", "c"]
    config.model = ModelConfig(base=str(base), head=head, max_length=24, drop_layers=2)
    net = build(config.model, config.outputs, 0, task)
    draw = torch.Generator().manual_seed(0)
    moved = {k: v + 0.3 * torch.randn(v.shape, generator=draw) for k, v in net.read().items()}
    export({**moved, **net.constants()}, config, directory / "model")
    return directory


@pytest.mark.parametrize(
    ("task", "head"),
    [("classification", "mean"), ("ner", "token"), ("mlm", "lm")],
)
def test_the_file_answers_as_the_model_does(
    tiny_bert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: str,
    head: str,
) -> None:
    runtime: Any = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    run = delivered(tiny_bert, tmp_path / "run", task, head)
    assert cli.main(["export", "--onnx", str(run)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(
        f"{run / 'onnx' / 'model.onnx'}: its logits differ from the model's by at most "
    )
    assert said.err == ""
    model, _ = load_delivered(run)
    tokenizer = AutoTokenizer.from_pretrained(run / "onnx")
    session = runtime.InferenceSession(run / "onnx" / "model.onnx")
    # Batches of one and of several, of one token and of more than the model takes.
    for texts in (["good"], ["the film was good", "a", "cold " * 60], ["it"] * 5):
        given = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        given.pop("token_type_ids", None)
        with torch.no_grad():
            wanted = model(**given).logits.numpy()
        (found,) = session.run(None, {k: v.numpy() for k, v in given.items()})
        assert found.shape == wanted.shape
        if task in ("ner", "mlm"):
            places = given["attention_mask"].bool().numpy()
            found, wanted = found[places], wanted[places]
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    assert cli.main(["export", "--onnx", str(tmp_path / "nowhere")]) == 2
    place = tmp_path / "nowhere" / "model"
    wanted = f"fedaccord: {place}: there is no trained model; is this a finished run?\n"
    assert capsys.readouterr().err == wanted
    (tmp_path / "mine").mkdir()
    assert cli.main(["export", "--onnx", str(tmp_path), "--out", str(tmp_path / "mine")]) == 2
    assert "exists and holds no model.onnx" in capsys.readouterr().err
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("onnx"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert cli.main(["export", "--onnx", str(tmp_path)]) == 2
    assert "pip install 'fedaccord[onnx]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_whose_logits_differ_is_not_written(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    run = delivered(tiny_bert, tmp_path / "run", "multilabel", "cls")
    # torch's older exporter wrote such files: they run, and their answers are others.
    monkeypatch.setattr(onnx_file, "_traced", lambda logits, longest: _wrong(logits))
    with pytest.raises(UserError, match="the ONNX file's logits differ"):
        onnx_file.export_onnx(run, run / "onnx")
    assert not (run / "onnx").exists()


def _wrong(logits: Any) -> bytes:
    """An ONNX file that answers 0 whatever it is asked."""
    import onnx
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1, 3], [0.0] * 3)
    starts = helper.make_tensor("starts", TensorProto.INT64, [1], [0])
    ends = helper.make_tensor("ends", TensorProto.INT64, [1], [1])
    three = helper.make_tensor("three", TensorProto.INT64, [1], [3])
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["shape"]),
        helper.make_node("Slice", ["shape", "starts", "ends"], ["rows"]),
        helper.make_node("Concat", ["rows", "three"], ["size"], axis=0),
        helper.make_node("Expand", ["zero", "size"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "zero", inputs, [out], [zero, starts, ends, three])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
