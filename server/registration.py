"""Which of the connected nodes take part in a run, and under which names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from threading import Event

from flwr.serverapp import Grid

from common import messages
from common.config import Config
from common.errors import UserError
from common.messages import Prepared, Refusal, Request
from server.callbacks import Callback
from server.exchange import Answer, Question, ask, registered_names, wait_for_nodes

log = logging.getLogger(__name__)
# Partners read and cache their rows before the first round, and may have to notice first that the
# server is back: however short the rounds are, they get this long.
PREPARE_SECONDS = 120.0


@dataclass(frozen=True)
class Registration:
    """Asks the connected nodes to prepare for a run.

    Attributes:
        fingerprint: identity of the base model, which every partner must have too.
        simulated: the partners are this user's own, so that one that cannot take part ends the run,
            for the user can mend it; a deployment goes on without it.
    """

    config: Config
    grid: Grid
    fingerprint: str
    simulated: bool

    def register(self, run_id: str, stop: Event, callback: Callback) -> dict[str, int]:
        """The nodes of the partners that are ready, by the partner's name.

        Raises:
            UserError: fewer than `run.partners` are ready.
            Stopped: `stop` was set.
        """
        run = self.config.run
        deadline = max(run.deadline_seconds, PREPARE_SECONDS)
        connected = wait_for_nodes(self.grid, run.partners, deadline, stop)
        # Read before anybody answers: a node that goes away in the meantime keeps its name.
        registered = None if self.simulated else registered_names(self.grid)
        done = 0

        def count(_: Answer) -> None:
            nonlocal done
            done += 1
            callback.preparing(done, len(connected))

        quorum = min(1.0, max(1, run.partners) / max(1, len(connected)))
        request = messages.pack(Request(run_id))
        node_of = {f"node {node}": node for node in connected}
        question = Question(messages.PREPARE, "prepare", request, deadline, quorum)
        answers = ask(self.grid, node_of, question, stop, count)
        bodies = {node_of[answer.partner]: answer.body for answer in answers.received}
        ready, refusals = self._sorted_out(bodies, registered)
        if len(ready) < max(1, run.partners):
            raise UserError(
                f"{len(ready)} of {max(1, run.partners)} partners are ready "
                f"({len(answers.missing)} did not answer, "
                f"{len(refusals)} refused){''.join(refusals[:3])}"
            )
        return ready

    def _sorted_out(
        self, bodies: Mapping[int, object], registered: Mapping[int, str] | None
    ) -> tuple[dict[str, int], list[str]]:
        """The ready partners' nodes by name, and why each of the others is not one of them."""
        ready: dict[str, int] = {}
        refusals: list[str] = []
        for node, body in bodies.items():
            name = None if registered is None else registered.get(node, f"node {node}")
            reason = unfit(body, name, ready, self.fingerprint, self.config.model.base)
            if reason is None:
                assert isinstance(body, Prepared)
                ready[body.partner] = node
            elif self.simulated:
                raise UserError(reason)
            else:
                log.warning("%s does not take part: %s", name, reason)
                refusals.append(f"; {name}: {reason}")
        return ready, refusals


def unfit(
    body: object, registered: str | None, ready: Mapping[str, int], fingerprint: str, base: str
) -> str | None:
    """Why a node cannot take part in a run; None when it can.

    Args:
        body: its answer to `query.prepare`.
        registered: the name under which its key was registered; None in a simulation.
        ready: the partners that take part so far.
        fingerprint: identity of the server's base model.
        base: `model.base`.
    """
    if isinstance(body, Refusal):
        return body.reason
    if not isinstance(body, Prepared):
        return "a partner answered with something that is not an introduction"
    if registered is not None and body.partner != registered:
        return f"partner {registered}: its partner.yaml gives another name than its key"
    if body.version != (ours := version("fedaccord")):
        return f"partner {body.partner}: runs another version of fedaccord; install {ours}"
    if body.partner in ready:
        return f"partner {body.partner}: another node registered under the same name"
    if body.fingerprint != fingerprint:
        return (
            f"partner {body.partner}: its copy of model.base={base} differs from the server's; "
            "install the same files on both sides"
        )
    return None
