"""What the partner's connection to the server gives up on."""

from __future__ import annotations

from itertools import islice

import httpx
import pytest

from client.node import PATIENT_SECONDS, QUICK_TRIES, RETRY_SECONDS, patient_invoker


@pytest.mark.parametrize(
    ("error", "gives_up"),
    [
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol", False),
        ("[SSL] record layer failure", False),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", True),
        ("[Errno 111] Connection refused", False),
    ],
)
def test_only_a_certificate_that_is_not_trusted_is_final(error: str, gives_up: bool) -> None:
    assert patient_invoker().should_giveup(httpx.ConnectError(error)) is gives_up


def test_it_waits_seconds_at_first_and_longer_when_the_server_stays_away() -> None:
    limits = list(islice(patient_invoker().wait_gen_factory(), QUICK_TRIES + 5))
    assert max(limits[:QUICK_TRIES]) == RETRY_SECONDS
    assert set(limits[QUICK_TRIES:]) == {PATIENT_SECONDS}
