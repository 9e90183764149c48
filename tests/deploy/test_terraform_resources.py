"""The resources of the Terraform module fit the code, the documents and the doctor."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from google.pubsub_v1.types import Subscription

from daemon.cli.doctor.checks import pubsub as verdicts
from daemon.cli.doctor.results import Status
from daemon.subscription.admin import SubscriptionFacts, TopicFacts
from tests.support.deploy.hcl_module import Module
from tests.support.process.daemons import ROOT

FOLDER = ROOT / "deploy" / "terraform"
MODULE = Module(FOLDER)
SECURITY = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
WORKER, AGENT = "${local.worker}", "${local.pubsub_agent}"
PATH = "projects/my-project/{}/{}".format
#: The resource of each role in docs/security.md, and the Terraform type of the grant.
GRANTS = {
    ("roles/pubsub.subscriber", "the subscription"): ("google_pubsub_subscription_iam_member", "worker"),
    ("roles/pubsub.viewer", "the subscription"): ("google_pubsub_subscription_iam_member", "worker"),
    ("roles/pubsub.publisher", "only `QUARANTINE_TOPIC`"): ("google_pubsub_topic_iam_member", "quarantine"),
    ("roles/datastore.user", "the project, with the condition"): ("google_project_iam_member", None),
    ("roles/storage.objectUser", "the bucket `CHARTS_BUCKET`"): (
        "google_storage_bucket_iam_member",
        "charts",
    ),
    ("roles/storage.objectViewer", "the candles' bucket"): ("google_storage_bucket_iam_member", None),
}


class TestSubscription:
    """The subscription passes the doctor's checks."""

    @staticmethod
    def described(*, ack_deadline=None, attempts=None):
        """Return the subscription as Pub/Sub would report it."""
        made = MODULE.resource("google_pubsub_subscription", "worker")
        (retry,), (dead,), (expiration,) = (
            made[block] for block in ("retry_policy", "dead_letter_policy", "expiration_policy")
        )
        return Subscription(
            name=PATH("subscriptions", made["name"]),
            topic=PATH("topics", MODULE.variables["topic"]["default"]),
            ack_deadline_seconds=ack_deadline or made["ack_deadline_seconds"],
            message_retention_duration=_seconds(made["message_retention_duration"]),
            retry_policy={
                "minimum_backoff": _seconds(retry["minimum_backoff"]),
                "maximum_backoff": _seconds(retry["maximum_backoff"]),
            },
            dead_letter_policy={
                "dead_letter_topic": PATH("topics", MODULE.variables["dead_letter_topic"]["default"]),
                "max_delivery_attempts": attempts or dead["max_delivery_attempts"],
            },
            expiration_policy={"ttl": _seconds(expiration["ttl"])} if expiration["ttl"] else {},
            enable_message_ordering=made["enable_message_ordering"],
            enable_exactly_once_delivery=made["enable_exactly_once_delivery"],
        )

    def test_the_doctor_is_content_with_what_it_makes_by_default(self):
        """With the default variables every line of the doctor is green."""
        found = verdicts.subscription_verdicts(SubscriptionFacts.of(self.described()))
        assert {result.check: result.status for result in found} == dict.fromkeys(
            verdicts.OF_SUBSCRIPTION, Status.OK
        )

    def test_the_doctor_is_content_with_the_worst_that_the_variables_allow(self):
        """With the lowest values that the variables allow the doctor is satisfied."""
        attempts, deadline = (_bounds(name) for name in ("max_delivery_attempts", "ack_deadline_seconds"))
        assert attempts == (verdicts.MIN_DELIVERY_ATTEMPTS, 100)
        assert deadline == (verdicts.MIN_ACK_DEADLINE_SECONDS, 600)
        facts = SubscriptionFacts.of(self.described(ack_deadline=deadline[0], attempts=attempts[0]))
        assert {result.status for result in verdicts.subscription_verdicts(facts)} == {Status.OK}

    @pytest.mark.parametrize("wrong", [{"attempts": 19}, {"ack_deadline": 29}])
    def test_the_doctor_would_not_be_content_with_less(self, wrong):
        """With lower values than the variables allow the doctor is not satisfied."""
        found = verdicts.subscription_verdicts(SubscriptionFacts.of(self.described(**wrong)))
        assert {result.status for result in found} != {Status.OK}

    def test_dead_letters_arrive_somewhere(self):
        """The dead-letter topic has a subscription, and Pub/Sub's agent has the two roles it needs."""
        topic = "dead_letters"
        facts = TopicFacts(path=PATH("topics", topic), exists=True, subscriptions=_subscriptions_on(topic))
        assert verdicts.dead_letter_topic_verdict(facts).status is Status.OK
        (dead,) = MODULE.resources["google_pubsub_subscription", "worker"]["dead_letter_policy"]
        assert dead["dead_letter_topic"] == f"${{google_pubsub_topic.{topic}.id}}"
        needed = re.findall(r"roles/[\w.]+ on (\w+)", verdicts.dead_letter_rights("TOPIC", "SOURCE").fix)
        assert needed == ["TOPIC", "SOURCE"]
        assert _granted(AGENT) == {
            (
                "roles/pubsub.publisher",
                "google_pubsub_topic_iam_member",
                f"${{google_pubsub_topic.{topic}.name}}",
            ),
            (
                "roles/pubsub.subscriber",
                "google_pubsub_subscription_iam_member",
                "${google_pubsub_subscription.worker.name}",
            ),
        }

    def test_rejected_messages_are_kept(self):
        """The quarantine topic has a subscription, and the worker may publish to the topic."""
        facts = TopicFacts(
            path=PATH("topics", "quarantine"),
            exists=True,
            subscriptions=_subscriptions_on("quarantine"),
            may_publish=True,
        )
        assert verdicts.quarantine_verdict(facts).status is Status.OK

    def test_no_subscription_expires(self):
        """No subscription expires, and none has a shorter retention than the others."""
        made = MODULE.all_of("google_pubsub_subscription").values()
        assert len(made) == 3
        assert all(one["expiration_policy"] == [{"ttl": ""}] for one in made)
        assert {one["message_retention_duration"] for one in made} == {"${local.retention}"}
        assert MODULE.resolved("${local.retention}") == f"{7 * 86400}s"


