"""Whether the settings of a run can work together.

Ranges and choices stand beside the fields (`common.settings`); what belongs to one task is checked
by that task.  What depends on the number of partners or examples is checked where they are known
(`strategies` and the partner).
"""

from __future__ import annotations

from common.data.check import check_data
from common.data.schema import target_of
from common.errors import UserError
from common.limits import check_limits
from common.settings import Config
from common.tags import SCHEMES
from common.tasks import TASKS


def validate(config: Config) -> Config:
    """Check ranges, choices and combinations, and return the configuration.

    Raises:
        UserError: one line that names the key and says what to do.
    """
    check_data(config.data)
    if config.task not in TASKS:
        raise UserError(f"task: must be one of {', '.join(TASKS)}, got '{config.task}'")
    check_limits(config)
    _check_target(config)
    _check_head(config)
    TASKS[config.task].check(config)
    _check_poisoning(config)
    _check_training(config)
    if config.private:
        _check_private_training(config)
    if config.private_metrics:
        _check_private_metrics(config)
    return config


def _check_target(config: Config) -> None:
    task, data = TASKS[config.task], config.data
    if (task.target == "tags") != (data.scheme is not None):
        raise UserError(
            f"data.scheme: must be one of {', '.join(SCHEMES)} with task=ner, and null with other "
            "tasks"
        )
    if target_of(data) != task.target:
        raise UserError(
            f"data.target: must be {task.target} with task={task.name}, got '{data.target}'"
        )


def _check_head(config: Config) -> None:
    task, head = TASKS[config.task], config.model.head
    if head in task.heads:
        return
    if {"token", "lm"} & {head, *task.heads}:
        raise UserError(
            "model.head: must be token with task=ner, lm with task=mlm, and mean or cls with "
            f"other tasks, got '{head}' with task={task.name}"
        )
    raise UserError(
        f"model.head: must be one of {', '.join(task.heads)} with task={task.name}, got '{head}'"
    )


def _check_poisoning(config: Config) -> None:
    poisons = str(config.attack.get("_target_")).startswith("simulation.")
    if poisons and config.task != "classification":
        raise UserError(
            "attack: label_flip and backdoor poison texts with one label each and need "
            f"task=classification; choose another attack with task={config.task}"
        )


def _check_training(config: Config) -> None:
    model, train = config.model, config.train
    if train.prox_mu > 0 and train.local_steps == 1:
        raise UserError(
            "train.prox_mu: has no effect with train.local_steps=1, where the proximal term is "
            "zero; set train.local_steps to 2 or more"
        )
    if model.trainable == "lora" and not model.lora.targets:
        raise UserError("model.lora.targets: name at least one kind of linear layer, e.g. [query]")


def _check_private_training(config: Config) -> None:
    model, privacy = config.model, config.privacy
    if config.train.weight_decay > 0:
        raise UserError(
            "train.weight_decay: must be 0 under privacy.mode=dp, because decay is not part of the "
            "clipped gradient; regularise at the server instead"
        )
    if model.precision == "tf32" and privacy.grad_sample_mode != "hooks":
        raise UserError(
            "model.precision: tf32 requires privacy.grad_sample_mode=hooks; the other modes "
            "compute norms within the backward pass, where TF32 would loosen the clipping bound"
        )
    if model.dropout > 0:
        raise UserError(
            "model.dropout: must be 0 under privacy.mode=dp, because masks depend on the place in "
            "the batch: one example more would change the gradients of others"
        )


def _check_private_metrics(config: Config) -> None:
    if not config.private:
        raise UserError(
            "privacy.metrics: private requires privacy.mode=dp, because updates without noise are "
            "unprotected; use privacy.metrics=exact"
        )
    data = config.data
    undeclared = [name for name in data.columns.groups if not data.group_values.get(name)]
    if undeclared:
        raise UserError(
            f"data.group_values: must list the values of {undeclared[0]} under "
            f"privacy.metrics=private, e.g. +data.group_values.{undeclared[0]}=[A,B], because "
            "which of them occur is private"
        )
