from __future__ import annotations

import hashlib
import threading
import time

import pytest

from tavus_provider.client import rate_limiter
from tavus_provider.client.config import ClientConfig
from tavus_provider.client.rate_limiter import RateLimiter, shared_rate_limiter, wait_for_stop

ORIGIN = "https://tavusapi.com"


@pytest.fixture
def limiter(clock) -> RateLimiter:
    """A rate limiter on the clock of the test."""
    return RateLimiter(sleep=clock.sleep, clock=clock)


def observe_rate(limiter: RateLimiter, *, sent: int, rejected: int) -> None:
    """Send requests at once, and get a 429 response for some of them."""
    for _ in range(sent):
        limiter.acquire()
    for _ in range(rejected):
        limiter.block_for(1)


def send_times(limiter: RateLimiter, clock, count: int, rate: float | None = None) -> list[float]:
    times = []
    for _ in range(count):
        limiter.acquire(rate)
        times.append(clock.now)
    return times


def test_requests_are_spaced_by_the_rate(limiter, clock):
    # 5 % wider: the eleventh of 10 requests per second must not arrive within the second of the first.
    assert send_times(limiter, clock, 5, rate=4) == pytest.approx(
        [1000, 1000.2625, 1000.525, 1000.7875, 1001.05]
    )


def test_no_rate_means_no_wait(limiter, clock):
    send_times(limiter, clock, 5)
    assert clock.waits == []


def test_unused_time_is_not_saved_up(limiter, clock):
    limiter.acquire(1)
    clock.now += 100
    limiter.acquire(1)
    assert clock.waits == []
    limiter.acquire(1)
    assert clock.waits == pytest.approx([1.05])


def test_block_while_waiting_keeps_the_spacing(limiter, clock):
    limiter.acquire(1)

    def sleep(seconds: float, stop: threading.Event) -> bool:
        clock.sleep(seconds)
        if clock.now == pytest.approx(1001.05):
            limiter.block_for(10)
        return False

    limiter.sleep = sleep
    assert send_times(limiter, clock, 3, rate=1) == pytest.approx([1011.05, 1012.1, 1013.15])


def test_rate_before_a_429_is_kept_after_it(limiter, clock):
    observe_rate(limiter, sent=32, rejected=22)  # 10 in a second were accepted
    assert send_times(limiter, clock, 3) == pytest.approx([1001, 1001.105, 1001.21])


def test_observed_rate_is_that_of_the_last_second(limiter, clock):
    observe_rate(limiter, sent=32, rejected=22)
    clock.now += 120
    observe_rate(limiter, sent=8, rejected=4)
    start = clock.now + 1
    assert send_times(limiter, clock, 2) == pytest.approx([start, start + 1.05 / 4])


def test_observed_rate_expires_after_a_minute(limiter, clock):
    observe_rate(limiter, sent=32, rejected=22)
    clock.now += 62
    assert send_times(limiter, clock, 3) == [clock.now] * 3


@pytest.mark.parametrize("sent", [1, 2])
def test_less_than_two_accepted_requests_show_no_rate(limiter, clock, sent):
    observe_rate(limiter, sent=sent, rejected=1)
    assert send_times(limiter, clock, 3) == [1001] * 3


def test_slower_of_given_and_observed_rate_is_used(limiter, clock):
    observe_rate(limiter, sent=32, rejected=22)
    limiter.acquire(2)
    limiter.acquire(100)
    assert clock.now == pytest.approx(1001.525)
    limiter.acquire(100)
    assert clock.now == pytest.approx(1001.63)


def test_shorter_block_does_not_shorten_a_longer_one(limiter, clock):
    limiter.block_for(30)
    limiter.block_for(1)
    limiter.acquire()
    assert clock.waits == [30]


def test_waits_use_the_monotonic_clock():
    limiter = RateLimiter()
    assert limiter.clock is time.monotonic
    assert limiter.sleep is wait_for_stop


# --- stop


def test_stop_ends_a_wait():
    stop = threading.Event()
    limiter = RateLimiter()
    limiter.block_for(3600)
    results = []
    thread = threading.Thread(target=lambda: results.append(limiter.acquire(stop=stop)))
    thread.start()
    stop.set()
    thread.join(20)
    assert results == [False]


def test_stop_ends_the_wait_for_another_thread(clock):
    """A client that is stopped does not wait until another client of the same account has waited."""
    waiting, release, stop = threading.Event(), threading.Event(), threading.Event()

    def sleep(seconds: float, other_stop: threading.Event) -> bool:
        waiting.set()
        assert release.wait(20)
        clock.now += seconds
        return False

    limiter = RateLimiter(sleep=sleep, clock=clock)
    limiter.block_for(3600)
    other = threading.Thread(target=limiter.acquire)
    other.start()
    assert waiting.wait(20)
    stop.set()
    assert limiter.acquire(stop=stop) is False
    release.set()
    other.join(20)


def test_nothing_passes_after_a_stop(limiter):
    stop = threading.Event()
    assert limiter.acquire(stop=stop) is True
    stop.set()
    assert limiter.acquire(stop=stop) is False


# --- sharing


def test_limiter_is_shared_by_origin_and_key():
    one = shared_rate_limiter(ClientConfig(ORIGIN, "shared-key-1"))
    assert shared_rate_limiter(ClientConfig(ORIGIN, "shared-key-1")) is one
    assert shared_rate_limiter(ClientConfig(ORIGIN, "shared-key-2")) is not one
    assert shared_rate_limiter(ClientConfig("http://127.0.0.1:8600", "shared-key-1")) is not one


def test_registry_holds_a_digest_and_not_the_key(clock):
    shared_rate_limiter(ClientConfig(ORIGIN, "registry-key-1"))
    (account,) = rate_limiter._shared
    assert account == hashlib.sha256(b"https://tavusapi.com\0registry-key-1").hexdigest()
    assert "registry-key" not in repr(vars(rate_limiter))
