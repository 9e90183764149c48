"""The shipped units run by a real systemd, in a booted container with all their hardening."""

from __future__ import annotations

import time

import pytest

from localcloud.faults import Fault
from tests.support.cloud.resources import SECRET_KEY
from tests.support.process.freezable_daemon import FREEZE
from tests.support.process.systemd_container import INTERPRETER, PREFIX

SERVICE = "worker-chart-export.service"
RUNNING = {"ActiveState": "active", "SubState": "running"}
#: The result of a drained service.
CLEAN = {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}

pytestmark = pytest.mark.long


def instance(name):
    """Return a unit of the template."""
    return f"worker-chart-export@{name}.service"


@pytest.fixture
def host(container, deployment):
    """Return the container with a deployment's settings; stop its services at the end."""
    container.since = time.time()
    settings = deployment.settings()
    accounts = container.configuration / "accounts.json"
    accounts.write_text(settings.pop("CHART_IMG_ACCOUNTS_JSON"), encoding="utf-8")
    accounts.chmod(0o600)
    # Some Pythons find their library by an absolute path, which is different in the container.
    write_environment(container, settings | {"LD_LIBRARY_PATH": str(INTERPRETER / "lib")})
    yield container
    container.run("systemctl", "kill", "--signal=KILL", "worker-chart-export*")
    container.run("systemctl", "stop", "worker-chart-export*")
    for file in container.configuration.iterdir():
        file.unlink()


def write_environment(container, settings, *, of=""):
    """Write the settings of all services or of one instance."""
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    (container.configuration / f"environment{of and f'.{of}'}").write_text(lines, encoding="utf-8")


def add_to_unit(container, unit, lines):
    """Write a drop-in as an operator would."""
    folder = container.units / f"{unit}.d"
    folder.mkdir()
    (folder / "own.conf").write_text("\n".join(["[Service]", *lines, ""]), encoding="utf-8")
    container.reload()


