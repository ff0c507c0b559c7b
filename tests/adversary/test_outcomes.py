"""Whether a message succeeds, and the form of its reply, must not depend on any row.

A reply's values carry noise.  Its kind, its reason, the shapes and types of its tensors and whether
they are finite carry none, so they must be the same with and without the one row of a secret label,
whatever parameters the coordinator sends.  FEDACCORD_ADVERSARY_MESSAGES=200 sends as many messages
of each sort; the default is for every day.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from common import messages
from common.messages import Refusal
from tests.adversary.conftest import Coordinator, Reply, Row
from tests.adversary.crafted import CRAFTED

MESSAGES = int(os.environ.get("FEDACCORD_ADVERSARY_MESSAGES", "3"))
ROWS = 200
WAYS = [("hooks", "fp32"), ("bookkeeping", "fp32"), ("bookkeeping", "bf16"), ("ghost", "fp32")]
MUST_SUCCEED = ("honest", "saturated", "saturated and otherwise zero", "zero head", "all zero")

Outcome = tuple[object, ...]


def outcome(reply: Reply) -> Outcome:
    """All of a reply that carries no noise."""
    reason = reply.body.reason if isinstance(reply.body, Refusal) else ""
    form = tuple(
        (name, tuple(tensor.shape), tensor.dtype, bool(torch.isfinite(tensor).all()))
        for name, tensor in sorted(reply.arrays.items())
    )
    return type(reply.body).__name__, reason, form


def data_sets(texts: list[Row]) -> tuple[list[Row], list[Row]]:
    """ROWS rows of one label; the same and one row of the other label."""
    usual = [(text, "bad") for text, _ in texts[: ROWS - 1]]
    return usual, [*usual, (texts[ROWS][0], "good")]


def asking(coordinator: Callable[..., Coordinator], clipping: str, precision: str) -> Coordinator:
    """A coordinator whose partner puts every row, or nearly every one, into the batch."""
    deployed = clipping != "ghost"
    here = coordinator(deployed, **({"allow_exact_metrics": True} if deployed else {}))
    # Exact metrics: the same sampling rate in all messages, and thus quick accounting.
    here.config.privacy.metrics = "exact"
    here.config.privacy.grad_sample_mode, here.config.model.precision = clipping, precision
    here.config.train.batch_size = here.config.train.physical_batch = ROWS - 1
    return here


@pytest.mark.parametrize("crafted", CRAFTED)
@pytest.mark.parametrize(("clipping", "precision"), WAYS)
def test_the_outcome_does_not_tell_of_a_row(
    coordinator: Callable[..., Coordinator],
    texts: list[Row],
    clipping: str,
    precision: str,
    crafted: str,
) -> None:
    here = asking(coordinator, clipping, precision)
    parameters = CRAFTED[crafted](here.start())
    seen: list[Counter[Outcome]] = []
    for train in data_sets(texts):
        here.rows(train, texts[400:410])
        here.keep_open()
        outcomes: Counter[Outcome] = Counter()
        for number in range(MESSAGES):
            here.forget()
            # Another name: a simulated partner, too, draws other batches and other noise.
            outcomes[outcome(here.ask(parameters=parameters, run=f"run {number}"))] += 1
        seen.append(outcomes)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1, "the same message had different outcomes"
    kind, reason, form = next(iter(seen[0]))
    if crafted in MUST_SUCCEED:
        assert kind == "Report", reason
    if kind == "Report":
        assert form
        # Of ghost clipping, which no deployed partner uses, the same outcome is asked alone.
        assert clipping == "ghost" or all(finite for *_, finite in form)  # type: ignore[attr-defined]


def test_other_messages_do_not_tell_either(
    coordinator: Callable[..., Coordinator], texts: list[Row]
) -> None:
    here = coordinator()
    validation = [(text, "bad") for text, _ in texts[300:340]]
    seen: list[list[object]] = []
    for told in (validation, [*validation, (texts[341][0], "good")]):
        here.rows(texts[:ROWS], told)
        here.forget()
        replies = [here.ask(messages.PREPARE)]
        assert type(replies[0].body).__name__ == "Prepared"
        here.keep_open()
        for craft in CRAFTED.values():
            # As many releases as a run has.
            replies += [here.ask(messages.EVALUATE, craft(here.start())) for _ in range(3)]
            here.forget()
        seen.append([(outcome(reply), sorted(vars(reply.body))) for reply in replies])
        for reply in replies[1:]:
            assert max(abs(count) for row in reply.report.confusion for count in row) < 1e4
    assert seen[0] == seen[1]
