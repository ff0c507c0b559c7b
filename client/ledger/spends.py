"""What the rows of a ledger add up to; pure functions of verified rows.

A record is on one side of a division of the data set (training or validation), so spends on the
other side do not touch it: the two sides compose in parallel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from client.accounting import Epsilon, Segment, epsilon
from client.division import VALIDATION
from client.ledger.entries import Entry, committed_releases, reservations_by_release


def spent(
    entries: Sequence[Entry], run: str | None = None, *, other_than: str | None = None
) -> list[Segment]:
    """Every segment reserved in these rows: of one run, of all others, or of all."""
    return [
        segment
        for entry in entries
        if entry.kind == "reserve"
        and (run is None or entry.body["run"] == run)
        and (other_than is None or entry.body["run"] != other_than)
        for segment in entry.segments
    ]


def compositions(
    entries: Sequence[Entry], run: str | None = None, *, other_than: str | None = None
) -> dict[str, list[Segment]]:
    """What one record can have been exposed to, for each part of the data set.

    A record is on one side of a division (training or validation), so the spends on the other side
    do not touch it: parallel composition.  That argument needs one and the same division, because
    under another one a record may be on the other side: where there are several divisions, all
    spends are composed as if they touched the same records.
    """
    parts: dict[str, list[Segment]] = {}
    for entry in entries:
        if entry.kind != "reserve" or run not in (None, entry.body["run"]):
            continue
        if other_than is None or entry.body["run"] != other_than:
            # Rows from before parts were recorded touch all records.
            parts.setdefault(str(entry.body.get("part", "")), []).extend(entry.segments)
    if len(_divisions(parts)) > 1:
        return {"": [segment for segments in parts.values() for segment in segments]}
    everywhere = parts.pop("", [])
    return {part: [*everywhere, *segments] for part, segments in parts.items()} or {"": everywhere}


def composed_with(
    entries: Sequence[Entry], part: str, *, other_than: str | None = None
) -> list[Segment]:
    """What a further spend on ``part`` composes with; see :func:`compositions`."""
    reserved = [
        entry
        for entry in entries
        if entry.kind == "reserve" and (other_than is None or entry.body["run"] != other_than)
    ]
    parts = {str(entry.body.get("part", "")) for entry in reserved}
    if part and len(_divisions({*parts, part})) == 1:
        reserved = [entry for entry in reserved if entry.body.get("part", "") in ("", part)]
    return [segment for entry in reserved for segment in entry.segments]


def is_planned(entries: Sequence[Entry], run: str, part: str, new: Sequence[Segment] = ()) -> bool:
    """Whether ``new`` spends of ``run`` on ``part`` are of one plan, as `client/lifetime.py` needs.

    All are noisy metrics on validation records; or nothing of another run touches the same records,
    and those of this run have one noise multiplier and one sampling rate, which the first of them
    fixed, beside one release of the number of rows.  A run's name alone says nothing: whoever sends
    the requests chooses it, and may send other settings under it once it has seen an update.
    """
    composed = [*composed_with(entries, part), *new]
    parts = {str(entry.body.get("part", "")) for entry in entries if entry.kind == "reserve"}
    metrics_alone = part.endswith(f"/{VALIDATION}") and all(s.sample_rate == 1 for s in composed)
    if metrics_alone and len(_divisions({*parts, part})) == 1:
        return True
    if composed_with(entries, part, other_than=run):
        return False
    steps: dict[tuple[str, float], int] = {}
    for segment in composed:
        # Solved again with other libraries, a noise multiplier may differ in its last digits.
        mechanism = (f"{segment.noise_multiplier:.6g}", segment.sample_rate)
        steps[mechanism] = steps.get(mechanism, 0) + segment.steps
    single = sum(rate == 1 and count == 1 for (_, rate), count in steps.items())
    return len(steps) <= 1 or (len(steps) == 2 and single > 0)


def _divisions(parts: Iterable[str]) -> set[str]:
    """The divisions of the data set that these parts belong to."""
    return {part.partition("/")[0] for part in parts if part}


def total(
    entries: Sequence[Entry], delta: float, run: str | None = None, side: str | None = None
) -> Epsilon:
    """Upper bound on what any one record has been exposed to, of one run or of all.

    With ``side`` of the records on that side (training or validation) alone.  Where there are
    several divisions, a record can have been on either, and the bound is that of both together.
    """
    parts = compositions(entries, run)
    if side is not None:
        parts = {p: spends for p, spends in parts.items() if not p or p.endswith(f"/{side}")}
    return max(
        (epsilon(segments, delta) for segments in (parts or {"": []}).values()),
        key=lambda bound: bound.value,
    )


def reservations(entries: Sequence[Entry]) -> list[tuple[Entry, bool]]:
    """Each reservation in order, and whether it was committed."""
    committed = committed_releases(entries)
    return [(e, release in committed) for release, e in reservations_by_release(entries).items()]
