"""What is refused as not served is reported in one line: some clients hide the text of the answer."""

from __future__ import annotations

import socket
from queue import SimpleQueue

import httpx
import pytest
from google.api_core import exceptions

from localcloud import LocalCloud
from localcloud.faults import Fault
from localcloud.refusals import Refusals
from tests.support.cloud.clouds import PROJECT

WATCH = "objects.watch is not served by the embedded cloud: list the objects again"


@pytest.fixture
def lines():
    """Return the lines that were reported."""
    return []


@pytest.fixture
def cloud(lines):
    """Run a cloud that reports what it refuses."""
    with LocalCloud.start(project=PROJECT, report=lines.append) as cloud:
        yield cloud


@pytest.fixture
def refusals(lines):
    """Return refusals that are reported to `lines`."""
    return Refusals(lines.append)


def test_a_refused_request_is_reported_with_its_path(cloud, lines):
    """The line names the service, the request, what is not served, and what to use instead."""
    url = f"{cloud.storage.url}/storage/v1/b/charts/o"
    assert httpx.post(f"{url}/watch").status_code == 501
    assert lines == [f"storage: POST /storage/v1/b/charts/o/watch refused: {WATCH}"]
    assert httpx.get(f"{url}/a").status_code == 404  # served: there is no such object
    assert len(lines) == 1
    assert httpx.put(f"{cloud.storage.url}/storage/v2/b").status_code == 404
    assert lines[1] == "storage: PUT /storage/v2/b refused: No such method here: PUT /storage/v2/b"


def test_refusals_within_a_batch_and_before_it_are_reported(cloud, lines):
    """A call in a batch is reported as one outside, and so is a body of an unknown encoding."""
    call = "POST /storage/v1/b/charts/o/watch HTTP/1.1\r\n\r\n"
    body = f"--x\r\nContent-Type: application/http\r\n\r\n{call}\r\n--x--\r\n".encode()
    batch = {"Content-Type": "multipart/mixed; boundary=x"}
    httpx.post(f"{cloud.storage.url}/batch/storage/v1", content=body, headers=batch)
    assert lines == [f"storage: POST /storage/v1/b/charts/o/watch refused: {WATCH}"]
    url = f"{cloud.storage.url}/storage/v1/b?project=p"
    httpx.post(url, content=b"{}", headers={"Content-Encoding": "br"})
    assert "POST /storage/v1/b refused: Content-Encoding is not served" in lines[1]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2 is not served by the embedded cloud: use HTTP/1.1"),
        (
            b"\x16\x03\x01\x02\x00\x01\n",
            "TLS is not served by the embedded cloud: use an address with http://",
        ),
    ],
)
def test_other_protocols_are_reported(cloud, lines, sent, expected):
    """A gRPC client of Cloud Storage, or one with https://, can't show why it gets no answer."""
    with socket.create_connection(("127.0.0.1", cloud.storage.port), timeout=10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass
    assert [line.partition(" refused: ")[2][: len(expected)] for line in lines] == [expected]


def test_refused_rpcs_are_reported_by_name(channel, client, lines):
    """Calls that are not served, fields of served ones and targets of streams give a line each."""
    with pytest.raises(exceptions.MethodNotImplemented):
        channel.publisher.get_iam_policy(request={"resource": channel.topic})
    with pytest.raises(exceptions.MethodNotImplemented):
        channel.publisher.create_topic(request={"name": f"{channel.topic}-new", "kms_key_name": "k"})
    query = {"from_": [{"collection_id": "c"}], "find_nearest": {"limit": 1}}
    parent = f"{client._database_string}/documents"
    target = {"query": {"parent": parent, "structured_query": query}, "target_id": 1}
    requests = SimpleQueue()  # the stream would end with its requests
    requests.put({"database": client._database_string, "add_target": target})
    responses = client._firestore_api.listen(
        requests=iter(requests.get, None), metadata=client._rpc_metadata, timeout=30
    )
    causes = (one.target_change.cause.code for one in responses)
    assert next(code for code in causes if code) == 12  # UNIMPLEMENTED
    requests.put(None)
    calls = [line.partition(" is not served by the embedded cloud")[0] for line in lines]
    assert calls == [
        "pubsub: GetIamPolicy refused: IAMPolicy.GetIamPolicy",
        "pubsub: CreateTopic refused: Topic.kms_key_name",
        "firestore: Listen refused: StructuredQuery.find_nearest",
    ]


def test_a_fault_on_purpose_is_not_reported(cloud, channel, lines):
    """An injected UNIMPLEMENTED or 501 is what the user asked for."""
    cloud.pubsub.faults.add(Fault(method="GetTopic", error="UNIMPLEMENTED"))
    with pytest.raises(exceptions.MethodNotImplemented):
        channel.publisher.get_topic(topic=channel.topic)
    cloud.storage.faults.add(Fault(method="buckets.list", error=501))
    assert httpx.get(f"{cloud.storage.url}/storage/v1/b?project=p").status_code == 501
    assert lines == []


def test_repeated_refusals_are_reported_with_their_number(refusals, lines):
    """The same refusal is reported at its first, tenth and hundredth time, whatever object it names."""
    for number in range(150):
        refusals.add("storage", "objects.watch", WATCH, call=f"POST /b/o/{number}")
    starts = [line.partition(" refused: ")[0] for line in lines]
    assert starts == ["storage: POST /b/o/0", "storage: POST /b/o/9", "storage: POST /b/o/99"]
    assert [line.partition(WATCH)[2] for line in lines] == ["", " (10 times)", " (100 times)"]


def test_the_lines_are_short_and_few(refusals, lines):
    """Names that clients choose can neither break a line nor fill a pipe that nobody reads."""
    for number in range(1000):
        refusals.add("storage", "objects.list", f"a\n\x1b[2J{number}{'x' * 1000} is not served")
    assert len(lines) == 100
    assert all(len(line) < 600 and line.isprintable() for line in lines)
    assert [line for line in lines if "further refusals are not shown" in line] == lines[-1:]


def test_a_reader_that_has_gone_does_not_fail_the_call():
    """A line that can't be printed is dropped."""

    def broken(_line):
        raise BrokenPipeError

    Refusals(broken).add("storage", "objects.watch", WATCH)
