from __future__ import annotations

import base64
import copy
import datetime as dt
import json
import logging
import pickle
import random
import subprocess
import sys
from urllib.parse import quote

import pytest
from client.conftest import API, GONE, KEY, REPLICA, serve_pages

from tavus_provider.client.api import AccessCheck
from tavus_provider.client.transport import NoResponseError
from tavus_provider.exceptions import (
    ReplicaNotFoundError,
    TavusAuthError,
    TavusError,
    TavusInvalidResponseError,
    TavusRequestRejectedError,
    TavusRetryableError,
    TavusValidationError,
)
from tavus_provider.models import Persona, Replica
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

R1 = "/v2/replicas/r1a"


def raw_response(status: int, body: str = '{"replica_id": "r1a"}') -> bytes:
    return (
        f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


# --- without Airflow


def test_client_works_without_airflow(sandbox):
    code = (
        "import sys\n"
        "sys.modules['airflow'] = None  # an import of it fails\n"
        "from tavus_provider.client import ClientConfig, ClientOptions, TavusClient\n"
        "url, key, replica_id = sys.argv[1:]\n"
        "with TavusClient(ClientConfig(url, key, ClientOptions(timeout=5))) as client:\n"
        "    print(len(client.list_replicas()), client.delete_replica(replica_id).outcome)\n"
        "    client.list_conversations(), client.list_videos(), client.list_personas()\n"
        "print([name for name in sys.modules if name.startswith('airflow')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, sandbox.url, sandbox.key, REPLICA],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["26 deleted", "['airflow']"]


def test_importing_the_package_loads_no_http_library():
    code = (
        "import sys; import tavus_provider.client; from tavus_provider.client import ClientConfig; "
        "print({'airflow', 'requests', 'urllib3', 'ssl', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


def test_package_has_no_other_names():
    import tavus_provider.client

    with pytest.raises(
        AttributeError, match=r"^module 'tavus_provider.client' has no attribute 'Transport'$"
    ):
        tavus_provider.client.Transport  # noqa: B018


# --- requests


def test_requests_of_the_reads(client, sandbox):
    client.list_replicas()
    client.list_personas()
    client.list_conversations()
    client.list_videos()
    client.get_replica(REPLICA)
    assert [(seen["path"], seen["query"]) for seen in sandbox.state()["requests"]] == [
        ("/v2/replicas", "verbose=true&replica_type=user&limit=100&page=1"),
        ("/v2/personas", "limit=100&page=1"),
        ("/v2/conversations", "limit=100&page=1"),
        ("/v2/videos", "limit=100&page=0"),
        (f"/v2/replicas/{REPLICA}", "verbose=true"),
    ]


@pytest.mark.parametrize(
    "replica_id",
    [
        "", " ", ".", "..", "../personas/p123", "x/../../personas/p1", "x?hard=true", "x?hard=true&", "x#f",
        "%2e%2e", "%2E%2E/personas/p1", "..%2fpersonas%2fp1", "x%3Fhard%3Dtrue", "r1;hard=true", "r1,r2",
        "r1/", "a b", "a\tb", f"{REPLICA}\n", "x\r\nX-Injected: 1", "x\x00y", "\u202eabc",
        "r\u0435plica", "\uff52\uff11",
        "\\..\\personas", "//evil.com/x", "None", "null", "nan", "undefined", "true", "False", "{{ x }}",
        "['r1','r2']", "r" * 65, "r" * 9000, None, True, 1000, 1e5, b"r1", ["r1"], {"id": "r1"}, ...,
    ],
    ids=lambda value: ascii(value)[:20],
)  # fmt: skip
def test_invalid_id_is_not_sent(client, sandbox, replica_id):
    for call in (
        client.get_replica,
        client.delete_replica,
        lambda value: client.delete_replica(value, hard=True),
    ):
        with pytest.raises(TavusValidationError, match=r"is not a replica id; .*; nothing was sent"):
            call(replica_id)
    assert sandbox.state()["requests"] == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_an_error_and_not_followed(client, sandbox, status):
    other = f"/v2/replicas/{GONE}"
    sandbox.switch(faults=[{"status": status, "headers": {"Location": other}, "times": None}])
    with pytest.raises(
        TavusRequestRejectedError, match="redirects are not followed; check the connection's base URL"
    ):
        client.delete_replica(REPLICA)
    with pytest.raises(TavusInvalidResponseError, match="redirects are not followed"):
        client.list_replicas()
    assert [seen["path"] for seen in sandbox.state()["requests"]] == [
        f"/v2/replicas/{REPLICA}",
        "/v2/replicas",
    ]


# --- one replica


@pytest.mark.parametrize("vocabulary", ["replica", "face", "both"])
def test_replica_in_either_vocabulary(client, sandbox, vocabulary):
    sandbox.switch(vocabulary=vocabulary)
    replica = client.get_replica(REPLICA)
    assert (replica.replica_id, replica.replica_name, replica.replica_type) == (
        REPLICA,
        "spring-campaign_anna",
        "user",
    )
    assert (120 - (dt.datetime.now(dt.UTC) - replica.created_at).days) == 0


def test_response_about_another_replica_is_rejected(client, sandbox):
    sandbox.switch(faults=[{"status": 200, "body": '{"replica_id": "r0other"}'}])
    with pytest.raises(TavusInvalidResponseError, match="returned another replica, r0other"):
        client.get_replica(REPLICA)


# --- lists


@pytest.mark.parametrize("vocabulary", ["replica", "face", "both"])
def test_lists_in_either_vocabulary(client, sandbox, vocabulary):
    sandbox.switch(vocabulary=vocabulary)
    # The type "user'" is a typing error of Tavus's documentation. The policy keeps such a replica.
    assert len(client.list_replicas()) == 26
    assert {one.replica_type for one in client.list_replicas()} == {"user", "user'"}
    personas = client.list_personas()
    assert (personas[0].persona_id, personas[0].replica_id) == ("p1c2d3e4f5a6", "rf8c6e5b1a20")
    assert "key-of-a-third-party" not in repr(personas)
    assert {one.status for one in client.list_conversations()} == {"active", "ended"}
    assert len(client.list_conversations()) == 4
    assert [one.replica_id for one in client.list_videos()] == [
        "r1ae8b0d3c5f",
        "r1a0c5e8f3b2",
        "r5e27d9a6c40",
    ]


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_key_is_an_auth_error(mocked_client, requests_mock, status):
    requests_mock.get(f"{API}/v2/replicas", status_code=status, json={"message": "Invalid access token"})
    with pytest.raises(TavusAuthError) as caught:
        mocked_client.list_replicas()
    assert str(caught.value) == (
        f"GET /v2/replicas page 1 returned {status}: Invalid access token: "
        "check the API key of the Airflow connection"
    )


def conversation(number: int, *, replica: str | None = "r0001", day: int | None = 1, **more: object):
    updated_at = None if day is None else f"2026-01-{day:02}T00:00:00Z"
    return {
        "conversation_id": f"c{number}",
        "replica_id": replica,
        "status": "ended",
        "updated_at": updated_at,
        **more,
    }


def test_latest_only_keeps_the_latest_of_equal_use(mocked_client, requests_mock):
    rows = [
        conversation(1, day=3),
        conversation(2, day=9),
        conversation(3, day=5),
        conversation(4, day=None),
        conversation(5, day=1, status="active"),
        conversation(6, day=1, persona_id="p1"),
        conversation(7, day=2, replica="r0002"),
        conversation(8, day=2, replica="r0002"),
        conversation(9, day=2, replica=None),
    ]

    requests_mock.get(f"{API}/v2/conversations", json=serve_pages(rows, clamp=5))
    assert len(mocked_client.list_conversations()) == 9
    latest = {one.activity_id for one in mocked_client.list_conversations(latest_only=True)}
    assert latest == {"c2", "c4", "c5", "c6", "c8", "c9"}


def test_latest_only_listing_must_be_complete(mocked_client, requests_mock):
    def respond(request, context):
        return {**serve_pages([conversation(1), conversation(2)])(request, context), "total_count": 3}

    requests_mock.get(f"{API}/v2/conversations", json=respond)
    with pytest.raises(TavusInvalidResponseError, match="returned 2 rows and total_count 3"):
        mocked_client.list_conversations(latest_only=True)


@pytest.mark.parametrize("seed", range(20))
def test_latest_only_leads_to_the_same_decision(mocked_client, requests_mock, seed):
    rng = random.Random(seed)
    rows = [
        conversation(
            at,
            replica=rng.choice(["r0001", "r0002", "r0003", None]),
            day=rng.choice([None, *range(1, 29)]),
            persona_id=rng.choice([None, "p1", "p2"]),
        )
        for at in range(40)
    ]
    for row in rows:
        if row["replica_id"] and rng.random() < 0.05:
            row["status"] = "active"
        if rng.random() < 0.5 and row["updated_at"] is None:
            row["updated_at"] = "2027-01-01T00:00:00Z"  # in the future
    requests_mock.get(f"{API}/v2/conversations", json=serve_pages(rows))
    now = dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
    replicas = [
        Replica(f"r{at:04}", f"n{at}", "completed", "user", None, dt.datetime(2025, 12, 1, tzinfo=dt.UTC))
        for at in range(1, 6)
    ]
    policy = Policy.parse({"expire": [{"older_than": "30d", "unused_for": "70d"}]})
    personas = [Persona("p1", "r0004"), Persona("p2", None)]

    def decide(conversations):
        decision = evaluate(policy, Inventory(replicas, personas, conversations), now=now)
        return [(one.replica.replica_id, one.reason_code, one.last_used_at) for one in decision.verdicts]

    latest = mocked_client.list_conversations(latest_only=True)
    assert decide(latest) == decide(mocked_client.list_conversations())


def test_clock_skew(mocked_client, requests_mock):
    requests_mock.get(
        f"{API}/v2/replicas",
        json={"data": [], "total_count": 0},
        headers={"Date": "Fri, 01 Jan 2100 00:00:00 GMT"},
    )
    assert mocked_client.clock_skew is None
    mocked_client.list_replicas()
    assert mocked_client.clock_skew > 1e9


def test_hostile_names_are_data(client):
    names = [replica.replica_name for replica in client.list_replicas()]
    assert any(name and r"\x1b[31m\n\u202egpj.exe [sha256:" in name for name in names)
    assert all(isinstance(replica, Replica) for replica in client.list_replicas())


# --- retries of reads


def test_read_is_repeated_until_it_succeeds(make_client, raw_server):
    server = raw_server(lambda _, number: raw_response(503 if number < 3 else 200))
    assert make_client(server.url).get_replica("r1a").replica_id == "r1a"
    assert len(server.heads) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_read_is_sent_three_times_at_most(make_client, raw_server, status):
    server = raw_server(lambda *_: raw_response(status))
    with pytest.raises(TavusError, match=f"^GET {R1} returned {status}") as caught:
        make_client(server.url).get_replica("r1a")
    assert (caught.value.status, len(server.heads)) == (status, 3)


@pytest.mark.parametrize("status", [200, 202, 206, 302, 400, 404, 409, 410, 422])
def test_final_response_to_a_read_is_not_repeated(make_client, raw_server, status):
    server = raw_server(lambda *_: raw_response(status, "{}"))
    with pytest.raises(TavusError):
        make_client(server.url).get_replica("r1a")
    assert len(server.heads) == 1


def test_rejected_key_is_not_sent_a_third_time(make_client, raw_server):
    for status, attempts in ((401, 2), (403, 1)):
        server = raw_server(lambda *_, status=status: raw_response(status, '{"message": "no"}'))
        with pytest.raises(TavusAuthError):
            make_client(server.url).get_replica("r1a")
        assert len(server.heads) == attempts


def test_truncated_body_is_read_again(make_client, raw_server):
    truncated = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"
    server = raw_server(lambda _, number: [truncated, None] if number == 1 else raw_response(200))
    assert make_client(server.url).get_replica("r1a").replica_id == "r1a"
    assert len(server.heads) == 2


def test_damaged_compressed_body_is_read_again(make_client, raw_server):
    damaged = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
    server = raw_server(lambda _, number: damaged if number == 1 else raw_response(200))
    assert make_client(server.url).get_replica("r1a").replica_id == "r1a"
    server = raw_server(lambda *_: damaged)
    with pytest.raises(TavusInvalidResponseError, match="returned 200, but the body is not valid gzip"):
        make_client(server.url).get_replica("r1a")
    assert len(server.heads) == 3


def test_unusable_complete_body_is_not_read_again(make_client, raw_server):
    server = raw_server(lambda *_: b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx")
    with pytest.raises(TavusInvalidResponseError, match="the body has the encoding br"):
        make_client(server.url).get_replica("r1a")
    assert len(server.heads) == 1


def test_read_without_a_response_gives_up_after_three_attempts(make_client, raw_server):
    server = raw_server(lambda *_: None)
    with pytest.raises(TavusRetryableError) as caught:
        make_client(server.url).get_replica("r1a")
    assert str(caught.value) == (
        f"GET {R1}?verbose=true was sent and got no final response (RemoteDisconnected); 3 attempts"
    )
    assert (caught.value.attempts, len(server.heads)) == (3, 3)


def test_read_without_a_connection_gives_up_after_three_attempts(make_client, raw_server, clock):
    server = raw_server(lambda *_: None)
    server.close()
    with pytest.raises(
        TavusRetryableError, match=r"no connection to .* \(ConnectionRefusedError\); 3 attempts$"
    ) as caught:
        make_client(server.url).get_replica("r1a")
    assert type(caught.value) is TavusRetryableError
    assert len(clock.waits) == 2


def test_read_of_a_slow_response_is_not_repeated(make_client, monkeypatch):
    client = make_client()
    requests = []

    def send(*request, **_):
        requests.append(request)
        error = NoResponseError(f"GET {R1} was sent and got no final response (TimeoutError)")
        error.response_began = True
        raise error

    monkeypatch.setattr(client._transport, "send", send)
    with pytest.raises(TavusRetryableError, match=r"\(TimeoutError\); 1 attempt$"):
        client.get_replica("r1a")
    assert len(requests) == 1


# --- access check


def test_access_check_is_one_small_request(client, sandbox):
    assert client.check_access() is AccessCheck.ACCEPTED
    (request,) = sandbox.state()["requests"]
    assert (request["method"], request["path"], request["query"]) == ("GET", "/v2/replicas", "limit=1")


@pytest.mark.parametrize(
    ("fault", "result"),
    [
        ({"status": 401}, AccessCheck.REJECTED),
        ({"status": 403}, AccessCheck.REJECTED),
        ({"status": 429, "retry_after": "9999"}, AccessCheck.RATE_LIMITED),
        ({"status": 200, "html": True}, AccessCheck.INVALID_RESPONSE),
        ({"status": 200, "body": "{}"}, AccessCheck.INVALID_RESPONSE),
        ({"status": 404}, AccessCheck.INVALID_RESPONSE),
        ({"status": 302, "headers": {"Location": "https://evil.test"}}, AccessCheck.INVALID_RESPONSE),
        ({"status": 500}, AccessCheck.INVALID_RESPONSE),
        ({"close": True}, AccessCheck.UNREACHABLE),
    ],
    ids=str,
)
def test_access_check_result(client, sandbox, fault, result):
    sandbox.switch(faults=[{"times": None, **fault}])
    assert client.check_access() is result
    assert len(sandbox.state()["requests"]) == 1


def test_access_check_has_a_timeout_of_five_seconds(client, monkeypatch):
    timeouts = []

    def send(*_, timeout: float):
        timeouts.append(timeout)
        raise TavusRetryableError("no connection")

    monkeypatch.setattr(client._transport, "send", send)
    assert client.check_access() is AccessCheck.UNREACHABLE
    assert timeouts == [5.0]


# --- life cycle and the key


def test_closed_client_can_be_used_again(client):
    assert len(client.list_replicas()) == 26
    client.close()
    client.close()
    assert len(client.list_replicas()) == 26


def test_repr_and_pickle_do_not_contain_the_key(make_client):
    client = make_client()
    assert repr(client) == str(client) == "TavusClient('https://tavusapi.com')"
    for store in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="a TavusClient holds the API key and cannot be pickled"):
            store(client)


ENCODINGS = {
    "plain": KEY,
    "quoted": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "repr": repr(KEY)[1:-1],
}


@pytest.mark.parametrize("encoded", ENCODINGS.values(), ids=ENCODINGS)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 409, 429, 503])
def test_key_echoed_by_the_server_is_not_shown(  # noqa: PLR0917
    make_client, raw_server, caplog, capfd, encoded, status
):
    caplog.set_level(logging.DEBUG)
    for name in logging.root.manager.loggerDict:
        caplog.set_level(logging.DEBUG, logger=name)
    body = json.dumps({"error": f"no such key {encoded}"})
    content_type = f"text/html; key={encoded}" if status == 200 else "application/json"
    server = raw_server(
        lambda *_: (
            f"HTTP/1.1 {status} {encoded}\r\nContent-Type: {content_type}\r\nX-Request-Id: {encoded}\r\n"
            f"Retry-After: 9999\r\nLocation: https://evil.test/{encoded}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
    )
    client = make_client(server.url)
    shown = []
    for call in (
        lambda: client.delete_replica(REPLICA),
        lambda: client.delete_replica(REPLICA, hard=True),
        lambda: client.get_replica(REPLICA),
        client.list_replicas,
        client.list_videos,
    ):
        with pytest.raises(TavusError) as caught:
            call()
        error = caught.value
        shown += [str(error), repr(error), repr(error.args), repr(vars(error)), repr(pickle.dumps(error))]
        while error := error.__cause__ or error.__context__:
            assert isinstance(error, TavusError)
            shown += [str(error), repr(vars(error))]
    shown += [repr(client), str(vars(client)), client.check_access()]
    shown += [caplog.text, *capfd.readouterr()]
    assert not [text for text in shown for known in ENCODINGS.values() if known.rstrip("=") in text]


# --- responses as some servers send them


@pytest.mark.parametrize(
    "switches",
    [
        {"encoding": "gzip"},
        {"encoding": "deflate"},
        {"encoding": "raw-deflate"},
        {"json": "bom"},
        {"interim": 103},
        {"encoding": "gzip", "json": "bom", "interim": 102},
    ],
    ids=str,
)
def test_account_is_read_and_deleted_from_in_every_form_of_response(client, sandbox, switches):
    listed = {replica.replica_id for replica in client.list_replicas()}
    sandbox.switch(**switches)
    assert {replica.replica_id for replica in client.list_replicas()} == listed
    assert client.delete_replica("r1a0c5e8f3b2", hard=True).outcome == "deleted"
    with pytest.raises(ReplicaNotFoundError):
        client.delete_replica("r1a0c5e8f3b2", hard=True)
    assert {replica.replica_id for replica in client.list_replicas()} == listed - {"r1a0c5e8f3b2"}


def test_delete_with_a_body_that_is_not_gzip_is_judged_by_its_status(client, sandbox):
    sandbox.switch(encoding="not-gzip")
    with pytest.raises(TavusInvalidResponseError, match="the body is not valid gzip"):
        client.list_replicas()
    assert client.delete_replica("r1a0c5e8f3b2").outcome == "deleted"


def test_dates_of_a_cache_are_not_trusted(client, sandbox):
    sandbox.switch(headers={"Date": "Thu, 01 Jan 2015 00:00:00 GMT", "Age": "900"})
    client.list_replicas()
    assert client.clock_skew is None
    sandbox.switch(headers={"Date": "Thu, 01 Jan 2015 00:00:00 GMT"})
    client.list_replicas()
    assert client.clock_skew < -1e8
    assert "Date: Thu, 01 Jan 2015 00:00:00 GMT" in client.clock_evidence
