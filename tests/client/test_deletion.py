from __future__ import annotations

import datetime as dt
import email.utils
import gzip
import pickle
import threading
import zlib

import pytest
import requests_mock as mock
from client.conftest import API, GONE, KEY, REPLICA
from faults.server import http_response

from tavus_provider.client.api import TavusClient
from tavus_provider.client.config import ClientConfig
from tavus_provider.client.rate_limiter import RateLimiter
from tavus_provider.exceptions import (
    ReplicaNotFoundError,
    TavusAuthError,
    TavusError,
    TavusInvalidResponseError,
    TavusOutcomeUnknownError,
    TavusRequestRejectedError,
    TavusRetryableError,
    TavusValidationError,
)


def deletes(sandbox) -> list[dict[str, object]]:
    """Return the DELETE requests that the sandbox received."""
    return [seen for seen in sandbox.state()["requests"] if seen["method"] == "DELETE"]


def delete_fault(**more: object) -> dict[str, object]:
    """Return a fault of the sandbox for DELETE requests."""
    return {"method": "DELETE", "path": "/v2/replicas", **more}


@pytest.mark.parametrize(("hard", "query"), [(False, ""), (True, "?hard=true")])
def test_delete_is_one_request_without_a_body(mocked_client, requests_mock, hard, query):
    requests_mock.delete(f"{API}/v2/replicas/{REPLICA}", status_code=204)
    deletion = mocked_client.delete_replica(REPLICA, hard=hard)
    (request,) = requests_mock.request_history
    assert (request.method, request.url, request.body) == (
        "DELETE",
        f"https://tavusapi.com/v2/replicas/{REPLICA}{query}",
        None,
    )
    assert dict(request.headers) == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "airflow-provider-tavus/0.1.0",
        "x-api-key": KEY,
        "Content-Length": "0",
    }
    assert (deletion.key, deletion.outcome) == (REPLICA, "deleted")
    assert deletion.detail == f"DELETE /v2/replicas/{REPLICA}{query} returned 204"


@pytest.mark.parametrize(
    "hard", ["true", "false", "True", "False", 1, 0, 1.0, None, "", "{{ true }}", [], [True]]
)
def test_hard_must_be_a_bool(client, sandbox, hard):
    with pytest.raises(
        TavusValidationError, match=r"^hard: expected True or False, got .*; nothing was sent$"
    ):
        client.delete_replica(REPLICA, hard=hard)
    assert sandbox.state()["requests"] == []


@pytest.mark.parametrize("delete_status", [200, 204])
@pytest.mark.parametrize("hard", [False, True])
def test_clean_response_is_deleted(client, sandbox, delete_status, hard):
    sandbox.switch(delete_status=delete_status)
    deletion = client.delete_replica(REPLICA, hard=hard)
    assert (deletion.key, deletion.outcome) == (REPLICA, "deleted")
    assert deletion.detail.endswith(f" returned {delete_status}")
    assert sandbox.state()["deletes"] == [{"replica_id": REPLICA, "hard": hard}]
    assert len(sandbox.state()["requests"]) == 1


@pytest.mark.parametrize("unknown_id", ["400-error", "400-message", "404"])
@pytest.mark.parametrize("vocabulary", ["replica", "face"])
def test_unknown_id_is_not_found(client, sandbox, unknown_id, vocabulary):
    sandbox.switch(unknown_id=unknown_id, vocabulary=vocabulary)
    for call, method in ((client.delete_replica, "DELETE"), (client.get_replica, "GET")):
        with pytest.raises(ReplicaNotFoundError) as caught:
            call(GONE)
        text = f"Invalid {vocabulary}_id" if "400" in unknown_id else f"{vocabulary.capitalize()} not found"
        assert str(caught.value) == f"{method} /v2/replicas/{GONE} returned {unknown_id[:3]}: {text}"
        assert (caught.value.outcome, caught.value.attempts) == ("already_gone", 1)
    assert len(sandbox.state()["requests"]) == 2


