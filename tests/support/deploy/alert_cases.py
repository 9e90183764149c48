"""When each alert must fire and when not: the values of one scrape a minute, the last one now."""

from __future__ import annotations

from tests.support.deploy.promql import labels_of

MINUTES = 120
#: The series of Prometheus and its client, which do not have our prefix.
FOREIGN = ("up", "process_")


def flat(value):
    """Return a constant series."""
    return [value] * (MINUTES + 1)


def since(minutes_ago, value, *, before):
    """Return a series with this value since then; None = not scraped."""
    return [before] * (MINUTES + 1 - minutes_ago) + [value] * minutes_ago


def grew(growths):
    """Return a counter that grew: minutes ago -> increase."""
    return [sum(by for ago, by in growths.items() if ago > left) for left in range(MINUTES, -1, -1)]


def series_of(case):
    """Return a case's series by labels; job `worker` and instance `a` unless given."""
    return {
        labels_of(
            name if name.startswith(FOREIGN) else f"chart_export_{name}", job="worker", instance="a"
        ): samples
        for name, samples in case.items()
    }


OUR_OWN = {"build_info": flat(1)}
#: No stream and no drain.
CLOSED = {"stream_open": flat(0), "drain_seconds": flat(0)}
LIMIT, API = 'code="CHART_API_LIMIT_EXCEEDED"', 'code="CHART_API_FAILED"'
WON, TAKEN_OVER = 'claims_total{result="won"}', 'claims_total{result="taken_over"}'
SUCCEEDED = 'steps_finished_total{status="succeeded",code="none"}'
STEP_FAILED = 'steps_finished_total{status="failed",code="STEP_TIMEOUT"}'
MADE, CHART_FAILED = 'charts_total{provider="chart-img",result="made"}', f"chart_failures_total{{{API}}}"

FIRES = {
    "ChartExportAbsent": [{}],
    "ChartExportRestarts": [
        {"up": since(9, 0, before=1), "build_info": since(45, None, before=1)},
        {"process_start_time_seconds": grew({13: 1, 9: 1, 5: 1, 1: 1}), **OUR_OWN},
    ],
    "ChartExportStreamClosed": [{**CLOSED, 'intake_paused{backend="storage"}': flat(0)}],
    "ChartExportIntakePaused": [{'intake_paused{backend="storage"}': flat(1)}],
    "ChartExportFleetPaused": [{'fleet_paused{operator="",reason=""}': flat(1)}],
    "ChartExportBackendRefuses": [{'backend_calls_total{backend="storage",result="refused"}': grew({11: 1})}],
    "ChartExportMessagesRejected": [{'messages_rejected_total{reason="not_ready"}': grew({11: 1})}],
    "ChartExportSaturated": [
        {
            "steps_running": flat(9),  # one more for the rescue's step
            "steps_capacity": flat(8),
            'steps_running{instance="b"}': flat(7),
            'steps_capacity{instance="b"}': flat(8),
        }
    ],
    "ChartExportStepsFail": [{STEP_FAILED: grew({22: 5}), SUCCEEDED: grew({22: 12})}],
    "ChartExportNothingSucceeds": [{WON: grew({22: 2}), TAKEN_OVER: grew({22: 1}), SUCCEEDED: grew({45: 5})}],
    "ChartExportCrashLoop": [{'steps_finished_total{status="failed",code="CRASH_LOOP"}': grew({45: 1})}],
    "ChartExportInternalErrors": [
        {'messages_settled_total{disposition="drop",reason="internal_error"}': grew({22: 1})}
    ],
    "ChartExportStepStuck": [{"oldest_step_age_seconds": flat(700)}],
    "ChartExportLeaseRenewalLate": [{"lease_renewal_age_seconds": flat(90)}],
    "ChartExportLeasesLost": [{"leases_lost_total": grew({45: 3})}],
    "ChartExportRescueBlind": [{'rescue_looks_total{result="index_missing"}': grew({11: 1})}],
    "ChartExportChartsFail": [
        {CHART_FAILED: grew({22: 7}), MADE: grew({45: 100, 22: 25})},
        {CHART_FAILED: grew({22: 5}), MADE: grew({22: 1})},
    ],
    "ChartExportNoAccountLeft": [{f"chart_failures_total{{{LIMIT}}}": grew({22: 1})}],
    "ChartExportQuotaNearlyUsed": [
        {
            'chart_img_quota_used{account="acc-1"}': flat(41),
            'chart_img_quota_limit{account="acc-1"}': flat(44),
            'chart_img_quota_used{account="acc-1",instance="b"}': flat(0),
            'chart_img_quota_limit{account="acc-1",instance="b"}': flat(44),
        }
    ],
    "ChartExportKeyRefused": [{'chart_img_calls_total{account="acc-1",answer="bad_key"}': grew({45: 1})}],
}

