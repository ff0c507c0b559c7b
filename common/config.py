"""The typed configuration: what Hydra composes, what both sides read.

`conf/` holds the values and this module the types, so that a wrong key or type fails when the
configuration is composed, on the user's machine, and not in round 7 at a partner.  `validate`
checks ranges and combinations.  A partner treats everything here as a request: it never
instantiates anything named in the configuration and applies its own policy first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from common.config_reader import parse_json, read
from common.data.check import check_data
from common.data.schema import DataConfig, PartitionConfig, target_of
from common.encoding import ENCODINGS
from common.errors import UserError
from common.files import canonical_json, sha256_text
from common.refusals import Reason, Refused
from common.tasks import TASKS, Task

CONFIG_VERSION = 1
# Rows that go through a model together: a request must not be able to ask for all of the memory.
MOST_PHYSICAL = 4096
GRAD_SAMPLE_MODES = ("hooks", "ghost", "bookkeeping", "auto")


@dataclass
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021) on linear layers of the trained encoder layers."""

    r: int = 8
    alpha: int = 16
    targets: list[str] = field(default_factory=lambda: ["query", "value", "dense"])
    # "both" trains A and B; "b" freezes the random A (FFA-LoRA, Sun et al. 2024), which makes
    # averaging factors exact and halves the dimension that noise is added to.
    factors: str = "both"


@dataclass
class ModelConfig:
    """Which BERT, which part of it is trained, and how text becomes its input."""

    base: str = "embedded"
    revision: str | None = None
    head: str = "mean"
    # Encoder layers left out, from the top.  The top layer of a sentence encoder serves its old
    # task more than a new one (Sajjad et al. 2020 drop top layers at little loss).
    drop_layers: int = 0
    # Norm of the vector that the mean head reads: it sets the head's share of the clipped gradient.
    head_scale: float = 6.0
    trainable: str = "lora"
    layers: int = 1
    lora: LoraConfig = field(default_factory=LoraConfig)
    max_length: int = 64
    # task=ner: a text longer than max_length is read in windows that overlap by so many sub-tokens.
    stride: int = 16
    truncation: str = "left"
    dropout: float = 0.0
    # auto, fp32, bf16, or tf32 (GPUs: float32 but for the products of passes through the model).
    precision: str = "auto"
    # GPUs only: torch.compile for the frozen prefix.
    compile: bool = False
    prefix_cache: bool = True


@dataclass
class TrainConfig:
    """What a partner does with one message."""

    local_steps: int = 1
    batch_size: int = 512
    physical_batch: int = 32
    optimizer: str = "sgd"
    lr: float = 1.0
    weight_decay: float = 0.0
    # FedProx (Li et al. 2020): how strongly local steps are drawn back to the incoming model.
    prox_mu: float = 0.0
    # Ditto: how strongly a personal model is drawn to the global one; without one at 0.
    ditto_lambda: float = 0.0
    # How an update travels (`common.encoding`): float32, float16, or int8 with random rounding.
    compression: str = "float32"


@dataclass
class PrivacyConfig:
    """Record-level differential privacy at every partner; `mode: none` trains without.

    `metrics: private` adds noise to all that a partner tells beside its update; `metrics_epsilon`
    is what the validation records pay for it in a run.  They are other records than those trained
    on, so the same epsilon as for training (the default) makes no partner's epsilon larger.
    """

    mode: str = "dp"
    epsilon: float = 8.0
    delta: float = 1e-5
    max_grad_norm: float = 0.1
    # How per-example gradients are computed (`client.clipping`): hooks, ghost or bookkeeping;
    # `auto` measures once which is faster and remembers it.
    grad_sample_mode: str = "hooks"
    # "abadi" clips gradients longer than `max_grad_norm` (Abadi et al. 2016); "automatic" scales
    # every gradient to about `max_grad_norm` (AUTO-S, Bu et al. 2023).
    clipping: str = "abadi"
    metrics: str = "exact"
    metrics_epsilon: float | None = None


