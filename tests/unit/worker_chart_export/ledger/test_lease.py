"""Leases: their content, their expiry, and what a claimer writes."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

import pytest
from google.cloud.firestore import DELETE_FIELD
from hypothesis import given
from hypothesis import strategies as st

from tests.support.fakes import suspend_machine
from tests.support.ledger.samples import READ_TIME, TERMS, lease_of, offer_of, seconds
from worker_chart_export.errors import LeaseLost
from worker_chart_export.ledger.decisions import build_lease_update
from worker_chart_export.ledger.lease import (
    NEVER,
    UNKNOWN_OWNER,
    HeldLease,
    Lease,
    LeaseTerms,
    StoredLease,
    unleased,
)
from worker_chart_export.timing import SystemClock


def _left(lease: Lease) -> float:
    return lease.seconds_left(READ_TIME, clock_skew_seconds=5)


class TestDocuments:
    """The stored document."""

    def test_a_lease_is_stored_under_the_names_of_the_contract(self):
        """A lease is stored with the contract's names, and times are Firestore timestamps."""
        assert lease_of().to_document() == {
            "owner": "host:1:mine",
            "token": "mine",
            "attempt": 2,
            "released": 0,
            "startedAt": READ_TIME - seconds(600),
            "acquiredAt": READ_TIME - seconds(60),
            "expiresAt": READ_TIME + seconds(60),
            "messageId": "m",
        }

    @pytest.mark.parametrize(
        "changes", [{}, {"released": 1, "retried_by": "a@b", "retried_at": READ_TIME, "released_by": "c@d"}]
    )
    def test_a_lease_is_read_as_it_was_written(self, changes):
        """A lease that is written and read is equal."""
        lease = lease_of(**changes)
        assert Lease.parse(lease.to_document()) == lease

    def test_what_only_some_leases_have_is_deleted_by_the_next(self):
        """A take-over writes over the document, so that nothing of the earlier lease is left."""
        assert build_lease_update(lease_of(released_by="c@d")) == {
            **lease_of().to_document(),
            "releasedBy": "c@d",
            "retriedBy": DELETE_FIELD,
            "retriedAt": DELETE_FIELD,
        }

    def test_an_empty_document_is_an_expired_lease_without_owner(self):
        """An empty document is an expired lease without owner, in its first attempt."""
        assert Lease.parse({}) == Lease(
            owner=UNKNOWN_OWNER,
            token="",
            attempt=1,
            released=0,
            started_at=NEVER,
            acquired_at=NEVER,
            expires_at=NEVER,
            message_id="",
        )

    @pytest.mark.parametrize("value", [None, "3", 2.5, True, -4, 0, [], {}])
    def test_an_invalid_count_is_the_smallest(self, value):
        """An invalid count is read as the smallest one, so that it never prevents a take-over."""
        lease = Lease.parse({"attempt": value, "released": value})
        assert (lease.attempt, lease.released) == (1, 0)

    @pytest.mark.parametrize("value", [None, "2025-12-15T12:00:00Z", 1765800000, datetime(2099, 1, 1)])  # noqa: DTZ001 - a time without zone is what is tested
    def test_an_invalid_time_is_long_past(self, value):
        """An invalid time, also one without a zone, is read as long past."""
        assert Lease.parse({"expiresAt": value, "token": "t"}).expires_at == NEVER

    @given(
        st.dictionaries(
            st.sampled_from(list(lease_of().to_document())), st.none() | st.text() | st.integers()
        )
    )
    def test_any_document_can_be_read(self, document):
        """Any document can be read as a lease and stored again."""
        lease = Lease.parse(document)
        assert Lease.parse(lease.to_document()) == lease


class TestExpiry:
    """Expiry, compared with the server's time of the read."""

    def test_a_lease_lasts_until_its_end_and_the_skew(self):
        """A lease is valid until the clock skew after its end, because its holder's clock may be late."""
        assert _left(lease_of()) == 65
        assert _left(lease_of(expires_at=READ_TIME - seconds(4.5))) == 0.5

    def test_a_lease_has_expired_past_its_end_and_the_skew(self):
        """After its end and the clock skew a lease has expired, with 0 seconds left."""
        assert _left(lease_of(expires_at=READ_TIME - seconds(5))) == 0
        assert _left(lease_of(expires_at=READ_TIME - seconds(900))) == 0

    def test_a_released_lease_has_no_skew(self):
        """A released lease expires without the clock skew, because it has no holder."""
        assert _left(lease_of(expires_at=READ_TIME + seconds(3)).released_until(READ_TIME)) == 0

    def test_a_released_lease_may_have_to_be_waited_for(self):
        """A released lease can end later, as long as its backend needs."""
        assert _left(lease_of().released_until(READ_TIME + seconds(7))) == 7

    def test_a_lease_taken_over_after_a_release_is_held_again(self):
        """A lease that was taken over after a release has the clock skew again."""
        again = offer_of().after(lease_of(attempt=1).released_until(READ_TIME), READ_TIME)
        assert not again.is_released
        assert again.seconds_left(again.expires_at, clock_skew_seconds=5) == 5

    def test_a_release_removes_the_token_and_is_counted(self):
        """A release removes the token, counts, and changes only the end besides."""
        released = lease_of().released_until(READ_TIME)
        assert released == replace(lease_of(), token="", released=1, expires_at=READ_TIME)