QUIET = {
    "ChartExportAbsent": [OUR_OWN],
    "ChartExportRestarts": [
        {"up": flat(1), "process_start_time_seconds": flat(1.7e9), **OUR_OWN},
        {"up": since(7, 0, before=1), **OUR_OWN},
        {"up": flat(0), "build_info": since(90, None, before=1)},  # it was removed
        {"process_start_time_seconds": grew({18: 1, 13: 1, 9: 1, 5: 1}), **OUR_OWN},
        {
            'process_start_time_seconds{job="another"}': grew({13: 1, 9: 1, 5: 1, 1: 1}),
            'up{instance="b"}': flat(0),
            **OUR_OWN,
        },
    ],
    "ChartExportStreamClosed": [
        {"stream_open": flat(1), "drain_seconds": flat(0)},
        {"stream_open": flat(0), "drain_seconds": flat(5), 'intake_paused{backend="storage"}': flat(0)},
        {
            **CLOSED,
            'intake_paused{backend="firestore"}': flat(0),
            'intake_paused{backend="storage"}': flat(1),
        },
    ],
    "ChartExportIntakePaused": [
        {'intake_paused{backend="storage"}': flat(0), 'intake_paused{backend="operator"}': flat(1)}
    ],
    "ChartExportFleetPaused": [{'fleet_paused{operator="",reason=""}': flat(0)}],
    "ChartExportBackendRefuses": [
        {
            'backend_calls_total{backend="storage",result="refused"}': grew({22: 1}),
            'backend_calls_total{backend="storage",result="answered"}': grew({11: 99}),
            'backend_calls_total{backend="storage",result="unavailable"}': grew({11: 9}),
        }
    ],
    "ChartExportMessagesRejected": [{'messages_rejected_total{reason="not_ready"}': grew({22: 1})}],
    "ChartExportSaturated": [
        {
            "steps_running": flat(8),
            "steps_capacity": flat(8),
            'steps_running{instance="b"}': flat(7),
            'steps_capacity{instance="b"}': flat(8),
        }
    ],
    "ChartExportStepsFail": [
        {STEP_FAILED: grew({22: 1}), SUCCEEDED: flat(0)},  # one failed step must not raise an alert
        {STEP_FAILED: grew({45: 9, 22: 4}), SUCCEEDED: grew({22: 4})},
        {STEP_FAILED: grew({22: 5}), SUCCEEDED: grew({22: 17})},
    ],
    "ChartExportNothingSucceeds": [
        {WON: grew({22: 1}), TAKEN_OVER: flat(0), SUCCEEDED: flat(0)},
        {WON: grew({45: 9, 22: 2}), SUCCEEDED: flat(0)},
        {WON: grew({22: 9}), SUCCEEDED: grew({22: 1})},
        {'claims_total{result="step_running"}': grew({22: 9}), SUCCEEDED: flat(0)},
    ],
    "ChartExportCrashLoop": [
        {
            'steps_finished_total{status="failed",code="CRASH_LOOP"}': grew({90: 1}),
            STEP_FAILED: grew({45: 9}),
        }
    ],
    "ChartExportInternalErrors": [
        {
            'messages_settled_total{disposition="drop",reason="internal_error"}': grew({45: 1}),
            'messages_settled_total{disposition="ack",reason="failed"}': grew({22: 9}),
        }
    ],
    "ChartExportStepStuck": [{"oldest_step_age_seconds": flat(600)}],
    "ChartExportLeaseRenewalLate": [{"lease_renewal_age_seconds": flat(80)}],
    "ChartExportLeasesLost": [{"leases_lost_total": grew({90: 5, 45: 2})}],
    "ChartExportRescueBlind": [
        {
            'rescue_looks_total{result="index_missing"}': grew({22: 1}),
            'rescue_looks_total{result="failed"}': grew({11: 9}),
        }
    ],
    "ChartExportChartsFail": [
        {CHART_FAILED: grew({22: 1}), MADE: flat(0)},
        {CHART_FAILED: grew({22: 6}), MADE: grew({22: 25})},
        {CHART_FAILED: grew({45: 9, 22: 5}), MADE: grew({22: 25})},
        {CHART_FAILED: grew({45: 9, 22: 4}), MADE: flat(0)},
        {f"chart_failures_total{{{LIMIT}}}": grew({22: 9}), CHART_FAILED: grew({22: 4}), MADE: flat(0)},
    ],
    "ChartExportNoAccountLeft": [
        {f"chart_failures_total{{{LIMIT}}}": grew({45: 1}), CHART_FAILED: grew({22: 9})}
    ],
    "ChartExportQuotaNearlyUsed": [
        {
            'chart_img_quota_used{account="acc-1"}': flat(39),
            'chart_img_quota_limit{account="acc-1"}': flat(44),
        }
    ],
    "ChartExportKeyRefused": [
        {
            'chart_img_calls_total{account="acc-1",answer="bad_key"}': grew({90: 1}),
            'chart_img_calls_total{account="acc-1",answer="trouble"}': grew({45: 9}),
        }
    ],
}
