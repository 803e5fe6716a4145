"""One test for each way in which plain ``requests`` would be unsafe, on a server of raw bytes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import http.client
import io
import itertools
import multiprocessing
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import urllib3

from tavus_provider import __version__
from tavus_provider.client import connection
from tavus_provider.client.config import ClientConfig, ClientOptions
from tavus_provider.client.rate_limiter import RateLimiter
from tavus_provider.client.transport import (
    NoResponseError,
    RequestCancelledError,
    RequestNotSentError,
    Transport,
)
from tavus_provider.exceptions import (
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusValidationError,
)

CLOSE = None
KEY = "connection-key-5d1c/9a+7e"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
R1, R2 = "/v2/replicas/r1", "/v2/replicas/r2"


@pytest.fixture
def transport():
    """Make transports on a server: ``transport(server.url, timeout=..)``."""
    made = []

    def make(url: str, *, timeout: float = 10.0, concurrency: int = 2, **options: object) -> Transport:
        made.append(
            Transport(
                ClientConfig(url, KEY, ClientOptions(timeout, concurrency)),
                rate_limiter=RateLimiter(),
                **options,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


class SlowResponse:
    """A response that never ends, and the clock of the client: each part takes one second."""

    def __init__(self, first: bytes, part: bytes) -> None:
        self.first, self.part, self.sent = first, part, 0

    def monotonic(self) -> float:
        return 1000.0 + self.sent

    def __call__(self, *_: object):
        yield self.first
        for _ in range(5_000):  # a client without a deadline fails instead of hanging
            time.sleep(0.001)
            self.sent += 1
            yield self.part
        yield CLOSE


@pytest.fixture
def slow_server(raw_server, monkeypatch):
    """Start a server that responds slowly; the client uses its clock: ``slow_server(first, part)``."""

    def start(first: bytes, part: bytes):
        response = SlowResponse(first, part)
        monkeypatch.setattr(connection, "time", response)
        return raw_server(response)

    return start


# --- deadline and size


@pytest.mark.parametrize(
    ("first", "part"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X-Drip: 1\r\n", id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x", id="one header"),
        pytest.param(b"HTTP/1.1 100 Continue\r\nX: ", b"x", id="header of 100"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nX: ", b"x", id="header of 103"),
        pytest.param(b"HTTP/1.1 102 x\r\n\r\nHTTP/1.1 103 x\r\nX: ", b"x", id="header of 103 after 102"),
    ],
)
def test_slow_head_does_not_extend_the_deadline(slow_server, transport, first, part):
    server = slow_server(first, part)
    with pytest.raises(
        NoResponseError, match=r"DELETE .* was sent and got no final response \(\w+\)"
    ) as caught:
        transport(server.url, timeout=30).send("DELETE", R1)
    assert caught.value.response_began
    assert server.client_disconnected.wait(10)
    assert len(server.heads) == 1


def test_slow_body_does_not_extend_the_deadline(slow_server, transport):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    server = slow_server(head, b" ")
    response = transport(server.url, timeout=30).send("DELETE", R1)
    assert (response.status, response.body_error) == (200, "the body did not end in time")
    assert server.client_disconnected.wait(10)


def test_silence_until_the_deadline_is_no_response(raw_server, transport):
    server = raw_server(lambda *_: [])
    with pytest.raises(NoResponseError, match=r"got no final response \(TimeoutError\)") as caught:
        transport(server.url, timeout=0.5).send("DELETE", R1)
    assert not caught.value.response_began


def test_handshake_without_an_answer_is_named_a_timeout(transport, certificates):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RequestNotSentError, match=r"no connection to https://.* \(TimeoutError\)"):
            transport(url, ca_bundle=certificates.trusted, timeout=0.5).send("DELETE", R1)


@pytest.mark.parametrize(("method", "path", "limit"), [("GET", "/v2/replicas", 8192), ("DELETE", R1, 64)])
def test_body_is_read_up_to_its_limit(raw_server, transport, method, path, limit):
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    server = raw_server(
        lambda *_: itertools.chain(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], itertools.repeat(chunk)
        )
    )
    response = transport(server.url).send(method, path)
    assert response.body_error == f"the body is larger than {limit} KiB"
    assert response.body == b""
    assert server.client_disconnected.wait(10)


def test_negative_chunk_size_ends_the_body(raw_server, transport):
    sent = itertools.count()
    server = raw_server(
        lambda *_: itertools.chain(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"],
            (b"x" * 0x10000 for _ in sent),
        )
    )
    response = transport(server.url, timeout=5).send("DELETE", R1)
    assert (response.body, response.body_error) == (b"", "the body was cut (ValueError)")
    assert server.client_disconnected.wait(10)


def test_body_of_exactly_the_limit_is_complete(raw_server, transport):
    size = 64 * 1024
    server = raw_server(lambda *_: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    response = transport(server.url).send("DELETE", R1)
    assert (len(response.body), response.body_error) == (size, None)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 70_000], id="too large"
        ),
        pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n", id="no final status"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", CLOSE], id="cut"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nx", CLOSE], id="two lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", id="compressed"
        ),
        pytest.param(CLOSE, id="nothing"),
    ],
)
def test_unusable_response_frees_its_place_in_the_pool(raw_server, transport, raw):
    server = raw_server(lambda _, number: raw if number < 3 else OK)
    one = transport(server.url, concurrency=1)

    def send_three() -> int:
        for _ in range(2):
            with contextlib.suppress(TavusOutcomeUnknownError):
                assert one.send("DELETE", R1).body_error
        return one.send("DELETE", R1).status

    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        assert pool.submit(send_three).result(timeout=20) == 200
    finally:
        pool.shutdown(wait=False)


# --- responses and their requests


@pytest.mark.parametrize("status", ["101 Switching", "999 x"])
def test_status_that_is_not_final_is_no_response(raw_server, transport, status):
    server = raw_server(lambda *_: f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    with pytest.raises(NoResponseError, match=r"was sent and got no final response \(BadStatusLine\)"):
        transport(server.url).send("DELETE", R1)
    assert len(server.heads) == 1


EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"


@pytest.mark.parametrize(
    "interim",
    [
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n", id="100"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\n", id="102"),
        pytest.param(EARLY_HINTS, id="103"),
        pytest.param(b"HTTP/1.1 199 x\r\nContent-Length: 2\r\n\r\n", id="199"),
        pytest.param(EARLY_HINTS * 32, id="32 responses"),
        pytest.param(b"HTTP/1.1 102 x\r\n\r\n" + EARLY_HINTS, id="two kinds"),
    ],
)
def test_interim_responses_are_skipped(raw_server, transport, interim):
    server = raw_server(lambda *_: interim + FORBIDDEN)
    one = transport(server.url)
    response = one.send("DELETE", R1)
    assert (response.status, response.headers.get("link")) == (403, None)
    one.send("DELETE", R2)
    assert server.connections == 2  # a connection with interim responses is not used again


@pytest.mark.parametrize(
    "interim",
    [
        pytest.param(EARLY_HINTS * 33, id="33 responses"),
        pytest.param(b"HTTP/1.1 103 x\r\n" + b"X: 1\r\n" * 101 + b"\r\n", id="101 headers"),
        pytest.param(b"HTTP/1.1 103 x\r\nX: " + b"1" * 70_000 + b"\r\n\r\n", id="long header"),
        pytest.param(EARLY_HINTS + b"HTTP/1.1 101 Switching\r\n\r\n", id="101 after 103"),
        pytest.param(EARLY_HINTS + b"gone fishing\r\n\r\n", id="garbage after 103"),
    ],
)
def test_unusable_interim_responses_are_no_response(raw_server, transport, interim):
    server = raw_server(lambda *_: interim + OK)
    one = transport(server.url)
    for path in (R1, R2):
        with pytest.raises(NoResponseError, match=path):
            one.send("DELETE", path)
    assert len(server.heads) == server.connections == 2


def test_late_response_is_not_read_as_that_of_the_next_request(raw_server, transport):
    def talk(head, _):
        if R1 in head:
            return b"HTTP/1.1 102 Processing\r\n\r\n"
        # On the connection of r1 its late 200 comes first. On a new connection there is only the 403.
        return (OK if server.connections == 1 else b"") + FORBIDDEN

    server = raw_server(talk)
    with pytest.raises(NoResponseError, match=R1):
        (one := transport(server.url, timeout=0.5)).send("DELETE", R1)
    assert one.send("DELETE", R2).status == 403
    assert server.connections == 2


def test_bytes_after_a_response_close_its_connection(raw_server, transport):
    server = raw_server(lambda head, _: FORBIDDEN + OK if R1 in head else FORBIDDEN)
    one = transport(server.url)
    assert [one.send("DELETE", R1).status, one.send("DELETE", R2).status] == [403, 403]
    assert server.connections == 2


def test_decrypted_bytes_after_a_response_close_its_connection(raw_server, transport, certificates):
    # The first response fills the buffer of the reader. The rest is decrypted and not visible on the socket.
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8000\r\nX-Fill: "
    first = head + b"x" * (io.DEFAULT_BUFFER_SIZE - 8000 - len(head) - 4) + b"\r\n\r\n" + b"x" * 8000
    server = raw_server(lambda got, _: first + OK if R1 in got else FORBIDDEN, certificates.server("good"))
    one = transport(server.url, ca_bundle=certificates.trusted)
    assert [one.send("DELETE", R1).status, one.send("DELETE", R2).status] == [403, 403]
    assert server.connections == 2


def test_connection_is_reused_after_a_clean_response(raw_server, transport):
    server = raw_server(lambda *_: OK)
    one = transport(server.url)
    assert [one.send("DELETE", R1).body_error, one.send("DELETE", R2).body_error] == [None, None]
    assert server.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n", id="close"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", id="until closed"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\n", id="HTTP/1.0"),
    ],
)
def test_long_response_that_ends_its_connection_is_complete(raw_server, transport, head):
    server = raw_server(lambda *_: [head, b"x" * 200_000, CLOSE])
    response = transport(server.url).send("GET", R1)
    assert (response.body_error, len(response.body)) == (None, 200_000)


def test_connection_closed_without_a_response_is_one_delete_per_send(raw_server, transport):
    server = raw_server(lambda *_: CLOSE)
    one = transport(server.url)
    for sends in (1, 2, 3):
        with pytest.raises(
            NoResponseError, match=r"DELETE /v2/replicas/r1\?hard=true was sent and got no final"
        ):
            one.send("DELETE", R1, {"hard": "true"})
        assert [head.splitlines()[0] for head in server.heads] == [
            "DELETE /v2/replicas/r1?hard=true HTTP/1.1"
        ] * sends


def test_reused_connection_closed_without_a_response_is_one_delete(raw_server, transport):
    server = raw_server(lambda head, _: CLOSE if head.startswith("DELETE") else OK)
    one = transport(server.url)
    assert one.send("GET", R1).status == 200
    with pytest.raises(NoResponseError):
        one.send("DELETE", R1)
    assert [head.split()[0] for head in server.heads] == ["GET", "DELETE"]
    assert server.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param([b"\x16\x03\x01 garbage\r\n\r\n", CLOSE], id="garbage"),
        pytest.param([b"HTTP/1.1 abc\r\n\r\n", CLOSE], id="status abc"),
        pytest.param([b"HTTP/1.1 42 x\r\n\r\n", CLOSE], id="status 42"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", id="long header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 200 + b"\r\n", id="many headers"),
    ],
)
def test_invalid_head_is_no_response(raw_server, transport, raw):
    server = raw_server(lambda *_: raw)
    with pytest.raises(NoResponseError, match="was sent and got no final response") as caught:
        transport(server.url).send("DELETE", R1)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert len(server.heads) == 1


@pytest.mark.parametrize("length", [b"-5", b"abc", b"1"])
def test_wrong_content_length_closes_the_connection_and_keeps_the_status(raw_server, transport, length):
    server = raw_server(lambda *_: [b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n{}", CLOSE])
    one = transport(server.url)
    assert [one.send("DELETE", R1).status, one.send("DELETE", R2).status] == [200, 200]
    assert server.connections == 2


# --- sessions


def test_threads_share_the_connections(raw_server, transport):
    server = raw_server(lambda *_: OK)
    one = transport(server.url, concurrency=4)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        responses = list(pool.map(lambda number: one.send("GET", f"/v2/replicas/r{number}0"), range(1, 201)))
    assert {response.status for response in responses} == {200}
    assert server.connections <= 4
    assert len(server.heads) == 200


def test_close_leaves_no_socket_open(raw_server, transport):
    server = raw_server(lambda *_: OK)

    def connected(one: object) -> bool:
        if not issubclass(type(one), socket.socket) or one.fileno() < 0:
            return False
        with contextlib.suppress(OSError):
            peer = one.getpeername()
            return isinstance(peer, tuple) and peer[1] == server.port
        return False

    one = transport(server.url)
    for _ in range(3):  # it can be used again after close()
        for number in range(20):
            one.send("GET", f"/v2/replicas/r{number}0")
        assert sum(map(connected, gc.get_objects())) == 1
        one.close()
        assert sum(map(connected, gc.get_objects())) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_forked_process_opens_its_own_connection(raw_server, transport):
    server = raw_server(lambda head, _: respond(head))

    def respond(head):
        name = head.split()[1].rsplit("/", 1)[1]
        return f"HTTP/1.1 200 OK\r\nX-Request-Id: {name}\r\nContent-Length: 0\r\n\r\n".encode()

    one = transport(server.url)
    assert one.send("GET", R1).request_id == "r1"
    reader, writer = multiprocessing.Pipe()

    def child() -> None:
        writer.send(one.send("GET", R2).request_id)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    assert reader.recv() == "r2"
    process.join()
    assert one.send("GET", R1).request_id == "r1"
    assert server.connections == 2  # one of the child process


# --- redirects, cookies, environment


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["absolute", "//host", "relative"])
def test_redirect_is_not_followed(raw_server, transport, status, where):
    other = raw_server(lambda *_: OK)
    location = {
        "absolute": f"{other.url}/v2/x",
        "//host": f"//127.0.0.1:{other.port}/",
        "relative": "/v2/personas/p1",
    }
    server = raw_server(
        lambda *_: f"HTTP/1.1 {status} x\r\nLocation: {location[where]}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert transport(server.url).send("DELETE", R1).status == status
    assert (len(server.heads), len(other.heads), other.connections) == (1, 0, 0)


@pytest.mark.parametrize(
    "location",
    [
        None,
        "http://[",
        "javascript:alert(1)",
        "https://\xe4\xff/",
        "http://evil.test:99999999/",
        "x" * 60_000,
        "",
    ],
    ids=lambda location: ascii(location)[:20],
)
def test_location_header_is_not_parsed(raw_server, transport, location):
    line = f"Location: {location}\r\n" if location is not None else ""
    head = f"HTTP/1.1 302 Found\r\n{line}".encode("latin-1")
    server = raw_server(lambda *_: head + b"Content-Length: 2\r\n\r\n{}")
    response = transport(server.url).send("DELETE", R1)
    assert (response.status, response.body_error) == (302, None)
    assert len(server.heads) == 1


@pytest.mark.parametrize("cookie", ["id=1; Path=/", "x=2", "id=1; Domain=.com", "id=1; Domain=127.0.0.1"])
def test_cookies_are_not_sent_back(raw_server, transport, cookie):
    server = raw_server(
        lambda *_: f"HTTP/1.1 200 OK\r\nSet-Cookie: {cookie}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    one = transport(server.url)
    one.send("GET", R1)
    one.send("DELETE", R1)
    assert len(server.heads) == 2
    assert "cookie" not in server.heads[1].lower()


def test_oversized_cookie_is_no_response(raw_server, transport):
    server = raw_server(lambda *_: b"HTTP/1.1 200 OK\r\nSet-Cookie: a=" + b"x" * 2**20 + b"\r\n\r\n")
    with pytest.raises(NoResponseError, match="was sent and got no final response"):
        transport(server.url).send("DELETE", R1)


def test_environment_is_ignored(raw_server, transport, monkeypatch, tmp_path):
    proxy = raw_server(lambda *_: OK)
    server = raw_server(lambda *_: OK)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password pw\ndefault login eve password pw\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.upper(), proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("PYTHONHTTPSVERIFY", "0")
    assert transport(server.url).send("DELETE", R1).status == 200
    assert proxy.connections == 0
    assert server.heads == [
        f"DELETE /v2/replicas/r1 HTTP/1.1\nHost: 127.0.0.1:{server.port}\nAccept: application/json\n"
        f"Accept-Encoding: identity\nUser-Agent: airflow-provider-tavus/{__version__}\n"
        f"x-api-key: {KEY}\nContent-Length: 0"
    ]


def test_debug_output_of_http_client_stays_off(raw_server, transport, certificates, monkeypatch, capfd):
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    server, secure = raw_server(lambda *_: OK), raw_server(lambda *_: OK, certificates.server("good"))
    assert transport(server.url).send("GET", R1).status == 200
    assert transport(secure.url, ca_bundle=certificates.trusted).send("GET", R1).status == 200
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err
    assert "send:" not in shown.out


# --- TLS and proxy


def test_trusted_certificate(raw_server, transport, certificates):
    server = raw_server(lambda *_: OK, certificates.server("good"))
    one = transport(server.url, ca_bundle=certificates.trusted)
    assert [one.send("DELETE", R1).status, one.send("GET", R1).status] == [200, 200]
    assert (server.connections, len(server.heads)) == (1, 2)
    assert f"x-api-key: {KEY}" in server.heads[0]


@pytest.mark.parametrize("which", ["self-signed", "wrong name", "expired"])
def test_untrusted_certificate_is_rejected_and_the_key_not_sent(raw_server, transport, certificates, which):
    server = raw_server(lambda *_: OK, certificates.server(which))
    with pytest.raises(TavusRequestRejectedError) as caught:
        transport(server.url, ca_bundle=certificates.trusted).send("DELETE", R1)
    assert str(caught.value).startswith(
        f"DELETE /v2/replicas/r1 was not sent: the certificate of {server.url} could not be verified ("
    )
    assert caught.value.outcome == "failed"
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert server.heads == []


def test_tls_secrets_are_not_logged(raw_server, transport, certificates, monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "secrets"))
    server = raw_server(lambda *_: OK, certificates.server("good"))
    assert transport(server.url, ca_bundle=certificates.trusted).send("DELETE", R1).status == 200
    assert list(tmp_path.iterdir()) == []


def test_handshake_gets_the_rest_of_the_time(raw_server, transport, certificates, monkeypatch):
    server = raw_server(lambda *_: OK, certificates.server("good"))
    now, left = [1000.0], []
    connect, handshake = connection._HTTPConnection._connect, urllib3.connection.ssl_wrap_socket

    def slow(*args, **kwargs):
        now[0] += 28  # of 30
        return connect(*args, **kwargs)

    def recorded(sock, **kwargs):
        left.append(sock.gettimeout())
        return handshake(sock=sock, **kwargs)

    monkeypatch.setattr(connection, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(connection._HTTPConnection, "_connect", slow)
    monkeypatch.setattr(urllib3.connection, "ssl_wrap_socket", recorded)
    one = transport(server.url, ca_bundle=certificates.trusted, timeout=30)
    assert one.send("DELETE", R1).status == 200
    assert left == [2.0]


@pytest.mark.parametrize("tls", [False, True])
def test_stop_ends_the_wait_for_a_server_that_says_nothing(transport, certificates, monkeypatch, tls):
    monkeypatch.setattr(connection, "STOP_PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections, and no handshake
        url = f"http{'s' * tls}://127.0.0.1:{silent.getsockname()[1]}"
        one = transport(url, ca_bundle=certificates.trusted, timeout=60)
        timer = threading.Timer(0.3, one.stop.set)
        timer.start()
        with pytest.raises(RequestCancelledError if tls else NoResponseError, match="the client was stopped"):
            one.send("DELETE", R1)
        timer.join()


def test_stop_ends_the_wait_for_a_connection(transport, monkeypatch):
    waiting = threading.Event()
    monkeypatch.setattr(connection, "wait_for_write", lambda *_: waiting.set() or time.sleep(0.01))
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = transport(f"http://127.0.0.1:{server.getsockname()[1]}", timeout=60)
        stopping = threading.Thread(target=lambda: waiting.wait(30) and one.stop.set())
        stopping.start()
        with pytest.raises(RequestCancelledError, match="was not sent: the client was stopped"):
            one.send("DELETE", R1)
        stopping.join()


def test_nothing_is_sent_after_a_stop_during_the_connection(raw_server, transport, monkeypatch):
    server = raw_server(lambda *_: OK)
    one = transport(server.url)
    real = connection._HTTPConnection._connect

    def connect(self):
        sock = real(self)
        one.stop.set()
        return sock

    monkeypatch.setattr(connection._HTTPConnection, "_connect", connect)
    with pytest.raises(RequestCancelledError, match="was not sent: the client was stopped"):
        one.send("DELETE", R1)
    assert server.heads == []


def test_response_that_comes_soon_after_a_stop_counts(raw_server, transport):
    def respond(*_):
        one.stop.set()
        return OK

    server = raw_server(respond)
    one = transport(server.url)
    assert one.send("DELETE", R1).status == 200


def test_connection_closed_after_the_handshake_is_no_response(raw_server, transport, certificates):
    server = raw_server(lambda *_: CLOSE, certificates.server("good"))
    with pytest.raises(NoResponseError, match="got no final response"):
        transport(server.url, ca_bundle=certificates.trusted).send("DELETE", R1)
    assert len(server.heads) == 1


def test_missing_ca_bundle_is_named(tmp_path, transport):
    with pytest.raises(TavusValidationError, match=r"\[tavus\] ca_bundle '.*missing.pem' does not exist"):
        transport("https://tavusapi.com", ca_bundle=str(tmp_path / "missing.pem"))


def test_proxy_without_a_tunnel_is_certain_and_does_not_get_the_key(raw_server, transport):
    proxy = raw_server(lambda *_: [b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n", CLOSE])
    with pytest.raises(
        RequestNotSentError,
        match=r"no connection to https://tavusapi\.com through the proxy in \[tavus\] proxy \(",
    ):
        transport("https://tavusapi.com", proxy=proxy.url).send("DELETE", R1)
    (head,) = proxy.heads
    assert head.startswith("CONNECT tavusapi.com:443 HTTP/1.")
    assert KEY not in head


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        pytest.param(
            None, "cannot be resolved; if only a proxy can reach it, set [tavus] proxy)", id="direct"
        ),
        pytest.param("http://proxy.invalid:3128", "gaierror: the host name cannot be resolved)", id="proxy"),
    ],
)
def test_unknown_host_name_is_explained(monkeypatch, transport, proxy, message):
    def no_address(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    with pytest.raises(RequestNotSentError) as caught:
        transport("https://tavusapi.com", proxy=proxy).send("DELETE", R1)
    assert str(caught.value).endswith(message)


def test_no_connection_is_certainly_not_sent(raw_server, transport):
    server = raw_server(lambda *_: OK)
    server.close()
    with pytest.raises(RequestNotSentError) as caught:
        transport(server.url).send("DELETE", R1)
    assert str(caught.value) == (
        f"DELETE /v2/replicas/r1 was not sent: no connection to {server.url} (ConnectionRefusedError)"
    )
    assert (caught.value.outcome, caught.value.__context__) == ("failed", None)
