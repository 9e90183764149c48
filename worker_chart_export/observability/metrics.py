"""The metrics of the worker, for Prometheus. The only module that uses its client.

Names follow https://prometheus.io/docs/practices/naming/. Labels have few values, which are known beforehand:
no ids of runs, steps or messages, no keys. Each value starts at 0, so that a first failure is an increase.
There is one registry for the process. Several daemons in it add to the same counters; the last one to set a
gauge wins.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from worker_chart_export.errors import ACCOUNTS, OPERATOR, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PREFIX = "chart_export"
REGISTRY = CollectorRegistry()
STEP_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 180, 300)
CHART_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)

ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

#: The reasons of each disposition of a message.
DISPOSITIONS = {
    "ack": (
        *("succeeded", "failed", "final", "running", "duplicate", "unleased", "ignored", "rejected"),
        *("missing", "pending", "depends_on", "run_missing", "step_missing"),
    ),
    "nack": ("shutdown", "rejected"),
    "defer": (
        *(
            "missing",
            "pending",
            "depends_on",
            "own_lease",
            "contended",
            "out_of_time",
            "more_steps",
            "paused",
        ),
        *("firestore_unavailable", "firestore_refused", "storage_unavailable", "storage_refused"),
        *("quarantine_unavailable", "machine_unavailable", "internal_error", "accounts"),
    ),
    "drop": ("internal_error",),
}
REJECTIONS = (
    *("body_too_large", "body_empty", "body_not_json", "body_not_object", "run_id_missing", "run_id_invalid"),
    *(
        "step_id_invalid",
        "event_type_missing",
        "subject_missing",
        "subject_invalid",
        "run_invalid",
        "not_ready",
    ),
)
#: Why a claim or a finalize changed nothing.
REFUSALS = ("run_missing", "step_missing", "step_final")
CLAIM_RESULTS = (
    *("won", "taken_over", "crash_loop", "refused", *REFUSALS, "run_final", "other_type"),
    *("step_running", "step_pending", "depends_on", "unleased"),
)
FINALIZE_RESULTS = ("written", *REFUSALS, "not_running", "fenced", "lease_lost")
BACKENDS = ("firestore", "storage", "pubsub")
CALL_RESULTS = ("answered", "unavailable", "refused")
PROVIDERS = ("chart-img", "local", "mock")
#: The outcomes of calls to Chart-IMG.
ANSWERS = (
    *("ok", "too_fast", "exhausted", "bad_key", "over_plan", "trouble", "refused"),
    *("too_large", "no_answer", "stopped"),
)


def _counter(name: str, documentation: str, **labels: Iterable[str]) -> Counter:
    """Create a counter with all known combinations of its labels' values."""
    counter = Counter(name, documentation, tuple(labels), namespace=PREFIX, registry=REGISTRY)
    if labels:
        counter.labels = cache(counter.labels)  # type: ignore[method-assign]  # a step asks a dozen times
        for values in product(*labels.values()):
            counter.labels(*values)
    return counter


def _gauge(name: str, documentation: str, **labels: Iterable[str]) -> Gauge:
    gauge = Gauge(name, documentation, tuple(labels), namespace=PREFIX, registry=REGISTRY)
    if labels:
        for values in product(*labels.values()):
            gauge.labels(*values)
    return gauge


def _seconds(name: str, documentation: str, buckets: tuple[float, ...], **label: Iterable[str]) -> Histogram:
    """Create a histogram of durations with one label."""
    ((label_name, values),) = label.items()
    histogram = Histogram(
        name, documentation, (label_name,), namespace=PREFIX, registry=REGISTRY, buckets=buckets
    )
    histogram.labels = cache(histogram.labels)  # type: ignore[method-assign]  # see `_counter`
    for value in values:
        histogram.labels(value)
    return histogram


LOG_LINES_DROPPED = _counter(
    "log_lines_dropped",
    "Log lines that were not written: too many waited for the reader of the output, or the output failed.",
    reason=("queue_full", "write_failed"),
)
MESSAGES_RECEIVED = _counter(
    "messages_received", "Messages that were delivered to this worker; a redelivery counts again."
)
MESSAGES_SETTLED = _counter(
    "messages_settled",
    "Deliveries by how they were settled and why; `drop` means that nothing was sent to Pub/Sub.",
    disposition=(),
    reason=(),
)
for _disposition, _reasons in DISPOSITIONS.items():
    for _reason in _reasons:
        MESSAGES_SETTLED.labels(_disposition, _reason)
