"""The partners of a run: sampled by name, and asked at their nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event

from flwr.app import RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from common import messages
from common.config import RunConfig
from common.messages import Request
from server.callbacks import Callback
from server.exchange import Answer, Answers, Question, ask
from server.sampling import sample


@dataclass(frozen=True)
class Partners:
    """Those that were ready when the run began.

    Attributes:
        nodes: each partner's node, by the partner's name.
        run_id: what the partners' ledgers know the run by.
        callback: is told of every reply.
    """

    nodes: Mapping[str, int]
    grid: Grid
    run: RunConfig
    run_id: str
    stop: Event
    callback: Callback

    @property
    def names(self) -> list[str]:
        """All of them, sorted."""
        return sorted(self.nodes)

    def sampled(self, number: int) -> list[str]:
        """Those that round `number` asks, sorted."""
        return sample(self.names, self.run.fraction, self.run.seed, number)

    def model_message(self, number: int, arrays: Mapping[str, Tensor]) -> RecordDict:
        """A model as partners get it in round `number`."""
        return messages.pack(Request(self.run_id, number), arrays)

    def ask(
        self,
        names: Sequence[str],
        kind: str,
        number: int,
        content: RecordDict,
        take: Callable[[Answer], None],
    ) -> Answers:
        """Send `content` to some partners in round `number`; `take` sees each reply.

        Raises Stopped when the run is stopped while waiting.
        """
        done = 0

        def on_answer(answer: Answer) -> None:
            nonlocal done
            take(answer)
            done += 1
            self.callback.replied(number, done, len(names))

        run = self.run
        question = Question(kind, str(number), content, run.deadline_seconds, run.quorum)
        nodes = {name: self.nodes[name] for name in names}
        return ask(self.grid, nodes, question, self.stop, on_answer)
