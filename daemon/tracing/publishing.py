"""Spans of the messages that a command publishes, and the attributes that connect the worker's spans."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from opentelemetry.trace import SpanKind, get_current_span

from daemon.settings import LogFormat, LogLevel, load_settings
from daemon.settings.tracing import TracesExporter, TracingSettings, TracingSwitch
from daemon.tracing.propagation import attributes_of_current
from daemon.tracing.spans import attribute_of, note_error
from worker_chart_export.observability.logs import configure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from daemon.tracing.export import Export

#: The longest wait for the last spans at the end of a command.
FINISH_SECONDS = 2.0


class PublisherSpans:
    """Makes a span for each message to one topic, if tracing is on. A context manager.

    Args:
        topic: The topic's full path.

    Raises:
        SettingsError: Tracing is on, and its variables are wrong.
    """

    def __init__(self, topic: str) -> None:
        _, self._project, _, self._topic = topic.split("/")
        self._export = _export(self._project)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._export is not None:
            self._export.finish(within_seconds=FINISH_SECONDS)

    @contextmanager
    def message(self, named: Mapping[str, str]) -> Iterator[dict[str, str]]:
        """Make a span; publish inside this block with the attributes that it yields.

        Args:
            named: The ids that the message names, by the names the logs use.
        """
        if self._export is None:
            yield {}
            return
        with self._export.tracer.start_as_current_span(
            f"publish {self._topic}",
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "gcp_pubsub",
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": self._topic,
                "gcp.project_id": self._project,
                **{attribute_of(name): value for name, value in named.items()},
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield attributes_of_current()
            except BaseException as error:
                note_error(span, error)
                raise


def note_published(message_id: str) -> None:
    """Note the id of the published message. Call it inside `PublisherSpans.message`."""
    get_current_span().set_attribute(attribute_of("messageId"), message_id)


def _export(project: str) -> Export | None:
    target = load_settings(TracingSwitch).traces_go_to
    if target is TracesExporter.NONE:
        return None
    load_settings(TracingSettings)
    from daemon.tracing.export import Export  # noqa: PLC0415 - the SDK

    # Log lines of the exporter are not part of a command's output.
    configure(level=LogLevel.INFO, log_format=LogFormat.CONSOLE, stream=sys.stderr)
    return Export(target, project=project, owner=None)
