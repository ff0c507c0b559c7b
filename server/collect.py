"""The replies of a round: each is read and screened as it arrives, and becomes a matrix row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from common import messages
from common.compression import EncodingError, decode
from common.config import RunConfig
from common.errors import UserError
from common.messages import Report
from server.exchange import Answer, Answers
from strategies.records import Decision, missing, refused
from strategies.screening import Screening
from strategies.updates import Cohort, Reply

# Gives the report in an answer; raises MessageError with the reason when there is none.
Read = Callable[[Answer], Report]
# Gives the numbers of a report that fair weights may use.
Metrics = Callable[[Report], dict[str, float]]
# Gives all replies of a round as the malicious partners of a simulation would have sent them.
Attack = Callable[[list[Reply]], list[Reply]]


@dataclass(frozen=True)
class Collected:
    """A round's replies once it is closed.

    Attributes:
        cohort: the accepted updates, in the order of the partners' names.
        reports: the reports that came with them, in the same order.
        decisions: who has no accepted update, and why.
        missing: how many partners did not reply in time.
        bytes_up: the largest reply's parameters, in bytes.
    """

    cohort: Cohort
    reports: Sequence[Report]
    decisions: list[Decision]
    missing: int
    bytes_up: int


@dataclass
class Collector:
    """Takes the replies of an open round.

    An update is copied into the cohort's matrix when it arrives, and its message is let go.
    Colluding attacks see all updates of a round before one of them is sent, so with an `attack`
    they are kept until `finish`.

    Attributes:
        encoding: how updates travel (`train.compression`).
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
        """Screen one reply: add it to the cohort, or record why it is refused."""
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

    def finish(self, answers: Answers, run: RunConfig) -> Collected:
        """Close the round.

        Args:
            answers: who replied, all of whom `take` has seen, and who did not.
            run: the deadline and the quorum.

        Raises:
            UserError: fewer updates were accepted than `run.quorum` asks for.
        """
        if self.attack is not None:
            for reply in self.attack(self._held):
                self._put(reply)
            self._held.clear()
        self.cohort.sort()
        # What a refused partner reports must not move curves or early stopping either.
        accepted = [r for r in self.reports if r.partner in self.cohort.partners]
        late = f"no reply within {run.deadline_seconds:g} s"
        absent = [missing(name, self.round, late) for name in answers.missing]
        collected = Collected(
            cohort=self.cohort,
            reports=sorted(accepted, key=lambda r: r.partner),
            decisions=absent + self.decisions,
            missing=len(absent),
            bytes_up=self.bytes_up,
        )
        _check_quorum(collected, self.round, run.quorum)
        return collected


def _check_quorum(collected: Collected, number: int, quorum: float) -> None:
    accepted, asked = len(collected.cohort.partners), len(collected.cohort.sampled)
    if accepted < max(1.0, quorum * asked):
        reasons = "; ".join(d.reason for d in collected.decisions[:3])
        raise UserError(
            f"round {number}: {accepted} usable updates of {asked} partners are fewer than "
            f"run.quorum={quorum:g} asks for ({reasons}); continue with run.resume"
        )
