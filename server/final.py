"""The end of a run: the delivered model, measured everywhere, and the results."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from common import messages
from common.config import Config, config_hash
from common.errors import UserError
from common.messages import MessageError, Report
from results.history import History
from results.schema import results
from server.averaging import delivered
from server.callbacks import FinalModel
from server.checkpoint import Checkpoint
from server.exchange import Answer
from server.global_model import GlobalModel
from server.partners import Partners
from server.reports import Expected, read_report
from strategies.build import client_level_spent
from strategies.updates import Layout


def check_merged(history: History) -> None:
    """Raise UserError when no round merged anything: there is no trained model to deliver."""
    if history.merged_nothing:
        raise UserError(
            f"no update was merged in any of {len(history.rounds)} rounds, so the model is "
            "untrained and is not delivered; decisions.jsonl gives the reasons"
        )


def final_model(
    current: Checkpoint, config: Config, model: GlobalModel, partners: Partners
) -> FinalModel:
    """The model that the run delivers, measured by every partner that answers and by the server.

    A partner whose report cannot be used is left out.
    """
    # In the order of the model, as the running average is: a file sorts by name.
    parameters = delivered(current, Layout.of(model.read()))
    arrays = {**parameters, **model.constants()}
    reports: list[Report] = []
    expected = Expected.of(config)

    def take(answer: Answer) -> None:
        with suppress(MessageError):
            reports.append(read_report(answer, expected))

    content = partners.model_message(current.round, arrays)
    partners.ask(partners.names, messages.EVALUATE, current.round, content, take)
    # Replies arrive in any order, and sums of floats depend on it.
    reports.sort(key=lambda r: r.partner)
    history = current.history
    if history.rounds:
        history.rounds[-1].measure_partners(reports, config.about.loss_bound)
    test = model.evaluate(parameters) if model.public_rows else None
    return FinalModel(arrays, reports, test, history)


def final_results(config: Config, final: FinalModel) -> dict[str, Any]:
    """The content of results.json."""
    return results(
        final.history,
        final.reports,
        final.test,
        config.run.seed,
        config_hash(config),
        client_level_spent(config.strategy, len(final.history.rounds)),
        config.about,
        config.data,
    )