def test_410_is_not_found(client, sandbox):
    sandbox.switch(faults=[delete_fault(status=410)])
    with pytest.raises(ReplicaNotFoundError, match="returned 410: Gone"):
        client.delete_replica(REPLICA)


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (400, TavusRequestRejectedError, "returned 400: Bad Request"),
        (402, TavusRequestRejectedError, "returned 402: Payment Required"),
        (403, TavusAuthError, "returned 403: Forbidden: check the API key of the Airflow connection"),
        (405, TavusRequestRejectedError, "returned 405: Method Not Allowed"),
        (409, TavusRequestRejectedError, "returned 409: Conflict"),
        (422, TavusRequestRejectedError, "returned 422: "),
    ],
)
def test_rejection_is_final(client, sandbox, status, kind, text):
    sandbox.switch(faults=[delete_fault(status=status, times=None)])
    with pytest.raises(TavusError) as caught:
        client.delete_replica(REPLICA)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"DELETE /v2/replicas/{REPLICA} {text}")
    assert (caught.value.outcome, caught.value.status, caught.value.attempts) == ("failed", status, 1)
    assert len(sandbox.state()["requests"]) == 1


# --- 401 and 403

ACCESS_DENIED = "DELETE /v2/replicas/r1a0c5e8f3b2 returned 401: Unauthorized: check the API key"


@pytest.mark.parametrize("when", ["DELETE", "GET"])
def test_single_401_of_tavus_is_sent_again(client, sandbox, clock, when):
    sandbox.switch(faults=[{"method": when, "status": 401}])
    call = client.delete_replica if when == "DELETE" else client.get_replica
    call(REPLICA)
    assert [one["status"] for one in sandbox.state()["requests"]] == [401, 200]
    assert len(clock.waits) == 1
    assert clock.waits[0] <= 1


def test_second_401_of_tavus_is_final_and_about_the_key(client, sandbox):
    sandbox.switch(faults=[delete_fault(status=401, times=None)])
    with pytest.raises(TavusAuthError, match=f"^{ACCESS_DENIED}") as caught:
        client.delete_replica(REPLICA)
    assert (caught.value.outcome, caught.value.attempts, caught.value.key_rejected) == ("failed", 2, True)
    assert [one["method"] for one in sandbox.state()["requests"]] == ["DELETE", "DELETE"]


def test_401_as_the_last_attempt_does_not_prove_that_the_key_is_rejected(client, sandbox):
    sandbox.switch(faults=[delete_fault(status=429, times=2), delete_fault(status=401)])
    with pytest.raises(TavusRetryableError, match=f"^{ACCESS_DENIED}") as caught:
        client.delete_replica(REPLICA)
    assert (caught.value.outcome, caught.value.key_rejected) == ("failed", False)


def test_401_after_an_unknown_outcome_stays_unknown_and_is_about_the_key(client, sandbox):
    sandbox.switch(
        faults=[
            delete_fault(status=500),
            delete_fault(status=401, times=None),
            {"method": "GET", "status": 401, "times": None},
        ]
    )
    with pytest.raises(
        TavusOutcomeUnknownError, match=r"returned 500: .*; it may have been applied"
    ) as caught:
        client.delete_replica(REPLICA)
    assert (caught.value.status, caught.value.key_rejected, caught.value.attempts) == (401, True, 3)


def test_401_does_not_use_the_retry_budget(make_client, requests_mock):
    requests_mock.delete(mock.ANY, status_code=401, json={"message": "Invalid access token"})
    client = make_client()
    for _ in range(30):
        with pytest.raises(TavusAuthError):
            client.delete_replica("r1a")
    assert requests_mock.call_count == 60