MESSAGES_REJECTED = _counter(
    "messages_rejected",
    "Messages that no worker can handle, by reason; without a quarantine topic each delivery counts.",
    reason=REJECTIONS,
)

CLAIMS = _counter("claims", "Attempts to claim a step, by result.", result=CLAIM_RESULTS)
FINALIZES = _counter(
    "finalizes",
    "Attempts to write the result of a step: `written`, or the reason why it was not written.",
    result=FINALIZE_RESULTS,
)
COMMITS = _counter(
    "commits",
    "Firestore commits of claims, results, releases and quota counts; one commit can hold many of them.",
    result=("landed", "lost_race", "unknown", "unacceptable", "refused"),
)
RACES_LOST = _counter(
    "races_lost",
    "Claims, results and releases that were decided again, because another write changed the run first.",
    intent=("claim", "finalize", "release"),
)
LEASES_LOST = _counter("leases_lost", "Steps that this worker stopped because it lost their lease.")
LEASES_RELEASED = _counter(
    "leases_released",
    "Leases that this worker released before the step was finished, by cause.",
    cause=("shutdown", "backend", "refusal", ACCOUNTS),
)
LEASES_HELD = _gauge("leases_held", "Leases that this worker holds and renews.")
LEASE_RENEWAL_AGE = _gauge(
    "lease_renewal_age_seconds",
    "Seconds since the held lease with the oldest renewal was renewed; 0 if no lease is held.",
)
RESCUE_LOOKS = _counter(
    "rescue_looks", "Searches for expired leases, by result.", result=("done", "index_missing", "failed")
)
RESCUES = _counter(
    "rescues",
    "Steps that the rescue worked on, by result.",
    result=("succeeded", "failed", "claim_lost", "finalize_refused"),
)

STEPS_FINISHED = _counter(
    "steps_finished", "Steps that this worker finished, by status and error code.", status=(), code=()
)
STEPS_FINISHED.labels("succeeded", "none")
for _code in ErrorCode:
    STEPS_FINISHED.labels("failed", _code.value)
STEP_SECONDS = _seconds(
    "step_duration_seconds",
    "Seconds from the claim of a step to its result.",
    STEP_BUCKETS,
    status=("succeeded", "failed"),
)
LAST_SUCCESS = _gauge(
    "last_success_timestamp_seconds",
    "Unix time of the last step that succeeded in this process; 0 if there was none yet.",
)
STEPS_RUNNING = _gauge("steps_running", "Steps that this worker works on now, including those of the rescue.")
STEPS_CAPACITY = _gauge(
    "steps_capacity", "Steps that messages can start at the same time (`WORKER_CONCURRENCY`)."
)
OLDEST_STEP_AGE = _gauge(
    "oldest_step_age_seconds", "Seconds since the oldest running step was started; 0 if no step is running."
)

CHARTS = _counter(
    "charts",
    "Charts in the bucket for finished requests, by provider; `reused` means stored by an earlier attempt.",
    provider=PROVIDERS,
    result=("made", "reused"),
)
CHARTS.labels("other", "reused")  # a provider that only another version of this worker has
CHART_FAILURES = _counter(
    "chart_failures", "Chart requests that failed, by error code.", code=(code.value for code in ErrorCode)
)
CHART_FALLBACKS = _counter(
    "chart_fallbacks", "Charts that the local renderer drew because no Chart-IMG account could make them."
)
RENDERER_ENDS = _counter(
    "renderer_ends",
    "Renderer processes that ended before they had a result, or that took too long.",
)
CHART_SECONDS = _seconds(
    "chart_duration_seconds",
    "Seconds until the provider returned a chart, including waits and retries.",
    CHART_BUCKETS,
    provider=PROVIDERS,
)
CHART_IMG_CALLS = _counter(
    "chart_img_calls", "HTTP calls to Chart-IMG, by account and outcome.", account=(), answer=()
)
QUOTA_USED = _gauge(
    "chart_img_quota_used",
    "Calls of this account that were counted today (UTC), as last read; 0 after the day has ended.",
    account=(),
)
QUOTA_LIMIT = _gauge(
    "chart_img_quota_limit", "Calls that this account may make in a day, as last read.", account=()
)

