"""What the partner's connection to the server gives up on."""

from __future__ import annotations

from itertools import islice

import httpx
import pytest

from client.node import RETRY_SECONDS, patient_invoker


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


def test_it_never_waits_long_before_it_tries_again() -> None:
    assert max(islice(patient_invoker().wait_gen_factory(), 20)) == RETRY_SECONDS
