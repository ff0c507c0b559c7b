"""The partner's door: read a message, call one function, reply."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import handlers, session

app = ClientApp()


@app.query("prepare")
def prepare(message: Message, context: Context) -> Message:
    """Check data, policy and budget, fill the caches, and say who this is."""
    return session.answer(message, context, handlers.prepare)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the incoming global model, train on it, reply with the change."""
    return session.answer(message, context, handlers.train)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the last global model."""
    return session.answer(message, context, handlers.evaluate)