@dataclass
class RunConfig:
    """Rounds, sampling, faults, files."""

    rounds: int = 16
    seed: int = 0
    dir: str | None = None
    resume: str | None = None
    cache_dir: str | None = None
    # Partners that must have registered before the first round (a simulation fills this in).
    partners: int = 0
    # Partners asked in a round: a fraction of those that registered.
    fraction: float = 1.0
    # A round closes when all have replied, or at the deadline once this share of them has sent an
    # update; with fewer usable updates the run stops and can be resumed.
    quorum: float = 0.5
    deadline_seconds: float = 3600.0
    evaluate_every: int = 1
    # The updates of a round that need more memory than this are kept in a file and mapped.
    updates_mb: float = 4096.0
    keep_checkpoints: int = 2
    # Stop after this many rounds without a better validation loss (the median of the partners'); 0
    # never stops early.
    patience: int = 0
    # The delivered model averages the global models of the last rounds (Polyak averaging, a
    # post-processing that costs no privacy): the share of the rounds that enters.
    average_last: float = 0.0
    # Simulation only: worker processes (0: one a core) and the share of a GPU that each may use
    # (0: an even share of what there is).
    workers: int = 0
    gpus_per_worker: float = 0.0


@dataclass
class TrackingConfig:
    """Where curves go beside `rounds.csv`.

    `service` is none, wandb or mlflow.  `online` lets Weights & Biases send what it gets; else that
    stays in the run's directory for `wandb sync`.  `uri` is MLflow's store; null is a file beside
    the run's directory.  `group` names the sweep that a run belongs to; a sweep fills it in.
    """

    tensorboard: bool = True
    service: str = "none"
    project: str = "fedaccord"
    online: bool = False
    uri: str | None = None
    group: str | None = None


@dataclass
class Config:
    """The whole of one run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    strategy: dict[str, Any] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    run: RunConfig = field(default_factory=RunConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    # What is learnt: one of `common.tasks`.
    task: str = "classification"
    version: int = CONFIG_VERSION

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model's logits stand for, in order: the labels, or the tags of the types."""
        return self.about.outputs(self.data)

    @property
    def about(self) -> Task:
        """What sets this task apart."""
        return TASKS[self.task]

    @property
    def private(self) -> bool:
        """Whether partners train under differential privacy."""
        return self.privacy.mode == "dp"

    @property
    def private_metrics(self) -> bool:
        """Whether all that partners tell beside their updates carries noise."""
        return self.privacy.metrics == "private"

    @property
    def metrics_epsilon(self) -> float:
        """What the validation records may pay for metrics in a run."""
        chosen = self.privacy.metrics_epsilon
        return self.privacy.epsilon if chosen is None else chosen


def from_mapping(tree: object) -> Config:
    """Typed config from plain mappings, lists and values; no text in it is interpreted.

    Raises Refused naming the key when a key or a type is wrong.
    """
    config = read(Config, tree)
    if config.version != CONFIG_VERSION:
        raise Refused(
            Reason.VERSION,
            f"config version {config.version} is not {CONFIG_VERSION}: "
            "the other side runs another version of fedaccord; install the same one",
            "version",
        )
    return config


def to_mapping(config: Config) -> dict[str, Any]:
    """The config as plain mappings, every value of its declared type: inverse of `from_mapping`."""
    return asdict(read(Config, asdict(config)))


def to_json(config: Config) -> str:
    """The config as one canonical JSON text (what travels in Flower's run config)."""
    return canonical_json(to_mapping(config))


def from_json(text: str) -> Config:
    """Inverse of `to_json`, for the text of a sender who need not be trusted.

    Raises Refused when it is not the JSON of a config.
    """
    return from_mapping(parse_json(text))


def config_hash(config: Config) -> str:
    """Identity of what a run computes: every setting but where its files are."""
    tree = to_mapping(config)
    for key in ("dir", "resume", "cache_dir", "keep_checkpoints"):
        del tree["run"][key]
    for key in ("workers", "gpus_per_worker", "updates_mb"):
        del tree["run"][key]
    del tree["tracking"]
    return sha256_text(canonical_json(tree))