class TestOffers:
    """What a claimer writes."""

    def test_the_first_lease_has_the_first_attempt(self):
        """The first lease has attempt 1, no releases, a new start and the whole time."""
        lease = offer_of().first(READ_TIME)
        assert (lease.owner, lease.token, lease.message_id) == ("host:1:mine", "mine", "m")
        assert (lease.attempt, lease.released) == (1, 0)
        assert (lease.started_at, lease.acquired_at) == (READ_TIME, READ_TIME)
        assert lease.expires_at == READ_TIME + seconds(120)

    def test_a_take_over_counts_on_and_keeps_the_start(self):
        """A take-over increases the attempt and keeps the start, which is part of the object names."""
        earlier = lease_of("theirs", attempt=4, released=2)
        lease = offer_of().after(earlier, READ_TIME)
        assert (lease.attempt, lease.released, lease.started_at) == (5, 2, earlier.started_at)

    def test_a_take_over_is_the_taker_s_own(self):
        """A take-over has the taker's owner, token and message, and its time from now."""
        assert replace(
            offer_of().after(lease_of("theirs"), READ_TIME), attempt=1, started_at=READ_TIME
        ) == offer_of().first(READ_TIME)

    def test_a_take_over_of_a_lease_without_a_start_starts_now(self):
        """A take-over of a lease without a start starts now and not in 1970."""
        assert offer_of().after(Lease.parse({}), READ_TIME).started_at == READ_TIME

    def test_a_step_without_a_lease_gets_one_of_an_unknown_owner(self):
        """A step without a lease gets one of an unknown owner for the whole grace, with an unused token."""
        lease = unleased(token="x", now=READ_TIME, grace_seconds=3600)  # noqa: S106 - no password
        assert (lease.owner, lease.token, lease.attempt, lease.released) == ("unknown", "x", 1, 0)
        assert not lease.message_id
        assert (lease.started_at, lease.expires_at) == (READ_TIME, READ_TIME + seconds(3600))


class TestTerms:
    """The lease settings."""

    def test_a_lease_is_renewed_three_times_in_its_life(self):
        """A lease is renewed three times in its life, so that two heartbeats can be lost."""
        assert LeaseTerms(lease_seconds=120).renew_every_seconds == 40

    def test_the_time_between_heartbeats_can_be_set(self):
        """The time between two heartbeats can be set."""
        assert LeaseTerms(lease_seconds=120, heartbeat_seconds=5).renew_every_seconds == 5

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("lease_seconds", 0),
            ("lease_seconds", math.inf),
            ("lease_seconds", math.nan),
            ("heartbeat_seconds", 0),
            ("heartbeat_seconds", 115),
            ("max_attempts", 0),
            ("clock_skew_seconds", -1),
            ("max_work_seconds", math.nan),
        ],
    )
    def test_values_that_lose_every_lease_are_refused(self, name, value):
        """The error names the value."""
        with pytest.raises(ValueError, match=f"{name}: expected"):
            LeaseTerms(**{name: value})

    def test_the_smallest_values_are_accepted(self):
        """A lease may be shorter than a second and have one attempt; zero turns the other settings off."""
        LeaseTerms(
            lease_seconds=0.5,
            max_attempts=1,
            clock_skew_seconds=0,
            unleased_grace_seconds=0,
            max_work_seconds=0,
        )

    def test_a_holder_trusts_its_lease_for_less_than_it_lasts(self):
        """A holder trusts its lease for a shorter time than it lasts, by the clock skew."""
        assert TERMS.trusted_seconds == 115

    def test_a_short_lease_leaves_its_holder_most_of_it(self):
        """With any clock skew a short lease is trusted for most of its time."""
        assert LeaseTerms(lease_seconds=4, clock_skew_seconds=60).trusted_seconds == 3


def test_a_suspend_of_the_machine_ends_the_trust_in_a_lease(monkeypatch):
    """A worker whose machine was suspended past its lease pays for nothing more."""
    clock = SystemClock()
    held = HeldLease(
        run_id="run",
        step_id="step",
        stored=StoredLease(lease=lease_of(), update_time=READ_TIME),
        trusted_until=clock.monotonic() + 300,
        clock=clock,
    )
    held.check()
    suspend_machine(monkeypatch, 301)
    with pytest.raises(LeaseLost):
        held.check()
