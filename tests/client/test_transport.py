from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import threading
from urllib.parse import quote

import pytest
import requests_mock as mock
import urllib3
from client.conftest import KEY

from tavus_provider.client.config import ClientConfig, ClientOptions
from tavus_provider.client.connection import Session
from tavus_provider.client.transport import (
    NoResponseError,
    RequestCancelledError,
    RequestNotSentError,
    Response,
    Transport,
)
from tavus_provider.exceptions import TavusOutcomeUnknownError, TavusRetryableError, TavusValidationError
from tavus_provider.json_parser import ConflictingValues, UnusableNumber

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
R1 = "/v2/replicas/r1"


def raw_response(
    status: int, headers: str = "", body: str = "{}", content_type: str = "application/json"
) -> bytes:
    return (
        f"HTTP/1.1 {status} x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        f"{headers}\r\n{body}"
    ).encode("latin-1")


# --- the request


def test_whether_to_send_is_asked_after_each_wait_for_the_rate_limit(transport, requests_mock, monkeypatch):
    requests_mock.delete(f"https://tavusapi.com{R1}", status_code=204)
    one, events, answers = transport(), [], [False, True]
    monkeypatch.setattr(one.rate_limiter, "acquire", lambda *args, **kwargs: events.append("wait") or True)
    one.send("DELETE", R1, before_send=lambda: events.append("asked") or answers.pop(0))
    assert events == ["wait", "asked", "wait", "asked"]
    assert requests_mock.call_count == 1


def test_delete_is_one_exact_request(transport, requests_mock):
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
        ("DELETE", "/v2/videos", None),
        ("DELETE", "/v2/conversations/c1/end", None),
        ("DELETE", "/v2/faces/r1", None),
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
        ("POST", "/v2/conversations", None),
        ("POST", "/v2/conversations/c1", None),
        ("POST", "/v2/conversations/../end", None),
        ("POST", "/v2/conversations/c1/end", {"hard": "true"}),
        ("POST", "/v2/videos/v1/end", None),
        ("PATCH", R1, None),
        ("delete", R1, None),
    ],
)
def test_other_requests_are_not_sent(transport, raw_server, method, path, query):
    server = raw_server(lambda *_: OK)
    with pytest.raises(
        TavusValidationError, match=f"is not the {method} that was asked for; it was not sent"
    ):
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
def test_wrongly_prepared_request_is_not_sent(transport, requests_mock, monkeypatch, change):
    requests_mock.register_uri(mock.ANY, mock.ANY)
    one = transport()
    real = Session.prepare_request

    def prepare(self, request):
        prepared = real(self, request)
        vars(prepared).update(change)
        return prepared

    monkeypatch.setattr(Session, "prepare_request", prepare)
    with pytest.raises(TavusValidationError, match="is not the DELETE that was asked for; it was not sent"):
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
def test_request_changed_by_a_library_is_not_sent(transport, raw_server, monkeypatch, method, target):
    server = raw_server(lambda *_: OK)
    one = transport(server.url)
    one.send("DELETE", R1)
    real = urllib3.HTTPConnectionPool.urlopen

    def changed(self, **kwargs):
        return real(self, **{**kwargs, "method": method, "url": target})

    monkeypatch.setattr(urllib3.HTTPConnectionPool, "urlopen", changed)
    with pytest.raises(TavusValidationError, match="is not the DELETE that was asked for; it was not sent"):
        one.send("DELETE", R1)
    assert len(server.heads) == 1
    monkeypatch.undo()
    assert one.send("DELETE", R1).status == 200


def test_429_blocks_only_the_same_account(transport, clock, raw_server):
    server = raw_server(lambda *_: OK)
    one, same_account = transport(server.url), transport(server.url)
    other_account = transport(server.url, key="another-key")
    one.rate_limiter.block_for(30)
    other_account.send("GET", R1)
    assert clock.waits == []
    same_account.send("GET", R1)
    assert clock.waits == [30]
    one.send("GET", R1)
    assert clock.waits == [30]


def test_nothing_is_sent_after_a_stop(raw_server):
    server = raw_server(lambda *_: OK)
    stop = threading.Event()
    one = Transport(ClientConfig(server.url, KEY), stop=stop)
    stop.set()
    with pytest.raises(RequestCancelledError) as caught:
        one.send("DELETE", R1)
    assert str(caught.value) == f"DELETE {R1} was not sent: the client was stopped"
    assert (caught.value.outcome, caught.value.attempts) == ("not_attempted", 0)
    assert server.connections == 0
    one.close()


