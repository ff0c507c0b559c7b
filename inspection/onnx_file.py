"""The delivered model as an ONNX file, which is kept only if its logits are the model's own.

torch's exporter traces the model; what a trace takes for a constant would be wrong for other texts
only.  So the file is run by onnxruntime on batches of other sizes, lengths and masks than the one
that was traced, and its logits are held against the model's.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from common.errors import UserError
from common.files import atomic_directory
from inspection.trained import load_delivered

FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask")
# Two runtimes add in another order: logits may differ by rounding, and by no more than this, as a
# share of the largest logit (or of 1, where all are smaller).
TOLERANCE = 1e-4
# Rows of the batches that are compared.
BATCHES = (1, 3, 8)


@dataclass(frozen=True)
class Exported:
    """`difference`: the largest between two logits, over `rows` made-up texts up to `longest`."""

    folder: Path
    difference: float
    rows: int
    longest: int


class _Logits(nn.Module):
    """The model as a function of token ids and their mask."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [batch, labels], or [batch, tokens, labels] of a tagger."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def export_onnx(directory: Path, folder: Path) -> Exported:
    """Write model.onnx, config.json and the tokenizer of a run's model to `folder`.

    An earlier export there is replaced.  Raises UserError when the run has no model, a package is
    missing, `folder` holds something else, or the file's logits are not the model's.
    """
    runtime = _runtime()
    if folder.exists() and not (folder / FILE).is_file():
        raise UserError(f"{folder}: exists and holds no {FILE}; name a folder that is not there")
    model, tokenizer = load_delivered(directory)
    longest = int(tokenizer.model_max_length)
    logits = _Logits(model).eval()
    content = _traced(logits, longest)
    difference, rows = _largest_difference(runtime, content, logits, longest)
    if not difference <= TOLERANCE:
        raise UserError(
            f"{directory}: the ONNX file's logits differ from the model's by {difference:.2g} of "
            "the largest; nothing was written (is another version of onnxscript installed?)"
        )
    shutil.rmtree(folder, ignore_errors=True)
    with atomic_directory(folder) as temporary:
        (temporary / FILE).write_bytes(content)
        model.config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    return Exported(folder, difference, rows, longest)


def _runtime() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            "export: needs onnx, onnxscript and onnxruntime: pip install 'fedaccord[onnx]'"
        ) from error
    return onnxruntime


def _made_up(model: nn.Module, rows: int, longest: int, draw: torch.Generator) -> list[Tensor]:
    """Token ids and mask [rows, t]: the first row of full length t, the others shorter."""
    config: Any = model.model.config  # type: ignore[union-attr]
    vocabulary = int((getattr(config, "encoder", None) or config.to_dict())["vocab_size"])
    length = (
        longest
        if rows == max(BATCHES)
        else int(torch.randint(1, longest + 1, (1,), generator=draw))
    )
    ids = torch.randint(0, vocabulary, (rows, length), generator=draw)
    ends = torch.randint(1, length + 1, (rows, 1), generator=draw)
    ends[0] = length
    return [ids, (torch.arange(length) < ends).long()]


def _traced(logits: _Logits, longest: int) -> bytes:
    """The file's bytes."""
    ids, mask = _made_up(logits, 2, min(longest, 8), torch.Generator().manual_seed(0))
    axes = {0: "batch", 1: "tokens"}
    with _quiet():
        program = torch.onnx.export(
            logits,
            (ids, mask),
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(INPUTS, axes),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks, which speak of its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _largest_difference(
    runtime: Any, content: bytes, logits: _Logits, longest: int
) -> tuple[float, int]:
    """Between the logits of file and model at places that are no padding, and over how many rows.

    As a share of the largest logit, or of 1 where all are smaller.
    """
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    draw, worst, largest = torch.Generator().manual_seed(1), 0.0, 1.0
    for rows in BATCHES:
        ids, mask = _made_up(logits, rows, longest, draw)
        given = dict(zip(INPUTS, (ids.numpy(), mask.numpy()), strict=True))
        theirs: npt.NDArray[np.float32] = session.run(None, given)[0]
        with torch.inference_mode():
            ours = logits(ids, mask).numpy()
        if theirs.shape != ours.shape:
            return float("inf"), sum(BATCHES)
        if ours.ndim == 3:
            theirs, ours = theirs[mask.bool().numpy()], ours[mask.bool().numpy()]
        gap = float(np.abs(theirs - ours).max())
        worst = max(worst, gap) if np.isfinite(gap) else float("inf")
        largest = max(largest, float(np.abs(ours).max()))
    return worst / largest, sum(BATCHES)
