from __future__ import annotations

import base64
import contextlib
import copy
import json
import logging
import pickle
import threading
import time
from concurrent.futures import wait
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
import urllib3

from tavus_provider.client import transport as module
from tavus_provider.client.config import Account, ClientOptions
from tavus_provider.client.connection import Session
from tavus_provider.client.transport import (
    Answer,
    Gate,
    RequestNotSentError,
    Transport,
    may_heal,
    retry_after,
)
from tavus_provider.exceptions import TavusRetryableError, TavusValidationError

KEY = "transport-key-5d1c/9a+7e"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
R1 = "/v2/replicas/r1"
NOW = datetime(2026, 11, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def transport(clock):
    """Make transports whose waits take no time: ``transport(url, ..extras)``."""
    made = []

    def make(url: str = "https://tavusapi.com", *, key: str = KEY, **extras: object) -> Transport:
        made.append(Transport(Account(url, key, ClientOptions(**extras))))
        return made[-1]

    yield make
    for one in made:
        one.close()


def says(status: int, headers: str = "", body: str = "{}", kind: str = "application/json") -> bytes:
    return (
        f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}"
    ).encode("latin-1")


# -- what leaves


def test_a_delete_is_one_request_of_exactly_these_words(transport, requests_mock):
    requests_mock.delete(f"https://tavusapi.com{R1}", status_code=204)
    one = transport()
    one.send("DELETE", R1)
    one.send("DELETE", R1, {"hard": "true"})
    soft, hard = requests_mock.request_history
    assert (soft.method, soft.url, soft.body) == ("DELETE", "https://tavusapi.com/v2/replicas/r1", None)
    assert (hard.method, hard.url, hard.body) == (
        "DELETE",
        "https://tavusapi.com/v2/replicas/r1?hard=true",
        None,
    )
    assert dict(soft.headers) == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "airflow-provider-tavus/0.1.0",
        "x-api-key": KEY,
        "Content-Length": "0",
    }


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("DELETE", "/v2/replicas/", None),
        ("DELETE", "/v2/replicas", None),
        ("DELETE", "/v2/replicas/..", None),
        ("DELETE", "/v2/replicas/../personas/p1", None),
        ("DELETE", "/v2/replicas/%2e%2e", None),
        ("DELETE", "/v2/replicas/r1/", None),
        ("DELETE", "/v2/replicas/r1\n", None),
        ("DELETE", "/v2/replicas/r1/name", None),
        ("DELETE", "/v2/replicas/r1?hard=true&x=1", None),
        ("DELETE", "/v2/replicas/r1#x", None),
        ("DELETE", "/v2/personas/p1", None),
        ("DELETE", "/v2/videos/v1", None),
        ("DELETE", R1, {"hard": "True"}),
        ("DELETE", R1, {"hard": "false"}),
        ("DELETE", R1, {"force": "true"}),
        ("DELETE", "@evil.test/v2/replicas/r1", None),
        ("DELETE", "", None),
        ("GET", "/v2/replicas/..", None),
        ("GET", "/v2/../x", None),
        ("GET", "/v1/replicas", None),
        ("GET", "@evil.test/v2/replicas", None),
        ("GET", "/v2/replicas/a b", None),
        ("POST", R1, None),
        ("delete", R1, None),
    ],
)
def test_nothing_else_leaves(transport, raw_server, method, path, query):
    server = raw_server(lambda *_: OK)
    with pytest.raises(TavusValidationError, match=f"is not the {method} that was meant; not sent"):
        transport(server.url).send(method, path, query)
    assert server.connections == 0


