"""A checked table as one Arrow file that every process of the user maps into memory."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from common.data.check import check_data
from common.data.reader import read
from common.data.schema import DataConfig
from common.data.sources import source_of
from common.data.table import Table, Tags, Texts
from common.errors import UserError
from common.files import private_directory, sha256_text, write_atomic

# Of the file format and of the rules of reading: a change makes old files unused and, because
# texts may differ, begins another division in every ledger (client/division.py).
VERSION = 4
READ_FIELDS = (
    "source",
    "path",
    "encoding",
    "delimiter",
    "quoted",
    "hub_name",
    "hub_revision",
    "hub_split",
    "columns",
    "labels",
    "label_codes",
    "fold_case",
    "scheme",
    "unit",
    "target",
    "label_delimiter",
    "bounds",
    "decimal",
)


def cached_table(
    config: DataConfig, cache_dir: Path, test: str | None = None, *, discover: bool = False
) -> Table:
    """What ``read`` gives, from ``cache_dir`` if it was read before and nothing has changed.

    The source's stamp says whether something has changed; the table of the old state is then
    deleted.  A source without a stamp is read every time.  The folder (0700) and the files (0600)
    are for the user alone.

    Args:
        config: Where the rows are.
        cache_dir: Folder of the cache.
        test: The test set to read instead, as ``Source.own_test_set`` returns it.
        discover: Whether the label names are taken from the data where the config has none.

    Raises:
        UserError: Names what is wrong with the rows or with the folder.
    """
    check_data(config)
    source = source_of(config)
    config = source.settle(config)
    try:
        private_directory(cache_dir)
    except OSError as error:
        raise UserError(f"the cache folder {cache_dir} cannot be used: {error.strerror}") from None
    stamp = source.stamp(config, test)
    if stamp is None:
        return read(config, test, discover=discover)
    name = _name(config, test, discover)
    file = cache_dir / f"{name}-{sha256_text(stamp)[:16]}.arrow"
    if not file.is_file():
        table = read(config, test, discover=discover, downloads=cache_dir / "hub")
        _write(table, file)
        for old in cache_dir.glob(f"{name}-*.arrow"):
            if old != file:
                old.unlink(missing_ok=True)
    return _load(file)


def _name(config: DataConfig, test: str | None, discover: bool) -> str:
    settings = asdict(config)
    asked = [VERSION, test, discover, *(settings[key] for key in READ_FIELDS)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def _write(table: Table, file: Path) -> None:
    columns = {
        "text": table.texts.arrow,
        "label": pa.array(table.labels),
        "key": pa.array(table.keys),
        **({} if table.twin_keys is None else {"twin_key": pa.array(table.twin_keys)}),
        "file": pa.array(table.file_ids),
        "row": pa.array(table.rows),
    }
    columns |= {f"group:{name}": _encode(values) for name, values in table.groups.items()}
    if table.split is not None:
        columns["split"] = _encode(table.split)
    if table.targets is not None:
        width = table.targets.shape[1]
        columns["targets"] = pa.FixedSizeListArray.from_arrays(table.targets.ravel(), width)
    if table.tags is not None:
        columns["tags"] = pa.LargeListArray.from_arrays(table.tags.offsets, table.tags.codes)
    about = {
        "files": json.dumps(table.files),
        "labels": json.dumps(table.label_names),
        "coding": json.dumps(table.coding),
    }
    batch = pa.record_batch(columns).replace_schema_metadata(about)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    write_atomic(file, sink.getvalue().to_pybytes(), mode=0o600)


def _load(file: Path) -> Table:
    with pa.memory_map(str(file)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    about = batch.schema.metadata
    groups = {
        name.removeprefix("group:"): _decode(batch.column(name))
        for name in batch.schema.names
        if name.startswith("group:")
    }
    return Table(
        texts=Texts(batch.column("text")),
        labels=batch.column("label").to_numpy().copy(),  # torch asks for writable memory
        label_names=tuple(json.loads(about[b"labels"])),
        groups=groups,
        split=_decode(batch.column("split")) if "split" in batch.schema.names else None,
        keys=batch.column("key").to_numpy(),
        files=tuple(json.loads(about[b"files"])),
        file_ids=batch.column("file").to_numpy(),
        rows=batch.column("row").to_numpy(),
        twin_keys=batch.column("twin_key").to_numpy() if "twin_key" in batch.schema.names else None,
        coding=json.loads(about[b"coding"]),
        tags=_tags(batch.column("tags")) if "tags" in batch.schema.names else None,
        targets=_targets(batch.column("targets")) if "targets" in batch.schema.names else None,
    )


def _targets(values: pa.FixedSizeListArray) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.flatten().to_numpy().reshape(len(values), -1).copy()
    return found


def _tags(values: pa.LargeListArray) -> Tags:
    return Tags(values.flatten().to_numpy().copy(), values.offsets.to_numpy().copy())


def _encode(values: NDArray[np.object_]) -> pa.DictionaryArray:
    return pa.array(values, pa.string()).dictionary_encode()


def _decode(values: pa.DictionaryArray) -> NDArray[np.object_]:
    names: NDArray[np.object_] = np.array(values.dictionary.to_pylist(), dtype=object)
    decoded: NDArray[np.object_] = names[values.indices.to_numpy()]
    return decoded
