"""Tag sequences of named entities: conversion from the schemes of files, and spans of words.

Inside the program every sequence is BIO (IOB2): `B-X` begins an entity of type X, `I-X` continues
one of the same type, and `O` is outside.  Files may also use

* IOB1: `B-X` appears only where an entity directly follows another one of its type (Ramshaw and
  Marcus 1995), so that entities may begin with `I-X`;
* IO: there is no `B-X`; adjacent words of one type are one entity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

OUTSIDE = "O"
SCHEMES = ("bio", "iob1", "io")


class TagError(ValueError):
    """A tag sequence violates its scheme at word `position`, counted from 0."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(problem)
        self.position = position


def tag_names(types: Sequence[str]) -> tuple[str, ...]:
    """The classes of a model for these types: O, B-X, I-X, B-Y, ..."""
    return (OUTSIDE, *(f"{place}-{kind}" for kind in types for place in "BI"))


def parse(tag: str) -> tuple[str, str]:
    """Place (B, I or O) and type ("" outside) of one tag.

    Raises:
        ValueError: It is not a tag.  The message has no text of it, which may be a misplaced word.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    place, dash, kind = tag.partition("-")
    if place not in ("B", "I") or not dash or not kind:
        raise ValueError("the tag is not O, B-TYPE or I-TYPE")
    return place, kind


def to_bio(tags: Sequence[str], scheme: str) -> list[tuple[str, str]]:
    """(place, type) of every word in BIO, from a sequence in `scheme`.

    Raises:
        TagError: The scheme does not allow a tag at its position.
    """
    pairs: list[tuple[str, str]] = []
    before = ""
    for position, tag in enumerate(tags):
        try:
            place, kind = parse(tag)
        except ValueError as error:
            raise TagError(position, str(error)) from None
        if place == "B" and scheme == "io":
            raise TagError(position, "a B- tag in data.scheme=io: try bio or iob1")
        if place == "B" and scheme == "iob1" and kind != before:
            raise TagError(position, "a B- tag that begins no second entity: try data.scheme=bio")
        if place == "I" and kind != before:
            if scheme == "bio":
                problem = "an I- tag without a B- or I- tag of its type before it"
                raise TagError(position, f"{problem}: data.scheme may be iob1 or io")
            place = "B"
        pairs.append((place, kind))
        before = kind
    return pairs


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