@pytest.mark.parametrize(
    "change",
    [
        {"url": "https://tavusapi.com/v2/replicas/"},
        {"url": "https://evil.test/v2/replicas/r1"},
        {"url": "https://tavusapi.com/v2/replicas/r1?hard=true"},
        {"method": "POST"},
        {"body": b"{}"},
    ],
)
def test_a_request_that_is_put_together_wrongly_does_not_leave(transport, requests_mock, monkeypatch, change):
    requests_mock.register_uri(requests_mock_any(), requests_mock_any())
    one = transport()
    real = Session.prepare_request

    def prepare(self, request):
        prepared = real(self, request)
        vars(prepared).update(change)
        return prepared

    monkeypatch.setattr(Session, "prepare_request", prepare)
    with pytest.raises(TavusValidationError, match="is not the DELETE that was meant; not sent"):
        one.send("DELETE", R1)
    assert requests_mock.call_count == 0


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", "/v2/replicas/"),
        ("DELETE", f"{R1}?hard=true"),
        ("DELETE", f"//evil.test{R1}"),
        ("POST", R1),
        ("GET", R1),
    ],
)
def test_a_request_that_a_library_changes_on_the_way_does_not_leave(
    transport, raw_server, monkeypatch, method, target
):
    server = raw_server(lambda *_: OK)
    one = transport(server.url)
    one.send("DELETE", R1)
    real = urllib3.HTTPConnectionPool.urlopen

    def changed(self, **kwargs):
        return real(self, **{**kwargs, "method": method, "url": target})

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", changed)
    with pytest.raises(TavusValidationError, match="is not the DELETE that was meant; not sent"):
        one.send("DELETE", R1)
    assert len(server.heads) == 1
    monkeypatch.undo()
    assert one.send("DELETE", R1).status == 200


def requests_mock_any():
    import requests_mock

    return requests_mock.ANY


# -- where the key is not


def test_nothing_that_is_shown_or_stored_holds_the_key(transport):
    one = transport()
    assert repr(one) == str(one) == "Transport('https://tavusapi.com')"
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a Transport holds the API key and is not pickled"):
            store(one)


FORMS = {
    "plain": KEY,
    "quoted": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 without padding": base64.b64encode(KEY.encode()).decode().rstrip("="),
    "url-safe base64": base64.urlsafe_b64encode(KEY.encode()).decode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_text_of_the_server_is_shown_without_the_key(transport, form):
    shown = transport().redact(f"no such key: {form}\nasked by ::group::")
    assert shown.startswith("no such key: ***")
    assert shown.rstrip("=").endswith(r"\nasked by : :group: :")
    assert not [known for known in FORMS.values() if known.rstrip("=") in shown]


def test_a_key_of_awkward_length_is_found_in_base64_too(transport):
    for length in range(6, 12):
        key = "k" * length
        assert "a2tr" not in transport(key=key).redact(base64.b64encode(key.encode()).decode())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_headers_of_an_answer_come_without_the_key(transport, raw_server, form):
    server = raw_server(
        lambda *_: says(500, f"X-Request-Id: q-{form}\r\nX-Echo: {form}\r\n", "<p>", f"text/html; k={form}")
    )
    answer = transport(server.url).send("GET", R1)
    assert answer.headers["x-echo"].rstrip("=") == "***"
    assert answer.request_id.rstrip("=") == "q-***"
    with pytest.raises(ValueError, match=r"the body is not JSON \(text/html; k=\*\*\*=?=?, 3 bytes\)"):
        answer.json()


def test_no_log_of_any_library_holds_the_key(transport, raw_server, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    for name in [None, *logging.root.manager.loggerDict]:
        caplog.set_level(logging.DEBUG, logger=name)
    server = raw_server(lambda _, number: OK if number == 1 else None)
    one = transport(server.url)
    one.send("GET", R1)
    with pytest.raises(TavusRetryableError):
        one.read(R1)
    assert "GET /v2/replicas/r1" in caplog.text  # urllib3 does log its requests
    shown = caplog.text + "".join(capfd.readouterr())
    assert not [form for form in FORMS.values() if form in shown]


# -- answers


def answer(body: bytes = b"{}", status: int = 200, **more: object) -> Answer:
    return Answer(status, {"content-type": "application/json"}, body, **more)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, null, "\\ud800"]}\n', {"a": [1, None, "\ud800"]}),
        (b"null", None),
        (b'"text"', "text"),
        (b'{"a": 1e400}', {"a": float("inf")}),
    ],
)
def test_json_is_read(body, value):
    assert answer(body).json() == value


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b'{"a": 1', id="cut"),
        pytest.param(b"[" * 200_000, id="200k nested"),
        pytest.param(b'{"a":' * 200_000, id="200k nested objects"),
        pytest.param(b'{"total_count": ' + b"9" * 5000 + b"}", id="5,000 digits"),
        pytest.param(b'{"a": NaN}', id="NaN"),
        pytest.param(b'{"a": -Infinity}', id="infinity"),
        pytest.param(b'{"a": 1, "a": 2}', id="twin keys"),
        pytest.param(b"\xef\xbb\xbf{}", id="BOM"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"a": "\xff"}', id="not UTF-8"),
        pytest.param(b"{} {}", id="two"),
    ],
)
def test_what_is_not_json_is_said_in_one_sentence(body):
    with pytest.raises(ValueError, match=r"^the body is not JSON \(application/json, \d+ bytes\)$") as caught:
        answer(body).json()
    assert type(caught.value) is ValueError
    assert caught.value.__context__ is None


