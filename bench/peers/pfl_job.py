"""The job with pfl: its PyTorch model, its own simulation, its FederatedAveraging.

``torchrun --nproc_per_node=2 -m bench.peers.pfl_job FOLDER`` trains as pfl's own benchmarks do:
LoRA through peft, the simulation spread over processes by torchrun, mixed precision by pfl's own
switch.  pfl's mechanisms protect a user, here a whole partner, and eight of them cannot hide one
another; example-level privacy it leaves to local training, so `train_one_user`, its place for
that, takes the step with Opacus.  Unlike in a Flower app, the model and its hooks are made once,
because pfl keeps one model for all users.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.central_evaluation import CentralEvaluationCallback
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.data.sampling import CrossSiloUserSampler
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.internal.ops.selector import get_framework_module
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch import Tensor, nn

from bench.peers import job as jobs
from bench.peers.job import Job
from bench.peers.text import build_model, tokenised


class Classifier(nn.Module):
    """The model as pfl wants it: with a loss and with metrics."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.private = GradSampleModule(build_model(job), loss_reduction="mean")

    def logits(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits [rows, 2]."""
        found: Tensor = self.private(input_ids=ids, attention_mask=mask).logits
        return found

    def loss(self, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of some rows."""
        self.train()
        return nn.functional.cross_entropy(self.logits(ids, mask).float(), labels)

    @torch.no_grad()
    def metrics(self, ids: Tensor, mask: Tensor, labels: Tensor) -> dict[str, Weighted]:
        """Rows labelled rightly, of how many."""
        self.eval()
        right = int((self.logits(ids, mask).argmax(1) == labels).sum())
        return {"accuracy": Weighted(right, len(labels))}


class ExampleLevelAveraging(FederatedAveraging):
    """FederatedAveraging whose local training is one step of DP-SGD."""

    def __init__(self, folder: Path, job: Job, clip: float) -> None:
        super().__init__()
        self.folder, self.job, self.clip = folder, job, clip

    def get_next_central_contexts(self, *given: Any, **named: Any) -> tuple[Any, Any, Metrics]:
        """As pfl's, but partners do not measure the model before and after their training."""
        contexts, model, metrics = super().get_next_central_contexts(*given, **named)
        if contexts is not None:
            contexts = tuple(replace(context, do_evaluation=False) for context in contexts)
        return contexts, model, metrics

    def train_one_user(
        self, initial_model_state: Any, model: Any, user_dataset: Any, central_context: Any
    ) -> tuple[Any, Metrics]:
        """The change of one partner's model by one private step."""
        began = time.perf_counter()
        job, number = self.job, int(user_dataset.user_id)
        ids, mask, labels = (torch.as_tensor(part) for part in user_dataset.raw_data)
        inner = torch.optim.SGD(
            [p for p in model.pytorch_model.parameters() if p.requires_grad],
            lr=central_context.model_train_params.local_learning_rate,
        )
        rate = 1 / -(-len(labels) // job.batch)
        optimizer = DPOptimizer(
            inner,
            noise_multiplier=job.noise[number],
            max_grad_norm=self.clip,
            expected_batch_size=rate * len(labels),
        )
        sampler = UniformWithReplacementSampler(num_samples=len(labels), sample_rate=rate, steps=1)
        rows = torch.tensor(next(iter(sampler)))
        batches = rows.split(job.physical_batch)
        for position, batch in enumerate(batches):
            optimizer.zero_grad()
            optimizer.signal_skip_step(do_skip=position < len(batches) - 1)
            with model.amp_context or nullcontext():
                loss = model.pytorch_model.loss(ids[batch], mask[batch], labels[batch])
            loss.backward()
            for parameter in optimizer.params:
                parameter.grad_sample = parameter.grad_sample.float()
            optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - began
        change = model.get_model_difference(initial_model_state)
        jobs.trained(self.folder, seconds, sum(change[name].nbytes for name in change))
        return change, Metrics()


class Evaluation(CentralEvaluationCallback):  # type: ignore[type-arg]
    """pfl's evaluation after every round, written down."""

    def __init__(self, folder: Path, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.folder = folder

    def on_train_begin(self, *, model: Any) -> Metrics:
        """The untrained model is not measured."""
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Measure the model of this round."""
        _, found = self._eval(model)
        if get_framework_module().distributed.global_rank == 0:
            share = {str(name): value for name, value in found.to_simple_dict().items()}
            number = len(jobs.lines(self.folder / "progress.jsonl")) + 1
            jobs.evaluated(self.folder, number, share["Central val | accuracy"])
        return False, found


def main() -> None:
    """Run the job of a folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--server", choices=["sgd", "adam"], default="adam")
    parser.add_argument("--lr", type=float, default=0.03)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    asked = parser.parse_args()
    job = jobs.read(asked.folder)
    np.random.seed(job.seed)
    torch.manual_seed(job.seed)
    data = {
        str(number): PyTorchTensorDataset(tokenised(rows, job).tensors, user_id=str(number))
        for number, rows in enumerate(job.partners)
    }
    classifier = Classifier(job)
    # Another stream in every process, or partners would share their noise.
    torch.manual_seed(job.seed + 1 + get_framework_module().distributed.global_rank)
    trained = [p for p in classifier.parameters() if p.requires_grad]
    central = (
        torch.optim.SGD(trained, lr=asked.lr, momentum=0.5)
        if asked.server == "sgd"
        else torch.optim.Adam(trained, lr=asked.lr, betas=(0.9, 0.99), eps=1e-8)
    )
    model = PyTorchModel(
        classifier,
        torch.optim.SGD,
        central,
        amp_dtype=torch.bfloat16 if asked.precision == "bf16" else None,
    )
    users = list(data)
    sampler = CrossSiloUserSampler(
        sampling_type="minimize_reuse",
        user_ids=users,
        silo_to_user_ids={number: [user] for number, user in enumerate(users)},
    )
    federated = FederatedDataset(data.__getitem__, sampler)
    test = PyTorchTensorDataset(tokenised(job.test, job).tensors)
    batch = NNEvalHyperParams(local_batch_size=64)
    ExampleLevelAveraging(asked.folder, job, asked.clip).run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=job.rounds,
            evaluation_frequency=1,
            train_cohort_size=len(users),
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=federated, val_data=federated),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=1.0, local_batch_size=job.batch
        ),
        model_eval_params=batch,
        callbacks=[Evaluation(asked.folder, test, model_eval_params=batch)],
    )


if __name__ == "__main__":
    main()
