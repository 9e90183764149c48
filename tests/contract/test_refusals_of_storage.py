"""What is not served is refused with 501 by name, and changes nothing."""

from __future__ import annotations

import json

import pytest

from localcloud.storage.unserved import UNSERVED
from tests.support.cloud.clouds import PROJECT

HEADERS = [
    "Content-Encoding",
    "X-Goog-Upload-Protocol",
    "If-Modified-Since outside of a download",
    "If-Unmodified-Since outside of a download",
    "If-Range outside of a download",
]
PATHS = {
    "objects": "/storage/v1/b/{bucket}/o/a/{name}",
    "buckets": "/storage/v1/b/{bucket}/{name}",
    "projects": "/storage/v1/projects/p/{name}",
}


def refused_names(kind):
    """Return the names of one kind in the table of what is not served."""
    return sorted(name.partition(".")[2] for name in UNSERVED if name.startswith(f"{kind}."))


def assert_refused(answer, name):
    """Check that an answer is status 501 with the name and with what to use instead."""
    error = answer.json()["error"]
    assert (answer.status_code, error["errors"][0]["reason"]) == (501, "notImplemented")
    assert error["message"].startswith(f"{name} is not served by the embedded cloud: ")


@pytest.mark.parametrize("name", [name for name in UNSERVED if name[0].islower() and "." not in name])
def test_parameters(bucket, http, name):
    """A parameter that is not served is refused; `false` asks for nothing, as does no value."""
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=a"
    assert_refused(http.post(f"{url}&{name}=x", content=b"x"), name)
    assert bucket.get_blob("a") is None
    assert http.post(f"{url}&{name}=false", content=b"x").status_code == 200


def test_unknown_parameters(bucket, http):
    """A parameter that no method has is refused too, and a signature where Google has none.

    Google's service ignores the parameters of other methods.
    """
    bucket.blob("a").upload_from_string(b"x")
    assert http.delete(f"/storage/v1/b/{bucket.name}/o/a?versions=true&prefix=b").status_code == 204
    answer = http.get(f"/storage/v1/b/{bucket.name}/o?prefixes=a")
    assert answer.json()["error"]["message"] == "prefixes is not served by the embedded cloud"
    signed = http.get(f"/storage/v1/b/{bucket.name}/o/a?X-Goog-Algorithm=a&X-Goog-Signature=b")
    assert_refused(signed, "X-Goog-Signature outside of the XML API")


@pytest.mark.parametrize("name", HEADERS)
def test_headers(bucket, http, name):
    """Headers that change what is stored are refused."""
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=a"
    assert_refused(http.post(url, content=b"x", headers={name.partition(" ")[0]: "br"}), name)
    assert bucket.get_blob("a") is None


def test_no_header_of_google_s_is_ignored(bucket, http):
    """A header of Google's that nothing reads is refused; those that only name the caller are neutral."""
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=a"
    for name in ("x-goog-acl", "x-goog-encryption-kms-key-name", "x-goog-meta-a", "x-goog-fieldmask"):
        assert_refused(http.post(url, content=b"x", headers={name: "a"}), f"Header.{name}")
    assert bucket.get_blob("a") is None
    neutral = {"x-goog-user-project": "p", "x-goog-api-client": "c", "x-goog-custom-audit-a": "b"}
    assert http.post(url, content=b"x", headers=neutral).status_code == 200


@pytest.mark.parametrize("name", [name for name in refused_names("Object") if " " not in name])
def test_fields_of_objects(bucket, http, name):
    """Fields that are not served are refused in uploads and in patches; empty ones ask for nothing."""
    url = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=a"
    assert_refused(http.post(url, content=json.dumps({name: {"x": "y"}}).encode()), f"Object.{name}")
    bucket.blob("a").upload_from_string(b"x")
    object_url = f"/storage/v1/b/{bucket.name}/o/a"
    assert_refused(http.patch(object_url, json={name: True}), f"Object.{name}")
    assert http.patch(object_url, json={name: None}).json()["metageneration"] == "2"
    assert_refused(
        http.patch(object_url, json={"storageClass": "NEARLINE"}), "Object.storageClass in a patch"
    )


@pytest.mark.parametrize("name", refused_names("Bucket"))
def test_fields_of_buckets(bucket, http, name):
    """Fields that are not served are refused in a new bucket and in patches; empty ones ask for nothing."""
    value, full = {"enabled": True}, name
    if name == "iamConfiguration":
        value, full = {"uniformBucketLevelAccess": {"enabled": False}}, f"{name}.uniformBucketLevelAccess"
    made = {"name": f"{bucket.name}-2", name: value}
    assert_refused(http.post(f"/storage/v1/b?project={PROJECT}", json=made), f"Bucket.{full}")
    url = f"/storage/v1/b/{bucket.name}"
    assert_refused(http.patch(url, json={name: value}), f"Bucket.{full}")
    assert http.patch(url, json={name: {}}).json()["metageneration"] == "2"
    assert bucket.client.lookup_bucket(made["name"]) is None


@pytest.mark.parametrize("kind", PATHS)
def test_methods(bucket, http, kind):
    """Methods that are not served are refused by name, and unknown paths give 404."""
    for name in refused_names(kind):
        path = PATHS[kind].format(bucket=bucket.name, name=name)
        if name in ("watch", "bulkRestore"):
            path = f"/storage/v1/b/{bucket.name}/o/{name}"
        assert_refused(http.post(path), f"{kind}.{name}")
    assert http.post(PATHS[kind].format(bucket=bucket.name, name="none")).status_code == 404
    for path in (f"/{bucket.name}/a", f"/{bucket.name}/", f"/{bucket.name}"):
        assert_refused(http.post(path, content=b"x"), "XML API")
    assert_refused(http.get(f"/{bucket.name}/a", headers={"X-Goog-If-Generation-Match": "1"}), "XML API")


def test_the_status_line_holds_the_reason(bucket, http):
    """Callers that show only the status line, and those of HEAD, read there what is not served.

    Other errors keep the usual words.
    """
    head = http.head(f"/{bucket.name}/a", headers={"X-Goog-If-Generation-Match": "1"})
    assert (head.status_code, head.content) == (501, b"")
    assert head.reason_phrase.startswith("XML API is not served by the embedded cloud: use the JSON API ")
    assert http.get(f"/storage/v1/b/{bucket.name}/o/a").reason_phrase == "Not Found"


def test_a_caller_s_words_stay_in_the_status_line(bucket, http):
    """A refused name can neither end the status line and add a header nor make it too long for a client."""
    url = f"/storage/v1/b/{bucket.name}/o"
    split = http.get(url, params={"é\r\nX-Added: a": "b"})
    assert split.reason_phrase == "???X-Added: a is not served by the embedded cloud"
    assert "X-Added" not in split.headers
    assert http.get(url, params={"a" * 5000: "b"}).reason_phrase == "a" * 300
