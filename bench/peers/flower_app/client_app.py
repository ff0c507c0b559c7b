"""The partner: a model, a tokeniser and a PrivacyEngine for every message."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from opacus import PrivacyEngine
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch.utils.data import DataLoader

from bench.peers import job as jobs
from bench.peers.flower_app.task import read_weights, write_weights
from bench.peers.text import build_model, tokenised

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Take one private step on a Poisson-sampled batch and send the weights back."""
    folder = Path(str(context.run_config["job"]))
    job = jobs.read(folder)
    number = int(context.node_config["partition-id"])
    rows = tokenised(job.partners[number], job)
    model = build_model(job)
    write_weights(model, message.content["arrays"].to_torch_state_dict())
    model.train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=float(context.run_config["learning-rate"]),
    )
    began = time.perf_counter()
    private, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=optimizer,
        data_loader=DataLoader(rows, batch_size=job.batch),
        noise_multiplier=job.noise[number],
        max_grad_norm=float(context.run_config["max-grad-norm"]),
    )
    with BatchMemoryManager(
        data_loader=loader, max_physical_batch_size=job.physical_batch, optimizer=optimizer
    ) as batches:
        for ids, mask, labels in batches:
            optimizer.zero_grad()
            private(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            optimizer.step()
            if not optimizer._is_last_step_skipped:  # the logical batch is complete
                break
    seconds = time.perf_counter() - began
    weights = read_weights(model)
    jobs.trained(folder, seconds, sum(w.numel() * w.element_size() for w in weights.values()))
    content = RecordDict(
        {
            "arrays": ArrayRecord(weights),
            "metrics": MetricRecord({"num-examples": len(rows)}),
        }
    )
    return Message(content=content, reply_to=message)