def _seconds(text):
    return timedelta(seconds=float(text.removesuffix("s")))


def _bounds(name):
    """Return the minimum and maximum of a variable's validation."""
    (validation,) = MODULE.variables[name]["validation"]
    return tuple(
        int(re.search(rf"var\.{name} {sign} (\d+)", validation["condition"])[1]) for sign in (">=", "<=")
    )


def _subscriptions_on(topic):
    named = f"${{google_pubsub_topic.{topic}.id}}"
    return sum(one["topic"] == named for one in MODULE.all_of("google_pubsub_subscription").values())


def _granted(member):
    """Return role, type of the grant, and its resource."""
    places = ("subscription", "topic", "bucket")
    return {
        (body["role"], kind, next((body[place] for place in places if place in body), None))
        for (kind, _), body in MODULE.resources.items()
        if kind.endswith("_iam_member") and body["member"] == member
    }


class TestRoles:
    """The worker gets the roles of docs/security.md and no others."""

    def test_the_roles_are_those_of_the_document(self):
        """Each role is granted on the resource that the document names."""
        rows = re.findall(r"^\| `(roles/[\w.]+)` \| (.+?) \|", SECURITY, re.MULTILINE)
        places = dict(rows)
        assert len(places) == len(GRANTS)
        expected = set()
        for (role, place), (kind, name) in GRANTS.items():
            assert place in places[role]
            expected.add((role, kind, name and f"${{{kind.removesuffix('_iam_member')}.{name}.name}}"))
        found = {
            (role, kind, None if role == "roles/storage.objectViewer" else where)
            for role, kind, where in _granted(WORKER)
        }
        assert found == expected

    def test_nobody_else_gets_any(self):
        """Only Pub/Sub's agent gets a role besides, and no grant removes those of others."""
        kinds = {kind for kind, _ in MODULE.resources}
        assert not [kind for kind in kinds if kind.endswith(("_iam_binding", "_iam_policy"))]
        members = {body["member"] for body in MODULE.resources.values() if "role" in body}
        assert members == {WORKER, AGENT}

    def test_a_subscription_that_is_replaced_gets_its_grants_again(self):
        """Grants depend on the subscription, so that a replaced subscription gets them again."""
        for (kind, _), body in MODULE.resources.items():
            if kind == "google_pubsub_subscription_iam_member":
                subscription = body["subscription"].removesuffix(".name}")
                assert body["lifecycle"] == [{"replace_triggered_by": [f"{subscription}.id}}"]}]

    def test_documents_are_those_of_one_database(self):
        """The database role has the condition of the document, so it covers one database only."""
        (condition,) = MODULE.resources["google_project_iam_member", "worker_uses_documents"]["condition"]
        (described,) = re.findall(r'`resource\.name == "(.+?)"`', SECURITY)
        wanted = described.replace("<project>", "${var.project}").replace(
            "<FIRESTORE_DB>", "${var.firestore_database}"
        )
        assert condition["expression"] == f'resource.name == "{wanted}"'

    def test_a_worker_on_kubernetes_is_the_principal_of_the_manifests(self):
        """On Kubernetes the roles go to the principal of deploy/gke/README.md, without a service account."""
        text = (ROOT / "deploy" / "gke" / "README.md").read_text(encoding="utf-8")
        (described,) = re.findall(r'^WHO="(principal:.+)"$', text, re.MULTILINE)
        pool = MODULE.local_values["identity_pool"]
        made = re.search(r'"(principal:.+?)"', MODULE.local_values["worker"])[1]
        made = made.replace("${local.identity_pool}", pool)
        for expression, shell in {
            "${data.google_project.this.number}": "$NUMBER",
            "${var.project}": "$PROJECT",
            "${var.kubernetes_service_account.namespace}": "chart-export",
            "${var.kubernetes_service_account.name}": "worker-chart-export",
        }.items():
            made = made.replace(expression, shell)
        assert made == described
        account = MODULE.resources["google_service_account", "worker"]
        assert account["count"] == "${local.on_kubernetes ? 0 : 1}"