NOT_OF_TAVUS = [
    pytest.param({"status": 403, "html": True}, "text/html; charset=utf-8", id="403 HTML"),
    pytest.param({"status": 401, "html": True}, "text/html; charset=utf-8", id="401 HTML"),
    pytest.param({"status": 401, "body": '{"error": "no"}'}, "application/json", id="401 other JSON"),
    pytest.param({"status": 403, "body": '{"message": 1}'}, "application/json", id="403 no text"),
    pytest.param({"status": 401, "body": '{"message": "In'}, "application/json", id="401 cut JSON"),
    pytest.param({"status": 401, "body": "[]"}, "application/json", id="401 list"),
    pytest.param({"status": 403, "body": ""}, "application/json", id="403 empty"),
]


@pytest.mark.parametrize(("fault", "content_type"), NOT_OF_TAVUS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_401_or_403_of_a_proxy_may_follow_the_effect(client, sandbox, fault, content_type, when):
    sandbox.switch(faults=[delete_fault(**fault, when=when)])
    result = client.delete_replica(REPLICA)
    assert result.outcome == ("deleted" if when == "before" else "confirmed")
    assert len(sandbox.state()["deletes"]) == 1
    assert "API key" not in result.detail
    assert [one["method"] for one in sandbox.state()["requests"]][:2] == ["DELETE", "GET"]


@pytest.mark.parametrize(("fault", "content_type"), NOT_OF_TAVUS)
def test_repeated_401_or_403_of_a_proxy_is_unknown_and_not_about_the_key(
    client, sandbox, fault, content_type
):
    sandbox.switch(faults=[delete_fault(**fault, times=None)])
    with pytest.raises(TavusOutcomeUnknownError) as caught:
        client.delete_replica(REPLICA)
    assert (caught.value.outcome, caught.value.attempts, caught.value.key_rejected) == ("unknown", 3, False)
    assert str(caught.value).endswith(
        f" ({content_type}), but not as Tavus does: a proxy or firewall may have sent it; 3 attempts; "
        "it may have been applied"
    )
    assert "key" not in str(caught.value)


@pytest.mark.parametrize(("fault", "content_type"), NOT_OF_TAVUS)
def test_read_with_a_401_or_403_of_a_proxy_is_retried(client, sandbox, fault, content_type):
    sandbox.switch(faults=[{**fault, "times": 2}])
    assert client.get_replica(REPLICA).replica_id == REPLICA
    sandbox.switch(faults=[{**fault, "times": None}])
    with pytest.raises(TavusInvalidResponseError, match="a proxy or firewall may have sent it") as caught:
        client.get_replica(REPLICA)
    assert "key" not in str(caught.value)
    assert len(sandbox.state()["requests"]) == 6


def test_compressed_400_means_not_found(client, raw_server, make_client):
    for compress, encoding in ((gzip.compress, "gzip"), (zlib.compress, "deflate")):
        body = compress(b'{"error": "Invalid replica_id"}')
        sent = http_response(400, body, f"Content-Encoding: {encoding}\r\n")
        one = make_client(raw_server(lambda *_, sent=sent: sent).url)
        for call in (one.delete_replica, one.get_replica):
            with pytest.raises(ReplicaNotFoundError):
                call("r1a")


@pytest.mark.parametrize("body", [b"{}", gzip.compress(b"{}")[:-1], gzip.compress(b" " * 2**24)])
def test_delete_does_not_depend_on_a_compressed_body(raw_server, make_client, body):
    sent = http_response(200, body, "Content-Encoding: gzip\r\n")
    server = raw_server(lambda *_: sent)
    assert make_client(server.url).delete_replica("r1a").outcome == "deleted"
    assert len(server.heads) == 1


@pytest.mark.parametrize(
    "body",
    [
        '{"error": "Invalid replica_id."}',
        '{"error": "Invalid replica_uuid"}',
        '{"error": "invalid replica_id"}',
        "x",
    ],
)
def test_other_400_does_not_mean_not_found(client, sandbox, body):
    sandbox.switch(faults=[{"status": 400, "body": body, "times": None}])
    with pytest.raises(TavusRequestRejectedError):
        client.delete_replica(REPLICA)
    with pytest.raises(TavusInvalidResponseError, match="returned 400"):
        client.get_replica(REPLICA)


@pytest.mark.parametrize("status", [200, 204])
def test_empty_html_response_is_deleted(client, sandbox, status):
    sandbox.switch(faults=[delete_fault(status=status, html=True, body="", when="after")])
    assert client.delete_replica(REPLICA).outcome == "deleted"
    assert len(sandbox.state()["requests"]) == 1


def test_page_without_a_content_type_is_no_confirmation(raw_server, make_client):
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n\n<!DOCTYPE html>"
    gone = http_response(400, '{"error": "Invalid replica_id"}')
    server = raw_server(lambda head, _: page if head.startswith("DELETE") else gone)
    deletion = make_client(server.url).delete_replica("r1a")
    assert deletion.outcome == "confirmed"
    assert "returned 200 (no content type), which does not confirm the request" in deletion.detail


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"status": 200, "html": True}, id="200 HTML"),
        pytest.param({"status": 202}, id="202"),
        pytest.param({"status": 206}, id="206"),
        pytest.param({"status": 299}, id="299"),
        pytest.param({"status": 408}, id="408"),
        pytest.param({"status": 500}, id="500"),
        pytest.param({"status": 502, "html": True}, id="502 HTML"),
        pytest.param({"status": 503}, id="503"),
        pytest.param({"status": 504}, id="504"),
        pytest.param({"close": True}, id="connection closed"),
    ],
)
class TestUnknownOutcome:
    """Responses after which the delete may or may not have been applied."""

    def test_one_fault_is_deleted_by_the_second_attempt(self, client, sandbox, more):
        sandbox.switch(faults=[delete_fault(**more)])
        assert client.delete_replica(REPLICA).outcome == "deleted"
        assert len(deletes(sandbox)) == 2
        assert sandbox.state()["deletes"] == [{"replica_id": REPLICA, "hard": False}]

    def test_applied_delete_is_confirmed_by_a_look_up(self, client, sandbox, more):
        sandbox.switch(faults=[delete_fault(when="after", times=None, **more)])
        deletion = client.delete_replica(REPLICA)
        assert deletion.outcome == "confirmed"
        assert deletion.detail.endswith("; a later look-up shows that it is gone")
        assert len(deletes(sandbox)) == 1

    def test_lasting_fault_is_unknown_after_three_attempts(self, client, sandbox, more):
        sandbox.switch(faults=[delete_fault(times=None, **more)])
        with pytest.raises(TavusOutcomeUnknownError) as caught:
            client.delete_replica(REPLICA)
        assert str(caught.value).endswith("; 3 attempts; it may have been applied")
        assert (caught.value.outcome, caught.value.attempts) == ("unknown", 3)
        assert caught.value.status == more.get("status")
        assert len(deletes(sandbox)) == 3
        assert REPLICA in sandbox.replica_ids()