ACCOUNT_USABLE = _gauge(
    "chart_img_account_usable",
    "1 while this account makes charts, as far as is known; 0 while it is used up or its key is refused.",
    account=(),
)

BACKEND_CALLS = _counter(
    "backend_calls",
    "Calls to backends, after the client retried; `answered` includes errors that concern one step only.",
    backend=BACKENDS,
    result=CALL_RESULTS,
)
STREAMS_OPENED = _counter(
    "streams_opened",
    "Streams that were opened to Pub/Sub, by reason: the start, or why the stream before was closed.",
    reason=("start", "ended", "idle", "paused"),
)
STREAM_OPEN = _gauge("stream_open", "1 while a stream to Pub/Sub is open, else 0.")
READY = _gauge("ready", "1 while /readyz answers 200, else 0.")
INTAKE_PAUSED = _gauge(
    "intake_paused",
    "1 while the worker starts no new work because of this backend, else 0; `operator`: a person paused it.",
    backend=("firestore", "storage", ACCOUNTS, OPERATOR),
)
FLEET_PAUSED = _gauge(
    "fleet_paused",
    "1 while an operator has paused the fleet, with who did it and why, else 0 with empty labels.",
    operator=("",),
    reason=("",),
)
DRAIN_SECONDS = _gauge("drain_seconds", "Seconds since the drain began; 0 if the worker is not draining.")
DRAIN_LIMIT = _gauge("drain_limit_seconds", "Seconds that a drain may take (`DRAIN_SECONDS`).")


def _version() -> str:
    try:
        return version("worker-chart-export")
    except PackageNotFoundError:  # not installed: run from the source folder
        return "unknown"


VERSION = _version()
Info("build", "The version of this worker.", namespace=PREFIX, registry=REGISTRY).info({"version": VERSION})


#: The accounts whose quota was read. The gauges of other accounts are 0, but that is not a measurement.
_shown: set[str] = set()


def know_account(account_id: str, *, daily_limit: int, is_usable: Callable[[], bool] = lambda: True) -> None:
    """Create the metrics of an account."""
    ACCOUNT_USABLE.labels(account_id).set_function(is_usable)
    for answer in ANSWERS:
        CHART_IMG_CALLS.labels(account_id, answer)
    QUOTA_USED.labels(account_id)
    QUOTA_LIMIT.labels(account_id).set(daily_limit)


def show_quota(account_id: str, *, used: int, limit: int, is_over: Callable[[], bool]) -> None:
    """Set the quota gauges of an account. The used quota becomes 0 once `is_over` returns True."""
    _shown.add(account_id)
    QUOTA_USED.labels(account_id).set_function(lambda: 0 if is_over() else used)
    QUOTA_LIMIT.labels(account_id).set(limit)


def show_fleet_pause(pause: tuple[str, str] | None) -> None:
    """Show who has paused the fleet and why, or that it is not paused."""
    FLEET_PAUSED.clear()
    FLEET_PAUSED.labels(*(pause or ("", ""))).set(pause is not None)


class Quota(NamedTuple):
    """The quota of an account: calls counted in the present window (None: not read yet), and its limit."""

    used: int | None
    limit: int


def quota_seen() -> dict[str, Quota]:
    """Return the present values of the quota gauges, by account."""
    used, limits = (
        {
            sample.labels["account"]: int(sample.value)
            for family in gauge.collect()
            for sample in family.samples
        }
        for gauge in (QUOTA_USED, QUOTA_LIMIT)
    )
    return {
        account: Quota(used[account] if account in _shown else None, limit)
        for account, limit in limits.items()
        if account in used
    }


def count_call(backend: str, result: str) -> None:
    """Count a call of one of `BACKENDS` with one of `CALL_RESULTS`.

    `answered` means that the backend works and our permissions are enough. It includes a missing document, a
    refused value and a lost race.
    """
    BACKEND_CALLS.labels(backend, result).inc()


def exposition(accept: str) -> tuple[bytes, str]:
    """Return all metrics in the format that `accept` requests, and the content type.

    Args:
        accept: The request's `Accept` header; the plain text format unless it requests OpenMetrics.
    """
    # Without this each counter has a second, useless series. It is for the whole process, so it is not done
    # where the package is imported as a library.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # an invalid version in `accept`
        encode, content_type = choose_encoder("")
    return encode(REGISTRY), content_type
