"""The server's own update from its public rows: the root of trust of FLTrust (Cao et al. 2021)."""

from __future__ import annotations

from torch import Tensor

from common.config import TrainConfig
from common.evaluation import EVALUATION_TOKENS
from common.examples.batch import by_length
from common.models.network import Network
from common.optimizer import local_optimizer
from common.scoring import scoring_of
from server.testset import TestSet


def reference_update(
    network: Network, parameters: dict[str, Tensor], public: TestSet, config: TrainConfig
) -> dict[str, Tensor]:
    """The delta that local training of `parameters` on the public validation rows gives.

    It takes as many steps of the same optimiser as a partner does, each on the mean gradient of all
    rows, without clipping and noise: the rows are public.  Dropout is off, so that the same
    parameters give the same update before and after a resume.

    Args:
        network: its parameters are overwritten.
        parameters: the global model's trainable parameters by name.
        public: the server's rows.
        config: the local training.

    Returns:
        The change of each parameter, by name.
    """
    network.write(parameters)
    network.trained.eval()
    rows, device = public.validation, public.device
    optimizer = local_optimizer(list(network.trainable().values()), config)
    for _ in range(config.local_steps):
        optimizer.zero_grad(set_to_none=True)
        for chosen in by_length(rows.lengths, EVALUATION_TOKENS):
            batch = rows.__getitems__(chosen.tolist()).to(device)
            with device.autocast():
                logits = rows.logits(network, batch)
            losses = scoring_of(network.task).losses(logits.float(), batch)
            (losses.sum() / len(rows)).backward()
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    moved = network.read()
    return {name: moved[name] - start for name, start in parameters.items()}
