"""The parse of a message's bytes and attributes to its request."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daemon.handling.messages import Irrelevant, MessageRejected, StepRequest, parse_message

UPDATED = "google.cloud.firestore.document.v1.updated"
SUBJECT = "documents/flow_runs/r1"
RESOURCE = "projects/p/databases/(default)/documents/flow_runs/r1"
RUN = StepRequest(run_id="r1")
STEP = StepRequest(run_id="r1", step_id="charts:1d:a")
PLAIN = {"runId": "r1", "stepId": "charts:1d:a"}
EVENT = {"specversion": "1.0", "type": UPDATED, "subject": SUBJECT, "id": "1", "source": "//firestore"}


def _parse(body: object, attributes: dict[str, str] | None = None) -> StepRequest | Irrelevant:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_message(data, attributes or {})


def _rejection(body: object, attributes: dict[str, str] | None = None) -> MessageRejected:
    with pytest.raises(MessageRejected) as caught:
        _parse(body, attributes)
    return caught.value


class TestPlain:
    """A JSON object, or attributes alone."""

    def test_a_step(self):
        """A body with a run and a step names both."""
        assert _parse(PLAIN) == STEP

    def test_a_byte_order_mark(self):
        """A body with a byte order mark, as some Windows programs write it, is read."""
        assert parse_message(b"\xef\xbb\xbf" + json.dumps(PLAIN).encode(), {}) == STEP

    def test_a_run(self):
        """A body may name only a run."""
        assert _parse({"runId": "r1"}) == RUN

    def test_other_fields_are_tolerated(self):
        """Other fields are ignored, also NaN, which is no valid JSON."""
        assert _parse(b'{"runId": "r1", "x": NaN, "y": [1e999]}') == RUN

    def test_the_last_of_two_equal_keys_counts(self):
        """Of two equal keys the last one counts."""
        assert _parse(b'{"runId": "zz", "runId": "r1"}') == RUN

    @pytest.mark.parametrize(("attributes", "expected"), [({"runId": "r1"}, RUN), (PLAIN, STEP)])
    def test_attributes_alone(self, attributes, expected):
        """Attributes are read when the body is empty."""
        assert _parse(b"", attributes | {"other": "x"}) == expected

    def test_a_body_comes_before_attributes(self):
        """The body is used before attributes, which may be there for filters."""
        assert _parse({"runId": "r1"}, {"runId": "other", "stepId": "x"}) == RUN

    @pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
    def test_other_content_types_are_no_matter(self, content_type):
        """Other content types are ignored: the body decides."""
        assert _parse(PLAIN, {"content-type": content_type}) == STEP


class TestBinaryEvent:
    """CloudEvents in binary mode, where everything is in attributes."""

    @pytest.mark.parametrize("verb", ["created", "updated", "written"])
    @pytest.mark.parametrize("suffix", ["", ".withAuthContext"])
    @pytest.mark.parametrize("body", [b"", b"\x0a\x03\xff\xfe", b'{"value": {}}'])
    def test_an_event_of_a_run_names_the_run(self, verb, suffix, body):
        """The event of a run names the run; its body is not needed."""
        kind = f"google.cloud.firestore.document.v1.{verb}{suffix}"
        assert _parse(body, {"ce-type": kind, "ce-subject": SUBJECT}) == RUN

    @pytest.mark.parametrize("document", ["flow_runs/r1", SUBJECT, RESOURCE])
    @pytest.mark.parametrize("subject", [{}, {"ce-subject": ""}])
    def test_the_document_attribute_is_read_too(self, document, subject):
        """Without a subject the `document` attribute is read."""
        assert _parse(b"", {"ce-type": UPDATED, "ce-document": document, **subject}) == RUN

    @pytest.mark.parametrize(
        "kind",
        [
            "google.cloud.firestore.document.v1.deleted",
            "google.cloud.datastore.entity.v1.updated",
            UPDATED.upper(),
            UPDATED + ".withOther",
            "x",
            "",
        ],
    )
    def test_other_types_are_ignored(self, kind):
        """Events of other types are ignored."""
        assert isinstance(_parse(b"", {"ce-type": kind, "ce-subject": SUBJECT}), Irrelevant)

    @pytest.mark.parametrize(
        "subject",
        [
            "documents/chart_templates/r1",
            "documents/flow_runs/r1/chart_export_leases/s",
            "flow_runs_old/r1",
            "documents/other/x/flow_runs/r1",
            "other/x/flow_runs/r1",
        ],
    )
    def test_other_collections_are_ignored(self, subject):
        """Events of other collections are ignored, also of a run's sub-collections such as our leases."""
        assert isinstance(_parse(b"", {"ce-type": UPDATED, "ce-subject": subject}), Irrelevant)

    def test_percent_signs_are_kept(self):
        """Percent signs are not decoded, as in Pub/Sub's binding, so such an id is refused."""
        rejected = _rejection(b"", {"ce-type": UPDATED, "ce-subject": "documents/flow_runs/r%31"})
        assert rejected.reason == "run_id_invalid"
        assert "'r%31'" in rejected.detail

    @pytest.mark.parametrize("attributes", [{}, {"ce-subject": ""}, {"ce-document": ""}])
    def test_an_event_without_a_document_is_rejected(self, attributes):
        """An event without a document is rejected, because its run is unknown."""
        assert _rejection(b"", {"ce-type": UPDATED} | attributes).reason == "subject_missing"

    @pytest.mark.parametrize(
        "subject", ["documents/flow_runs/", "flow_runs", "documents/flow_runs/a b", "documents/flow_runs/.."]
    )
    def test_a_bad_run_id_in_an_event_is_rejected(self, subject):
        """A bad run id in an event is rejected."""
        assert _rejection(b"", {"ce-type": UPDATED, "ce-subject": subject}).reason == "run_id_invalid"


