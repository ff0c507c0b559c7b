"""The global model at the server: its parameters, and what they are worth on public rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from common.config import TrainConfig
from common.evaluation import Evaluation
from common.models.network import Network
from server.reference import reference_update
from server.testset import TestSet


class GlobalModel(Protocol):
    """What the round loop needs of a model; it never looks inside."""

    @property
    def fingerprint(self) -> str:
        """Identity of the base model, which partners must share."""

    @property
    def public_rows(self) -> bool:
        """Whether the server has public rows to measure on."""

    def read(self) -> dict[str, Tensor]:
        """The trainable parameters by name, float32."""

    def write(self, parameters: Mapping[str, Tensor]) -> None:
        """Set trainable parameters and public constants."""

    def constants(self) -> dict[str, Tensor]:
        """The public constants by name: fitted to public rows, sent along, never trained."""

    def evaluate(self, parameters: dict[str, Tensor]) -> Evaluation:
        """Counts and loss on the public test rows."""

    def validation_loss(self, parameters: dict[str, Tensor]) -> float:
        """Mean bounded loss on the public validation rows."""

    def reference_update(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """The server's own update from the public validation rows."""


class PublicModel:
    """A network and the server's public rows, which it need not have."""

    def __init__(self, network: Network, rows: TestSet | None, train: TrainConfig) -> None:
        self.network = network
        self.rows = rows
        self.train = train
        self._latest: tuple[dict[str, Tensor], Evaluation] | None = None

    @property
    def fingerprint(self) -> str:
        """Identity of the base model."""
        return self.network.fingerprint

    @property
    def public_rows(self) -> bool:
        """Whether there are public rows."""
        return self.rows is not None

    def read(self) -> dict[str, Tensor]:
        """The trainable parameters by name."""
        return self.network.read()

    def write(self, parameters: Mapping[str, Tensor]) -> None:
        """Set trainable parameters and public constants."""
        self.network.write(parameters)

    def constants(self) -> dict[str, Tensor]:
        """The public constants by name."""
        return self.network.constants()

    def evaluate(self, parameters: dict[str, Tensor]) -> Evaluation:
        """Counts and loss on the test rows; the latest measurement is remembered.

        The last round's model is usually the one that is delivered, and is measured once.
        """
        assert self.rows is not None
        if self._latest is None or not same(self._latest[0], parameters):
            self._latest = parameters, self.rows.evaluate(self.network, parameters)
        return self._latest[1]

    def validation_loss(self, parameters: dict[str, Tensor]) -> float:
        """Mean bounded loss on the validation rows."""
        assert self.rows is not None
        return self.rows.validation_loss(self.network, parameters)

    def reference_update(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """The server's own update from the validation rows."""
        assert self.rows is not None
        return reference_update(self.network, parameters, self.rows, self.train)


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two models have equal parameters."""
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