def test_a_body_with_a_flaw_is_not_read_as_json():
    with pytest.raises(ValueError, match="the body was cut"):
        answer(b"{}", flaw="the body was cut (IncompleteRead)").json()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "Invalid replica_id"}', "Invalid replica_id"),
        (b'{"message": "Invalid access token"}', "Invalid access token"),
        (b'{"error": "", "message": "b"}', "b"),
        (b'{"error": "a", "message": "b"}', "a"),
        (b'{"error": {"text": "a"}}', ""),
        (b'{"error": 7}', ""),
        (b'["error"]', ""),
        (b"<html>", ""),
        (b"", ""),
    ],
)
def test_a_complaint_is_read_under_either_name(body, said):
    assert answer(body, 400).complaint() == said


def test_the_request_id_is_fit_for_a_message():
    assert Answer(200, {"x-request-id": "a\r\n" + "b" * 100}, b"").request_id == r"a\r\n" + "b" * 58 + "..."
    assert Answer(200, {}, b"").request_id is None


@pytest.mark.parametrize(
    ("header", "ahead"),
    [("Thu, 01 Jan 1970 00:00:00 GMT", -1e9), ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9)],
)
def test_the_clock_of_the_server_is_compared_with_ours(transport, raw_server, header, ahead):
    server = raw_server(lambda *_: says(200, f"Date: {header}\r\n"))
    one = transport(server.url)
    assert one.clock_skew is None
    one.send("GET", R1)
    assert one.clock_skew / ahead > 1


@pytest.mark.parametrize("header", ["", "soon", "2026-01-01", "1" * 5000, "Thu, 01 Jan 1970 00:00:00 -0000"])
def test_a_date_that_cannot_be_read_tells_nothing_of_the_clock(transport, raw_server, header):
    server = raw_server(lambda *_: says(200, f"Date: {header}\r\n"))
    one = transport(server.url)
    one.send("GET", R1)
    assert one.clock_skew is None
    one.clock_skew = 400.0
    one.send("GET", R1)
    assert one.clock_skew == 400.0


@pytest.mark.parametrize(
    "proxy", ["http://", "://", "127.0.0.1:1", "socks5://127.0.0.1:1", "http://[::1", "http://a b"]
)
def test_a_proxy_that_cannot_be_one_is_refused_before_anything_is_sent(proxy):
    with pytest.raises(
        TavusValidationError, match=r"^\[tavus\] proxy cannot be read: expected a URL such as"
    ):
        Transport(Account("https://tavusapi.com", KEY, ClientOptions()), proxy=proxy)


@pytest.mark.parametrize(
    "proxy", ["http://proxy.example:3128", "https://me:pass-w@10.0.0.1:80/", "http://[::1]:3128"]
)
def test_a_proxy_that_may_be_one_is_taken(proxy):
    Transport(Account("https://tavusapi.com", KEY, ClientOptions()), proxy=proxy).close()