class TestStructuredEvent:
    """CloudEvents in structured mode, where everything is in the body."""

    @pytest.mark.parametrize(
        "attributes",
        [
            {},
            {"content-type": "application/cloudevents+json"},
            {"content-type": "Application/CloudEvents+json; charset=utf-8"},
        ],
    )
    def test_a_firestore_event_names_the_run(self, attributes):
        """A Firestore event, known by content type or `specversion`, names the run."""
        assert _parse(EVENT, attributes) == RUN

    def test_an_event_by_content_type_needs_no_specversion(self):
        """An event with the content type needs no `specversion`."""
        event = {"type": UPDATED, "document": "flow_runs/r1"}
        assert _parse(event, {"content-type": "application/cloudevents+json"}) == RUN

    @pytest.mark.parametrize(
        "data",
        [
            {"data": PLAIN},
            {"data_base64": base64.b64encode(json.dumps(PLAIN).encode()).decode()},
            {
                "data_base64": base64.b64encode(json.dumps(PLAIN).encode()).decode(),
                "data": {"runId": "other"},
            },
        ],
    )
    def test_an_event_may_carry_the_plain_kind(self, data):
        """An event of any type may contain a plain request; a document that is named beside it counts."""
        assert _parse({"specversion": "1.0", "type": "com.example.step"} | data) == STEP
        assert _parse(EVENT | {"subject": None} | data) == STEP
        assert _parse(EVENT | data) == RUN

    @pytest.mark.parametrize("subject", [None, "", 7, [], [SUBJECT]])
    def test_a_subject_that_is_no_text_names_no_document(self, subject):
        """The plain request beside it counts."""
        assert _parse(EVENT | {"subject": subject, "data": PLAIN}) == STEP

    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"data": None},
            {"data": "x"},
            {"data": []},
            {"data": {}},
            {"data_base64": "@@"},
            {"data_base64": 7},
        ]
        + [
            {"data_base64": base64.b64encode(b"[").decode()},
            {"data_base64": base64.b64encode(b"\xff").decode()},
            {"data_base64": "*" + base64.b64encode(json.dumps(PLAIN).encode()).decode()},
        ],
    )
    def test_an_event_of_another_type_without_a_run_is_ignored(self, data):
        """A valid event of another type without a run is ignored."""
        assert isinstance(_parse({"specversion": "1.0", "type": "com.example.other"} | data), Irrelevant)

    @pytest.mark.parametrize("kind", [None, "", 7, [], {}, [UPDATED]])
    def test_an_event_without_a_type_is_rejected(self, kind):
        """An event whose type is missing or no text is rejected."""
        assert _rejection({"specversion": "1.0", "type": kind}).reason == "event_type_missing"

    def test_a_full_resource_name_is_a_subject(self):
        """A subject may be the full resource name of the run's document."""
        assert _parse(EVENT | {"subject": RESOURCE}) == RUN

    def test_without_a_subject_the_name_of_the_document_is_read(self):
        """Without a subject the document's name in the data is read, also from encoded data."""
        data = {"value": {"name": RESOURCE, "fields": {}}}
        encoded = base64.b64encode(json.dumps(data).encode()).decode()
        for fields in ({"data": data}, {"subject": "", "data": data}, {"data_base64": encoded}):
            assert _parse({key: value for key, value in EVENT.items() if key != "subject"} | fields) == RUN

    @pytest.mark.parametrize("data", [None, 7, [], {}, {"value": None}, {"value": {"name": 7}}])
    def test_without_a_readable_name_a_firestore_event_is_rejected(self, data):
        """A Firestore event without a subject and without a document's name in its data is rejected."""
        assert _rejection(EVENT | {"subject": None, "data": data}).reason == "subject_missing"

    @pytest.mark.parametrize(
        "subject",
        [
            f"//firestore.googleapis.com/{RESOURCE}",
            f"firestore.googleapis.com/{RESOURCE}",
            f"/{SUBJECT}",
            f"{SUBJECT}/",
            "documents//flow_runs/r1",
            "documents/flow_runs//r1",
            "documents/x/flow_runs/r1",
            "documents%2Fflow_runs%2Fr1",
            "projects/p/databases/d/flow_runs/r1",
        ],
    )
    def test_an_unreadable_name_of_a_run_is_rejected(self, subject):
        """A subject that holds a flow run in an unknown form is rejected, because a step could be lost."""
        assert _rejection(EVENT | {"subject": subject}).reason == "subject_invalid"
        binary = _rejection(b"", {"ce-type": UPDATED, "ce-subject": subject})
        assert binary.reason == "subject_invalid"

    @pytest.mark.parametrize("subject", ["documents/other/r2", "an order", "documents//flow_runs/r1", 7])
    def test_beside_a_subject_that_names_no_run_the_name_of_the_document_is_read(self, subject):
        """A document's name that names a run counts, if the subject beside it does not."""
        assert _parse(EVENT | {"subject": subject, "data": {"value": {"name": RESOURCE}}}) == RUN
        attributes = {"ce-type": UPDATED, "ce-subject": str(subject), "ce-document": RESOURCE}
        assert _parse(b"", attributes) == RUN

    def test_the_subject_counts_before_the_name_of_the_document(self):
        """Of two runs, the one in the subject counts."""
        other = RESOURCE.replace("r1", "r2")
        assert _parse(EVENT | {"data": {"value": {"name": other}}}) == RUN

    def test_a_nested_collection_of_that_name_is_ignored(self):
        """A document of another collection's subcollection `flow_runs` is no flow run."""
        subject = "projects/p/databases/d/documents/other/x/flow_runs/r1"
        assert isinstance(_parse(EVENT | {"subject": subject}), Irrelevant)

    @pytest.mark.parametrize("subject", [None, "", 7, [SUBJECT], {"a": 1}])
    def test_a_firestore_event_without_a_subject_is_rejected(self, subject):
        """A Firestore event whose subject is missing or no text is rejected."""
        assert _rejection(EVENT | {"subject": subject}).reason == "subject_missing"

    def test_an_event_of_another_collection_is_ignored(self):
        """An event of another collection is ignored."""
        assert isinstance(_parse(EVENT | {"subject": "documents/other/r1"}), Irrelevant)

    @pytest.mark.parametrize("body", [b"", b"[]", b"x"])
    def test_a_structured_event_with_another_body_is_rejected(self, body):
        """A structured event with another body is rejected, also a batch, which Pub/Sub does not have."""
        assert _rejection(body, {"content-type": "application/cloudevents-batch+json"}).reason.startswith(
            "body_not"
        )