def malicious(config: Config, everyone: Sequence[str]) -> list[str]:
    """Who attacks in a simulation: `attack.partners`, or the first `attack.count` by name.

    Raises UserError when a name is not a partner or everybody would attack.
    """
    if not config.attack.get("_target_"):
        return []
    named = [str(name) for name in config.attack.get("partners") or []]
    if unknown := sorted(set(named) - set(everyone)):
        raise UserError(
            f"attack.partners: there is no partner {unknown[0]}; "
            f"there are {', '.join(sorted(everyone))}"
        )
    chosen = named or sorted(everyone)[: int(config.attack.get("count") or 0)]
    if len(chosen) >= len(everyone):
        raise UserError("attack.count: at least one partner must stay honest")
    return chosen


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{key}: must be one of {', '.join(allowed)}, got '{value}'")


def _between(key: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    above = low < value if open_low else low <= value
    if not above or not value <= high or not math.isfinite(value):
        bracket = "(" if open_low else "["
        closing = f"{high:g}]" if math.isfinite(high) else "inf)"
        raise UserError(f"{key}: must be in {bracket}{low:g}, {closing}, got {value:g}")


def validate(config: Config) -> Config:
    """Check ranges and combinations, and return the config.

    Raises UserError with one line that names the key.  What depends on the number of partners or
    rows is checked where they are known (`strategies` and the partner).
    """
    check_data(config.data)
    infinity = float("inf")
    model, train, privacy, run = config.model, config.train, config.privacy, config.run
    _check_task(config)
    _one_of("model.head", model.head, ("mean", "cls", "token", "lm"))
    if model.trainable == "adalora":
        raise UserError(
            "model.trainable: adalora ranks directions by unclipped gradients, which privacy does "
            "not cover, and every partner would keep others, so that updates do not add up"
        )
    _one_of("model.trainable", model.trainable, ("lora", "ia3", "bitfit", "last_k", "full"))
    _one_of("model.truncation", model.truncation, ("left", "right"))
    _one_of("model.precision", model.precision, ("auto", "fp32", "bf16", "tf32"))
    _one_of("model.lora.factors", model.lora.factors, ("both", "b"))
    _between("model.drop_layers", model.drop_layers, 0, infinity)
    _between("model.layers", model.layers, 0, infinity)
    _between("model.lora.r", model.lora.r, 1, 8192)
    _between("model.lora.alpha", model.lora.alpha, 0, infinity, open_low=True)
    _between("model.max_length", model.max_length, 4, 8192)
    _between("model.dropout", model.dropout, 0, 0.9)
    _between("model.head_scale", model.head_scale, 0, infinity, open_low=True)
    _one_of("tracking.service", config.tracking.service, ("none", "wandb", "mlflow"))
    _one_of("train.optimizer", train.optimizer, ("sgd", "adam"))
    _between("train.local_steps", train.local_steps, 1, infinity)
    _between("train.batch_size", train.batch_size, 1, infinity)
    _between("train.physical_batch", train.physical_batch, 1, MOST_PHYSICAL)
    _between("train.lr", train.lr, 0, infinity, open_low=True)
    _between("train.weight_decay", train.weight_decay, 0, infinity)
    _between("train.prox_mu", train.prox_mu, 0, infinity)
    _between("train.ditto_lambda", train.ditto_lambda, 0, infinity)
    _one_of("train.compression", train.compression, ENCODINGS)
    if train.prox_mu > 0 and train.local_steps == 1:
        raise UserError(
            "train.prox_mu: a single local step starts at the incoming model, which cannot draw "
            "it anywhere; set train.local_steps to 2 or more"
        )
    _one_of("privacy.mode", privacy.mode, ("dp", "none"))
    _one_of("privacy.grad_sample_mode", privacy.grad_sample_mode, GRAD_SAMPLE_MODES)
    if privacy.clipping in GRAD_SAMPLE_MODES:
        raise UserError(
            f"privacy.clipping: must be abadi or automatic; '{privacy.clipping}' is now a choice "
            "of privacy.grad_sample_mode"
        )
    _one_of("privacy.clipping", privacy.clipping, ("abadi", "automatic"))
    _one_of("privacy.metrics", privacy.metrics, ("exact", "private"))
    _between("privacy.epsilon", privacy.epsilon, 0, infinity, open_low=True)
    _between("privacy.metrics_epsilon", config.metrics_epsilon, 0, infinity, open_low=True)
    _between("privacy.delta", privacy.delta, 0, 0.5, open_low=True)
    # Far beyond any use on both sides: factors of clipping stay normal numbers of float32.
    _between("privacy.max_grad_norm", privacy.max_grad_norm, 1e-6, 1e6)
    _between("run.rounds", run.rounds, 1, infinity)
    _between("run.seed", run.seed, 0, 2**62)
    _between("run.fraction", run.fraction, 0, 1, open_low=True)
    _between("run.quorum", run.quorum, 0, 1, open_low=True)
    _between("run.deadline_seconds", run.deadline_seconds, 0, infinity, open_low=True)
    _between("run.partners", run.partners, 0, infinity)
    _between("run.updates_mb", run.updates_mb, 0, infinity)
    _between("run.evaluate_every", run.evaluate_every, 1, infinity)
    _between("run.keep_checkpoints", run.keep_checkpoints, 1, infinity)
    _between("run.patience", run.patience, 0, infinity)
    _between("run.average_last", run.average_last, 0, 1)
    _between("run.workers", run.workers, 0, 4096)
    _between("run.gpus_per_worker", run.gpus_per_worker, 0, 1)
    if model.trainable == "lora" and not model.lora.targets:
        raise UserError("model.lora.targets: name at least one kind of linear layer, e.g. [query]")
    if config.private_metrics:
        _check_private_metrics(config)
    if config.private and train.weight_decay > 0:
        raise UserError(
            "train.weight_decay: use 0 under privacy.mode=dp (decay is not part of the clipped "
            "gradient; regularise at the server instead)"
        )
    if config.private and model.precision == "tf32" and privacy.grad_sample_mode != "hooks":
        raise UserError(
            "model.precision: tf32 goes with privacy.grad_sample_mode=hooks; the other ways take "
            "norms within the backward pass, where TF32 would loosen the clipping bound"
        )
    if config.private and model.dropout > 0:
        raise UserError(
            "model.dropout: must be 0 under privacy.mode=dp; masks are dealt out by place in a "
            "batch, so that one record more would change the gradients of others"
        )
    return config


def _check_task(config: Config) -> None:
    _one_of("task", config.task, tuple(TASKS))
    task, data = config.about, config.data
    if (task.target == "tags") != (data.scheme is not None):
        raise UserError("data.scheme: set with task=ner (bio, iob1 or io), and null without")
    if target_of(data) != task.target:
        raise UserError(
            f"data.target: must be {task.target} with task={task.name}, got '{data.target}'"
        )
    if config.model.head not in task.heads:
        if {"token", "lm"} & {config.model.head, *task.heads}:
            raise UserError(
                "model.head: token goes with task=ner, lm with task=mlm, and mean or cls with "
                "classification"
            )
        raise UserError(
            f"model.head: must be one of {', '.join(task.heads)} with task={task.name}, got "
            f"'{config.model.head}'"
        )
    task.check(config)
    if task.name != "classification" and str(config.attack.get("_target_")).startswith(
        "simulation."
    ):
        raise UserError(
            f"attack: label_flip and backdoor poison classified texts; not with task={task.name}"
        )


def _check_private_metrics(config: Config) -> None:
    if not config.private:
        raise UserError("privacy.metrics: private needs privacy.mode=dp, or updates tell it all")
    data = config.data
    if undeclared := [name for name in data.columns.groups if not data.group_values.get(name)]:
        raise UserError(
            f"data.group_values: name the values of {undeclared[0]} under privacy.metrics=private, "
            f"as in +data.group_values.{undeclared[0]}=[A,B]: which of them occur is private"
        )