def test_not_found_after_an_unknown_outcome_is_confirmed(client, sandbox):
    # The look-up after the first attempt fails, so only the second DELETE shows that the first was applied.
    sandbox.switch(
        faults=[delete_fault(status=503, when="after"), {"method": "GET", "status": 403}],
        unknown_id="404",
    )
    deletion = client.delete_replica(REPLICA)
    assert (deletion.outcome, deletion.detail) == (
        "confirmed",
        f"DELETE /v2/replicas/{REPLICA}: Tavus no longer knows the replica; 2 attempts",
    )


@pytest.mark.parametrize(
    "look_up",
    [
        {"status": 401},
        {"status": 403},
        {"status": 429},
        {"status": 500},
        {"status": 503},
        {"status": 200, "html": True},
        {"status": 200, "body": "{"},
        {"status": 200, "body": "null"},
        {"status": 200, "body": '{"data": []}'},
        {"status": 200, "body": '{"replica_id": "r0other"}'},
        {"status": 202, "body": ""},
        {"status": 302, "headers": {"Location": "/"}},
        {"status": 400},
        {"status": 400, "html": True, "body": "Invalid replica_id"},
        {"close": True},
    ],
    ids=str,
)
def test_unclear_look_up_leaves_the_outcome_unknown(client, sandbox, look_up):
    sandbox.switch(
        faults=[
            delete_fault(status=503, times=None),
            {"method": "GET", "path": "/v2/replicas", "times": None, **look_up},
        ]
    )
    with pytest.raises(TavusOutcomeUnknownError, match=r"returned 503: .*; it may have been applied"):
        client.delete_replica(REPLICA)
    assert REPLICA in sandbox.replica_ids()


