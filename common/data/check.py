"""Which settings of the data layer can work together."""

from __future__ import annotations

import math

from common.data.normal import normal_form
from common.data.numbers import DECIMALS
from common.data.schema import TARGETS, DataConfig, target_of
from common.data.sources import source_of
from common.errors import UserError
from common.tags import SCHEMES


def check_data(config: DataConfig) -> None:
    """Raise UserError for a combination of settings that cannot work."""
    source = source_of(config)
    _check_tags(config)
    source.check(config)
    _check_target(config)
    if config.deidentify and config.scheme is not None:
        raise UserError("data.deidentify: not with tagged words, whose tags would lose their place")
    if config.deidentify and not config.names_model:
        raise UserError(
            "data.names_model: name a model that tags persons (a folder or hub id), or none to "
            "leave names as they are"
        )
    if config.names_model and not config.deidentify:
        raise UserError("data.names_model: goes with data.deidentify=true")
    for key in ("validation_fraction", "test_fraction"):
        if not 0.0 <= getattr(config, key) < 1.0:
            raise UserError(f"data.{key} must be at least 0 and less than 1")
    if config.test_rows is not None and config.test_rows < 1:
        raise UserError("data.test_rows must be at least 1 (or null)")
    if config.test_by is not None and config.test_rows is None:
        raise UserError("data.test_by is used with data.test_rows only: set data.test_rows")
    columns = config.columns
    if config.test_where and (config.test_rows is not None or config.test_path is not None):
        raise UserError(
            "data.test_where: set it, or data.test_rows, or data.test_path: one of them"
        )
    for key, where in (("where", config.where), ("test_where", config.test_where)):
        if unknown := sorted(set(where) - set(columns.groups)):
            raise UserError(f"data.{key}: '{unknown[0]}' is not one of data.columns.groups")
    if columns.text == columns.label:
        raise UserError("data.columns: text and label are the same column")
    if {columns.text, columns.label} & set(columns.groups):
        raise UserError("data.columns.groups: the text or label column cannot be a group")
    _check_labels(config)
    if len(config.labels) == 1 and target_of(config) == "label":
        raise UserError("data.labels must have at least two names")


def _check_labels(config: DataConfig) -> None:
    """Names and codes that can be told apart."""
    if len({normal_form(n, config.fold_case) for n in config.labels}) != len(config.labels):
        raise UserError("data.labels has the same name twice")
    if not config.label_codes:
        return
    if target_of(config) not in ("label", "labels"):
        raise UserError("data.label_codes: goes with task=classification or multilabel")
    if unknown := sorted(set(config.label_codes.values()) - set(config.labels)):
        raise UserError(f"data.label_codes: '{unknown[0]}' is not one of data.labels")
    codes = [normal_form(code, True) for code in config.label_codes]
    if len(set(codes)) != len(codes):
        raise UserError("data.label_codes has the same code twice")
    if same := sorted(set(codes) & {normal_form(name, True) for name in config.labels}):
        raise UserError(
            f"data.label_codes: '{same[0]}' is a name of data.labels too; leave the codes out, or "
            "choose other names"
        )


def _check_target(config: DataConfig) -> None:
    if config.target not in TARGETS:
        raise UserError(f"data.target must be one of {', '.join(TARGETS)}")
    if config.scheme is not None and config.target != "label":
        raise UserError("data.target: leave it at label where data.scheme is set")
    if (config.target == "none") != (not config.columns.label):
        raise UserError("data.columns.label: empty with data.target=none, and a column without")
    if config.target == "labels" and len(config.label_delimiter) != 1:
        raise UserError("data.label_delimiter must be one character")
    if any(config.label_delimiter in name for name in config.labels if config.target == "labels"):
        raise UserError("data.labels: a name holds data.label_delimiter; choose another delimiter")
    if config.target == "number":
        low, high = config.bounds if len(config.bounds) == 2 else (math.nan, math.nan)
        if not (math.isfinite(high - low) and low < high):
            raise UserError(
                "data.bounds: give the least and the largest number that can be, as in "
                "data.bounds=[0,10]; they are public"
            )
        if config.decimal not in (None, *DECIMALS):
            raise UserError("data.decimal must be '.' or ',' (or null)")
    elif config.decimal is not None:
        raise UserError("data.decimal: goes with data.target=number (task=regression)")
    elif config.bounds:
        raise UserError("data.bounds: goes with data.target=number (task=regression)")


def _check_tags(config: DataConfig) -> None:
    """What holds for tagged words alone."""
    if config.scheme is not None and config.scheme not in SCHEMES:
        raise UserError(f"data.scheme must be one of {', '.join(SCHEMES)} (or null)")
    if config.unit not in ("sentence", "document"):
        raise UserError("data.unit must be sentence or document")
