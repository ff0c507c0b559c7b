"""The first stage: refuse a malformed update, with the reason in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from strategies.updates import Layout, Reply

# No fine-tuning update is this long.  The bound keeps every square and every inner product of two
# updates far inside the range of float32, whatever a partner sends.
LARGEST_NORM = 1e12
LARGEST_COUNT = 1e12


@dataclass(frozen=True)
class Screening:
    """Checks names, shapes, dtypes, finiteness, the norm and the ranges of metrics.

    Attributes:
        max_norm: updates with a larger Euclidean norm are refused; None allows up to 1e12.
        max_loss: a loss outside [0, max_loss] is refused.
        required: metrics that must be present because the fair weights read them; the pipeline
            adds those of its own rule.
    """

    max_norm: float | None = None
    max_loss: float = 20.0
    required: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_norm is not None and not 0 < self.max_norm <= LARGEST_NORM:
            raise ValueError(f"max_norm: must be in (0, {LARGEST_NORM:g}], got {self.max_norm}")
        if not 0 < self.max_loss < math.inf:
            raise ValueError(f"max_loss: must be positive and finite, got {self.max_loss}")
        object.__setattr__(self, "required", tuple(self.required))

    def check(self, reply: Reply, layout: Layout) -> str | None:
        """Why ``reply`` is refused, as one sentence; None when it is well formed."""
        return (
            self._check_tensors(reply, layout)
            or self._check_norm(reply)
            or self._check_metrics(reply)
        )

    def _check_tensors(self, reply: Reply, layout: Layout) -> str | None:
        missing = [name for name in layout.names if name not in reply.delta]
        if missing:
            return f"the update lacks {len(missing)} tensor(s), the first is {missing[0]}"
        extra = [name for name in reply.delta if name not in set(layout.names)]
        if extra:
            return f"the update has {len(extra)} unknown tensor(s), the first is {extra[0]!r:.100}"
        for name, shape in zip(layout.names, layout.shapes, strict=True):
            tensor = reply.delta[name]
            if tuple(tensor.shape) != shape:
                return f"tensor {name} has shape {list(tensor.shape)}, expected {list(shape)}"
            if not tensor.is_floating_point():
                return f"tensor {name} has dtype {tensor.dtype}, expected a floating-point one"
        return None

    def _check_norm(self, reply: Reply) -> str | None:
        total = 0.0
        for name, tensor in reply.delta.items():
            # One pass finds NaN, Inf and the length: float64 squares of float32 cannot overflow.
            square = float(torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64)) ** 2
            if not math.isfinite(square):
                return f"tensor {name} contains NaN or Inf"
            total += square
        norm = math.sqrt(total)
        bound = LARGEST_NORM if self.max_norm is None else self.max_norm
        if norm > bound:
            return f"the update's norm {norm:.3g} is above the bound {bound:.3g}"
        return None

    def _check_metrics(self, reply: Reply) -> str | None:
        for key in self.required:
            if key not in reply.metrics:
                return f"the metric {key} is missing, and the weights need it"
        for key, (low, high) in self._ranges().items():
            if key not in reply.metrics:
                continue
            value = reply.metrics[key]
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return f"the metric {key} is not a number"
            if not math.isfinite(value):
                return f"the metric {key} is not finite"
            if not low <= value <= high:
                return f"the metric {key} is {value:.4g}, outside [{low:g}, {high:g}]"
        return None

    def _ranges(self) -> dict[str, tuple[float, float]]:
        # Noise may push a small count below zero, which is honest.
        return {
            "loss": (0.0, self.max_loss),
            "accuracy": (0.0, 1.0),
            "examples": (-LARGEST_COUNT, LARGEST_COUNT),
            "gap": (-1.0, 1.0),
        }