# --- the key


def test_repr_and_pickle_do_not_contain_the_key(transport):
    one = transport()
    assert repr(one) == str(one) == "Transport('https://tavusapi.com')"
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a Transport holds the API key and cannot be pickled"):
            store(one)


ENCODINGS = {
    "plain": KEY,
    "quoted": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 without padding": base64.b64encode(KEY.encode()).decode().rstrip("="),
    "url-safe base64": base64.urlsafe_b64encode(KEY.encode()).decode(),
}
each_encoding = pytest.mark.parametrize("encoded", ENCODINGS.values(), ids=ENCODINGS)


@each_encoding
def test_text_of_the_server_is_redacted(transport, encoded):
    shown = transport().redact(f"no such key: {encoded}\nasked by ::group::")
    assert shown.startswith("no such key: ***")
    assert shown.rstrip("=").endswith(r"\nasked by : :group: :")
    assert not [known for known in ENCODINGS.values() if known.rstrip("=") in shown]


def test_base64_of_a_key_of_any_length_is_redacted(transport):
    for length in range(6, 12):
        key = "k" * length
        assert "a2tr" not in transport(key=key).redact(base64.b64encode(key.encode()).decode())


@each_encoding
def test_response_headers_are_redacted(transport, raw_server, encoded):
    headers = f"X-Request-Id: q-{encoded}\r\nX-Echo: {encoded}\r\n"
    server = raw_server(lambda *_: raw_response(500, headers, "<p>", f"text/html; k={encoded}"))
    response = transport(server.url).send("GET", R1)
    assert response.headers["x-echo"].rstrip("=") == "***"
    assert response.request_id.rstrip("=") == "q-***"
    with pytest.raises(ValueError, match=r"the body is not JSON \(text/html; k=\*\*\*=?=?, 3 bytes\)"):
        response.json()


def test_debug_logs_do_not_contain_the_key(transport, raw_server, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    for name in [None, *logging.root.manager.loggerDict]:
        caplog.set_level(logging.DEBUG, logger=name)
    server = raw_server(lambda _, number: OK if number == 1 else None)
    one = transport(server.url)
    one.send("GET", R1)
    with pytest.raises(NoResponseError):
        one.send("GET", R1)
    assert "GET /v2/replicas/r1" in caplog.text  # urllib3 does log its requests
    shown = caplog.text + "".join(capfd.readouterr())
    assert not [encoded for encoded in ENCODINGS.values() if encoded in shown]


# --- the response


def response(body: bytes = b"{}", status: int = 200, **more: object) -> Response:
    return Response(status, {"content-type": "application/json"}, body, **more)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' {"a": [1, null, "\\ud800"]}\n', {"a": [1, None, "\ud800"]}),
        (b"null", None),
        pytest.param(b"\xef\xbb\xbf{}", {}, id="BOM"),
        (b'"text"', "text"),
        (b'{"a": 1e400}', {"a": UnusableNumber("1e400")}),
        (b'{"a": 1, "a": 2}', {"a": ConflictingValues((1, 2))}),
    ],
)
def test_json_body(body, value):
    assert response(body).json() == value


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>", id="html"),
        pytest.param(b'{"a": 1', id="cut"),
        pytest.param(b"[" * 200_000, id="200k nested lists"),
        pytest.param(b'{"a":' * 200_000, id="200k nested objects"),
        pytest.param(b"\xef\xbb\xbf" * 2 + b"{}", id="two BOMs"),
        pytest.param('{"a": 1}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"{} {}", id="two values"),
    ],
)
def test_invalid_json_body_is_one_error(body):
    with pytest.raises(ValueError, match=r"^the body is not JSON \(application/json, \d+ bytes\)$") as caught:
        response(body).json()
    assert type(caught.value) is ValueError
    assert caught.value.__context__ is None


