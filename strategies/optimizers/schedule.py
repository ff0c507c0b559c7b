"""The server's learning rate over the rounds."""

from __future__ import annotations

from strategies import checks


def check_schedule(lr: float, warmup_rounds: int, decay: float) -> None:
    """Raise ValueError unless lr > 0, warmup_rounds >= 0 and decay is in [0, 1]."""
    checks.number("lr", lr, 0.0, above=True)
    checks.whole("warmup_rounds", warmup_rounds, 0)
    checks.number("decay", decay, 0.0, 1.0)


def scheduled(lr: float, warmup_rounds: int, decay: float, round: int, rounds: int) -> float:
    """``lr * min(1, round / warmup_rounds) * (1 - decay * round / rounds)``, round from 1."""
    rising = min(1.0, round / warmup_rounds) if warmup_rounds else 1.0
    return lr * rising * (1.0 - decay * min(1.0, round / rounds))
