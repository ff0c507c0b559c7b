"""Every setting of a run: its name, type, default, and range or choices.

These classes are the one source of defaults: the files of `conf/` repeat them for users to read,
and a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from common.data.schema import DataConfig, PartitionConfig
from common.limits import choice, number
from common.tasks import TASKS, Task

CONFIG_VERSION = 1
# Examples that pass through the model together: a request must not be able to ask for more memory
# than any machine has.
MAX_PHYSICAL_BATCH = 4096
GRAD_SAMPLE_MODES = ("hooks", "ghost", "bookkeeping", "auto")


@dataclass
class LoraConfig:
    """Low-rank adapters (Hu et al. 2021) on linear layers of the trained encoder layers."""

    r: int = number(1, 1, 8192)
    alpha: int = number(1, above=True)
    targets: list[str] = field(default_factory=lambda: ["intermediate.dense"])
    # "both" trains A and B; "b" freezes the random A (FFA-LoRA, Sun et al. 2024), which makes
    # averaging factors exact and halves the dimension that noise is added to.
    factors: str = choice("b", "both")


@dataclass
class ModelConfig:
    """The encoder, the part of it that is trained, and how a text becomes its input."""

    base: str = "embedded"
    revision: str | None = None
    head: str = choice("mean", "cls", "token", "lm")
    # Encoder layers left out, from the top.  The top layer of a sentence encoder serves its old
    # task more than a new one (Sajjad et al. 2020 drop top layers at little loss).
    drop_layers: int = number(1)
    # Norm of the vector that the mean head reads: it sets the head's share of the clipped gradient.
    head_scale: float = number(28.0, above=True)
    trainable: str = choice(
        "lora",
        "ia3",
        "bitfit",
        "last_k",
        "full",
        explained={
            "adalora": "adalora ranks directions by unclipped gradients, which the privacy "
            "accounting does not cover, and partners would keep different directions, so that "
            "their updates could not be added; use lora"
        },
    )
    layers: int = number(1)
    lora: LoraConfig = field(default_factory=LoraConfig)
    # In sub-tokens.
    max_length: int = number(128, 4, 8192)
    # task=ner: a text longer than max_length is read in windows that overlap by this many
    # sub-tokens.
    stride: int = 16
    truncation: str = choice("left", "right")
    dropout: float = number(0.0, 0, 0.9)
    # tf32 (GPUs only): float32, except for the products in passes through the model.
    precision: str = choice("auto", "fp32", "bf16", "tf32")
    # GPUs only: torch.compile for the frozen layers.
    compile: bool = False
    prefix_cache: bool = True


@dataclass
class TrainConfig:
    """What a partner does with one training message."""

    local_steps: int = number(1, 1)
    batch_size: int = number(512, 1)
    physical_batch: int = number(32, 1, MAX_PHYSICAL_BATCH)
    optimizer: str = choice("sgd", "adam")
    lr: float = number(1.0, above=True)
    weight_decay: float = number(0.0)
    # FedProx (Li et al. 2020): weight of the proximal term, which draws local steps back to the
    # incoming model.
    prox_mu: float = number(0.0)
    # Ditto (Li et al. 2021): weight of the term that draws a personal model to the global one; 0
    # trains no personal model.
    ditto_lambda: float = number(0.0)
    # Update compression (`common.compression`); int8 rounds at random.
    compression: str = choice("float32", "float16", "int8")


@dataclass
class PrivacyConfig:
    """Record-level differential privacy at every partner; `mode: none` trains without.

    `metrics: private` adds noise to everything that a partner reports besides its update.
    `metrics_epsilon` is what the validation examples pay for it in a run; null is `epsilon`.
    Validation examples are never trained on, so that does not raise any partner's epsilon.
    """

    mode: str = choice("dp", "none")
    epsilon: float = number(8.0, above=True)
    delta: float = number(1e-5, 0, 0.5, above=True)
    # The clipping norm, which depends on the model's head: each file of conf/model sets it.  Values
    # far beyond any use are refused, so that clipping factors stay normal numbers of float32.
    max_grad_norm: float = number(17.0, 1e-6, 1e6)
    # How per-example gradients are computed (`client.clipping`); `auto` measures once whether hooks
    # or bookkeeping is faster, and remembers it.
    grad_sample_mode: str = choice("hooks", *GRAD_SAMPLE_MODES[1:])
    # "abadi" clips gradients longer than `max_grad_norm` (Abadi et al. 2016); "automatic" scales
    # every gradient to about `max_grad_norm` (AUTO-S, Bu et al. 2023).
    clipping: str = choice(
        "abadi",
        "automatic",
        explained={
            mode: f"must be abadi or automatic; '{mode}' is now a choice of "
            "privacy.grad_sample_mode"
            for mode in GRAD_SAMPLE_MODES
        },
    )
    metrics: str = choice("exact", "private")
    metrics_epsilon: float | None = number(None, above=True)


@dataclass
class RunConfig:
    """Rounds, sampling, faults and files."""

    rounds: int = number(8, 1)
    # Initialises the model and keys every random stream of server and simulation.  Which examples
    # validate follows from `data.split_seed`.
    seed: int = number(0, 0, 2**62)
    dir: str | None = None
    resume: str | None = None
    cache_dir: str | None = None
    # Partners that must have registered before the first round; a simulation sets it itself.
    partners: int = number(0)
    # The fraction of the registered partners that is sampled for a round.
    fraction: float = number(1.0, 0, 1, above=True)
    # A round ends when all sampled partners have replied, or at the deadline if this fraction of
    # them has sent an update; with fewer usable updates the run stops and can be resumed.
    quorum: float = number(0.5, 0, 1, above=True)
    deadline_seconds: float = number(3600.0, above=True)
    evaluate_every: int = number(1, 1)
    # A round's updates are kept in a memory-mapped file where they need more memory than this, in
    # MiB.
    updates_mb: float = number(4096.0)
    keep_checkpoints: int = number(2, 1)
    # Stop after this many rounds without a better validation loss (the median over partners); 0
    # never stops early.
    patience: int = number(0)
    # The delivered model is the mean of the global models of this fraction of the rounds, the last
    # ones (Polyak averaging: post-processing, which costs no privacy).
    average_last: float = number(0.0, 0, 1)
    # Simulation only: worker processes (0: one per core) and the share of a GPU that each may use
    # (0: an even share of the GPUs of this machine).
    workers: int = number(0, 0, 4096)
    gpus_per_worker: float = number(0.0, 0, 1)


@dataclass
class TrackingConfig:
    """Where training curves go besides `rounds.csv`.

    `online` lets Weights & Biases upload them; otherwise they stay in the run directory for
    `wandb sync`.  `uri` is MLflow's store; null is a file beside the run directory.  `group` names
    the sweep that a run belongs to; a sweep sets it.
    """

    tensorboard: bool = True
    service: str = choice("none", "wandb", "mlflow")
    project: str = "fedaccord"
    online: bool = False
    uri: str | None = None
    group: str | None = None


@dataclass
class Config:
    """All settings of one run."""

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
    def about(self) -> Task:
        """What sets this task apart."""
        return TASKS[self.task]

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each logit of the model stands for: a label, or a tag of an entity type."""
        return self.about.outputs(self.data)

    @property
    def split_seed(self) -> int:
        """The seed that decides which examples validate: `data.split_seed`, else `run.seed`."""
        return self.run.seed if self.data.split_seed is None else self.data.split_seed

    @property
    def private(self) -> bool:
        """Whether partners train under differential privacy."""
        return self.privacy.mode == "dp"

    @property
    def private_metrics(self) -> bool:
        """Whether everything that partners report besides their updates carries noise."""
        return self.privacy.metrics == "private"

    @property
    def metrics_epsilon(self) -> float:
        """What the validation examples may pay for metrics in a run."""
        chosen = self.privacy.metrics_epsilon
        return self.privacy.epsilon if chosen is None else chosen
