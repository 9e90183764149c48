"""What the embedded Pub/Sub does not serve, and what to use instead."""

from __future__ import annotations

_PULL = "receive the messages with Pull or StreamingPull and write them there yourself"
_TRANSFORMS = "change the messages in the publisher or in the subscriber"
_ONE_MACHINE = "leave it out, all messages are kept in the memory of this process"
_OUTPUT = "leave it out, only Google sets this field"

UNSERVED: dict[str, str] = {
    "IAMPolicy": "leave it out, there are no permissions and every caller may do everything",
    "SchemaService": "check the messages in the publisher",
    "UpdateSnapshot": "delete the snapshot and create another one",
    "CreateSnapshotRequest.tags": "use labels",
    "Subscription.analytics_hub_subscription_info": _OUTPUT,
    "Subscription.bigquery_config": _PULL,
    "Subscription.bigtable_config": _PULL,
    "Subscription.cloud_storage_config": _PULL,
    "Subscription.detached": "call DetachSubscription",
    "Subscription.message_transforms": _TRANSFORMS,
    "Subscription.push_config": "receive the messages with Pull or StreamingPull",
    "Subscription.state": _OUTPUT,
    "Subscription.tags": "use labels",
    "Subscription.topic_message_retention_duration": "set message_retention_duration of the topic",
    "Topic.ingestion_data_source_settings": "publish the messages yourself",
    "Topic.kms_key_name": _ONE_MACHINE,
    "Topic.message_storage_policy": _ONE_MACHINE,
    "Topic.message_transforms": _TRANSFORMS,
    "Topic.satisfies_pzs": _OUTPUT,
    "Topic.schema_settings": "check the messages in the publisher",
    "Topic.state": _OUTPUT,
    "Topic.tags": "use labels",
}

#: What is accepted although it changes nothing -> why that is no loss.
NEUTRAL: dict[str, str] = {
    "ExpirationPolicy.ttl": "is at least a day without use, a subscription lasts as long as the process",
    "StreamingPullRequest.client_id": "lets a reopened stream keep its state, streams have none here",
    "StreamingPullRequest.protocol_version": "is the same for all clients here",
}
