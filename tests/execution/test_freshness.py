"""When what is known of holds and use is read again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tavus_provider.client.transport import RequestCancelledError
from tavus_provider.exceptions import TavusRetryableError
from tavus_provider.execution.freshness import Freshness

NOW = datetime(2026, 9, 1, tzinfo=UTC)


class World:
    """A monotonic clock, and what reading again returns or raises, and how long it takes."""

    def __init__(self):
        self.time, self.seconds, self.error, self.objections, self.reads = 100.0, 1.0, None, {}, 0
        self.now = NOW
        self.freshness = Freshness(
            self.read,
            valid_until=NOW + timedelta(hours=1),
            now=lambda: self.now,
            read_at=self.time,
            clock=lambda: self.time,
        )

    def read(self):
        self.reads += 1
        self.time += self.seconds
        if self.error:
            raise self.error
        return self.objections


def test_facts_are_read_again_after_30_seconds():
    world = World()
    world.time += 30
    assert world.freshness.confirm("r1")
    world.time += 0.1
    assert (world.freshness.confirm("r1"), world.reads) == (False, 1)
    assert (world.freshness.confirm("r1"), world.reads) == (True, 1)
    world.time += 29.1  # the age counts from the begin of the reading
    assert (world.freshness.confirm("r1"), world.reads) == (False, 2)


def test_objection_is_for_its_replica_only():
    world = World()
    world.objections = {"r1": "is under legal hold"}
    world.time += 31
    with pytest.raises(RequestCancelledError, match="is under legal hold"):
        world.freshness.confirm("r1")
    assert world.freshness.confirm("r2")


@pytest.mark.parametrize("failure", ["error", "slow", "expired"])
def test_failure_forbids_all_further_deletes(failure):
    world = World()
    world.time += 31
    world.error = TavusRetryableError("down") if failure == "error" else None
    world.seconds = 31.0 if failure == "slow" else 1.0
    world.now += timedelta(hours=failure == "expired")
    for _ in range(2):
        with pytest.raises(RequestCancelledError, match=r"down|took 31 s|expired at 2026-09-01 01:00"):
            world.freshness.confirm("r1")
        world.error, world.seconds = None, 1.0
    assert world.reads == (failure != "expired")


def test_rate_limit_that_is_too_low_ends_instead_of_reading_for_a_day():
    world = World()
    world.seconds = 28.0
    world.time += 31
    for _ in range(5):
        assert not world.freshness.confirm("r1")
        world.time += 3.15  # the wait for the rate limit
    with pytest.raises(RequestCancelledError, match=r"read again 5 times.*allow more requests per second"):
        world.freshness.confirm("r1")
    assert world.reads == 5


def test_only_readings_in_vain_are_counted():
    world = World()
    for _ in range(20):
        world.time += 31
        assert not world.freshness.confirm("r1")
        assert world.freshness.confirm("r1")
    assert world.reads == 20
