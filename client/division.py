"""Which records a spend touches: the division of a partner's rows, and the side.

A record trains or validates, never both, so the costs of the two sides compose in parallel.  That
holds within one division only.  Which side a record is on follows from the seed and from the
record's text (or its entry in the split column), so whatever changes a text, or how sides are
drawn, makes another division, in which a record may be on the other side.

The key of a division therefore covers *every* field of `DataConfig`, except those listed in
`SAME_SIDE` with the reason why they move no record.  A field that is added later is in the key
until somebody proves that it need not be.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from common.config import Config
from common.data import cache, deidentify
from common.data.split import SPLIT_VERSION
from common.files import canonical_json, sha256_text

TRAIN, VALIDATION = "train", "validation"

# Fields that cannot change the text of a record, nor the side that it is on.  They may change
# whether a record is used at all, which exposes it to less.
#
# Not in this list, although it could seem so: `path` (a cleaned copy of a file holds other texts),
# `unit` (a sentence and a document are other records), `scheme` (tagged words are joined to a text
# in another way), `source`, `encoding`, `delimiter`, queries and hub names (what is read), and
# `deidentify` and `names_model` (texts are replaced before sides are drawn).
SAME_SIDE = frozenset(
    {
        # What a record's target is, not its text.
        "labels",
        "label_codes",
        # How labels and group values are compared.
        "fold_case",
        "target",
        "label_delimiter",
        "bounds",
        "decimal",
        "columns.label",
        # Group columns and their declared values: for counts, and for leaving rows out.
        "columns.groups",
        "group_values",
        "where",
        # Which rows are held out as test rows: those are on neither side, all others stay.
        "test_path",
        "sql_test_query",
        "hub_test_split",
        "test_fraction",
        "test_rows",
        "test_by",
        "test_where",
    }
)


def part(config: Config, side: str) -> str:
    """Which records a spend touches, as the ledger writes it: the division of rows and the side."""
    return f"{sha256_text(canonical_json(_settings(config)))[:16]}/{side}"


def _settings(config: Config) -> dict[str, Any]:
    data = asdict(config.data)
    del data["split_seed"]
    columns = {f"columns.{name}": value for name, value in data.pop("columns").items()}
    return {
        "seed": config.split_seed,
        # The rules of reading, of de-identifying and of drawing sides, as this program has them.
        "versions": [cache.VERSION, deidentify.VERSION, SPLIT_VERSION],
        **{name: value for name, value in {**data, **columns}.items() if name not in SAME_SIDE},
    }
