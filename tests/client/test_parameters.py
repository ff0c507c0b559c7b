"""Parameters that a coordinator sends, before anything private is computed from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from client.handlers import check_parameters
from common.errors import UserError

OWN = {"lora.weight": torch.zeros(2, 3), "head.spread": torch.ones(3)}
Change = Callable[[dict[str, Tensor]], Any]


def test_the_models_own_parameters_are_accepted() -> None:
    check_parameters({"head.spread": torch.full((3,), 0.5), "lora.weight": torch.ones(2, 3)}, OWN)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        # Finite in float64, infinite in the model's float32.
        (
            lambda p: p.update({"lora.weight": torch.full((2, 3), 1e300, dtype=torch.float64)}),
            "dtype",
        ),
        (lambda p: p.update({"lora.weight": torch.zeros(2, 3, dtype=torch.int64)}), "dtype"),
        (lambda p: p.update({"lora.weight": torch.zeros(2, 3).half()}), "dtype"),
        (lambda p: p.update({"lora.weight": torch.zeros(3, 2)}), "shape"),
        (lambda p: p.update({"lora.weight": torch.full((2, 3), torch.nan)}), "not finite"),
        (lambda p: p.update({"lora.weight": torch.full((2, 3), torch.inf)}), "not finite"),
        (lambda p: p.update({"head.spread": torch.zeros(3)}), "above 0"),
        (lambda p: p.update({"\x1b[2J": torch.zeros(3)}), "other tensors"),
        (lambda p: p.pop("head.spread"), "other tensors"),
    ],
)
def test_other_parameters_are_refused_without_words_of_the_request(
    change: Change, reason: str
) -> None:
    parameters = {name: tensor.clone() for name, tensor in OWN.items()}
    change(parameters)
    with pytest.raises(UserError, match=reason) as caught:
        check_parameters(parameters, OWN)
    assert str(caught.value).isprintable()
