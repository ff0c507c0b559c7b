"""Typed settings of the data layer, usable as OmegaConf structured configs."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.errors import UserError
from common.limits import number

# What the label column may hold.
TARGETS = ("label", "labels", "number", "none")
NAMED = ("label", "labels", "tags")
KINDS = ("iid", "dirichlet", "natural", "linear", "square", "exponential")


@dataclass
class Columns:
    """Names of the columns that are read; all others are ignored.

    ``groups`` are columns for fairness metrics and natural partitions.  ``split``, if set, says
    for each row whether it is for training, validation or test.  ``label`` is empty where nothing
    is learnt but the text itself.
    """

    text: str = "text"
    label: str = "label"
    groups: list[str] = field(default_factory=list)
    split: str | None = None

    def all(self) -> list[str]:
        """Every mapped column once, in a fixed order."""
        names = [self.text, *([self.label] if self.label else []), *self.groups]
        return list(dict.fromkeys([*names, self.split] if self.split else names))


@dataclass
class DataConfig:
    """Where labelled text comes from and how it is divided.

    ``labels`` names the classes in order.  A value in the label column is one of them in
    the normal form (``common.data.normal``), or one of ``label_codes``.
    ``validation_fraction`` is of a partner's rows, ``test_fraction`` or ``test_rows`` (per value
    of the group column ``test_by``) of all rows, in simulation, where no test set is given.
    ``where`` leaves out all rows whose group columns have other values, before anything else.
    """

    source: str = "demo"
    path: str | None = None
    test_path: str | None = None
    encoding: str = "utf-8"
    delimiter: str = ","
    # Whether fields can be in quotes; false reads quotes as any other character.
    quoted: bool = True
    sql_url_env: str = "FEDACCORD_SQL_URL"
    sql_query: str | None = None
    sql_test_query: str | None = None
    hub_name: str | None = None
    hub_revision: str | None = None
    hub_split: str = "train"
    hub_test_split: str | None = None
    columns: Columns = field(default_factory=Columns)
    labels: list[str] = field(default_factory=list)
    # The name of every code, where the file has codes: {"0": negative, "1": positive}.
    label_codes: dict[str, str] = field(default_factory=dict)
    # Whether upper and lower case are the same in labels and groups.
    fold_case: bool = False
    where: dict[str, str] = field(default_factory=dict)
    validation_fraction: float = 0.1
    # Decides which rows validate; null: `run.seed`.  A deployed partner's file has its own.
    split_seed: int | None = number(None, 0, 2**62)
    test_fraction: float = 0.1
    test_rows: int | None = None
    test_by: str | None = None
    # Or the rows whose group columns have these values, as in {file: f}.
    test_where: dict[str, str] = field(default_factory=dict)
    # The values that a group column can take, for counts with noise: that a value occurs among
    # the rows is itself private, so it is declared and not looked up.
    group_values: dict[str, list[str]] = field(default_factory=dict)
    # What the label column holds: label (one name), labels (a list of names, or names with
    # `label_delimiter` between them), number (within `bounds`, which are public), none (there is
    # no such column).
    target: str = "label"
    label_delimiter: str = ";"
    # The decimal sign of numbers that are text, "." or ","; None takes a point where it is clear.
    decimal: str | None = None
    bounds: list[float] = field(default_factory=list)
    # Replace names, dates, numbers, addresses and identifiers before a text is used.  The names of
    # persons, places and organisations are found by a model (a folder or hub id); "none" leaves
    # them.
    deidentify: bool = False
    names_model: str | None = None
    # How the tags of words are written (task=ner): bio, iob1 or io.  null: no tags.
    scheme: str | None = None
    # What one record of a CoNLL file is, and with it what privacy protects: a sentence, or a
    # document (from one -DOCSTART- to the next).
    unit: str = "sentence"


@dataclass
class Block:
    """Some partners that divide some of the rows among them in one way.

    ``where`` keeps the rows whose group columns have the given values.  ``sizes`` gives the rows
    of each partner (kinds iid and dirichlet); without it ``partners`` share all rows.  ``alpha``
    is the concentration of the Dirichlet distribution of labels (smaller is more skewed), ``by``
    the group column of kind natural.
    """

    kind: str = "iid"
    partners: int | None = None
    sizes: list[int] = field(default_factory=list)
    alpha: float = 1.0
    by: str | None = None
    where: dict[str, str] = field(default_factory=dict)


@dataclass
class PartitionConfig:
    """Simulated partners: blocks by name; the partners of block B are called B-1, B-2, …"""

    blocks: dict[str, Block] = field(default_factory=dict)
    min_rows: int = 2

    @property
    def partners(self) -> int | None:
        """How many partners there will be; None where only the rows tell."""
        counts = [block.partners or len(block.sizes) for block in self.blocks.values()]
        return sum(counts) if counts and all(counts) else None


def target_of(config: DataConfig) -> str:
    """What a row's target is: tags, or as ``config.target`` says."""
    return config.target if config.scheme is None else "tags"


def check_partition(config: PartitionConfig) -> None:
    """Raise UserError for a partition that no data could satisfy."""
    if not config.blocks:
        raise UserError("partition.blocks is empty: name at least one block of partners")
    if config.min_rows < 1:
        raise UserError("partition.min_rows must be at least 1")
    for name, block in config.blocks.items():
        _check_block(f"partition.blocks.{name}", block, config.min_rows)


def _check_block(key: str, block: Block, min_rows: int) -> None:
    if block.kind not in KINDS:
        raise UserError(f"{key}.kind must be one of {', '.join(KINDS)}")
    if block.kind == "natural":
        if not block.by:
            raise UserError(f"{key}.by is not set: kind natural needs a group column")
        if block.sizes or block.partners is not None:
            raise UserError(f"{key}: kind natural takes its partners from the column {key}.by")
        return
    if block.by is not None:
        raise UserError(f"{key}.by is used with kind natural only")
    if block.sizes and block.kind not in ("iid", "dirichlet"):
        raise UserError(f"{key}.sizes is used with kinds iid and dirichlet only")
    if block.sizes and block.partners not in (None, len(block.sizes)):
        raise UserError(f"{key}.partners is not the length of {key}.sizes: set one of them")
    if not block.sizes and (block.partners is None or block.partners < 1):
        raise UserError(f"{key}: set partners (at least 1) or sizes")
    if block.sizes and min(block.sizes) < min_rows:
        raise UserError(f"{key}.sizes has less than partition.min_rows={min_rows} rows")
    if block.kind == "dirichlet" and not block.alpha > 0:
        raise UserError(f"{key}.alpha must be more than 0")
