"""All that a demo came to, in figures. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker_chart_export.inputs.flow_run import StepStatus
from worker_chart_export.observability.logs import Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.cli.demo.progress import Journal
    from daemon.cli.demo.results import StepResult
    from daemon.cli.demo.scenario import DemoMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One stage of a message's way, and how often it was passed.

    Attributes:
        note: What there is to say of the count; may be empty.
    """

    name: str
    count: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What the gallery tells.

    Attributes:
        messages: Those that were published.
        journal: What the daemon's log told.
        places: Service -> where it was, in words.
        seconds: The whole demo's.
        made_at: When it ended, in words.
    """

    results: Sequence[StepResult]
    messages: Sequence[DemoMessage]
    journal: Journal
    places: dict[str, str]
    seconds: float
    made_at: str

    @property
    def charts(self) -> int:
        """How many were made."""
        return sum(len(result.charts) for result in self.results)

    @property
    def requested(self) -> int:
        """How many were asked for."""
        return sum(result.step.requested for result in self.results)

    @property
    def failed_steps(self) -> int:
        """Steps that ended FAILED."""
        return sum(result.status == StepStatus.FAILED for result in self.results)

    @property
    def failed_charts(self) -> int:
        """Charts that a manifest names as not made."""
        return sum(failure.template_id is not None for result in self.results for failure in result.failures)

    @property
    def surprises(self) -> list[StepResult]:
        """Steps that did not come to what they had to."""
        return [result for result in self.results if not result.is_as_expected]

    @property
    def message_kinds(self) -> list[str]:
        """What the messages named, each kind once."""
        return list(dict.fromkeys(message.kind.value for message in self.messages))

    def way(self) -> list[Station]:
        """The stages of the way, counted from the daemon's own log."""
        events, settled = self.journal.events, self.journal.settled
        reused = events[Event.CHART_REUSED]
        return [
            Station(name="messages published", count=len(self.messages)),
            Station(name="received", count=events[Event.MESSAGE_RECEIVED]),
            Station(name="steps claimed", count=self.journal.claims, note="each under a lease"),
            Station(
                name="charts stored",
                count=events[Event.CHART_STORED] + reused,
                note=f"{reused} by an earlier attempt" if reused else "",
            ),
            Station(name="manifests written", count=events[Event.MANIFEST_WRITTEN]),
            Station(name="steps finalized", count=events[Event.STEP_COMPLETED]),
            Station(name="messages settled", count=settled.total(), note=_settled_words(settled)),
        ]


def _settled_words(settled: dict[str, int]) -> str:
    return ", ".join(f"{count} {disposition}" for disposition, count in sorted(settled.items()))
