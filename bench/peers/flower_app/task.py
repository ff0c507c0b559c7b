"""What of a model travels: all of it, or the adapters and the classifier where there are any."""

from __future__ import annotations

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn


def read_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that travel."""
    if isinstance(model, PeftModel):
        return dict(get_peft_model_state_dict(model))
    return dict(model.state_dict())


def write_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put what has travelled into `model`."""
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, weights)
    else:
        model.load_state_dict(weights)
