"""A partner of a deployment: what its own file says, and nothing that a coordinator sends.

The coordinator's configuration is a request.  Where the rows are, how they are divided, which
models may be trained and where they lie on this machine come from `partner.yaml` alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client.partner import Partner, split_rows
from client.policy import Policy, policy_of, read_file
from common.config import Config
from common.config_reader import read
from common.data.check import check_data
from common.data.load import training_table
from common.data.schema import DataConfig, target_of
from common.data.sources import source_of
from common.data.table import Table
from common.errors import UserError
from common.files import private_directory
from common.refusals import Reason, Refused

PARTNER_VARIABLE = "FEDACCORD_PARTNER"
KEYS = ("version", "name", "server", "directory", "data", "split_seed", "models", "policy")
EMBEDDED = "embedded"
# A partner holds no test rows: those belong to the coordinator.
_NOT_HERE = ("test_path", "sql_test_query", "hub_test_split", "test_fraction", "test_rows")


@dataclass(frozen=True)
class Model:
    """A model that may be trained: a folder of this machine, or a hub id and its revision.

    The revision decides what is downloaded, so the coordinator does not choose it.
    """

    place: str
    revision: str | None = None


@dataclass(frozen=True)
class PartnerFile:
    """`partner.yaml`, checked; every path is absolute."""

    path: Path
    name: str
    server: str
    directory: Path
    data: DataConfig
    split_seed: int
    models: dict[str, Model]
    policy: Policy

    @property
    def cache(self) -> Path:
        """Where tokenised rows and prefix vectors are kept."""
        return self.directory / "cache"

    @property
    def ledger(self) -> Path:
        """Where the privacy ledger lies."""
        return self.directory / "ledger.sqlite"

    @property
    def authority(self) -> Path:
        """The certificate of the federation's authority."""
        return self.path.parent / "ca.pem"

    @property
    def key(self) -> Path:
        """This partner's private key."""
        return self.path.parent / "node.key"


def load_partner_file(path: Path) -> PartnerFile:
    """Read and check `partner.yaml`.

    Raises UserError naming file and key.
    """
    path = path.expanduser().absolute()
    reader = read_file(path, KEYS)
    texts = {}
    for key in ("name", "server"):
        texts[key] = reader.required(key)
        if not isinstance(texts[key], str) or not texts[key]:
            raise reader.wrong(key, "a text")
    host, _, port = texts["server"].rpartition(":")
    if not host or not port.isdigit():
        raise reader.wrong("server", "HOST:PORT")
    seed = reader.get("split_seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= 2**62:
        raise reader.wrong("split_seed", "a whole number of at least 0")
    models = reader.required("models")
    if not isinstance(models, dict) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in models.items()
    ):
        raise reader.wrong("models", "a mapping of names to folders or HUB-ID@REVISION")
    directory = reader.get("directory", "state")
    if not isinstance(directory, str):
        raise reader.wrong("directory", "a folder")
    return PartnerFile(
        path,
        texts["name"],
        texts["server"],
        _beside(path, directory),
        _data(path, reader.required("data")),
        seed,
        {name: _model(path, place) for name, place in models.items()},
        policy_of(reader.section("policy")),
    )


def open_partner(path: Path, asked: Config) -> tuple[Config, Partner]:
    """This partner and the run's configuration as it holds here.

    Raises Refused, which says what may be sent to the coordinator.
    """
    try:
        own = load_partner_file(path)
    except UserError as error:
        raise Refused(Reason.OWN_SETTINGS, str(error)) from error
    config = localised(own, asked)
    try:
        train, validation = rows(own)
    except UserError as error:
        raise Refused(Reason.OWN_DATA, str(error)) from error
    partner = Partner(
        name=own.name,
        train=train,
        validation=validation,
        directory=private_directory(own.directory),
        cache=private_directory(own.cache),
        policy=own.policy,
        seed=None,
    )
    return config, partner


def localised(own: PartnerFile, asked: Config) -> Config:
    """The run's configuration with this partner's data, model folder and division of rows.

    Raises Refused naming what this partner does not do.
    """
    if asked.attack.get("_target_"):
        raise Refused(Reason.ATTACK, "attack: this partner runs none", "attack")
    model = own.models.get(asked.model.base)
    if model is None:
        raise Refused(
            Reason.MODEL,
            f"model.base: {asked.model.base} is not one of models in this partner's file",
            "model.base",
        )
    folder = model.place == EMBEDDED or Path(model.place).is_dir()
    # Nothing is downloaded where the model is a folder, and a revision means nothing.
    if not folder and asked.model.revision not in (None, model.revision):
        raise Refused(
            Reason.REVISION,
            f"model.revision: {asked.model.revision} is not the {model.revision} of this file",
            "model.revision",
        )
    theirs, ours = asked.data, own.data
    for key, same in (
        ("data.labels", list(theirs.labels) == list(ours.labels)),
        ("task", asked.about.target == target_of(ours)),
        ("data.bounds", list(theirs.bounds) == list(ours.bounds)),
        ("data.unit", theirs.unit == ours.unit),
    ):
        if not same:
            raise Refused(Reason.OTHER_DATA, f"{key}: differs from this partner's file", key)
    groups = list(theirs.columns.groups)
    if set(groups) - set(ours.columns.groups):
        raise Refused(
            Reason.OTHER_DATA,
            "data.columns.groups: this partner's file does not list all of these",
            "data.columns.groups",
        )
    return replace(
        asked,
        model=replace(asked.model, base=model.place, revision=model.revision),
        data=replace(ours, columns=replace(ours.columns, groups=groups)),
        run=replace(
            asked.run,
            seed=own.split_seed,
            dir=None,
            resume=None,
            cache_dir=str(own.cache),
            workers=1,
        ),
    )


def rows(own: PartnerFile) -> tuple[Table, Table]:
    """This partner's training and validation rows.

    Raises UserError naming file, row and column; for this partner's own eyes.
    """
    table = training_table(own.data, private_directory(own.cache))
    config = Config(data=own.data)
    config.run.seed = own.split_seed
    return split_rows(table, config)


def _beside(path: Path, place: str) -> Path:
    return path.parent / Path(place).expanduser()


def _place(path: Path, place: str) -> str:
    """The folder `place` beside the file, or the name of a model on the hub."""
    beside = _beside(path, place)
    return str(beside) if beside.is_dir() else place


def _model(path: Path, place: str) -> Model:
    """`place` is a folder, or HUB-ID or HUB-ID@REVISION."""
    found = _place(path, place)
    if Path(found).is_dir():
        return Model(found)
    name, _, revision = found.partition("@")
    return Model(name, revision or None)


def _data(path: Path, tree: Any) -> DataConfig:
    """The data section; a partner's labels are always named.

    Raises UserError naming the key.
    """
    if not isinstance(tree, dict):
        raise UserError(f"{path}: data must hold keys and values")
    if here := [key for key in _NOT_HERE if key in tree]:
        raise UserError(f"{path}: data.{here[0]} belongs to the coordinator's configuration")
    try:
        data = read(DataConfig, {"source": "csv", "test_fraction": 0.0, **tree}, "data")
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    check_data(data)
    needed = {"label": 2, "labels": 1, "tags": 1}.get(target_of(data), 0)
    if len(data.labels) < needed:
        raise UserError(f"{path}: data.labels must name every label in the federation's order")
    if "path" in source_of(data).local_paths(data) and data.path and not os.path.isabs(data.path):
        data.path = str(_beside(path, data.path))
    if data.names_model:
        data.names_model = _place(path, data.names_model)
    return data