class TestDocumentsAndObjects:
    """Index overrides and the bucket."""

    def test_the_index_overrides_are_those_that_firebase_deploys(self):
        """The index overrides equal firebase's file; a field without indexes has an empty block."""
        described = json.loads((ROOT / "deploy" / "firestore.indexes.json").read_text(encoding="utf-8"))
        made = [
            {
                "collectionGroup": field["collection"],
                "fieldPath": field["field"],
                "indexes": [
                    {"order": index["order"], "queryScope": index["query_scope"]}
                    for config in field["index_config"]
                    for index in config.get("indexes", [])
                ],
            }
            for field in MODULE.all_of("google_firestore_field").values()
        ]
        assert described == {"indexes": [], "fieldOverrides": made}
        assert all(
            len(field["index_config"]) == 1 for field in MODULE.all_of("google_firestore_field").values()
        )

    def test_the_index_overrides_are_of_the_workers_database(self):
        """The index overrides belong to the worker's database, which may have a name."""
        fields = MODULE.all_of("google_firestore_field").values()
        assert {(field["project"], field["database"]) for field in fields} == {
            ("${var.project}", "${var.firestore_database}")
        }

    def test_the_bucket_is_private_and_stays(self):
        """The bucket grants rights only by role, is never public and is not deleted with its objects."""
        bucket = MODULE.resource("google_storage_bucket", "charts")
        assert bucket["uniform_bucket_level_access"] is True
        assert bucket["public_access_prevention"] == "enforced"
        assert bucket["force_destroy"] is False

    def test_only_charts_are_deleted_and_only_if_configured(self):
        """Objects are deleted only if configured, by age and below the worker's folder."""
        (rule,) = MODULE.resources["google_storage_bucket", "charts"]["dynamic"]
        assert MODULE.variables["delete_charts_after_days"]["default"] is None
        (content,) = rule["lifecycle_rule"]["content"]
        assert content["condition"] == [{"age": "${lifecycle_rule.value}", "matches_prefix": ["charts/"]}]
