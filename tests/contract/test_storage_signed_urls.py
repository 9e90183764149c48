"""Signed URLs, and the calls of the XML API that are made with them."""

from __future__ import annotations

import datetime as dt
import gzip
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
from google.auth.credentials import AnonymousCredentials, Signing

HOUR = dt.timedelta(hours=1)
VERSIONS = pytest.mark.parametrize("version", ["v2", "v4"])


class Signer(AnonymousCredentials, Signing):
    """Credentials whose signatures are no real ones."""

    def sign_bytes(self, message):  # noqa: ARG002 - the base class's signature
        """Return a signature."""
        return b"signature"

    signer_email = "signer@example.iam.gserviceaccount.com"
    signer = None


@pytest.fixture
def sign(bucket):
    """Return a function that signs a URL of the object `a b/é.txt`."""

    def signed(method="GET", version="v4", expiration=HOUR, **given):
        blob = bucket.blob("a b/é.txt")
        url = blob.generate_signed_url(
            expiration, method=method, version=version, credentials=Signer(), **given
        )
        assert urlsplit(url).netloc == urlsplit(bucket.client.api_endpoint).netloc
        return url

    return signed


def changed(url, **parameters):
    """Return a URL with other parameters; None leaves one out. `_` stands for `-`."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query)) | {name.replace("_", "-"): one for name, one in parameters.items()}
    return urlunsplit(
        parts._replace(query=urlencode({n: one for n, one in query.items() if one is not None}))
    )


@VERSIONS
@pytest.mark.serves("X-Goog-Signature")
def test_signed_urls_read_write_and_delete(bucket, http, sign, version):
    """A signed URL with this host reads, writes and deletes an object, until it expires."""
    put = http.put(sign("PUT", version), content=b"content", headers={"X-Goog-Meta-A": "b"})
    assert (put.status_code, put.content) == (200, b"")
    stored = bucket.get_blob("a b/é.txt")
    assert (stored.metadata, str(stored.generation)) == ({"a": "b"}, put.headers["X-Goog-Generation"])
    assert http.get(sign("GET", version)).content == b"content"
    head = http.head(sign("HEAD", version))
    assert head.headers["Content-Length"] == "7"
    again = http.get(sign("GET", version), headers={"If-None-Match": head.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert http.delete(sign("DELETE", version)).status_code == 204
    assert http.get(sign("GET", version)).status_code == 404


@VERSIONS
@pytest.mark.serves("X-Goog-Signature")
def test_a_signed_url_of_a_bucket_gets_here(bucket, http, version):
    """A signed URL that lists a bucket names this host too, and is refused by name, as any list in XML."""
    url = bucket.generate_signed_url(HOUR, version=version, credentials=Signer())
    assert urlsplit(url).netloc == urlsplit(bucket.client.api_endpoint).netloc
    refused = http.get(url)
    assert refused.status_code == 501
    assert refused.json()["error"]["message"].startswith("XML API is not served by the embedded cloud: ")


@VERSIONS
@pytest.mark.serves("X-Goog-Signature")
def test_a_signed_url_begins_a_resumable_upload(bucket, http, sign, version):
    """A signed POST begins a resumable upload; its chunks need no signature."""
    begun = http.post(
        sign("RESUMABLE", version), headers={"X-Goog-Resumable": "start", "Content-Type": "text/csv"}
    )
    assert begun.status_code == 201
    assert http.put(begun.headers["Location"], content=b"a,b").status_code == 200
    stored = bucket.get_blob("a b/é.txt")
    assert (stored.content_type, stored.download_as_bytes()) == ("text/csv", b"a,b")


@pytest.mark.serves("response-content-type", "response-content-disposition")
def test_a_signed_url_sets_headers_of_the_response(bucket, http, sign):
    """A signed URL may say under which name and type the content is downloaded."""
    bucket.blob("a b/é.txt").upload_from_string(b"x", content_type="text/plain")
    answer = http.get(sign(response_type="image/png", response_disposition='attachment; filename="a.png"'))
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="a.png"'
    assert http.get(sign(response_type="a\r\nb: c")).status_code == 400


@VERSIONS
@pytest.mark.serves("X-Goog-Signature")
def test_an_expired_url_is_refused(bucket, http, sign, version):
    """After its end a signed URL gives 400 `ExpiredToken` and changes nothing."""
    bucket.blob("a b/é.txt").upload_from_string(b"x")
    ends = {"Expires": "1000"} if version == "v2" else {"X_Goog_Date": "20200101T000000Z"}
    for method in ("GET", "PUT", "DELETE"):
        refused = http.request(method, changed(sign(method, version), **ends), content=b"y")
        assert (refused.status_code, "<Code>ExpiredToken</Code>" in refused.text) == (400, True)
    assert bucket.blob("a b/é.txt").download_as_bytes() == b"x"


@pytest.mark.parametrize(
    ("version", "parameters"),
    [
        ("v4", {"X_Goog_Algorithm": "AWS4-HMAC-SHA256"}),
        ("v4", {"X_Goog_Credential": None}),
        ("v4", {"X_Goog_Date": "yesterday"}),
        ("v4", {"X_Goog_Date": "99991231T235959Z"}),
        ("v4", {"X_Goog_Expires": "604801"}),
        ("v4", {"X_Goog_Signature": None}),
        ("v2", {"Expires": "soon"}),
        ("v2", {"Expires": "9" * 30}),
        ("v2", {"GoogleAccessId": None}),
    ],
)
@pytest.mark.serves("X-Goog-Signature")
def test_malformed_signatures_are_refused(bucket, http, sign, version, parameters):
    """A parameter of the signature that is missing or malformed is refused by name."""
    refused = http.put(changed(sign("PUT", version), **parameters), content=b"x")
    assert refused.status_code == 400
    assert next(iter(parameters)).replace("_", "-") in refused.text
    assert list(bucket.list_blobs()) == []


@pytest.mark.serves("X-Goog-Signature")
def test_a_signed_header_must_be_sent(bucket, http, sign):
    """A request without a header that was signed is refused, as its signature would not fit."""
    url = sign("PUT", content_type="image/png", headers={"x-goog-meta-run": "r"})
    refused = http.put(url, content=b"x", headers={"Content-Type": "image/png"})
    assert (refused.status_code, "MalformedSecurityHeader" in refused.text) == (400, True)
    assert "x-goog-meta-run" in refused.text
    sent = {"Content-Type": "image/png", "X-Goog-Meta-Run": "r"}
    assert http.put(url, content=b"x", headers=sent).status_code == 200
    assert next(iter(bucket.list_blobs())).content_type == "image/png"


@pytest.mark.serves("XML API: PUT, DELETE")
def test_objects_are_written_and_deleted_under_their_public_path(bucket, http):
    """PUT and DELETE of `/BUCKET/OBJECT` write and delete an object, also without a signature."""
    url, packed = f"/{bucket.name}/a", gzip.compress(b"content")
    settings = {"Content-Type": "text/plain", "Content-Encoding": "gzip", "Cache-Control": "no-store"}
    assert http.put(url, content=packed, headers=settings).status_code == 200
    stored = bucket.get_blob("a")
    assert (stored.content_type, stored.content_encoding, stored.size) == ("text/plain", "gzip", len(packed))
    assert stored.cache_control == "no-store"
    assert http.put(url, content=b"x", headers={"Content-MD5": "AAAA"}).status_code == 400
    assert http.put(f"{url}?ifGenerationMatch=0", content=b"x").status_code == 412
    assert http.put("/no-such-bucket/a", content=b"x").status_code == 404
    assert http.get(url).content == b"content"
    assert http.delete(url).status_code == 204
    assert http.delete(url).status_code == 404
    assert http.post(url, content=b"y", headers={"X-HTTP-Method-Override": "PUT"}).status_code == 200
    assert http.get(url).content == b"y"
