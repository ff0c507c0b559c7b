"""What the bounds of an audit refute, in words."""

from __future__ import annotations

import pytest

from scripts.audit_privacy import refutation


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"canaries": 3.4, "canaries_f_dp": 5.3, "membership": 0.0}, None),
        ({"canaries": 8.0, "canaries_f_dp": 8.0}, None),
        ({"canaries": 8.1, "canaries_f_dp": 9.0}, "is not (8, 1e-06)-private"),
        ({"canaries": 3.4, "canaries_f_dp": 9.0}, "less private than the Gaussian noise"),
        ({"membership": 8.5}, "is not (8, 1e-06)-private"),
    ],
)
def test_a_bound_by_f_dp_alone_refutes_the_noise(
    bounds: dict[str, float], words: str | None
) -> None:
    found = refutation(bounds, 8.0, 1e-6)
    assert (found is None) == (words is None)
    assert words is None or words in str(found)