@pytest.mark.parametrize("status", [400, 403, 409])
def test_rejection_after_an_unknown_outcome_stays_unknown(client, sandbox, status):
    sandbox.switch(faults=[delete_fault(status=503), delete_fault(status=status, times=None)])
    with pytest.raises(TavusOutcomeUnknownError) as caught:
        client.delete_replica(REPLICA)
    assert "returned 503" in str(caught.value)
    assert (caught.value.attempts, caught.value.status) == (2, status)
    assert len(deletes(sandbox)) == 2


def test_rate_limit_after_an_unknown_outcome_stays_unknown(client, sandbox):
    sandbox.switch(faults=[delete_fault(status=503), delete_fault(status=429, times=None)])
    with pytest.raises(TavusOutcomeUnknownError, match="returned 503"):
        client.delete_replica(REPLICA)
    assert len(deletes(sandbox)) == 3


def test_no_connection_is_retryable(client, sandbox):
    sandbox.__exit__()
    with pytest.raises(TavusRetryableError) as caught:
        client.delete_replica(REPLICA)
    assert type(caught.value) is TavusRetryableError
    assert str(caught.value) == (
        f"DELETE /v2/replicas/{REPLICA} was not sent: no connection to {sandbox.url} "
        "(ConnectionRefusedError); 3 attempts"
    )
    assert (caught.value.outcome, caught.value.attempts) == ("failed", 3)


def test_retry_budget_is_shared_by_all_deletes(client, sandbox):
    sandbox.switch(faults=[delete_fault(status=503, times=None)])
    ids = [one for one in sandbox.replica_ids() if one.startswith("r")][:12]
    for replica_id in ids:
        with pytest.raises(TavusOutcomeUnknownError):
            client.delete_replica(replica_id)
    assert len(deletes(sandbox)) == len(ids) + 10
    with pytest.raises(TavusOutcomeUnknownError, match="; 1 attempt; it may have been applied"):
        client.delete_replica(REPLICA)


HTTP_DATE = object()
"""A date 30 seconds after the start of the test."""


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        pytest.param(None, 0.5, 1.5, id="no header"),
        ("7", 7, 8),
        ("0", 0, 1),
        pytest.param(HTTP_DATE, 25, 32, id="date in 30 s"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 1),
        ("soon", 0.5, 1.5),
        ("-5", 0.5, 1.5),
        ("1.5", 2, 3),
        ("3, 4", 0.5, 1.5),
        ("", 0.5, 1.5),
    ],
)
def test_429_is_waited_for(client, sandbox, clock, header, least, most):  # noqa: PLR0917
    if header is HTTP_DATE:
        then = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
        header = email.utils.format_datetime(then, usegmt=True)
    sandbox.switch(faults=[delete_fault(status=429, retry_after=header)])
    assert client.delete_replica(REPLICA).outcome == "deleted"
    assert len(deletes(sandbox)) == 2
    (wait,) = clock.waits
    assert least <= wait <= most


@pytest.mark.parametrize(
    "header",
    ["99999999", pytest.param("9" * 5000, id="5,000 digits"), "Fri, 31 Dec 9999 23:59:59 GMT", "86400"],
)
def test_retry_after_above_the_limit_ends_the_request_at_once(client, sandbox, clock, header):
    sandbox.switch(faults=[{"status": 429, "retry_after": header, "times": None}])
    with pytest.raises(TavusRetryableError) as caught:
        client.delete_replica(REPLICA)
    assert str(caught.value) == (
        f"DELETE /v2/replicas/{REPLICA}: rate limited: Retry-After of "
        f"{'86400 s' if header == '86400' else 'more than a day'} exceeds the limit of 120 s; 1 attempt"
    )
    assert (caught.value.outcome, caught.value.status, caught.value.attempts) == ("failed", 429, 1)
    with pytest.raises(TavusRetryableError, match="GET /v2/replicas: rate limited: Retry-After of "):
        client.list_replicas()
    assert len(sandbox.state()["requests"]) == 2
    assert clock.waits == []


