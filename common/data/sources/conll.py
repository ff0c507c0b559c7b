"""CoNLL files: one word with its tag per line, a blank line between sentences.

Columns are divided by tabs where the line has one, else by white space.  The word is the first and
the tag the last, unless ``data.columns.text`` and ``data.columns.label`` are the numbers of other
columns (from 1).  A first column that numbers the words of every sentence is skipped.  A line that
begins with -DOCSTART- begins a document and belongs to no sentence; a line before a sentence that
begins with # and has no tag is a comment.  Lines end in LF or CRLF.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from common.data.batch import BATCH_ROWS, Batch
from common.data.schema import DataConfig
from common.data.sources.files import FileSource, open_bytes
from common.errors import UserError
from common.tags import OUTSIDE, TagError, to_bio

DOCUMENT = "-DOCSTART-"
COMMENT = "#"
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
    kind = config.labels[0] if len(config.labels) == 1 else ""
    word, tag = _places(path, config)
    for line, sentence in _sentences(path, config):
        if not sentence:  # a new document
            if record is not None:
                yield record
                row += 1
            record = None
            continue
        words = [fields[word].strip() or LOST for fields in sentence]
        try:
            bio = to_bio([fields[tag].strip() for fields in sentence], str(config.scheme), kind)
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


def _places(path: Path, config: DataConfig) -> tuple[int, int]:
    """The columns of words and tags, from 0 (or -1 for the last).

    Raises:
        UserError: If the file has no column of the configured number.
    """
    columns = config.columns
    first = next((sentence for _, sentence in _sentences(path, config) if sentence), None)
    width = len(first[0]) if first else 2
    for key, name in (("text", columns.text), ("label", columns.label)):
        if name.isdecimal() and not 1 <= int(name) <= width:
            raise UserError(f"{path}: data.columns.{key}={name}, but there are {width} columns")
    tag = int(columns.label) - 1 if columns.label.isdecimal() else -1
    if columns.text.isdecimal():
        return int(columns.text) - 1, tag
    numbered = width > 2 and _numbers_words(path, config)
    return (1 if numbered else 0), tag


def _numbers_words(path: Path, config: DataConfig) -> bool:
    """Whether the first column numbers the words of every sentence, from 0 or from 1.

    One word alone could be a number.
    """
    longest, start = 0, 0
    for count, (_, sentence) in enumerate(_sentences(path, config)):
        if not sentence:
            continue
        start = start if count else int(sentence[0][0] != "0")
        if any(fields[0] != str(start + n) for n, fields in enumerate(sentence)):
            return False
        longest = max(longest, len(sentence))
    return longest > 1


def _sentences(path: Path, config: DataConfig) -> Iterator[tuple[int, list[list[str]]]]:
    """First line and columns of each sentence's words; no words where a document begins."""
    sentence: list[list[str]] = []
    start = width = row = 0
    for line, text in _lines(path, config):
        place = f"{path}: row {row + 1} (line {line})"
        if "\r" in text:
            raise UserError(f"{place}: a line break of CR alone: save it with LF or CRLF")
        marker = text.startswith(DOCUMENT)
        if marker or not text.strip():
            if sentence:
                yield start, sentence
                sentence, row = [], row + 1
            if marker:
                yield line, []
            continue
        fields = text.split("\t") if "\t" in text else text.split()
        if not sentence and text.startswith(COMMENT) and not _has_tag(fields, width, config):
            continue
        width = width or len(fields)
        if len(fields) != width or len(fields) < 2:
            wanted = f"{width}" if width > 1 else "a word and a tag"
            raise UserError(f"{place}: {len(fields)} columns instead of {wanted}")
        start = start if sentence else line
        sentence.append(fields)
    if sentence:
        yield start, sentence


def _lines(path: Path, config: DataConfig) -> Iterator[tuple[int, str]]:
    """Number and text of each line, without its end."""
    with open_bytes(path) as file:
        for line, raw in enumerate(file, start=1):
            try:
                # As bytes up to here: text would also be cut at the breaks that Unicode knows.
                text = raw.removeprefix(codecs.BOM_UTF8).decode(config.encoding)
            except UnicodeDecodeError:
                problem = f"bytes that are not in data.encoding ({config.encoding})"
                raise UserError(f"{path}: line {line}: {problem}") from None
            yield line, text.rstrip("\r\n")


def _has_tag(fields: list[str], width: int, config: DataConfig) -> bool:
    """Whether a line that could be a comment is a word with its tag."""
    if len(fields) < 2 or (width and len(fields) != width):
        return False
    number = config.columns.label
    place = int(number) - 1 if number.isdecimal() and int(number) <= len(fields) else -1
    last = fields[place].strip()
    return last == OUTSIDE or last[1:2] == "-" or last in tuple("BIESLU")