BAD_BODIES = [
    (b"{", "body_not_json"),
    (b"\xff\xfe", "body_not_json"),
    (b" ", "body_not_json"),
    (json.dumps(PLAIN).encode("utf-16"), "body_not_json"),
    (b'{"runId": "r1"} {}', "body_not_json"),
    (b"{'runId': 'r1'}", "body_not_json"),
    (b"1" * 5000, "body_not_json"),  # more digits than Python converts to a number
    (b'{"runId":' * 7000, "body_not_json"),
    (b"[" * 60000, "body_not_json"),
    (b"[]", "body_not_object"),
    (b'"r1"', "body_not_object"),
    (b"null", "body_not_object"),
    (b"7", "body_not_object"),
    (b"NaN", "body_not_object"),
    (b"{}", "run_id_missing"),
    (b'{"run_id": "r1"}', "run_id_missing"),
    (b'{"stepId": "a"}', "run_id_missing"),
    (b'{"runId": null}', "run_id_invalid"),
    (b'{"runId": 7}', "run_id_invalid"),
    (b'{"runId": NaN}', "run_id_invalid"),
    (b'{"runId": ["r1"]}', "run_id_invalid"),
    (b'{"runId": ""}', "run_id_invalid"),
    (b'{"runId": ".."}', "run_id_invalid"),
    (b'{"runId": "../x"}', "run_id_invalid"),
    (b'{"runId": "__all__"}', "run_id_invalid"),
    (b'{"runId": "r1\\n"}', "run_id_invalid"),
    (b'{"runId": "\\ud800"}', "run_id_invalid"),
    (b'{"runId": "r1", "stepId": null}', "step_id_invalid"),
    (b'{"runId": "r1", "stepId": ""}', "step_id_invalid"),
    (b'{"runId": "r1", "stepId": 7}', "step_id_invalid"),
    (b'{"runId": "r1", "stepId": "a.b"}', "step_id_invalid"),
    (b'{"runId": "r1", "stepId": "a/b"}', "step_id_invalid"),
    (b'{"runId": "r1", "stepId": "a`b"}', "step_id_invalid"),
    (b'{"runId": "r1", "stepId": "a\\u0000"}', "step_id_invalid"),
    (b'{"runId": "r1", "stepId": "\\udfff"}', "step_id_invalid"),
    (b'{"runId": "r1", "stepId": "' + b"x" * 257 + b'"}', "step_id_invalid"),
]


