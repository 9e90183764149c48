"""Leases: what they say, when they are over, and what a claimer writes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.ledger.samples import READ_TIME, TERMS, lease_of, offer_of, seconds
from worker_chart_export.ledger.lease import NEVER, UNKNOWN_OWNER, Lease, LeaseTerms, unleased


def _left(lease: Lease) -> float:
    return lease.seconds_left(READ_TIME, clock_skew_seconds=5)


class TestDocuments:
    """What is stored."""

    def test_a_lease_is_stored_under_the_names_of_the_contract(self):
        """Times as Firestore's own timestamps."""
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

    def test_a_lease_is_read_as_it_was_written(self):
        """Nothing is lost on the way."""
        assert Lease.parse(lease_of().to_document()) == lease_of()

    def test_an_empty_document_is_a_lease_that_is_over_and_nobody_s(self):
        """In its first attempt."""
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
    def test_a_count_that_is_none_is_the_least(self, value):
        """It never keeps a step from being taken over."""
        lease = Lease.parse({"attempt": value, "released": value})
        assert (lease.attempt, lease.released) == (1, 0)

    @pytest.mark.parametrize("value", [None, "2025-12-15T12:00:00Z", 1765800000, datetime(2099, 1, 1)])  # noqa: DTZ001 - a time without zone is what is tested
    def test_a_time_that_is_none_is_long_past(self, value):
        """A time without a zone is none either."""
        assert Lease.parse({"expiresAt": value, "token": "t"}).expires_at == NEVER

    @given(
        st.dictionaries(
            st.sampled_from(list(lease_of().to_document())), st.none() | st.text() | st.integers()
        )
    )
    def test_any_document_can_be_read(self, document):
        """And what is read can be stored."""
        lease = Lease.parse(document)
        assert Lease.parse(lease.to_document()) == lease


class TestExpiry:
    """By the server's time of the read."""

    def test_a_lease_lasts_until_its_end_and_the_skew(self):
        """Its holder's clock may be that much behind."""
        assert _left(lease_of()) == 65
        assert _left(lease_of(expires_at=READ_TIME - seconds(4.5))) == 0.5

    def test_a_lease_is_over_past_its_end_and_the_skew(self):
        """And never less than nothing is left."""
        assert _left(lease_of(expires_at=READ_TIME - seconds(5))) == 0
        assert _left(lease_of(expires_at=READ_TIME - seconds(900))) == 0

    def test_a_released_lease_knows_no_skew(self):
        """Nobody holds it whose clock could be wrong."""
        assert _left(lease_of(expires_at=READ_TIME + seconds(3)).released_until(READ_TIME)) == 0

    def test_a_released_lease_may_have_to_be_waited_for(self):
        """As long as its backend needs."""
        assert _left(lease_of().released_until(READ_TIME + seconds(7))) == 7

    def test_a_lease_taken_over_after_a_release_is_held_again(self):
        """An earlier release excuses nobody from the skew."""
        again = offer_of().after(lease_of(attempt=1).released_until(READ_TIME), READ_TIME)
        assert not again.is_released
        assert again.seconds_left(again.expires_at, clock_skew_seconds=5) == 5

    def test_a_release_takes_the_token_and_is_counted(self):
        """Nothing else changes but the end."""
        released = lease_of().released_until(READ_TIME)
        assert released == replace(lease_of(), token="", released=1, expires_at=READ_TIME)


class TestOffers:
    """What a claimer writes."""

    def test_the_first_lease_starts_everything(self):
        """Attempt 1, nothing released, a new start, and the whole time."""
        lease = offer_of().first(READ_TIME)
        assert (lease.owner, lease.token, lease.message_id) == ("host:1:mine", "mine", "m")
        assert (lease.attempt, lease.released) == (1, 0)
        assert (lease.started_at, lease.acquired_at) == (READ_TIME, READ_TIME)
        assert lease.expires_at == READ_TIME + seconds(120)

    def test_a_take_over_counts_on_and_keeps_the_start(self):
        """Objects are named by the start, so that no chart is paid for twice."""
        earlier = lease_of("theirs", attempt=4, released=2)
        lease = offer_of().after(earlier, READ_TIME)
        assert (lease.attempt, lease.released, lease.started_at) == (5, 2, earlier.started_at)

    def test_a_take_over_is_the_taker_s_own(self):
        """Owner, token, message, and time from now."""
        assert replace(
            offer_of().after(lease_of("theirs"), READ_TIME), attempt=1, started_at=READ_TIME
        ) == offer_of().first(READ_TIME)

    def test_a_take_over_of_a_lease_without_a_start_starts_now(self):
        """Objects of 1970 would be odd."""
        assert offer_of().after(Lease.parse({}), READ_TIME).started_at == READ_TIME

    def test_a_step_without_a_lease_gets_one_of_an_unknown_owner(self):
        """That lasts for the whole grace, under a token nobody has."""
        lease = unleased(token="x", now=READ_TIME, grace_seconds=3600)  # noqa: S106 - no password
        assert (lease.owner, lease.token, lease.attempt, lease.released) == ("unknown", "x", 1, 0)
        assert (lease.started_at, lease.expires_at) == (READ_TIME, READ_TIME + seconds(3600))


class TestTerms:
    """What leases go by."""

    def test_a_lease_is_renewed_three_times_in_its_life(self):
        """Two heart-beats may be lost."""
        assert LeaseTerms(lease_seconds=120).renew_every_seconds == 40

    def test_a_holder_trusts_its_lease_for_less_than_it_lasts(self):
        """By the clock skew."""
        assert TERMS.trusted_seconds == 115

    def test_a_short_lease_leaves_its_holder_most_of_it(self):
        """However great the skew."""
        assert LeaseTerms(lease_seconds=4, clock_skew_seconds=60).trusted_seconds == 3
