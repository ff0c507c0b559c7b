"""Tag sequences of named entities: conversion from the schemes of files, and spans of words.

Inside the program every sequence is BIO (IOB2): `B-X` begins an entity of type X, `I-X` continues
one of the same type, and `O` is outside.  Files may also use

* IOB1: `B-X` appears only where an entity directly follows another one of its type (Ramshaw and
  Marcus 1995), so that entities may begin with `I-X`;
* IO: there is no `B-X`; adjacent words of one type are one entity;
* BIOES and BILOU: the last word of an entity is `E-X` (or `L-X`), and an entity of one word is
  `S-X` (or `U-X`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

OUTSIDE = "O"
# The letters of an entity's last word and of an entity of one word.
ENDED = {"bioes": "ES", "bilou": "LU"}
SCHEMES = ("bio", "iob1", "io", *ENDED)


class TagError(ValueError):
    """A tag sequence violates its scheme at word `position`, counted from 0."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(problem)
        self.position = position


def tag_names(types: Sequence[str]) -> tuple[str, ...]:
    """The classes of a model for these types: O, B-X, I-X, B-Y, ..."""
    return (OUTSIDE, *(f"{place}-{kind}" for kind in types for place in "BI"))


def parse(tag: str, places: str = "BI", kind: str = "") -> tuple[str, str]:
    """Place (O or one of `places`) and type ("" outside) of one tag.

    Args:
        tag: One tag of a sequence.
        places: The letters that the scheme has beside O.
        kind: The type of a tag that is a letter alone; "" where every tag has its type.

    Raises:
        ValueError: If it is none, without its text: it may be a misplaced word.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    place, dash, own = tag.partition("-")
    if kind and not dash and place and place in places:
        return place, kind
    if len(place) != 1 or place not in places or not own:
        known = ", ".join(f"{letter}-TYPE" for letter in places[:-1])
        raise ValueError(f"the tag is not O, {known} or {places[-1]}-TYPE{_hint(tag, places)}")
    return place, own


def _hint(tag: str, places: str) -> str:
    """What may have been meant, without the tag's text."""
    if tag == "0":
        return ": it is the digit 0, write the letter O"
    place, rest = tag[:1], tag[1:]
    if not rest and place in places:
        return ": it has no type; name the one type in data.labels"
    if place.upper() in places + OUTSIDE and place.islower() and (not rest or rest[0] in "-_"):
        return ": write its first letter in capitals"
    if rest.startswith("_") and place in places:
        return ": write - between letter and type"
    if rest.startswith("-") and place in "ESLU":
        return f": try data.scheme={'bioes' if place in 'ES' else 'bilou'}"
    return ""


def to_bio(tags: Sequence[str], scheme: str, kind: str = "") -> list[tuple[str, str]]:
    """(place, type) of every word in BIO, from a sequence in `scheme`.

    Args:
        tags: The tags of a sentence.
        scheme: One of `SCHEMES`.
        kind: The type of tags that are a letter alone; "" where every tag has its type.

    Raises:
        TagError: At the first tag that the scheme does not allow there.
    """
    if scheme in ENDED:
        return _ended_to_bio(tags, scheme, kind)
    found: list[tuple[str, str]] = []
    before = ""
    for position, tag in enumerate(tags):
        place, own = _parsed(tag, position, "BI", kind)
        if place == "B" and scheme == "io":
            raise TagError(position, "a B- tag in data.scheme=io: try bio or iob1")
        if place == "B" and scheme == "iob1" and own != before:
            raise TagError(position, "a B- tag that begins no second entity: try data.scheme=bio")
        if place == "I" and own != before:
            if scheme == "bio":
                problem = "an I- tag without a B- or I- tag of its type before it"
                raise TagError(position, f"{problem}: data.scheme may be iob1 or io")
            place = "B"
        found.append((place, own))
        before = own
    return found


def _ended_to_bio(tags: Sequence[str], scheme: str, kind: str) -> list[tuple[str, str]]:
    """BIO from a scheme that marks the last word of an entity, and entities of one word."""
    last, single = tuple(ENDED[scheme])
    found: list[tuple[str, str]] = []
    open_type = ""
    for position, tag in enumerate(tags):
        place, own = _parsed(tag, position, f"BI{last}{single}", kind)
        inside = place in ("I", last)
        if inside and own != open_type:
            raise TagError(position, f"a tag {place}- without a B- or I- tag of its type before it")
        if not inside and open_type:
            raise TagError(position, f"the entity before it has no {last}- tag at its end")
        found.append((OUTSIDE if place == OUTSIDE else "I" if inside else "B", own))
        open_type = own if place in ("B", "I") else ""
    if open_type:
        raise TagError(len(tags) - 1, f"the entity has no {last}- tag at its end")
    return found


def _parsed(tag: str, position: int, places: str, kind: str) -> tuple[str, str]:
    try:
        return parse(tag, places, kind)
    except ValueError as error:
        raise TagError(position, str(error)) from None


def spans(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(type, first word, last word + 1) of every entity of a BIO sequence, in order.

    A predicted `I-X` that continues nothing begins an entity, as in conlleval and seqeval.
    """
    begin, open_type = 0, ""
    for position, tag in enumerate([*tags, OUTSIDE]):
        place, _, kind = tag.partition("-")
        if open_type and (place != "I" or kind != open_type):
            yield open_type, begin, position
            open_type = ""
        if kind and not open_type:
            begin, open_type = position, kind