@pytest.mark.parametrize(("body", "reason"), BAD_BODIES, ids=[f"{b[:24]!r}-{r}" for b, r in BAD_BODIES])
def test_bad_bodies_are_rejected_with_their_reason(body, reason):
    """A bad body is rejected with a reason and a short sentence that can be logged and published."""
    rejected = _rejection(body)
    assert rejected.reason == reason
    assert "expected" in rejected.detail
    assert len(rejected.detail) < 500
    rejected.detail.encode("utf-8")


OTHER_EVENT = {"specversion": "1.0", "type": "com.example.other"}
START = "line 1 column 1 (char 0)"
DETAILS = [
    (EVENT | {"type": 7}, "type: expected the event's type, got 7"),
    (EVENT | {"subject": None}, "subject: expected documents/flow_runs/<runId>, got nothing"),
    (EVENT | {"subject": ["x"]}, "subject: expected documents/flow_runs/<runId>, got ['x']"),
    (
        EVENT | {"subject": "/flow_runs/r1"},
        "subject: expected documents/flow_runs/<runId> or the full resource name, got '/flow_runs/r1'",
    ),
    (b"[7]", "body: expected a JSON object, got [7]"),
    (
        b"x" * 61,
        f"body: expected a JSON object in UTF-8, got b'{60 * 'x'}' (Expecting value: {START})",
    ),
    (b"x" * 65537, "body: expected at most 65536 bytes, got 65537"),
    (b"", "body: expected a JSON object with runId, or the attribute runId, got neither"),
    (b"{}", "runId: expected in the JSON body, got nothing"),
]


