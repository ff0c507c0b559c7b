"""The Flower app of simulated partners; their owner reads the whole reason of an error."""

from __future__ import annotations

from client.app import make_app
from client.refusal import described
from simulation.session import open_session

app = make_app(open_session, described)
