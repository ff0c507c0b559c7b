"""Names, dates, numbers, addresses and identifiers replaced before anything else reads a text.

Presidio finds and replaces them: its recognisers of what has a form (e-mail, telephone, bank and
card numbers, dates, ...), a few patterns of our own for what only looks like an identifier, and a
model that tags persons, places and organisations.  Whatever it cannot read ends the reading: a text
is never handed on as it was because a part of the search failed.  What was replaced is known as
counts by kind.

It misses what its models and patterns miss, so it is a habit of care beside differential privacy
and no guarantee in its place.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from common.data.table import Table, Texts
from common.errors import UserError
from common.files import built_once, private_directory, sha256_text, write_atomic

log = logging.getLogger("fedaccord")
NO_NAMES = "none"
PERSON = "PERSON"
LANGUAGE = "en"  # a key of the recognisers' registry; none of those that are used depends on it
VERSION = 1  # of the patterns below: a change makes cached texts unused
SHOWN = {
    "PERSON": "persons",
    "LOCATION": "places",
    "ORGANIZATION": "organisations",
    "DATE_TIME": "dates",
    "NUMBER": "numbers",
    "IDENTIFIER": "identifiers",
    "EMAIL_ADDRESS": "e-mail addresses",
    "PHONE_NUMBER": "telephone numbers",
    "URL": "links",
    "IP_ADDRESS": "IP addresses",
    "MAC_ADDRESS": "MAC addresses",
    "IBAN_CODE": "IBANs",
    "CREDIT_CARD": "card numbers",
    "CRYPTO": "wallet addresses",
    "UUID": "UUIDs",
}
MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    "sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?|"
    "januar|februar|märz|mai|juni|juli|oktober|dezember|"
    "janvier|février|mars|avril|juin|juillet|août|septembre|octobre|novembre|décembre"
)
DAY = r"\d{1,2}(?:st|nd|rd|th|\.|er)?"
# Alternatives of one form each, and no repetition within another: linear in the text's length.
PATTERNS = {
    "DATE_TIME": (
        rf"\b{DAY}\s+(?:of\s+)?(?:{MONTHS})\b\.?(?:,?\s+\d{{4}})?",
        rf"\b(?:{MONTHS})\.?\s+{DAY}\b(?:,?\s+\d{{4}})?",
        rf"\b(?:{MONTHS})\.?,?\s+\d{{4}}\b",
    ),
    "IDENTIFIER": (r"(?<![\w-])(?=[\w/-]*\d)(?=[\w/-]*[^\W\d_])[\w/-]+",),
    "NUMBER": (r"(?<!\w)\d+(?:[.,:/-]\d+)*(?!\w)",),
}
Replace = Callable[[str], tuple[str, Counter[str]]]


def deidentified(table: Table, names_model: str, cache_dir: Path) -> Table:
    """``table`` with its texts de-identified and `replaced` filled in; its keys stay those of the
    original texts.

    Kept in ``cache_dir`` by the content of texts and model.  Raises UserError when a package or
    the model is missing, or naming file and row of a text that could not be searched.
    """
    key = sha256_text("deidentified", str(VERSION), *_identity(names_model), *table.texts)

    def build(folder: Path) -> None:
        texts, counts = _all(table, replacer(names_model))
        batch = pa.record_batch({"text": pa.array(texts, pa.large_string())})
        file = str(folder / "texts.arrow")
        with pa.OSFile(file, "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        write_atomic(folder / "counts.json", json.dumps(counts, sort_keys=True), mode=0o600)

    folder = built_once(private_directory(cache_dir) / f"deidentified-{key[:32]}", build)
    with pa.memory_map(str(folder / "texts.arrow")) as source:
        texts = pa.ipc.open_file(source).get_batch(0).column("text")
    counts = json.loads((folder / "counts.json").read_text())
    log.info("de-identified %d texts: %s", len(table), describe(counts))
    return replace(table, texts=Texts(texts), replaced=counts)


def describe(counts: dict[str, int]) -> str:
    """Counts in words."""
    shown = [f"{count:,} {SHOWN.get(kind, kind.lower())}" for kind, count in counts.items()]
    return ", ".join(shown) or "nothing was found"


def _all(table: Table, change: Replace) -> tuple[list[str], dict[str, int]]:
    texts: list[str] = []
    total: Counter[str] = Counter()
    for index, text in enumerate(table.texts):
        try:
            found, counts = change(text)
        except Exception as error:
            # Its own words may hold the text.
            raise UserError(
                f"{table.place(index)}: the text could not be de-identified "
                f"({type(error).__name__}); leave it out or set data.deidentify=false"
            ) from None
        texts.append(found)
        total += counts
    return texts, dict(sorted(total.items()))


def _identity(names_model: str) -> list[str]:
    """What the changed texts depend on besides the texts."""
    stamps = [names_model]
    folder = Path(names_model)
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            status = file.stat()
            stamps += [file.name, str(status.st_size), str(status.st_mtime_ns)]
    return [*stamps, *_versions()]


def _versions() -> Sequence[str]:
    try:
        import presidio_analyzer  # noqa: F401
        import presidio_anonymizer  # noqa: F401
    except ImportError as error:
        raise UserError(
            "data.deidentify: needs Presidio: pip install 'fedaccord[deidentify]'"
        ) from error
    return version("presidio-analyzer"), version("presidio-anonymizer")


class _Alarm(logging.Filter):
    """Presidio logs what goes wrong, text included, and goes on: here that is an error instead."""

    def __init__(self) -> None:
        super().__init__()
        self.rung = False

    def filter(self, record: logging.LogRecord) -> bool:
        self.rung |= record.levelno >= logging.WARNING
        return False


@contextmanager
def _listening(alarm: _Alarm) -> Iterator[None]:
    """Let nothing through that Presidio logs."""
    logger = logging.getLogger("presidio-analyzer")
    # A logger that says nothing would not ask its filters either.
    before, logger.disabled = logger.level, False
    logger.setLevel(logging.WARNING)
    logger.addFilter(alarm)
    try:
        yield
    finally:
        logger.removeFilter(alarm)
        logger.setLevel(before)


def replacer(names_model: str) -> Replace:
    """A function from a text to the text without what identifies, and counts by kind.

    It raises RuntimeError when a part of the search failed.  Raises UserError when the model cannot
    be loaded or tags no persons.
    """
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_anonymizer import AnonymizerEngine

    nothing = {"nlp_engine_name": "no_op", "models": [{"lang_code": LANGUAGE, "model_name": "-"}]}
    with _listening(_Alarm()):
        registry = RecognizerRegistry(recognizers=_recognizers(), supported_languages=[LANGUAGE])
        if names_model != NO_NAMES:
            registry.add_recognizer(_names(names_model))
        analyzer = AnalyzerEngine(
            registry=registry,
            nlp_engine=NlpEngineProvider(nlp_configuration=nothing).create_engine(),
            supported_languages=[LANGUAGE],
        )
    anonymizer: Any = AnonymizerEngine()  # type: ignore[no-untyped-call]

    def change(text: str) -> tuple[str, Counter[str]]:
        alarm = _Alarm()
        with _listening(alarm):
            found: Any = analyzer.analyze(text, LANGUAGE)
        if alarm.rung:
            raise RuntimeError("a recogniser failed")
        done = anonymizer.anonymize(text, found)
        return str(done.text), Counter(item.entity_type for item in done.items)

    return change


def _recognizers() -> list[Any]:
    from presidio_analyzer import Pattern, PatternRecognizer
    from presidio_analyzer import predefined_recognizers as known

    class Email(known.EmailRecognizer):
        """Without the check of the domain, for which it would fetch a list from the internet."""

        def validate_result(self, pattern_text: str) -> None:
            return None

    ours = [
        PatternRecognizer(
            supported_entity=kind,
            name=f"fedaccord {kind}",
            patterns=[Pattern(f"{kind} {i}", form, 0.3) for i, form in enumerate(forms)],
        )
        for kind, forms in PATTERNS.items()
    ]
    return [
        Email(),
        known.CreditCardRecognizer(),
        known.CryptoRecognizer(),
        known.DateRecognizer(),
        known.IbanRecognizer(),
        known.IpRecognizer(),
        known.MacAddressRecognizer(),
        known.PhoneRecognizer(),
        known.UrlRecognizer(),
        known.UuidRecognizer(),
        *ours,
    ]


def _refuse_code(model: str) -> None:
    """Raises UserError where loading the model would run code that comes with it.

    Presidio's own loader would ask at the terminal whether to.
    """
    from transformers import AutoConfig, AutoTokenizer

    try:
        settings = AutoConfig.from_pretrained(model, trust_remote_code=False)
        AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" not in str(error):
            first = str(error).strip().splitlines()[0]
            raise UserError(f"data.names_model: '{model}' cannot be loaded: {first}") from error
        needs_code = True
    else:
        needs_code = "AutoModelForTokenClassification" in getattr(settings, "auto_map", {})
    if needs_code:
        raise UserError(
            f"data.names_model: '{model}' needs code of its own, which is never run here; choose "
            "another model that tags persons"
        )


def _names(model: str) -> Any:
    from presidio_analyzer.chunkers import TokenizerBasedTextChunker
    from presidio_analyzer.predefined_recognizers import HuggingFaceNerRecognizer

    mapping = HuggingFaceNerRecognizer.DEFAULT_LABEL_MAPPING
    _refuse_code(model)
    try:
        found: Any = HuggingFaceNerRecognizer(
            model_name=model,
            supported_language=LANGUAGE,
            label_mapping={k: v for k, v in mapping.items() if v in SHOWN},
            aggregation_strategy="first",
            # A name that is left is worse than a word that is gone.
            threshold=0.0,
            device="cpu",
            text_chunker=TokenizerBasedTextChunker(),
        )
        found.load()
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UserError(f"data.names_model: '{model}' cannot be loaded: {first}") from error
    labels = found.ner_pipeline.model.config.id2label.values()
    kinds = {found.label_mapping.get(found._normalize_label(label)) for label in labels}
    if PERSON not in kinds:
        raise UserError(
            f"data.names_model: '{model}' tags no persons (as PER or PERSON); choose one that does"
        )
    return found
