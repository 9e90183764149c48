"""With the format `json` a daemon writes nothing but JSON lines, whatever the libraries' variables say."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "variables",
    [
        {"GRPC_VERBOSITY": "debug", "GRPC_TRACE": "http"},
        {"GRPC_VERBOSITY": "DEBUG", "LOG_FORMAT": "json"},
        {"GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google.cloud.firestore_v1"},
        {"GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google"},
        {"PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_the_variables_of_libraries_add_no_output(deployment, variables):
    """From the start over a step to the stop each line is a JSON object with an event."""
    run_id, (step_id,) = deployment.put_run()
    with deployment.daemon(fresh=True, **variables).started() as daemon:
        deployment.publish_step(run_id, step_id)
        daemon.wait_for_event("message_settled")
        assert daemon.terminate() == 0
    assert daemon.other_output == []
    assert [line for line in daemon.events if "event" not in line] == []


def test_grpc_s_own_lines_can_be_had_with_the_console_format(deployment):
    """For people `GRPC_VERBOSITY` has its effect."""
    with deployment.daemon(fresh=True, LOG_FORMAT="console", GRPC_VERBOSITY="debug") as daemon:
        daemon.wait_until(lambda: any("log.cc" in line for line in daemon.other_output), "gRPC's line", 30)
