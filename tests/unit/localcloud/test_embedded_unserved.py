"""What the embedded Pub/Sub does not serve is refused by name, never accepted and dropped."""

from __future__ import annotations

import grpc
import pytest
from google.api_core import exceptions
from google.pubsub_v1 import SchemaServiceClient, types
from google.pubsub_v1.services.schema_service.transports import SchemaServiceGrpcTransport

from localcloud.grpc_server import raw
from localcloud.pubsub import settings, topic_settings
from localcloud.pubsub.unserved import UNSERVED

TOPIC = {
    "ingestion_data_source_settings": {"platform_logs_settings": {"severity": 1}},
    "kms_key_name": "k",
    "message_storage_policy": {"allowed_persistence_regions": ["europe-west1"]},
    "message_transforms": [{"javascript_udf": {"function_name": "f", "code": "c"}}],
    "satisfies_pzs": True,
    "schema_settings": {"schema": "projects/p/schemas/s", "encoding": 1},
    "state": 1,
    "tags": {"a": "b"},
}
SUBSCRIPTION = {
    "analytics_hub_subscription_info": {"listing": "x"},
    "bigquery_config": {"table": "p.d.t"},
    "bigtable_config": {"table": "t"},
    "cloud_storage_config": {"bucket": "b"},
    "detached": True,
    "message_transforms": TOPIC["message_transforms"],
    "push_config": {"push_endpoint": "http://127.0.0.1/push"},
    "state": 1,
    "tags": {"a": "b"},
    "topic_message_retention_duration": {"seconds": 600},
}


@pytest.mark.parametrize(
    ("kind", "served", "examples"),
    [
        (types.Topic, topic_settings.SERVED, TOPIC),
        (types.Subscription, settings.SERVED, SUBSCRIPTION),
    ],
)
def test_every_field_is_served_or_refused(kind, served, examples):
    """Every field of Google's messages is either served or in the table, and has an example here."""
    fields = {f"{kind.__name__}.{field.name}" for field in raw(kind).DESCRIPTOR.fields}
    refused = {name for name in UNSERVED if name.startswith(f"{kind.__name__}.")}
    assert fields == served | refused
    assert served & refused == set()
    assert {f"{kind.__name__}.{name}" for name in examples} == refused


@pytest.mark.parametrize("field", TOPIC)
def test_a_setting_of_a_topic_is_refused(channel, field):
    """A setting of a topic that is not served is refused, in CreateTopic and UpdateTopic."""
    topic = {"name": f"{channel.topic}-new", field: TOPIC[field]}
    with pytest.raises(exceptions.MethodNotImplemented, match=rf"Topic\.{field} is not served .*: \w"):
        channel.publisher.create_topic(request=topic)
    update = {"topic": {**topic, "name": channel.topic}, "update_mask": {"paths": [field]}}
    with pytest.raises(exceptions.MethodNotImplemented, match=rf"Topic\.{field} is not served"):
        channel.publisher.update_topic(request=update)


@pytest.mark.parametrize("field", SUBSCRIPTION)
def test_a_setting_of_a_subscription_is_refused(channel, field):
    """A setting of a subscription that is not served is refused, in Create- and UpdateSubscription."""
    wanted = {"name": f"{channel.subscription}-new", "topic": channel.topic, field: SUBSCRIPTION[field]}
    with pytest.raises(exceptions.MethodNotImplemented, match=rf"Subscription\.{field} is not served .*: \w"):
        channel.subscriber.create_subscription(request=wanted)
    update = {"subscription": {**wanted, "name": channel.subscription}, "update_mask": {"paths": [field]}}
    with pytest.raises(exceptions.MethodNotImplemented, match=rf"Subscription\.{field} is not served"):
        channel.subscriber.update_subscription(request=update)


def test_a_push_endpoint_is_refused_in_its_own_call(channel):
    """ModifyPushConfig refuses an endpoint."""
    with pytest.raises(exceptions.MethodNotImplemented, match=r"Subscription\.push_config is not served"):
        channel.subscriber.modify_push_config(
            subscription=channel.subscription, push_config=SUBSCRIPTION["push_config"]
        )


def test_services_and_calls_are_refused_by_name(cloud, channel):
    """IAM, the service of schemas and calls that are missing say what to use instead."""
    with pytest.raises(exceptions.MethodNotImplemented, match=r"IAMPolicy\.GetIamPolicy is not served"):
        channel.publisher.get_iam_policy(request={"resource": channel.topic})
    with pytest.raises(exceptions.MethodNotImplemented, match=r"UpdateSnapshot is not served .*: \w"):
        channel.subscriber.update_snapshot(
            request={"snapshot": {"name": "s"}, "update_mask": {"paths": ["labels"]}}
        )
    tagged = {"name": f"{channel.subscription}".replace("subscriptions", "snapshots"), "tags": {"a": "b"}}
    with pytest.raises(exceptions.MethodNotImplemented, match=r"CreateSnapshotRequest\.tags is not served"):
        channel.subscriber.create_snapshot(request={**tagged, "subscription": channel.subscription})
    with grpc.insecure_channel(cloud.pubsub.address) as connection:
        schemas = SchemaServiceClient(transport=SchemaServiceGrpcTransport(channel=connection))
        with pytest.raises(
            exceptions.MethodNotImplemented, match=r"SchemaService\.ListSchemas is not served"
        ):
            schemas.list_schemas(parent="projects/p")