def in_flight(deployment, host, unit, *, seconds):
    """Make the service start a step that takes this time."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=seconds))
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.publish_step(run_id, step_id)
    host.wait_until(lambda: host.logged(unit, "claim_attempt"), "a claim", unit)
    return run_id, step_id


def test_a_service_is_started_once_its_stream_is_open_and_works_steps(host, deployment):
    """A service is started when its stream is open; its accounts come from a root-only credential."""
    assert host.run("systemctl", "start", SERVICE) == ""
    assert host.show(SERVICE)["StatusText"] == f"Pulling from {deployment.subscription}"
    assert len(host.logged(SERVICE, "daemon_started")) == 1
    run_id, (step_id,) = deployment.put_run(charts=2)
    deployment.publish_step(run_id, step_id)
    host.wait_until(lambda: host.logged(SERVICE, "message_settled"), "a settled message", SERVICE)
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert {request.key for request in deployment.cloud.chart_img.requests} == {SECRET_KEY}
    assert SECRET_KEY not in "\n".join(host.journal(SERVICE))


def test_a_stop_drains(host, deployment):
    """A stop finishes the running step, acks its message and ends the service successfully."""
    host.run("systemctl", "start", SERVICE)
    run_id, step_id = in_flight(deployment, host, SERVICE, seconds=3.0)
    assert host.run("systemctl", "stop", SERVICE) == ""
    assert CLEAN.items() <= host.show(SERVICE).items()
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert deployment.cloud.pubsub.unacked(deployment.subscription) == 0


def test_a_drain_longer_than_timeoutstopsec_is_finished(host, deployment):
    """A drain longer than TimeoutStopSec is finished, because the daemon asks for its own time."""
    add_to_unit(host, instance("slow"), ["TimeoutStopSec=2"])
    write_environment(host, {"DRAIN_SECONDS": "20"}, of="slow")
    host.run("systemctl", "start", instance("slow"))
    run_id, step_id = in_flight(deployment, host, instance("slow"), seconds=6.0)
    host.run("systemctl", "stop", instance("slow"))
    assert CLEAN.items() <= host.show(instance("slow")).items()
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


def test_the_watchdog_restarts_a_service_with_a_frozen_loop(host, deployment):
    """The watchdog restarts a service with a frozen loop; the log has the loop and all stacks."""
    unit = instance("frozen")
    command = f"ExecStart={PREFIX / 'bin/python'} -m tests.support.process.freezable_daemon"
    add_to_unit(host, unit, ["ExecStart=", command, "WatchdogSec=4", "RestartSec=1"])
    host.run("systemctl", "start", unit)
    host.run("systemctl", "kill", "--kill-whom=main", f"--signal={FREEZE.name}", unit)
    host.wait_for(unit, NRestarts="1", **RUNNING)
    journal = host.journal(unit)
    assert any("Watchdog timeout" in line for line in journal)
    assert any("loop main is silent" in line["message"] for line in host.logged(unit, "liveness_lost"))
    assert "Fatal Python error: Aborted" in journal
    assert any("freezable_daemon.py" in line for line in journal)
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.publish_step(run_id, step_id)
    host.wait_until(lambda: host.logged(unit, "step_completed"), "a step", unit)


def test_a_stopped_process_is_restarted_too(host):
    """A process stopped by SIGSTOP is restarted too."""
    unit = instance("stopped")
    add_to_unit(host, unit, ["WatchdogSec=4", "RestartSec=1"])
    host.run("systemctl", "start", unit)
    host.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGSTOP", unit)
    host.wait_for(unit, NRestarts="1", **RUNNING)


def test_bad_settings_are_exit_2_and_no_restart(host):
    """Wrong settings give exit code 2 and no restart."""
    write_environment(host, {"WORKER_CONCURRENCY": "many"}, of="bad")
    host.run("systemctl", "start", instance("bad"))
    shown = host.wait_for(instance("bad"), ActiveState="failed", SubState="failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("2", "0")
    (line,) = host.logged(instance("bad"), "settings_invalid")
    assert line["message"].startswith("WORKER_CONCURRENCY: ")


def test_a_missing_subscription_is_exit_3_and_tried_again(host, deployment):
    """A missing subscription gives exit code 3 and a restart, because it may be created later."""
    write_environment(host, {"PUBSUB_SUBSCRIPTION": "nobody-made-this"}, of="early")
    host.run("systemctl", "start", "--no-block", instance("early"))
    shown = host.wait_for(instance("early"), SubState="auto-restart")
    assert shown["ExecMainStatus"] == "3"
    write_environment(host, {"PUBSUB_SUBSCRIPTION": deployment.subscription}, of="early")
    host.wait_for(instance("early"), **RUNNING)


def test_an_unavailable_backend_does_not_end_the_start(host, deployment):
    """A daemon that waits for a backend extends its start time."""
    unit = instance("patient")
    add_to_unit(host, unit, ["TimeoutStartSec=8"])
    deployment.cloud.pubsub.stop()
    host.run("systemctl", "start", "--no-block", unit)
    host.wait_for(unit, ActiveState="activating", StatusText="Starting: no stream is open")
    began = int(host.show(unit)["InactiveExitTimestampMonotonic"]) / 1e6
    host.wait_until(lambda: time.monotonic() > began + 8 + 2, "an outage longer than that", unit)
    assert host.show(unit)["ActiveState"] == "activating"
    deployment.cloud.pubsub.start()
    assert host.wait_for(unit, **RUNNING)["NRestarts"] == "0"


def test_instances_have_users_and_ports_of_their_own(host):
    """Instances run in parallel with separate users and ports, also with the longest name."""
    units = [instance("a"), instance("frankfurt-1")]
    assert host.run("systemctl", "start", *units) == ""
    users = {host.run("ps", "-o", "uid=", "-p", host.show(unit)["MainPID"]).strip() for unit in units}
    ports = {host.logged(unit, "daemon_started")[0]["healthPort"] for unit in units}
    assert (len(users), len(ports)) == (2, 2)
    assert "0" not in users


def test_without_an_accounts_file_the_setting_is_what_is_missing(host):
    """Without an accounts file the daemon reports the missing setting; systemd does not fail first."""
    (host.configuration / "accounts.json").unlink()
    host.run("systemctl", "start", SERVICE)
    shown = host.wait_for(SERVICE, ActiveState="failed", SubState="failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("2", "0")
    (line,) = host.logged(SERVICE, "settings_invalid")
    assert line["message"].startswith("CHART_IMG_ACCOUNTS_FILE: ")


def test_a_service_that_needs_no_accounts_has_that_in_its_settings(host):
    """A service without accounts has that in its settings, as in the example environment."""
    (host.configuration / "accounts.json").unlink()
    local = {"CHARTS_API_MODE": "local", "CHART_IMG_ACCOUNTS_FILE": ""}
    write_environment(host, local, of="local")
    assert host.run("systemctl", "start", instance("local")) == ""
    assert host.logged(instance("local"), "daemon_started")[0]["mode"] == "local"