@pytest.mark.parametrize(("body", "detail"), DETAILS, ids=[detail[:40] for _, detail in DETAILS])
def test_a_rejection_says_what_was_expected_and_found(body, detail):
    """The sentence stands in the log and in the quarantine."""
    assert _rejection(body).detail == detail


@pytest.mark.parametrize(
    ("body", "attributes", "reason"),
    [
        (OTHER_EVENT, {}, "event type 'com.example.other'"),
        (b"", {"ce-type": "x", "ce-subject": SUBJECT}, "event type 'x'"),
        (EVENT | {"subject": "documents/other/r1"}, {}, "document 'documents/other/r1'"),
        (
            b"",
            {"ce-type": UPDATED, "ce-subject": "documents/a/1", "ce-document": "documents/b/2"},
            "document 'documents/a/1'",
        ),
    ],
)
def test_why_an_event_is_ignored(body, attributes, reason):
    """The log names the type or the document of the event."""
    assert _parse(body, attributes) == Irrelevant(reason=reason)


def test_of_two_unreadable_documents_the_first_is_named():
    """The subject comes first."""
    attributes = {"ce-type": UPDATED, "ce-subject": f"/{SUBJECT}", "ce-document": "documents/flow_runs/.."}
    assert _rejection(b"", attributes).reason == "subject_invalid"


def test_no_depth_of_nesting_gets_through():
    """A body that is nested too deeply to be shown is rejected at every depth."""
    for depth in range(1, 1200, 7):
        assert _rejection(b"[" * depth + b"]" * depth).reason in {"body_not_json", "body_not_object"}
        nested = b'{"runId":' + b"[" * depth + b"]" * depth + b"}"
        assert _rejection(nested).reason in {"body_not_json", "run_id_invalid"}


def test_an_empty_message_is_rejected():
    """A message with neither a body nor a run id is rejected."""
    assert _rejection(b"", {"other": "x"}).reason == "body_empty"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"runId": ""}, "run_id_invalid"),
        ({"runId": "a/b"}, "run_id_invalid"),
        ({"runId": "r1", "stepId": ""}, "step_id_invalid"),
    ],
)
def test_bad_attributes_are_rejected(attributes, reason):
    """Bad attributes are rejected by the rules of the body."""
    assert _rejection(b"", attributes).reason == reason


def test_a_body_of_64_kib_is_read_and_one_byte_more_is_not():
    """A body of 64 KiB is read, and one more byte is rejected."""
    body = json.dumps(PLAIN).encode()
    assert _parse(body.ljust(65536)) == STEP
    assert _rejection(body.ljust(65537)).reason == "body_too_large"


def test_a_binary_event_may_be_as_large_as_its_run():
    """A binary event of any size is accepted, because its body is not read."""
    attributes = {"ce-type": UPDATED, "ce-subject": SUBJECT}
    assert parse_message(b"x" * 65537, attributes) == parse_message(b"", attributes)


def test_a_structured_event_has_the_limit_of_all_that_is_read():
    """A structured event has the size limit, because its body is parsed."""
    attributes = {"content-type": "application/cloudevents+json", "ce-type": UPDATED, "ce-subject": SUBJECT}
    assert _rejection(b"x" * 65537, attributes).reason == "body_too_large"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["runId", "stepId", "specversion", "type", "subject", "document", "data", "data_base64"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)
BODIES = st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode())
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["runId", "stepId", "content-type", "ce-type", "ce-subject", "ce-document", "other"]),
    st.sampled_from([UPDATED, SUBJECT, "application/cloudevents+json", "r1", ""]) | st.text(),
)


@given(BODIES, ATTRIBUTES)
@example(b'{"specversion":"1.0","type":[]}', {})
def test_any_message_is_understood_ignored_or_rejected(data, attributes):
    """Any message is parsed, ignored or rejected, and no other error is raised."""
    try:
        parsed = parse_message(data, attributes)
    except MessageRejected:
        return
    assert isinstance(parsed, StepRequest | Irrelevant)
