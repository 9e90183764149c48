"""The units as they are shipped, run by a real systemd: a booted container with all of their hardening."""

from __future__ import annotations

import time

import pytest

from localcloud.faults import Fault
from tests.support.cloud.resources import SECRET_KEY
from tests.support.process.freezable_daemon import FREEZE
from tests.support.process.systemd_container import INTERPRETER, PREFIX

SERVICE = "worker-chart-export.service"
RUNNING = {"ActiveState": "active", "SubState": "running"}
#: How the stop of a drained service ends.
CLEAN = {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}

pytestmark = pytest.mark.long


def instance(name):
    """A unit of the template."""
    return f"worker-chart-export@{name}.service"


@pytest.fixture
def host(container, deployment):
    """The container with a deployment's settings in `/etc/worker-chart-export`; its services end too."""
    container.since = time.time()
    settings = deployment.settings()
    accounts = container.configuration / "accounts.json"
    accounts.write_text(settings.pop("CHART_IMG_ACCOUNTS_JSON"), encoding="utf-8")
    accounts.chmod(0o600)
    # Some Pythons find their own library by an absolute path, which is another one in the container.
    write_environment(container, settings | {"LD_LIBRARY_PATH": str(INTERPRETER / "lib")})
    yield container
    container.run("systemctl", "kill", "--signal=KILL", "worker-chart-export*")
    container.run("systemctl", "stop", "worker-chart-export*")
    for file in container.configuration.iterdir():
        file.unlink()


def write_environment(container, settings, *, of=""):
    """The settings of all services, or those of one instance."""
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())
    (container.configuration / f"environment{of and f'.{of}'}").write_text(lines, encoding="utf-8")


def add_to_unit(container, unit, lines):
    """A drop-in, as an operator would write it."""
    folder = container.units / f"{unit}.d"
    folder.mkdir()
    (folder / "own.conf").write_text("\n".join(["[Service]", *lines, ""]), encoding="utf-8")
    container.reload()


def in_flight(deployment, host, unit, *, seconds):
    """Have the service start a step that takes so long."""
    deployment.cloud.chart_img.faults.add(Fault(delay_seconds=seconds))
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.publish_step(run_id, step_id)
    host.wait_until(lambda: host.logged(unit, "claim_attempt"), "a claim", unit)
    return run_id, step_id


def test_a_service_is_started_once_its_stream_is_open_and_works_steps(host, deployment):
    """The accounts reach it as a credential, from a file that only root can read; no log shows the key."""
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
    """The step that was under way is finished, its message acked, and the service ended well."""
    host.run("systemctl", "start", SERVICE)
    run_id, step_id = in_flight(deployment, host, SERVICE, seconds=3.0)
    assert host.run("systemctl", "stop", SERVICE) == ""
    assert CLEAN.items() <= host.show(SERVICE).items()
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"
    assert deployment.cloud.pubsub.unacked(deployment.subscription) == 0


def test_a_drain_longer_than_timeoutstopsec_is_let_finish(host, deployment):
    """The daemon asks for the time that it was given itself: nobody has to keep two figures in step."""
    add_to_unit(host, instance("slow"), ["TimeoutStopSec=2"])
    write_environment(host, {"DRAIN_SECONDS": "20"}, of="slow")
    host.run("systemctl", "start", instance("slow"))
    run_id, step_id = in_flight(deployment, host, instance("slow"), seconds=6.0)
    host.run("systemctl", "stop", instance("slow"))
    assert CLEAN.items() <= host.show(instance("slow")).items()
    assert deployment.step(run_id, step_id)["status"] == "SUCCEEDED"


def test_the_watchdog_bites_a_frozen_loop_and_the_service_comes_back(host, deployment):
    """The journal says which loop, and shows where each thread stood; the new process works."""
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
    assert any("freezable.py" in line for line in journal)
    run_id, (step_id,) = deployment.put_run(charts=1)
    deployment.publish_step(run_id, step_id)
    host.wait_until(lambda: host.logged(unit, "step_completed"), "a step", unit)


def test_a_process_that_is_stopped_whole_is_bitten_too(host):
    """SIGSTOP: not one thread runs."""
    unit = instance("stopped")
    add_to_unit(host, unit, ["WatchdogSec=4", "RestartSec=1"])
    host.run("systemctl", "start", unit)
    host.run("systemctl", "kill", "--kill-whom=main", "--signal=SIGSTOP", unit)
    host.wait_for(unit, NRestarts="1", **RUNNING)


def test_bad_settings_are_exit_2_and_no_restart(host):
    """A restart would not mend them."""
    write_environment(host, {"WORKER_CONCURRENCY": "many"}, of="bad")
    host.run("systemctl", "start", instance("bad"))
    shown = host.wait_for(instance("bad"), ActiveState="failed", SubState="failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("2", "0")
    (line,) = host.logged(instance("bad"), "settings_invalid")
    assert line["message"].startswith("WORKER_CONCURRENCY: ")


def test_a_missing_subscription_is_exit_3_and_tried_again(host, deployment):
    """Whoever made the bucket may make the subscription yet."""
    write_environment(host, {"PUBSUB_SUBSCRIPTION": "nobody-made-this"}, of="early")
    host.run("systemctl", "start", "--no-block", instance("early"))
    shown = host.wait_for(instance("early"), SubState="auto-restart")
    assert shown["ExecMainStatus"] == "3"
    write_environment(host, {"PUBSUB_SUBSCRIPTION": deployment.subscription}, of="early")
    host.wait_for(instance("early"), **RUNNING)


def test_a_backend_that_is_away_does_not_end_the_start(host, deployment):
    """Though it takes longer than the unit allows: the daemon asks for more as long as it is not frozen."""
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
    """Side by side, by one template and one common file; the longer name is as long as one may be."""
    units = [instance("a"), instance("frankfurt-1")]
    assert host.run("systemctl", "start", *units) == ""
    users = {host.run("ps", "-o", "uid=", "-p", host.show(unit)["MainPID"]).strip() for unit in units}
    ports = {host.logged(unit, "daemon_started")[0]["healthPort"] for unit in units}
    assert (len(users), len(ports)) == (2, 2)
    assert "0" not in users


def test_without_an_accounts_file_the_setting_is_what_is_missing(host):
    """Not systemd's own failure to set up a credential, which it would try again for ever."""
    (host.configuration / "accounts.json").unlink()
    host.run("systemctl", "start", SERVICE)
    shown = host.wait_for(SERVICE, ActiveState="failed", SubState="failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("2", "0")
    (line,) = host.logged(SERVICE, "settings_invalid")
    assert line["message"].startswith("CHART_IMG_ACCOUNTS_FILE: ")


def test_a_service_that_needs_no_accounts_says_so_in_its_settings(host):
    """As in the example of an environment."""
    (host.configuration / "accounts.json").unlink()
    local = {"CHARTS_API_MODE": "local", "CHART_IMG_ACCOUNTS_FILE": ""}
    write_environment(host, local, of="local")
    assert host.run("systemctl", "start", instance("local")) == ""
    assert host.logged(instance("local"), "daemon_started")[0]["mode"] == "local"
