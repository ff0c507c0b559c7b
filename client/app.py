"""The partner's Flower app: read a message, call one function, reply."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import deployed_session, handlers, session
from client.session import Explain, Opener


def make_app(open_session: Opener, explain: Explain) -> ClientApp:
    """A partner's app that opens its sessions and explains its errors as the arguments say."""
    app = ClientApp()

    @app.query("prepare")
    def prepare(message: Message, context: Context) -> Message:
        """Check data, policy and budget, fill the caches, and introduce the partner."""
        return session.answer(message, context, handlers.prepare, open_session, explain)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        """Evaluate the incoming global model, train on it, reply with the change."""
        return session.answer(message, context, handlers.train, open_session, explain)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Evaluate the last global model."""
        return session.answer(message, context, handlers.evaluate, open_session, explain)

    return app


app = make_app(deployed_session.open_session, deployed_session.explain)