def test_lasting_rate_limit_is_failed_and_not_unknown(client, sandbox):
    sandbox.switch(faults=[{"status": 429, "times": None}])
    with pytest.raises(TavusRetryableError) as caught:
        client.delete_replica(REPLICA)
    assert str(caught.value) == (
        f"DELETE /v2/replicas/{REPLICA} returned 429: Too Many Requests: rate limited; 3 attempts"
    )
    assert (caught.value.outcome, len(deletes(sandbox))) == ("failed", 3)
    with pytest.raises(
        TavusRetryableError, match="GET /v2/replicas page 1 returned 429: Too Many Requests: rate limited"
    ):
        client.list_replicas()


def test_error_survives_pickling(client, sandbox):
    sandbox.switch(faults=[delete_fault(status=503, times=None, headers={"X-Request-Id": "q-1"})])
    with pytest.raises(TavusOutcomeUnknownError) as caught:
        client.delete_replica(REPLICA)
    after = pickle.loads(pickle.dumps(caught.value))
    assert (str(after), after.status, after.attempts, after.request_id) == (
        str(caught.value),
        503,
        3,
        "q-1",
    )


# --- stop


def stopping_client(sandbox, stop_at: str, clock) -> TavusClient:
    """Return a client that is stopped before its first request, or while it waits for a retry."""

    def sleep(seconds: float, stop: threading.Event) -> bool:
        client.stop()
        return clock.sleep(seconds, stop)

    limiter = RateLimiter(sleep=sleep, clock=clock)
    client = TavusClient(ClientConfig(sandbox.url, sandbox.key), rate_limiter=limiter)
    if stop_at == "before the first request":
        client.stop()
    return client


def test_stop_before_the_first_request_sends_nothing(sandbox, clock):
    with stopping_client(sandbox, "before the first request", clock) as client:
        with pytest.raises(TavusRetryableError) as caught:
            client.delete_replica(REPLICA)
        with pytest.raises(
            TavusRetryableError, match=f"^GET /v2/replicas/{REPLICA} was not sent: the client"
        ):
            client.get_replica(REPLICA)
    assert str(caught.value) == (f"DELETE /v2/replicas/{REPLICA} was not sent: the client was stopped")
    assert (caught.value.outcome, caught.value.attempts) == ("not_attempted", 0)
    assert sandbox.state()["requests"] == []


def test_stop_during_a_rate_limit_is_failed(sandbox, clock):
    sandbox.switch(faults=[delete_fault(status=429, retry_after="40", times=None)])
    with (
        stopping_client(sandbox, "while waiting", clock) as client,
        pytest.raises(TavusRetryableError) as caught,
    ):
        client.delete_replica(REPLICA)
    assert str(caught.value) == (f"DELETE /v2/replicas/{REPLICA}: the client was stopped; 1 attempt")
    assert (caught.value.outcome, caught.value.status, caught.value.attempts) == ("failed", 429, 1)
    assert len(deletes(sandbox)) == 1


def test_stop_after_an_unknown_outcome_stays_unknown(sandbox, clock):
    sandbox.switch(
        faults=[delete_fault(status=503, when="after", times=None), {"method": "GET", "status": 400}]
    )
    with (
        stopping_client(sandbox, "while waiting", clock) as client,
        pytest.raises(
            TavusOutcomeUnknownError, match=r"returned 503.*; 1 attempt; it may have been applied$"
        ),
    ):
        client.delete_replica(REPLICA)
    assert len(deletes(sandbox)) == 1
