"""What hangs on the round loop: one callback a file, each named by its effect."""

from server.callbacks.base import Callback, FinalModel, RoundResult

__all__ = ["Callback", "FinalModel", "RoundResult"]