# -- Retry-After


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("99999", 99999),
        ("99999999", float("inf")),
        ("9" * 5000, float("inf")),
        ("Sun, 01 Nov 2026 12:00:30 GMT", 30),
        ("Sun, 01 Nov 2026 11:59:00 GMT", 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", float("inf")),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("3, 4", None),
        ("1e3", None),
        ("\u0667", None),
        ("2026-11-01T12:00:30Z", None),
        ("Sun, 99 Nov 2026 12:00:30 GMT", None),
        ("Sun, 01 Xyz 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date_and_as_nothing_else(header, seconds):
    assert retry_after(header, now=lambda: NOW) == seconds


def test_what_may_heal():
    assert [status for status in range(200, 600) if may_heal(status)] == [408, 429, *range(500, 600)]


# -- waiting


def paused(one: Transport, sends: int, answer: Answer | None = None, waited: float = 0.0) -> float:
    one.count_call()
    return one.pause(sends, waited, answer)


@pytest.mark.parametrize(("sends", "most"), [(1, 1.0), (2, 2.0), (3, 4.0), (9, 8.0)])
def test_ten_thousand_waits_are_within_bounds_and_flat(transport, sends, most):
    one = transport()
    for _ in range(100_000):
        one.count_call()
    waits = [one.pause(sends) for _ in range(10_000)]
    assert 0 <= min(waits) <= max(waits) <= most
    tenths = [sum(1 for wait in waits if at <= wait * 10 / most < at + 1) for at in range(10)]
    assert min(tenths) > 800
    assert max(tenths) < 1200


@pytest.mark.parametrize(
    ("headers", "least"),
    [({}, 0.5), ({"retry-after": "7"}, 7), ({"retry-after": "0"}, 0), ({"retry-after": "soon"}, 0.5)],
)
def test_a_rate_limit_is_waited_for_as_told_and_a_little_more(transport, clock, headers, least):
    one = transport()
    for _ in range(50):
        wait = one.pause(1, 0.0, Answer(429, headers, b""))
        assert least <= wait <= least + 1
    assert clock.waits == pytest.approx([wait for wait in clock.waits if wait <= least + 1])
    assert len(clock.waits) == 50


def test_a_wait_beyond_patience_is_given_up_at_once(transport, clock):
    one = transport()
    for header, told in [("121", "121 s"), ("99999999", "more than a day"), ("9" * 5000, "more than a day")]:
        with pytest.raises(TavusRetryableError) as caught:
            one.pause(1, 0.0, Answer(429, {"retry-after": header}, b""))
        assert str(caught.value) == f"rate limited: told to wait {told}; one call waits 120 s at most"
        assert caught.value.status == 429
    assert clock.waits == []


def test_patience_is_for_all_waits_of_a_call_together(transport, clock):
    one = transport()
    limited = Answer(429, {"retry-after": "60"}, b"")
    waited = one.pause(1, 0.0, limited)
    with pytest.raises(TavusRetryableError, match="one call waits 120 s at most"):
        one.pause(2, waited, limited)
    assert clock.waits == pytest.approx([waited])


def test_a_server_that_is_down_is_not_called_rate_limited(transport):
    with pytest.raises(TavusRetryableError) as caught:
        transport().pause(1, 0.0, Answer(503, {"retry-after": "3600"}, b""))
    assert str(caught.value) == "told to wait 3600 s; one call waits 120 s at most"


@pytest.mark.parametrize(("calls", "retries"), [(1, 10), (100, 10), (101, 10), (250, 25)])
def test_a_batch_spends_one_retry_on_ten_calls_and_ten_in_any_case(transport, calls, retries):
    one = transport()
    for _ in range(calls):
        one.count_call()
    for _ in range(retries):
        one.pause(1, 0.0, Answer(503, {}, b""))
    with pytest.raises(
        TavusRetryableError, match="too many calls of this task needed a retry: Tavus seems to be down"
    ):
        one.pause(1, 0.0, Answer(503, {}, b""))
    one.pause(1, 0.0, Answer(429, {}, b""))  # a rate limit is no sign of that


# -- reading


def test_a_read_heals_and_tells_how_often_it_was_sent(transport, raw_server):
    server = raw_server(lambda _, number: says(503) if number < 3 else OK)
    answer = transport(server.url).read(R1)
    assert (answer.status, answer.attempts, len(server.heads)) == (200, 3, 3)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_a_read_is_sent_three_times_at_most(transport, raw_server, status):
    server = raw_server(lambda *_: says(status))
    answer = transport(server.url).read(R1)
    assert (answer.status, answer.attempts, len(server.heads)) == (status, 3, 3)


@pytest.mark.parametrize("status", [200, 202, 206, 302, 400, 401, 403, 404, 409, 410, 422])
def test_a_read_that_cannot_heal_is_sent_once(transport, raw_server, status):
    server = raw_server(lambda *_: says(status))
    answer = transport(server.url).read(R1)
    assert (answer.status, answer.attempts, len(server.heads)) == (status, 1, 1)


def test_a_torn_body_is_read_again(transport, raw_server):
    torn = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"
    server = raw_server(lambda _, number: [torn, None] if number == 1 else OK)
    assert transport(server.url).read(R1).json() == {}
    assert len(server.heads) == 2


def test_a_body_that_is_too_large_is_not_read_again(transport, raw_server):
    server = raw_server(lambda *_: b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx")
    assert "compressed" in transport(server.url).read(R1).flaw
    assert len(server.heads) == 1


def test_a_read_without_an_answer_is_given_up_after_three_sends(transport, raw_server):
    server = raw_server(lambda *_: None)
    with pytest.raises(TavusRetryableError) as caught:
        transport(server.url).read(R1)
    assert str(caught.value) == (
        "GET /v2/replicas/r1 was sent and got no final answer (RemoteDisconnected); 3 tries"
    )
    assert (caught.value.attempts, len(server.heads)) == (3, 3)


def test_a_read_without_a_connection_is_given_up_after_three_tries(transport, raw_server, clock):
    server = raw_server(lambda *_: OK)
    server.close()
    with pytest.raises(
        TavusRetryableError, match=r"no connection to .* \(ConnectionRefusedError\); 3 tries"
    ) as caught:
        transport(server.url).read(R1)
    assert type(caught.value) is TavusRetryableError
    assert len(clock.waits) == 2


def test_a_drip_is_not_asked_for_again(transport, monkeypatch):
    one = transport()
    sent = []

    def send(*what, **_):
        sent.append(what)
        error = module.NoResponseError("GET /v2/replicas/r1 was sent and got no final answer (TimeoutError)")
        error.begun = True
        raise error

    monkeypatch.setattr(one, "send", send)
    with pytest.raises(TavusRetryableError, match=r"\(TimeoutError\); 1 try$"):
        one.read(R1)
    assert len(sent) == 1


# -- side by side


def tavus_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("tavus")]


def test_results_come_as_they_are_ready(transport):
    second = threading.Event()

    def act(item: int) -> int:
        if item == 1:
            assert second.wait(20)
        if item == 2:
            second.set()
        return item * 10

    assert dict(transport(concurrency=2).parallel_tasks(act, [1, 2, 3])) == {1: 10, 2: 20, 3: 30}


def test_items_are_taken_when_their_turn_is_near(transport):
    taken = []
    items = (taken.append(at) or at for at in range(1000))
    with contextlib.closing(transport(concurrency=3).parallel_tasks(str, items)) as results:
        next(results)
    assert len(taken) == 6


@pytest.mark.parametrize("ending", ["the caller leaves", "an error"])
def test_what_ends_early_begins_nothing_more_and_waits_for_what_is_under_way(transport, monkeypatch, ending):
    began, ended, release, second = [], [], threading.Event(), threading.Event()

    def act(item: int) -> None:
        began.append(item)
        if item == 0:
            second.wait(20)
        else:
            second.set()
            release.wait(20)
        ended.append(item)
        if item == 0 and ending == "an error":
            raise TavusValidationError("no")

    def let_go(futures):
        release.set()
        return wait(futures)

    monkeypatch.setattr(module, "wait", let_go)
    results = transport(concurrency=2).parallel_tasks(act, range(100))
    with pytest.raises(TavusValidationError) if ending == "an error" else contextlib.nullcontext():
        next(results)
    results.close()
    assert set(began) == set(ended)
    assert set(began) <= {0, 1, 2}


def test_the_threads_end_with_the_transport(transport):
    one = transport(concurrency=2)
    assert dict(one.parallel_tasks(str, [1, 2])) == {1: "1", 2: "2"}
    assert tavus_threads() != []
    one.close()
    assert tavus_threads() == []


# -- the gate


def test_requests_are_spaced(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    passed = []
    for _ in range(5):
        gate.wait(4)
        passed.append(clock.now)
    # A twentieth of room: the eleventh of 10/s must not arrive within the second of the first.
    assert passed == pytest.approx([1000, 1000.2625, 1000.525, 1000.7875, 1001.05])


def test_without_a_limit_nobody_waits(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    for _ in range(5):
        gate.wait()
    assert clock.waits == []


def test_time_that_passed_unused_is_not_saved_up(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    gate.wait(1)
    clock.now += 100
    gate.wait(1)
    assert clock.waits == []
    gate.wait(1)
    assert clock.waits == pytest.approx([1.05])


def test_one_rate_limit_closes_the_gate_for_all_of_an_account(transport, clock, raw_server):
    server = raw_server(lambda *_: OK)
    one, other, stranger = (
        transport(server.url),
        transport(server.url),
        transport(server.url, key="another-key"),
    )
    one.gate.close_for(30)
    stranger.send("GET", R1)
    assert clock.waits == []
    other.send("GET", R1)
    assert clock.waits == [30]
    one.send("GET", R1)
    assert clock.waits == [30]


def test_a_429_to_one_call_is_waited_for_by_all(transport, clock, raw_server):
    server = raw_server(lambda *_: OK)
    one, other = transport(server.url), transport(server.url)
    one.gate.sleep = lambda _: None  # the call itself waits elsewhere
    waited = one.pause(1, 0.0, Answer(429, {"retry-after": "30"}, b""))
    one.gate.sleep = clock.sleep
    other.send("GET", R1)
    assert clock.waits == pytest.approx([waited])
    assert waited >= 30


def test_a_gate_that_closes_while_somebody_waits_keeps_the_spacing(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    gate.wait(1)
    passed = []

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now == pytest.approx(1001.05):
            gate.close_for(10)

    gate.sleep = sleep
    for _ in range(3):
        gate.wait(1)
        passed.append(clock.now)
    assert passed == pytest.approx([1011.05, 1012.1, 1013.15])


def refused(gate: Gate, clock, *, sent: int, times: int) -> None:
    """So many are sent at once, and so many of them are answered with 429."""
    for _ in range(sent):
        gate.wait()
    for _ in range(times):
        gate.close_for(1)


def passes(gate: Gate, clock, times: int) -> list[float]:
    passed = []
    for _ in range(times):
        gate.wait()
        passed.append(clock.now)
    return passed


def test_after_a_429_requests_pass_at_the_pace_that_was_let_through_before(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    refused(gate, clock, sent=32, times=22)  # so 10 in a second were not
    assert passes(gate, clock, 3) == pytest.approx([1001, 1001.105, 1001.21])


def test_the_pace_is_that_of_the_last_second(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    refused(gate, clock, sent=32, times=22)
    clock.now += 120
    refused(gate, clock, sent=8, times=4)
    start = clock.now + 1
    assert passes(gate, clock, 2) == pytest.approx([start, start + 1.05 / 4])


def test_a_pace_that_was_seen_is_forgotten_after_a_minute(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    refused(gate, clock, sent=32, times=22)
    clock.now += 62
    assert passes(gate, clock, 3) == [clock.now] * 3


@pytest.mark.parametrize("sent", [1, 2])
def test_from_less_than_two_no_pace_is_told(clock, sent):
    gate = Gate(sleep=clock.sleep, clock=clock)
    refused(gate, clock, sent=sent, times=1)
    assert passes(gate, clock, 3) == [1001] * 3


def test_the_slower_of_the_pace_asked_for_and_the_pace_seen_is_kept(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    refused(gate, clock, sent=32, times=22)
    gate.wait(2)
    gate.wait(100)
    assert clock.now == pytest.approx(1001.525)
    gate.wait(100)
    assert clock.now == pytest.approx(1001.63)


def test_a_longer_closure_is_not_shortened_by_a_shorter_one(clock):
    gate = Gate(sleep=clock.sleep, clock=clock)
    gate.close_for(30)
    gate.close_for(1)
    gate.wait()
    assert clock.waits == [30]


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_setting_the_wall_clock_changes_no_wait(transport, raw_server, clock, monkeypatch, step):
    assert (Gate.__init__.__kwdefaults__["clock"], Gate.__init__.__kwdefaults__["sleep"]) == (
        time.monotonic,
        time.sleep,
    )
    server = raw_server(lambda _, number: says(429, "Retry-After: 5\r\n") if number < 3 else OK)
    real, steps = time.time, iter(range(1_000_000))
    monkeypatch.setattr(time, "time", lambda: real() + step * next(steps))
    assert transport(server.url, requests_per_second=1).read(R1).status == 200
    assert len(clock.waits) == 2
    assert all(5 <= wait <= 7 for wait in clock.waits)


def test_no_connection_is_a_fault_that_a_later_try_may_heal():
    assert issubclass(RequestNotSentError, TavusRetryableError)
    assert json.loads(answer(b"{}").body) == {}
