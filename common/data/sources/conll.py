"""CoNLL files: a word a line with its tag, a blank line between sentences.

Columns are divided by tabs where the line has one, else by white space; the word is the first and
the tag the last.  A line that begins with -DOCSTART- begins a document and belongs to no sentence.
Lines end in LF or CRLF.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from common.data.batch import BATCH_ROWS, Batch
from common.data.schema import DataConfig
from common.data.sources.files import FileSource, check_encoding
from common.errors import UserError
from common.tags import TagError, to_bio

DOCUMENT = "-DOCSTART-"
# The only column that CoNLL files have beside words and tags: the name of the file.
FILE_COLUMN = "file"
# Stands for a word of which nothing is left but its tag (an emoji that somebody removed).
LOST = "\N{REPLACEMENT CHARACTER}"


class Conll(FileSource):
    """CoNLL files."""

    name = "conll"
    suffixes = (".conll", ".conll03", ".bio", ".iob", ".tsv")
    tagged = True

    def read_file(self, path: Path, config: DataConfig) -> Iterator[Batch]:
        """The records of one file, in batches; their tags are in BIO."""
        check_encoding(config)
        return read_conll(path, config)

    def check(self, config: DataConfig) -> None:
        """Raise UserError for columns that these files do not have."""
        if config.scheme is None:
            raise UserError("data.source=conll has a tag for each word: set task=ner")
        if config.columns.split or set(config.columns.groups) - {FILE_COLUMN}:
            raise UserError(
                f"data.columns: CoNLL files have no column but '{FILE_COLUMN}', their name"
            )

    def tag_scheme(self, config: DataConfig) -> str | None:
        """BIO, whatever the file was in."""
        return "bio"


def read_conll(path: Path, config: DataConfig) -> Iterator[Batch]:
    """The file's records in batches: words, their tags in BIO, the name of the file.

    Raises UserError with file, row (the record's number) and line of the first fault.
    """
    words: list[object] = []
    tags: list[object] = []
    lines: list[int] = []
    first = 1
    for line, record_words, record_tags in _records(path, config):
        words.append(record_words)
        tags.append(record_tags)
        lines.append(line)
        if len(words) == BATCH_ROWS:
            yield _batch(path, config, first, words, tags, lines)
            first += len(words)
            words, tags, lines = [], [], []
    if words:
        yield _batch(path, config, first, words, tags, lines)


def _batch(
    path: Path,
    config: DataConfig,
    first: int,
    words: list[object],
    tags: list[object],
    lines: list[int],
) -> Batch:
    columns = {config.columns.text: words, config.columns.label: tags}
    return Batch(str(path), first, {**columns, FILE_COLUMN: [path.stem] * len(words)}, lines)


def _records(path: Path, config: DataConfig) -> Iterator[tuple[int, list[str], list[str]]]:
    """First line, words and BIO tags of each record: a sentence, or the sentences of a document."""
    record: tuple[int, list[str], list[str]] | None = None
    row = 1
    for line, fields in _sentences(path, config):
        if not fields:  # a new document
            if record is not None:
                yield record
                row += 1
            record = None
            continue
        words = [first for first, _ in fields]
        try:
            bio = to_bio([last for _, last in fields], str(config.scheme))
        except TagError as error:
            place = f"{path}: row {row} (line {line + error.position})"
            raise UserError(f"{place}, column '{config.columns.label}': {error}") from None
        tags = [f"{p}-{kind}" if kind else p for p, kind in bio]
        if record is not None:
            record[1].extend(words)
            record[2].extend(tags)
        else:
            record = (line, words, tags)
        if config.unit == "sentence":
            yield record
            row += 1
            record = None
    if record is not None:
        yield record


def _sentences(path: Path, config: DataConfig) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """First line and (word, tag) pairs of each sentence; no pairs where a document begins."""
    pairs: list[tuple[str, str]] = []
    start = width = row = 0
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            place = f"{path}: row {row + 1} (line {line})"
            try:
                # As bytes up to here: text would also be cut at the breaks that Unicode knows.
                text = raw.removeprefix(codecs.BOM_UTF8).decode(config.encoding).rstrip("\r\n")
            except UnicodeDecodeError:
                problem = f"bytes that are not in data.encoding ({config.encoding})"
                raise UserError(f"{place}: {problem}") from None
            if "\r" in text:
                raise UserError(f"{place}: a line break of CR alone: save it with LF or CRLF")
            marker = text.startswith(DOCUMENT)
            if marker or not text.strip():
                if pairs:
                    yield start, pairs
                    pairs, row = [], row + 1
                if marker:
                    yield line, []
                continue
            fields = text.split("\t") if "\t" in text else text.split()
            width = width or len(fields)
            if len(fields) != width or len(fields) < 2:
                wanted = f"{width}" if width > 1 else "a word and a tag"
                raise UserError(f"{place}: {len(fields)} columns instead of {wanted}")
            word, tag = fields[0].strip() or LOST, fields[-1].strip()
            start = start if pairs else line
            pairs.append((word, tag))
    if pairs:
        yield start, pairs
