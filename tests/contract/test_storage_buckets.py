"""Buckets: names, settings, lists."""

from __future__ import annotations

import uuid

import pytest
from google.api_core import exceptions

from tests.support.cloud.clouds import PROJECT


@pytest.fixture
def name():
    """Return the name of a bucket that does not exist."""
    return f"b{uuid.uuid4().hex}"


@pytest.mark.serves(
    "buckets.insert", "buckets.get", "Bucket.location", "Bucket.storageClass", "Bucket.labels"
)
def test_a_bucket_returns_its_settings(storage_client, name):
    """A bucket returns the location, storage class, labels and versioning that were set."""
    bucket = storage_client.bucket(name)
    bucket.storage_class, bucket.labels, bucket.versioning_enabled = "NEARLINE", {"team": "charts"}, True
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.create(location="europe-west1")
    read = storage_client.get_bucket(name)
    assert (read.location, read.location_type, read.storage_class) == ("EUROPE-WEST1", "region", "NEARLINE")
    assert read.rpo is None
    assert (read.labels, read.versioning_enabled) == ({"team": "charts"}, True)
    blob = read.blob("a")
    blob.upload_from_string(b"x")
    assert blob.storage_class == "NEARLINE"


@pytest.mark.serves("Bucket.location")
def test_a_bucket_in_several_regions_shows_its_replication(storage_client, name):
    """A bucket in two or more regions has the usual replication, and no other one."""
    bucket = storage_client.create_bucket(name, location="nam4")
    assert (bucket.location_type, bucket.rpo) == ("dual-region", "DEFAULT")
    bucket.rpo = "DEFAULT"
    bucket.patch()
    bucket.rpo = "ASYNC_TURBO"
    with pytest.raises(exceptions.MethodNotImplemented, match=r"Bucket\.rpo is not served"):
        bucket.patch()


@pytest.mark.serves("Bucket.iamConfiguration.publicAccessPrevention")
def test_a_bucket_without_public_access(storage_client, name):
    """A bucket may forbid grants to the public, which are not served anyway, and shows that it does."""
    bucket = storage_client.bucket(name)
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.iam_configuration.public_access_prevention = "enforced"
    bucket.create()
    for wanted in ("enforced", "inherited"):
        bucket.iam_configuration.public_access_prevention = wanted
        bucket.patch()
        read = storage_client.get_bucket(name).iam_configuration
        assert (read.public_access_prevention, read.uniform_bucket_level_access_enabled) == (wanted, True)
    bucket.iam_configuration.public_access_prevention = "perhaps"
    with pytest.raises(exceptions.BadRequest, match="publicAccessPrevention"):
        bucket.patch()


@pytest.mark.serves("Bucket.iamConfiguration.uniformBucketLevelAccess")
def test_all_buckets_have_uniform_access(bucket, http):
    """A bucket that asks for nothing shows uniform access: nothing in it has an owner or a list of rights.

    Google's service omits both fields then, also with `projection=full`.
    """
    bucket.blob("a").upload_from_string(b"x")
    assert bucket.client.get_bucket(bucket.name).iam_configuration.uniform_bucket_level_access_enabled
    url = f"/storage/v1/b/{bucket.name}"
    full = [http.get(f"{one}?projection=full").json() for one in (url, f"{url}/o", f"{url}/o/a")]
    for shown in (full[0], *full[1]["items"], full[2]):
        assert shown.keys().isdisjoint({"owner", "acl", "defaultObjectAcl"})


@pytest.mark.serves("Bucket.iamConfiguration.uniformBucketLevelAccess")
def test_a_bucket_without_uniform_access_is_refused(storage_client, bucket, name):
    """A bucket that asks for access control lists is refused by name, when it is made and later."""
    made = storage_client.bucket(name)
    for one, send in ((made, made.create), (bucket, bucket.patch)):
        one.iam_configuration.uniform_bucket_level_access_enabled = False
        with pytest.raises(exceptions.MethodNotImplemented, match="uniformBucketLevelAccess is not served"):
            send()
    assert storage_client.lookup_bucket(name) is None


@pytest.mark.serves("buckets.insert", "buckets.delete")
def test_buckets_are_made_once_and_deleted_when_empty(bucket):
    """Creating an existing bucket and deleting one with objects give 409."""
    with pytest.raises(exceptions.Conflict):
        bucket.client.create_bucket(bucket.name)
    bucket.blob("a").upload_from_string(b"x")
    with pytest.raises(exceptions.Conflict):
        bucket.delete()
    bucket.blob("a").delete()
    bucket.delete()
    assert bucket.client.lookup_bucket(bucket.name) is None


@pytest.mark.serves("buckets.patch", "buckets.update", "ifMetagenerationMatch")
def test_a_patch_changes_fields_and_an_update_replaces_them(bucket):
    """A patch keeps what it does not name, and null deletes; an update keeps nothing."""
    bucket.labels = {"a": "1", "b": "2"}
    bucket.patch()
    bucket.versioning_enabled = True
    bucket.patch(if_metageneration_match=2)
    assert (bucket.labels, bucket.metageneration) == ({"a": "1", "b": "2"}, 3)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.patch(if_metageneration_match=2)
    bucket.labels = {"b": "2"}  # the client sends null for the label that is gone
    bucket.patch()
    assert bucket.client.get_bucket(bucket.name).labels == {"b": "2"}
    fresh = bucket.client.bucket(bucket.name)
    fresh.storage_class = "COLDLINE"
    fresh.update()
    assert (fresh.labels, fresh.versioning_enabled, fresh.storage_class) == ({}, False, "COLDLINE")


@pytest.mark.serves("buckets.list", "prefix", "maxResults", "pageToken", "project")
def test_buckets_are_listed_by_project_prefix_and_page(storage_client, http):
    """Buckets are listed by project, name and prefix, with every page size."""
    prefix = f"b{uuid.uuid4().hex}"
    names = [f"{prefix}-{number}" for number in range(3)]
    for name in reversed(names):
        storage_client.create_bucket(name)
    storage_client.create_bucket(f"{prefix}-other", project="another-project")
    assert [found.name for found in storage_client.list_buckets(prefix=prefix, page_size=2)] == names
    assert http.get("/storage/v1/b").json()["error"]["message"] == "Required parameter: project"
    assert "nextPageToken" not in http.get(f"/storage/v1/b?project={PROJECT}&prefix={prefix}").json()


@pytest.mark.serves("buckets.insert")
@pytest.mark.parametrize("name", ["ab", "Charts", "goog-charts", "-charts", "a" * 64, "a/b"])
def test_invalid_bucket_names_are_refused(http, name):
    """Names that Google refuses give 400, like a storage class that does not exist."""
    refused = http.post(f"/storage/v1/b?project={PROJECT}", json={"name": name})
    assert (refused.status_code, refused.json()["error"]["errors"][0]["location"]) == (400, "name")
    wrong = {"name": f"b{uuid.uuid4().hex}", "storageClass": "FAST"}
    assert http.post(f"/storage/v1/b?project={PROJECT}", json=wrong).status_code == 400
