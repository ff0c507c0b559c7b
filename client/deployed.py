"""A deployed partner: its own file decides, and nothing that a coordinator sends.

The coordinator's configuration is a request.  The location of the data, their division into
training and validation, the models that may be trained and their folders come from `partner.yaml`
alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from client.partner import Partner, split_rows
from client.partner_settings import PartnerSettings
from client.policy import Policy
from common.config import Config
from common.config_reader import read
from common.data.check import check_data
from common.data.load import training_table
from common.data.schema import DataConfig, target_of
from common.data.sources import source_of
from common.data.table import Table
from common.errors import UserError
from common.files import private_directory
from common.models.packaged import PACKAGED
from common.printable import short_entry
from common.refusals import Reason, Refused
from common.settings_file import read_settings, unknown_key

PARTNER_VARIABLE = "FEDACCORD_PARTNER"
# A partner has no test set: test data belong to the coordinator.
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
    models: dict[str, Model]
    policy: Policy

    @property
    def cache(self) -> Path:
        """The folder of tokenised texts and outputs of frozen layers."""
        return self.directory / "cache"

    @property
    def ledger(self) -> Path:
        """The privacy ledger."""
        return self.directory / "ledger.sqlite"

    @property
    def authority(self) -> Path:
        """The certificate of the federation's certificate authority."""
        return self.path.parent / "ca.pem"

    @property
    def key(self) -> Path:
        """This partner's private key."""
        return self.path.parent / "node.key"


def load_partner_file(path: Path) -> PartnerFile:
    """Read and check `partner.yaml`.

    Raises:
        UserError: The file is wrong; the message names file, key, problem and remedy.
    """
    path = path.expanduser().absolute()
    settings = read_settings(path, PartnerSettings)
    return PartnerFile(
        path,
        settings.name,
        settings.server,
        _beside(path, settings.directory),
        _data(path, settings.data, settings.split_seed),
        {name: _model(path, place) for name, place in settings.models.items()},
        settings.policy.policy(),
    )


def open_partner(path: Path, asked: Config) -> tuple[Config, Partner]:
    """This partner, and the run's configuration as it applies here.

    Raises:
        Refused: with what may be sent to the coordinator.
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
    """The run's configuration with this partner's data, split seed, model folder and cache.

    Raises:
        Refused: naming the setting that this partner does not accept.
    """
    if asked.attack.get("_target_"):
        raise Refused(
            Reason.ATTACK, "attack: this partner simulates none; use attack=none", "attack"
        )
    model = own.models.get(asked.model.base)
    if model is None:
        raise Refused(
            Reason.MODEL,
            f"model.base: {asked.model.base} is not listed under models in this partner's file",
            "model.base",
        )
    folder = model.place in PACKAGED or Path(model.place).is_dir()
    # Where the model is a folder, nothing is downloaded and a revision has no meaning.
    if not folder and asked.model.revision not in (None, model.revision):
        raise Refused(
            Reason.REVISION,
            f"model.revision: {asked.model.revision} is not {model.revision}, as in this partner's "
            "file",
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
            dir=None,
            resume=None,
            cache_dir=str(own.cache),
            workers=1,
        ),
    )


def rows(own: PartnerFile) -> tuple[Table, Table]:
    """This partner's training and validation rows.

    Raises:
        UserError: naming file, row and column; for this partner's own log only.
    """
    table = training_table(own.data, private_directory(own.cache))
    return split_rows(table, Config(data=own.data))


def _beside(path: Path, place: str) -> Path:
    return path.parent / Path(place).expanduser()


def _place(path: Path, place: str) -> str:
    """The folder `place`, relative to that of the file, or the name of a model on the hub."""
    beside = _beside(path, place)
    return str(beside) if beside.is_dir() else place


def _model(path: Path, place: str) -> Model:
    """`place` is a folder, or HUB-ID or HUB-ID@REVISION."""
    resolved = _place(path, place)
    if Path(resolved).is_dir():
        return Model(resolved)
    name, _, revision = resolved.partition("@")
    return Model(name, revision or None)


def _data(path: Path, tree: dict[str, Any], split_seed: int) -> DataConfig:
    """The section `data`; a partner's labels are always named.

    Raises:
        UserError: A key is wrong.
    """
    if "split_seed" in tree:
        raise UserError(f"{path}: data.split_seed: write it as split_seed, outside of data")
    known = [field.name for field in fields(DataConfig) if field.name not in _NOT_HERE]
    for key in tree:
        if key in _NOT_HERE:
            raise UserError(f"{path}: data.{key}: belongs to the coordinator's run; remove it")
        if key not in known:
            raise UserError(f"{path}: data.{short_entry(str(key))}: {unknown_key(str(key), known)}")
    try:
        data = read(DataConfig, {"source": "csv", "test_fraction": 0.0, **tree}, "data")
        data = replace(data, split_seed=split_seed)
        needed = {"label": 2, "labels": 1, "tags": 1}.get(target_of(data), 0)
        if len(data.labels) < needed:
            raise UserError(
                f"data.labels: must name at least {needed}; list every label of the federation in "
                "its order"
            )
        check_data(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if "path" in source_of(data).local_paths(data) and data.path and not os.path.isabs(data.path):
        data = replace(data, path=str(_beside(path, data.path)))
    if data.names_model:
        data = replace(data, names_model=_place(path, data.names_model))
    return data
