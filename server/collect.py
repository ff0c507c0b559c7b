"""Replies of a round, one by one as they arrive: read, screened, and a row of the matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from common import messages
from common.compression import EncodingError, decode
from common.messages import Report
from server.exchange import Answer
from strategies.records import Decision, refused
from strategies.screening import Screening
from strategies.updates import Cohort, Reply

# The report in an answer; raises MessageError with the reason when there is none.
Read = Callable[[Answer], Report]
Metrics = Callable[[Report], dict[str, float]]
# What malicious partners of a simulation make of all replies of a round.
Attack = Callable[[list[Reply]], list[Reply]]


@dataclass
class Collector:
    """What has become of a round's replies so far.

    An update is copied into the cohort's matrix when it arrives and let go.  Colluding attacks see
    all updates of a round before one of them is sent, so with an ``attack`` they are kept until
    ``finish``.
    """

    cohort: Cohort
    screening: Screening
    round: int
    encoding: str
    read: Read
    metrics: Metrics
    attack: Attack | None = None
    reports: list[Report] = field(default_factory=list, init=False)
    decisions: list[Decision] = field(default_factory=list, init=False)
    bytes_up: int = field(default=0, init=False)
    _held: list[Reply] = field(default_factory=list, init=False)

    def take(self, answer: Answer) -> None:
        """Screen one reply; refuse it, with a reason, or make it a row."""
        if answer.content is not None:
            self.bytes_up = max(self.bytes_up, messages.array_bytes(answer.content))
        try:
            report = self.read(answer)
            assert answer.content is not None
            delta = decode(messages.arrays(answer.content), self.encoding)
        except (messages.MessageError, EncodingError) as error:
            self.decisions.append(refused(answer.partner, self.round, str(error)))
            return
        self.reports.append(report)
        reply = Reply(answer.partner, delta, self.metrics(report))
        if self.attack is None:
            self._put(reply)
        else:
            self._held.append(reply)

    def _put(self, reply: Reply) -> None:
        reason = self.screening.check(reply, self.cohort.layout)
        if reason is None:
            self.cohort.put(reply)
        else:
            self.decisions.append(refused(reply.partner, self.round, reason))

    def finish(self) -> tuple[Cohort, Sequence[Report], list[Decision]]:
        """The cohort in its order, the reports of those in it by name, and the refusals."""
        if self.attack is not None:
            for reply in self.attack(self._held):
                self._put(reply)
            self._held.clear()
        self.cohort.sort()
        # What a refused partner reports must not move curves or early stopping either.
        accepted = [r for r in self.reports if r.partner in self.cohort.partners]
        return self.cohort, sorted(accepted, key=lambda r: r.partner), self.decisions
