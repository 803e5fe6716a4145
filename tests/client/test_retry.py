from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest

from tavus_provider.client.rate_limiter import RateLimiter
from tavus_provider.client.retry import Retry, RetryPolicy, is_read_retryable, parse_retry_after
from tavus_provider.client.transport import RequestCancelledError, Response
from tavus_provider.exceptions import TavusRetryableError

NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def policy(clock) -> RetryPolicy:
    """A retry policy whose waits take no time."""
    return RetryPolicy(RateLimiter(sleep=clock.sleep, clock=clock), stop=threading.Event())


def limited(seconds: object = None) -> Response:
    return Response(429, {} if seconds is None else {"retry-after": str(seconds)}, b"")


def unavailable(**headers: str) -> Response:
    return Response(503, headers, b"")


class Request:
    """A request whose attempts return what they are given, and which returns how it ended."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.numbers: list[int] = []

    def attempt(self, number: int) -> object:
        self.numbers.append(number)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def give_up(self, attempts: int, error: TavusRetryableError | None) -> object:
        return ("gave up", attempts, str(error) if error else None)


# --- Retry-After


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("99999", 99999),
        ("99999999", float("inf")),
        pytest.param("9" * 5000, float("inf"), id="5,000 digits"),
        ("Sun, 01 Nov 2026 12:00:30 GMT", 30),
        ("Sun, 01 Nov 2026 11:59:00 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", float("inf")),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("12.0", 12),
        ("1.5", 2),
        ("0.000000001", 1),
        ("99999.5", 100_000),
        ("100000.5", float("inf")),
        ("Sunday, 01-Nov-26 12:00:30 GMT", 30),
        ("Sun Nov  1 12:00:30 2026", 30),
        ("Sun Nov 01 11:59:00 2026", 0),
        ("-1.5", None),
        (".5", None),
        ("1.", None),
        ("1.5.5", None),
        ("1,5", None),
        ("1.0000000001", None),
        ("Sunday, 99-Nov-26 12:00:30 GMT", None),
        ("Sun Nov  1 12:00:30 2026 +0200", None),
        ("3, 4", None),
        ("1e3", None),
        ("\u0667", None),
        ("2026-11-01T12:00:30Z", None),
        ("Sun, 99 Nov 2026 12:00:30 GMT", None),
        ("Sun, 01 Xyz 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert parse_retry_after(header, now=lambda: NOW) == seconds


def test_statuses_after_which_a_read_is_sent_again():
    retryable = [status for status in range(200, 600) if is_read_retryable(status)]
    assert retryable == [408, 429, *range(500, 600)]


# --- waits


@pytest.mark.parametrize(("attempts", "most"), [(1, 1.0), (2, 2.0), (3, 4.0), (9, 8.0)])
def test_backoff_is_uniform_within_its_bounds(policy, attempts, most):
    for _ in range(100_000):
        policy.count_request()
    waits = [policy.wait(attempts) for _ in range(10_000)]
    assert 0 <= min(waits) <= max(waits) <= most
    tenths = [sum(1 for wait in waits if at <= wait * 10 / most < at + 1) for at in range(10)]
    assert min(tenths) > 800
    assert max(tenths) < 1200


@pytest.mark.parametrize(
    ("retry_after", "least"),
    [
        pytest.param(None, 0.5, id="no header"),
        pytest.param("7", 7, id="7"),
        pytest.param("0", 0, id="0"),
        pytest.param("soon", 0.5, id="invalid"),
    ],
)
def test_429_waits_for_retry_after_and_the_backoff(policy, clock, retry_after, least):
    for _ in range(50):
        assert least <= policy.wait(1, 0.0, limited(retry_after)) <= least + 1
    assert len(clock.waits) == 50
    assert max(clock.waits) <= least + 1


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        pytest.param("121", "121 s", id="121"),
        pytest.param("99999999", "more than a day", id="8 digits"),
        pytest.param("9" * 5000, "more than a day", id="5,000 digits"),
    ],
)
def test_retry_after_above_the_limit_is_not_waited_for(policy, clock, header, shown):
    with pytest.raises(TavusRetryableError) as caught:
        policy.wait(1, 0.0, limited(header))
    assert str(caught.value) == f"rate limited: Retry-After of {shown} exceeds the limit of 120 s"
    assert caught.value.status == 429
    assert clock.waits == []


def test_limit_is_for_all_waits_of_one_request_together(policy, clock):
    waited = policy.wait(1, 0.0, limited(60))
    with pytest.raises(
        TavusRetryableError,
        match=r"^rate limited: Retry-After of 60 s makes 12\d s of waiting, which exceeds the limit of 120 s",
    ):
        policy.wait(2, waited, limited(60))
    assert clock.waits == pytest.approx([waited])


def test_backoff_above_the_limit_is_not_waited_for(policy, clock):
    with pytest.raises(
        TavusRetryableError, match=r"^the next attempt exceeds the limit of 120 s for all waits"
    ):
        policy.wait(1, 120.0, unavailable())
    assert clock.waits == []


def test_503_with_retry_after_is_not_called_rate_limited(policy):
    with pytest.raises(TavusRetryableError) as caught:
        policy.wait(1, 0.0, unavailable(**{"retry-after": "3600"}))
    assert str(caught.value) == "Retry-After of 3600 s exceeds the limit of 120 s"


@pytest.mark.parametrize(("requests", "retries"), [(1, 10), (100, 10), (101, 10), (250, 25)])
def test_retry_budget_is_a_tenth_of_the_requests_and_at_least_ten(policy, requests, retries):
    for _ in range(requests):
        policy.count_request()
    for _ in range(retries):
        policy.wait(1, 0.0, unavailable())
    with pytest.raises(
        TavusRetryableError, match="too many requests of this task needed a retry: Tavus seems to be down"
    ):
        policy.wait(1, 0.0, unavailable())
    policy.wait(1, 0.0, limited())  # a rate limit does not use the budget


def test_429_blocks_all_clients_of_the_account(transport, clock, raw_server):
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    server = raw_server(lambda *_: ok)
    one, other = transport(server.url), transport(server.url)
    limiter = one.rate_limiter
    assert other.rate_limiter is limiter
    real, limiter.sleep = limiter.sleep, lambda *_: False  # the rate limited request itself waits elsewhere
    waited = RetryPolicy(limiter, stop=threading.Event()).wait(1, 0.0, limited(30))
    limiter.sleep = real
    other.send("GET", "/v2/replicas/r1")
    assert clock.waits == pytest.approx([waited])
    assert waited >= 30


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_setting_the_wall_clock_changes_no_wait(policy, clock, monkeypatch, step):
    real, steps = time.time, iter(range(1_000_000))
    monkeypatch.setattr(time, "time", lambda: real() + step * next(steps))
    assert policy.run(Request(Retry(limited(5)), Retry(limited(5)), "done")) == "done"
    assert len(clock.waits) == 2
    assert all(5 <= wait <= 7 for wait in clock.waits)


# --- the loop


def test_first_result_is_returned_without_a_wait(policy, clock):
    request = Request("done")
    assert policy.run(request) == "done"
    assert (request.numbers, clock.waits) == ([1], [])


def test_request_is_repeated_until_it_returns_a_result(policy, clock):
    request = Request(Retry(), Retry(unavailable()), "done")
    assert policy.run(request) == "done"
    assert (request.numbers, len(clock.waits)) == ([1, 2, 3], 2)


def test_request_is_sent_three_times_at_most(policy, clock):
    request = Request(*[Retry()] * 9)
    assert policy.run(request) == ("gave up", 3, None)
    assert (request.numbers, len(clock.waits)) == ([1, 2, 3], 2)


def test_error_of_an_attempt_ends_the_loop(policy):
    request = Request(Retry(), ValueError("final"))
    with pytest.raises(ValueError, match="final"):
        policy.run(request)
    assert request.numbers == [1, 2]


def test_request_gives_up_if_the_wait_exceeds_the_limit(policy, clock):
    request = Request(Retry(limited(300)))
    assert policy.run(request) == (
        "gave up",
        1,
        "rate limited: Retry-After of 300 s exceeds the limit of 120 s",
    )
    assert clock.waits == []


# --- stop


@pytest.mark.parametrize("attempts", [0, 1])
def test_cancelled_attempt_is_not_counted(policy, attempts):
    request = Request(*[Retry()] * attempts, RequestCancelledError("not sent"))
    gave_up, counted, error = policy.run(request)
    assert (gave_up, counted) == ("gave up", attempts)
    assert error == "the client was stopped"


def test_stop_ends_the_wait_for_the_next_attempt():
    stop = threading.Event()
    policy = RetryPolicy(RateLimiter(), stop=stop)
    request = Request(Retry(limited(100)), "not reached")
    results = []
    thread = threading.Thread(target=lambda: results.append(policy.run(request)))
    thread.start()
    stop.set()
    thread.join(20)
    assert results == [("gave up", 1, "the client was stopped")]
    assert request.numbers == [1]