def test_incomplete_body_is_not_parsed():
    with pytest.raises(ValueError, match="the body was cut"):
        response(b"{}", body_error="the body was cut (IncompleteRead)").json()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": "Invalid replica_id"}', "Invalid replica_id"),
        (b'{"message": "Invalid access token"}', "Invalid access token"),
        (b'{"error": "", "message": "b"}', "b"),
        (b'{"error": "a", "message": "b"}', "a"),
        (b'{"error": {"text": "a"}}', ""),
        (b'{"error": 7}', ""),
        (b'{"error": "Invalid replica_id", "error": "no"}', ""),
        (b'["error"]', ""),
        (b"<html>", ""),
        (b"", ""),
    ],
)
def test_error_text_is_error_or_message(body, text):
    assert response(body, 400).error_text() == text


def test_request_id_is_safe_to_print():
    given = {"x-request-id": "a\r\n" + "b" * 100}
    assert Response(200, given, b"").request_id == r"a\r\n" + "b" * 58 + "..."
    assert Response(200, {}, b"").request_id is None


def test_repr_of_a_response_has_no_body():
    assert "secret" not in repr(response(b"secret"))
    assert json.loads(response(b"{}").body) == {}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param("Thu, 01 Jan 1970 00:00:00 GMT", -1e9, id="past"),
        pytest.param("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, id="future"),
    ],
)
def test_clock_skew_is_taken_from_the_date_header(transport, raw_server, header, seconds):
    server = raw_server(lambda *_: raw_response(200, f"Date: {header}\r\n"))
    one = transport(server.url)
    assert one.clock_skew is None
    one.send("GET", R1)
    assert one.clock_skew / seconds > 1


@pytest.mark.parametrize(
    "header",
    [
        "",
        "soon",
        "2026-01-01",
        pytest.param("1" * 5000, id="5,000 digits"),
        "Thu, 01 Jan 1970 00:00:00 -0000",
    ],
)
def test_invalid_date_header_does_not_change_the_clock_skew(transport, raw_server, header):
    server = raw_server(lambda *_: raw_response(200, f"Date: {header}\r\n"))
    one = transport(server.url)
    one.send("GET", R1)
    assert one.clock_skew is None
    one.clock_skew = 400.0
    one.send("GET", R1)
    assert one.clock_skew == 400.0


OLD = "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize("age", ["1", "900", "007", pytest.param("9" * 5000, id="5,000 digits")])
def test_response_of_a_cache_does_not_change_the_clock_skew(transport, raw_server, age):
    server = raw_server(lambda *_: raw_response(200, f"Date: {OLD}\r\nAge: {age}\r\n"))
    one = transport(server.url)
    one.send("GET", R1)
    assert (one.clock_skew, one.clock_evidence) == (None, None)


@pytest.mark.parametrize("age", [None, "0", "00", "", "-5", "1.5", "soon\x1b"])
def test_wrong_clock_is_noticed_and_what_was_seen_is_kept(transport, raw_server, age):
    header = "" if age is None else f"Age: {age}\r\n"
    one = transport(raw_server(lambda *_: raw_response(200, f"Date: {OLD}\r\n{header}")).url)
    one.send("GET", R1)
    assert one.clock_skew < -1e9
    shown = f"Age: {ascii(age)[1:-1]} and " if age else ""
    assert one.clock_evidence.startswith(
        f"a response had {shown}Date: {OLD} when this worker's clock showed "
    )


# --- proxy


@pytest.mark.parametrize(
    "proxy", ["http://", "://", "127.0.0.1:1", "socks5://127.0.0.1:1", "http://[::1", "http://a b"]
)
def test_invalid_proxy_is_rejected_before_anything_is_sent(proxy):
    with pytest.raises(
        TavusValidationError, match=r"^\[tavus\] proxy is not a valid URL: expected for example http://"
    ):
        Transport(ClientConfig("https://tavusapi.com", KEY, ClientOptions()), proxy=proxy)


@pytest.mark.parametrize(
    "proxy", ["http://proxy.example:3128", "https://me:pass-w@10.0.0.1:80/", "http://[::1]:3128"]
)
def test_valid_proxy_is_accepted(proxy):
    Transport(ClientConfig("https://tavusapi.com", KEY, ClientOptions()), proxy=proxy).close()


# --- errors


def test_kinds_of_transport_errors():
    assert issubclass(RequestNotSentError, TavusRetryableError)
    assert issubclass(RequestCancelledError, TavusRetryableError)
    assert not issubclass(RequestCancelledError, RequestNotSentError)  # a cancelled request is not repeated
    assert issubclass(NoResponseError, TavusOutcomeUnknownError)
