"""Accounts, requests and providers for the tests of `real` mode, on the embedded services."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from localcloud import Fault
from worker_chart_export.charts.chart_img.account_state import account_states
from worker_chart_export.charts.chart_img.accounts import Account
from worker_chart_export.charts.chart_img.client import ChartApi
from worker_chart_export.charts.chart_img.provider import ChartImgProvider
from worker_chart_export.charts.chart_img.quota import QuotaLedger
from worker_chart_export.charts.chart_img.usage_document import USAGE
from worker_chart_export.timing import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from localcloud import LocalCloud

KEY = "s3cret-key-123"


def account(account_id: str = "acc-1", *, key: str = KEY, **fields: Any) -> Account:
    """Return an account without a limit on its rate."""
    return Account(
        id=account_id,
        api_key=SecretStr(key),
        **{"rate_per_second": 1000.0, "burst": 1000, "daily_limit": 1000} | fields,
    )


@contextlib.contextmanager
def provider_on(
    url: str, documents: Any, *accounts: Account, max_png_bytes: int = 262144, clock: Any = None
) -> Iterator[ChartImgProvider]:
    """Return a provider of these accounts, by default of one, as one process has it."""
    clock = clock or SystemClock()
    api = ChartApi(base_url=url, connections=64, max_png_bytes=max_png_bytes)
    with contextlib.closing(api):
        yield ChartImgProvider(
            api=api,
            accounts=account_states(accounts or [account()], clock),
            quota=QuotaLedger(documents, clock),
            clock=clock,
            max_png_bytes=max_png_bytes,
        )


def usage(documents: Any, account_id: str = "acc-1") -> dict[str, Any] | None:
    """Return an account's usage document."""
    found: dict[str, Any] | None = documents.document(f"{USAGE}/{account_id}").get().to_dict()
    return found


def used(documents: Any, account_id: str = "acc-1") -> int:
    """Return the number of calls counted on an account."""
    return int((usage(documents, account_id) or {"usageToday": 0})["usageToday"])


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make the calls simultaneously in threads; return their results or errors in order."""
    results: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(place: int) -> None:
        start.wait(30)
        try:
            results[place] = calls[place]()
        except Exception as error:  # noqa: BLE001 - it is the result
            results[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not any(thread.is_alive() for thread in threads)
    return results


def granted(results: Sequence[Any]) -> tuple[int, int]:
    """Return how many calls were granted and refused; raise any error."""
    counts = Counter(result.granted for result in results)
    return counts[True], counts[False]


def store_usage(documents: Any, **fields: Any) -> None:
    """Write the usage document of `acc-1`."""
    documents.document(f"{USAGE}/acc-1").set(fields)


def usage_fault(cloud: LocalCloud, **fields: Any) -> int:
    """Return a fault of Firestore for usage documents only."""
    return cloud.firestore.faults.add(Fault(match=USAGE, **fields))


def usage_commits(cloud: LocalCloud) -> Callable[[], int]:
    """Return a counter of the commits from now on, with lost races."""
    watching = usage_fault(cloud, method="Commit", before=lambda _request: None)
    return lambda: cloud.firestore.faults.fired(watching)


@contextlib.contextmanager
def commits_held(cloud: LocalCloud) -> Iterator[threading.Event]:
    """Hold commits at the server until the block ends; yield an event that is set when one waits there."""
    arrived, go = threading.Event(), threading.Event()

    def hold(_request: object) -> None:
        arrived.set()
        go.wait(30)

    held = usage_fault(cloud, method="Commit", before=hold)
    try:
        yield arrived
    finally:
        cloud.firestore.faults.remove(held)
        go.set()


def until(holds: Callable[[], bool]) -> None:
    """Wait up to ten seconds until the condition holds."""
    deadline, pause = time.monotonic() + 10, threading.Event()
    while not holds():
        assert time.monotonic() < deadline
        pause.wait(0.01)
