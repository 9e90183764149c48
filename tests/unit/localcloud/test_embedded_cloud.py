"""Start, stop, the control port, and a cloud in a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
from google.cloud import firestore

from localcloud import LocalCloud, Ports
from localcloud.http_server import HttpService
from tests.support.cloud.clouds import PROJECT, clients_find


def test_a_cloud_names_its_services(cloud):
    """All services listen on this machine, each on its own port."""
    environment = cloud.environment()
    assert set(environment) == {
        "GOOGLE_CLOUD_PROJECT",
        "PUBSUB_EMULATOR_HOST",
        "FIRESTORE_EMULATOR_HOST",
        "STORAGE_EMULATOR_HOST",
        "CHART_IMG_BASE_URL",
        "LOCALCLOUD_CONTROL_URL",
    }
    ports = [
        value.rpartition(":")[2] for name, value in environment.items() if name != "GOOGLE_CLOUD_PROJECT"
    ]
    assert len(set(ports)) == 5
    assert all("127.0.0.1:" in value for name, value in environment.items() if name != "GOOGLE_CLOUD_PROJECT")


def test_start_and_stop_are_quick_and_leave_no_thread():
    """Start and stop take less than a second each and leave no thread."""
    before = set(threading.enumerate())
    began = time.monotonic()
    cloud = LocalCloud.start()
    started = time.monotonic()
    cloud.stop()
    cloud.stop()
    assert started - began < 1
    assert time.monotonic() - started < 1
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:  # threads of gRPC that are about to end
        thread.join(1)
    assert [thread for thread in left if thread.is_alive()] == []


def test_a_taken_port_leaves_nothing_running():
    """When a port is taken, the error is raised and the started services are stopped."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            LocalCloud.start(ports=Ports(pubsub=free, storage=taken.getsockname()[1]))
    with LocalCloud.start(ports=Ports(pubsub=free)) as again:
        assert again.pubsub.port == free


def test_two_clouds_share_nothing(cloud):
    """Two clouds have separate state."""
    with LocalCloud.start() as other:
        assert other.environment() != cloud.environment()


class TestControl:
    """The control port for tests in another process."""

    @pytest.fixture
    def control(self, cloud):
        """Return an HTTP client on the control port."""
        with httpx.Client(base_url=cloud.control.url, timeout=10) as client:
            yield client

    def test_counters_and_requests(self, cloud, control):
        """The control port returns the call counters and the log of Chart-IMG requests."""
        url = f"{cloud.chart_img.url}/v2/tradingview/advanced-chart"
        httpx.post(url, json={"symbol": "A:B"}, headers={"x-api-key": "k"})
        assert control.get("/calls").json()["chart_img"] == {"advanced-chart": 1}
        (request,) = control.get("/requests").json()
        assert (request["key"], request["body"], request["status"]) == ("k", {"symbol": "A:B"}, 200)

    def test_bytes_read(self, cloud, control):
        """The control port returns the bytes that reads by id returned."""
        with clients_find(cloud.environment()):
            documents = firestore.Client(project=cloud.project)
        documents.document("a/b").set({"text": "x" * 1000})
        assert documents.document("a/b").get().exists
        documents.close()
        assert 1000 < control.get("/bytes-read").json()["BatchGetDocuments"] < 2000

    def test_faults(self, cloud, control):
        """The control port arms and clears faults."""
        fault = {"service": "storage", "method": "buckets.list", "error": 503, "times": 5}
        assert control.post("/faults", json=fault).json() == {"id": 1}
        url = f"{cloud.storage.url}/storage/v1/b?project={cloud.project}"
        assert httpx.get(url).status_code == 503
        control.delete("/faults")
        assert httpx.get(url).status_code == 200

    def test_stop_and_start(self, cloud, control):
        """The control port stops and starts a service, with or without its state."""
        cloud.storage.objects.create_bucket("b")
        assert control.post("/services/storage/stop").json() == {"running": False}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{cloud.storage.url}/storage/v1/b")
        assert control.post("/services/storage/start").json() == {"running": True}
        assert [bucket.name for bucket in cloud.storage.objects.buckets()] == ["b"]
        control.post("/services/storage/start?lose_state=true")
        assert cloud.storage.objects.buckets() == []

    def test_resetting_streams(self, control):
        """The control port ends all open streams and returns their number."""
        assert control.post("/services/pubsub/reset").json() == {"reset": 0}

    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("GET", "/nope", None, 404),
            ("POST", "/services/nope/stop", None, 400),
            ("POST", "/services/storage/nope", None, 404),
            ("POST", "/faults", {"service": "nope"}, 400),
            ("POST", "/faults", {"service": "storage", "nope": 1}, 400),
            ("POST", "/faults", {}, 400),
            ("POST", "/faults", [], 400),
            ("POST", "/faults", {"service": "storage", "times": "2"}, 400),
            ("POST", "/faults", {"service": "storage", "before": "x"}, 400),
        ],
    )
    def test_nonsense_is_refused(self, control, method, path, body, status):
        """An unknown path gets 404, an invalid body 400, and both say what is wrong."""
        response = control.request(method, path, json=body)
        assert response.status_code == status
        assert any(name in response.json()["message"] for name in [path, "service", "expected", "action"])


class Broken(HttpService):
    """A service with an error in its code."""

    def identify(self, request):
        """Fail as code with an error does."""
        raise KeyError(request.path)


def test_an_error_in_a_service_is_answered_and_reported(capfd):
    """An error of the cloud itself gives status 500, and its traceback is on stderr."""
    service = Broken()
    service.start()
    try:
        assert httpx.get(f"{service.url}/a").status_code == 500
        assert "KeyError: '/a'" in capfd.readouterr().err
    finally:
        service.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cloud_in_its_own_process(number):
    """The process prints export lines, serves, and exits with 0 on a stop signal."""
    command = [sys.executable, "-m", "localcloud", "--project", "p1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            environment = {}
            while "LOCALCLOUD_CONTROL_URL" not in environment:
                name, value = re.fullmatch(r"export (\w+)=(.+)\n", process.stdout.readline()).groups()
                environment[name] = value
            with clients_find(environment):
                client = firestore.Client(project=PROJECT)
            client.document("a/b").set({"x": 1})
            client.close()
            calls = httpx.get(f"{environment['LOCALCLOUD_CONTROL_URL']}/calls").json()
            assert calls["firestore"] == {"Commit": 1}
            assert environment["GOOGLE_CLOUD_PROJECT"] == "p1"
            process.send_signal(number)
            assert process.wait(10) == 0
        finally:
            process.kill()
