from __future__ import annotations

import base64
import datetime as dt
import email.utils
import json
import logging
import pickle
import random
import re
import threading
from urllib.parse import quote

import pytest

from tavus_provider.client import config as account
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
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.models import Persona, Replica, check_bool
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

API = "https://tavusapi.com"
KEY = "hook-key-8f2b6c91/+d"
ANNA = "r1a0c5e8f3b2"  # of the sandbox's built-in world, free to go
GONE = "r00dead00bee"


def deletes(sandbox) -> list[dict[str, object]]:
    """The DELETE requests which the sandbox saw."""
    return [seen for seen in sandbox.state()["requests"] if seen["method"] == "DELETE"]


@pytest.fixture(scope="module")
def running():
    from tavus_provider.sandbox import Sandbox

    with Sandbox(key="sandbox-key-8f2b6c91") as one:
        yield one


@pytest.fixture
def sandbox(running, connect):
    """One sandbox for all tests of this file, as if it were new."""
    if not running._server:
        running.__enter__()
    running.reset()
    connect(running.url, password=running.key, extra={"timeout": 5})
    return running


def fault(**more: object) -> dict[str, object]:
    return {"method": "DELETE", "path": "/v2/replicas", **more}


@pytest.fixture
def mocked(connect, clock):
    """A hook on Tavus itself, for a mock of it."""
    connect(API, password=KEY)
    with TavusHook() as made:
        yield made


@pytest.fixture
def empty(connect, clock):
    """A hook on a sandbox with as many replicas as wanted: ``empty(250, clamp_limit=..)``."""
    from tavus_provider.sandbox import Sandbox

    running = []

    def start(count: int, **switches: object):
        rows = [{"replica_id": f"r{number:04}", "age": "9d"} for number in range(count)]
        sandbox = Sandbox({"replicas": rows}, key=KEY)
        sandbox.__enter__()
        running.append(sandbox)
        sandbox.switch(**switches)
        connect(sandbox.url, password=KEY)
        return sandbox, TavusHook()

    yield start
    for sandbox in running:
        sandbox.__exit__()


# -- words on the wire


@pytest.mark.parametrize(("hard", "query"), [(False, ""), (True, "?hard=true")])
def test_a_delete_is_exactly_one_request_without_a_body(mocked, requests_mock, hard, query):
    requests_mock.delete(f"{API}/v2/replicas/{ANNA}", status_code=204)
    deletion = mocked.delete_replica(ANNA, hard=hard)
    (request,) = requests_mock.request_history
    assert (request.method, request.url, request.body) == (
        "DELETE",
        f"https://tavusapi.com/v2/replicas/{ANNA}{query}",
        None,
    )
    assert dict(request.headers) == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "airflow-provider-tavus/0.1.0",
        "x-api-key": KEY,
        "Content-Length": "0",
    }
    assert (deletion.replica_id, deletion.outcome) == (ANNA, "deleted")
    assert deletion.detail == f"DELETE /v2/replicas/{ANNA}{query} returned 204"


def test_reads_ask_for_all_that_is_needed(hook, sandbox):
    hook.list_replicas()
    hook.list_personas()
    hook.list_conversations()
    hook.list_videos()
    hook.get_replica(ANNA)
    assert [(seen["path"], seen["query"]) for seen in sandbox.state()["requests"]] == [
        ("/v2/replicas", "verbose=true&replica_type=user&limit=100&page=1"),
        ("/v2/personas", "limit=100&page=1"),
        ("/v2/conversations", "limit=100&page=1"),
        ("/v2/videos", "limit=100&page=0"),
        (f"/v2/replicas/{ANNA}", "verbose=true"),
    ]


# -- what is refused before anything is sent


@pytest.mark.parametrize(
    "replica_id",
    [
        "", " ", ".", "..", "../personas/p123", "x/../../personas/p1", "x?hard=true", "x?hard=true&", "x#f",
        "%2e%2e", "%2E%2E/personas/p1", "..%2fpersonas%2fp1", "x%3Fhard%3Dtrue", "r1;hard=true", "r1,r2",
        "r1/", "a b", "a\tb", f"{ANNA}\n", "x\r\nX-Injected: 1", "x\x00y", "\u202eabc",
        "r\u0435plica", "\uff52\uff11",
        "\\..\\personas", "//evil.com/x", "None", "null", "nan", "undefined", "true", "False", "{{ x }}",
        "['r1','r2']", "r" * 65, "r" * 9000, None, True, 1000, 1e5, b"r1", ["r1"], {"id": "r1"}, ...,
    ],
    ids=lambda value: ascii(value)[:20],
)  # fmt: skip
def test_what_is_not_an_id_reaches_no_server(hook, sandbox, replica_id):
    for call in (hook.get_replica, hook.delete_replica, lambda value: hook.delete_replica(value, hard=True)):
        with pytest.raises(TavusValidationError, match=r"is not a replica id; .*; nothing was sent"):
            call(replica_id)
    assert sandbox.state()["requests"] == []


@pytest.mark.parametrize(
    "hard", ["true", "false", "True", "False", 1, 0, 1.0, None, "", "{{ true }}", [], [True]]
)
def test_hard_is_true_or_false_itself(hook, sandbox, hard):
    with pytest.raises(
        TavusValidationError, match=r"^hard: expected True or False, got .*; nothing was sent$"
    ):
        hook.delete_replica(ANNA, hard=hard)
    assert sandbox.state()["requests"] == []


def test_a_bool_is_returned_as_it_is():
    assert check_bool("hard", True) is True
    assert check_bool("hard", False) is False


# -- a delete and what came of it


@pytest.mark.parametrize("delete_status", [200, 204])
@pytest.mark.parametrize("hard", [False, True])
def test_a_replica_is_deleted(hook, sandbox, delete_status, hard):
    sandbox.switch(delete_status=delete_status)
    deletion = hook.delete_replica(ANNA, hard=hard)
    assert (deletion.replica_id, deletion.outcome) == (ANNA, "deleted")
    assert deletion.detail.endswith(f" returned {delete_status}")
    assert sandbox.state()["deletes"] == [{"replica_id": ANNA, "hard": hard}]
    assert len(sandbox.state()["requests"]) == 1


@pytest.mark.parametrize("unknown_id", ["400-error", "400-message", "404"])
@pytest.mark.parametrize("vocabulary", ["replica", "face"])
def test_an_id_that_tavus_does_not_know_is_not_found(hook, sandbox, unknown_id, vocabulary):
    sandbox.switch(unknown_id=unknown_id, vocabulary=vocabulary)
    for call, method in ((hook.delete_replica, "DELETE"), (hook.get_replica, "GET")):
        with pytest.raises(ReplicaNotFoundError) as caught:
            call(GONE)
        said = f"Invalid {vocabulary}_id" if "400" in unknown_id else f"{vocabulary.capitalize()} not found"
        assert str(caught.value) == f"{method} /v2/replicas/{GONE} returned {unknown_id[:3]}: {said}"
        assert (caught.value.outcome, caught.value.attempts) == ("already_gone", 1)
    assert len(sandbox.state()["requests"]) == 2


def test_410_is_gone(hook, sandbox):
    sandbox.switch(faults=[fault(status=410)])
    with pytest.raises(ReplicaNotFoundError, match="returned 410: Gone"):
        hook.delete_replica(ANNA)


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (400, TavusRequestRejectedError, "returned 400: Bad Request"),
        (401, TavusAuthError, "returned 401: Unauthorized: check the API key of the Airflow connection"),
        (402, TavusRequestRejectedError, "returned 402: Payment Required"),
        (403, TavusAuthError, "returned 403: Forbidden: check the API key of the Airflow connection"),
        (405, TavusRequestRejectedError, "returned 405: Method Not Allowed"),
        (409, TavusRequestRejectedError, "returned 409: Conflict"),
        (422, TavusRequestRejectedError, "returned 422: "),
    ],
)
def test_a_refusal_is_certain_and_not_repeated(hook, sandbox, status, kind, text):
    sandbox.switch(faults=[fault(status=status, times=None)])
    with pytest.raises(TavusError) as caught:
        hook.delete_replica(ANNA)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"DELETE /v2/replicas/{ANNA} {text}")
    assert (caught.value.outcome, caught.value.status, caught.value.attempts) == ("failed", status, 1)
    assert len(sandbox.state()["requests"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        '{"error": "Invalid replica_id."}',
        '{"error": "Invalid replica_uuid"}',
        '{"error": "invalid replica_id"}',
        "x",
    ],
)
def test_any_other_400_is_no_proof_that_it_is_gone(hook, sandbox, body):
    sandbox.switch(faults=[{"status": 400, "body": body, "times": None}])
    with pytest.raises(TavusRequestRejectedError):
        hook.delete_replica(ANNA)
    with pytest.raises(TavusInvalidResponseError, match="returned 400"):
        hook.get_replica(ANNA)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_not_followed(hook, sandbox, status):
    other = f"/v2/replicas/{GONE}"
    sandbox.switch(faults=[{"status": status, "headers": {"Location": other}, "times": None}])
    with pytest.raises(
        TavusRequestRejectedError, match="redirects are not followed; check the connection's base URL"
    ):
        hook.delete_replica(ANNA)
    with pytest.raises(TavusInvalidResponseError, match="redirects are not followed"):
        hook.list_replicas()
    assert [seen["path"] for seen in sandbox.state()["requests"]] == [f"/v2/replicas/{ANNA}", "/v2/replicas"]


@pytest.mark.parametrize("status", [200, 204])
def test_an_html_answer_without_a_body_is_an_answer(hook, sandbox, status):
    sandbox.switch(faults=[fault(status=status, html=True, body="", when="after")])
    assert hook.delete_replica(ANNA).outcome == "deleted"
    assert len(sandbox.state()["requests"]) == 1


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
        pytest.param({"close": True}, id="hang up"),
    ],
)
class TestDoubt:
    def test_that_passes_is_deleted_by_the_second_send(self, hook, sandbox, more):
        sandbox.switch(faults=[fault(**more)])
        assert hook.delete_replica(ANNA).outcome == "deleted"
        assert len(deletes(sandbox)) == 2
        assert sandbox.state()["deletes"] == [{"replica_id": ANNA, "hard": False}]

    def test_after_the_effect_is_settled_by_a_look(self, hook, sandbox, more):
        sandbox.switch(faults=[fault(when="after", times=None, **more)])
        deletion = hook.delete_replica(ANNA)
        assert deletion.outcome == "confirmed"
        assert deletion.detail.endswith("; a later look-up shows that it is gone")
        assert len(deletes(sandbox)) == 1

    def test_that_stays_is_unknown_after_exactly_three_deletes(self, hook, sandbox, more):
        sandbox.switch(faults=[fault(times=None, **more)])
        with pytest.raises(TavusOutcomeUnknownError) as caught:
            hook.delete_replica(ANNA)
        assert str(caught.value).endswith("; sent 3 times; it may have been applied")
        assert (caught.value.outcome, caught.value.attempts) == ("unknown", 3)
        assert caught.value.status == more.get("status")
        assert len(deletes(sandbox)) == 3
        assert ANNA in sandbox.replica_ids()


def test_gone_after_a_doubtful_send_is_confirmed(hook, sandbox):
    # The look-up right after the first send fails, so that only the second DELETE shows what became of it.
    sandbox.switch(
        faults=[fault(status=503, when="after"), {"method": "GET", "status": 401}],
        unknown_id="404",
    )
    deletion = hook.delete_replica(ANNA)
    assert (deletion.outcome, deletion.detail) == (
        "confirmed",
        f"DELETE /v2/replicas/{ANNA} was sent 2 times; Tavus no longer knows the replica",
    )


@pytest.mark.parametrize(
    "look",
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
def test_a_look_that_says_nothing_clear_leaves_the_doubt(hook, sandbox, look):
    sandbox.switch(
        faults=[
            fault(status=503, times=None),
            {"method": "GET", "path": "/v2/replicas", "times": None, **look},
        ]
    )
    with pytest.raises(TavusOutcomeUnknownError, match=r"returned 503: .*; it may have been applied"):
        hook.delete_replica(ANNA)
    assert ANNA in sandbox.replica_ids()


@pytest.mark.parametrize("status", [400, 401, 403, 409])
def test_a_refusal_after_doubt_does_not_make_it_certain(hook, sandbox, status):
    sandbox.switch(faults=[fault(status=503), fault(status=status, times=None)])
    with pytest.raises(TavusOutcomeUnknownError) as caught:
        hook.delete_replica(ANNA)
    assert "returned 503" in str(caught.value)
    assert (caught.value.attempts, caught.value.status) == (2, status)
    assert len(deletes(sandbox)) == 2


def test_a_rate_limit_after_doubt_does_not_make_it_certain(hook, sandbox):
    sandbox.switch(faults=[fault(status=503), fault(status=429, times=None)])
    with pytest.raises(TavusOutcomeUnknownError, match="returned 503"):
        hook.delete_replica(ANNA)
    assert len(deletes(sandbox)) == 3


def test_no_connection_is_certain_and_worth_another_try(hook, sandbox):
    sandbox.__exit__()
    with pytest.raises(TavusRetryableError) as caught:
        hook.delete_replica(ANNA)
    assert type(caught.value) is TavusRetryableError
    assert str(caught.value) == (
        f"DELETE /v2/replicas/{ANNA} was not sent: no connection to {sandbox.url} "
        "(ConnectionRefusedError); sent 3 times"
    )
    assert (caught.value.outcome, caught.value.attempts) == ("failed", 3)


def test_the_retries_of_a_task_are_limited(hook, sandbox):
    sandbox.switch(faults=[fault(status=503, times=None)])
    ids = [one for one in sandbox.replica_ids() if one.startswith("r")][:12]
    for replica_id in ids:
        with pytest.raises(TavusOutcomeUnknownError):
            hook.delete_replica(replica_id)
    assert len(deletes(sandbox)) == len(ids) + 10
    with pytest.raises(TavusOutcomeUnknownError, match="sent 1 time; it may have been applied"):
        hook.delete_replica(ANNA)


# -- rate limits

HTTP_DATE = object()


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        (None, 0.5, 1.5),
        ("7", 7, 8),
        ("0", 0, 1),
        (HTTP_DATE, 25, 32),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 1),
        ("soon", 0.5, 1.5),
        ("-5", 0.5, 1.5),
        ("1.5", 0.5, 1.5),
        ("3, 4", 0.5, 1.5),
        ("", 0.5, 1.5),
    ],
)
def test_a_rate_limit_is_waited_for(hook, sandbox, clock, header, least, most):  # noqa: PLR0917
    if header is HTTP_DATE:
        then = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
        header = email.utils.format_datetime(then, usegmt=True)
    sandbox.switch(faults=[fault(status=429, retry_after=header)])
    assert hook.delete_replica(ANNA).outcome == "deleted"
    assert len(deletes(sandbox)) == 2
    (wait,) = clock.waits
    assert least <= wait <= most


@pytest.mark.parametrize("header", ["99999999", "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT", "86400"])
def test_a_rate_limit_beyond_patience_ends_the_call_at_once(hook, sandbox, clock, header):
    sandbox.switch(faults=[{"status": 429, "retry_after": header, "times": None}])
    with pytest.raises(TavusRetryableError) as caught:
        hook.delete_replica(ANNA)
    assert str(caught.value) == (
        f"DELETE /v2/replicas/{ANNA}: rate limited: Retry-After of "
        f"{'86400 s' if header == '86400' else 'more than a day'} exceeds the limit of 120 s; sent 1 time"
    )
    assert (caught.value.outcome, caught.value.status, caught.value.attempts) == ("failed", 429, 1)
    with pytest.raises(TavusRetryableError, match="GET /v2/replicas: rate limited: Retry-After of "):
        hook.list_replicas()
    assert len(sandbox.state()["requests"]) == 2
    assert clock.waits == []


def test_a_rate_limit_that_stays_is_refused_and_never_unknown(hook, sandbox):
    sandbox.switch(faults=[{"status": 429, "times": None}])
    with pytest.raises(TavusRetryableError) as caught:
        hook.delete_replica(ANNA)
    assert str(caught.value) == (
        f"DELETE /v2/replicas/{ANNA} returned 429: Too Many Requests: rate limited; sent 3 times"
    )
    assert (caught.value.outcome, len(deletes(sandbox))) == ("failed", 3)
    with pytest.raises(
        TavusRetryableError, match="GET /v2/replicas page 1 returned 429: Too Many Requests: rate limited"
    ):
        hook.list_replicas()


# -- one replica


@pytest.mark.parametrize("vocabulary", ["replica", "face", "both"])
def test_a_replica_is_read_in_either_vocabulary(hook, sandbox, vocabulary):
    sandbox.switch(vocabulary=vocabulary)
    replica = hook.get_replica(ANNA)
    assert (replica.replica_id, replica.replica_name, replica.replica_type) == (
        ANNA,
        "spring-campaign_anna",
        "user",
    )
    assert (120 - (dt.datetime.now(dt.UTC) - replica.created_at).days) == 0


def test_an_answer_about_another_replica_is_no_answer(hook, sandbox):
    sandbox.switch(faults=[{"status": 200, "body": '{"replica_id": "r0other"}'}])
    with pytest.raises(TavusInvalidResponseError, match="returned another replica, r0other"):
        hook.get_replica(ANNA)


# -- listing


def row(number: int) -> dict[str, object]:
    return {"replica_id": f"r{number:04}", "replica_type": "user"}


def page(*numbers: int, total: object = 3) -> dict[str, object]:
    return {"json": {"data": [row(number) for number in numbers], "total_count": total}}


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
@pytest.mark.parametrize("clamp", [None, 7])
def test_a_listing_is_complete_whatever_the_length_of_a_page(empty, count, clamp):
    sandbox, hook = empty(count, clamp_limit=clamp)
    assert [replica.replica_id for replica in hook.list_replicas()] == sandbox.replica_ids()


@pytest.mark.parametrize("vocabulary", ["replica", "face", "both"])
def test_all_lists_are_read_in_either_vocabulary(hook, sandbox, vocabulary):
    sandbox.switch(vocabulary=vocabulary)
    # The stray quote of the documentation is listed; whoever decides keeps it.
    assert len(hook.list_replicas()) == 26
    assert {one.replica_type for one in hook.list_replicas()} == {"user", "user'"}
    personas = hook.list_personas()
    assert (personas[0].persona_id, personas[0].replica_id) == ("p1c2d3e4f5a6", "rf8c6e5b1a20")
    assert "key-of-a-third-party" not in repr(personas)
    assert {one.status for one in hook.list_conversations()} == {"active", "ended"}
    assert len(hook.list_conversations()) == 4
    assert [one.replica_id for one in hook.list_videos()] == ["r1ae8b0d3c5f", "r1a0c5e8f3b2", "r5e27d9a6c40"]


@pytest.mark.parametrize("first", [0, 1])
def test_videos_are_complete_whether_their_pages_count_from_0_or_from_1(mocked, requests_mock, first):
    def answer(request, _):
        at = max(int(request.qs["page"][0]) - first, 0) * 100
        rows = [{"video_id": f"v{number}"} for number in range(at, min(at + 100, 250))]
        return {"data": rows, "total_count": 250}

    requests_mock.get(f"{API}/v2/videos", json=answer)
    assert len(mocked.list_videos()) == 250


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        pytest.param([{"json": {"data": [row(1)]}}], "total_count null", id="total missing"),
        pytest.param([page(1, total="1")], 'total_count "1"', id="total a string"),
        pytest.param([page(1, total=True)], "total_count true", id="total true"),
        pytest.param([page(1, total=-1)], "total_count -1", id="total -1"),
        pytest.param([page(1, total=1.0)], "total_count 1.0", id="total a float"),
        pytest.param([page(1), page()], "returned 1 rows and total_count 3", id="total too high"),
        pytest.param([page(1, 2, total=1)], "returned 2 rows and total_count 1", id="total too low"),
        pytest.param([page(1, total=0)], "returned 1 rows and total_count 0", id="total 0"),
        pytest.param([page(total=5)], "returned 0 rows and total_count 5", id="empty page"),
        pytest.param([page(1, 2), page(1, 2)], "page 2 repeats rows of earlier pages", id="page repeated"),
        pytest.param([page(1, 2), page(2, 1)], "page 2 repeats rows", id="page repeated in another order"),
        pytest.param([page(1, 2), page(2)], "page 2 repeats rows", id="only known rows"),
        pytest.param(
            [page(1, 1, total=2), page(total=2)], "returned 1 rows and total_count 2", id="twice on a page"
        ),
        pytest.param(
            [page(1, 2, total=4), page(2, 3, total=4), page(total=4)], "returned 3 rows", id="shifted"
        ),
        pytest.param(
            [{"json": {"data": None, "total_count": 0}}], "no list of rows in 'data'", id="data null"
        ),
        pytest.param(
            [{"json": {"data": {}, "total_count": 0}}], "no list of rows in 'data'", id="data object"
        ),
        pytest.param([{"json": {"total_count": 0}}], "no list of rows in 'data'", id="no data"),
        pytest.param([{"json": [row(1)]}], "no list of rows in 'data'", id="a list"),
        pytest.param([{"text": "null"}], "no list of rows in 'data'", id="null"),
        pytest.param(
            [{"text": "<html>", "headers": {"Content-Type": "text/html"}}], "is not JSON", id="HTML"
        ),
        pytest.param([{"text": ""}], "is not JSON", id="empty"),
        pytest.param([{"text": '{"data": [], "total_count": 0'}], "is not JSON", id="cut"),
        pytest.param([{"text": "[" * 200_000}], "is not JSON", id="nested"),
        pytest.param([page(1, total=1) | {"status_code": 206}], "returned 206", id="206"),
        pytest.param([page(1, total=1) | {"status_code": 202}], "returned 202", id="202"),
        pytest.param([{"status_code": 204}], "returned 204", id="204"),
        pytest.param([{"status_code": 404, "json": {"error": "x"}}], "page 1 returned 404: x", id="404"),
        pytest.param([{"status_code": 503, "json": {}}], "page 1 returned 503", id="503"),
        pytest.param(
            [page(1, 2), {"status_code": 500, "json": {}}], "page 2 returned 500", id="500 on page 2"
        ),
        pytest.param(
            [{"json": {"data": [row(1), "r2"], "total_count": 2}}],
            "'r2' for a replica; expected a JSON object",
            id="row a string",
        ),
        pytest.param(
            [{"json": {"data": [row(1), {"replica_id": "../personas/p1"}], "total_count": 2}}],
            "the invalid id '../personas/p1'; the whole listing is rejected",
            id="an id that leads elsewhere",
        ),
        pytest.param(
            [{"json": {"data": [{"replica_name": "x"}], "total_count": 1}}],
            "the invalid id None",
            id="no id",
        ),
        pytest.param(
            [{"json": {"data": [{"replica_id": "r1", "face_id": "r2"}], "total_count": 1}}],
            "different values for replica_id and face_id",
            id="two ids",
        ),
    ],
)
def test_a_listing_that_cannot_be_shown_to_be_complete_is_refused(mocked, requests_mock, answers, reason):
    requests_mock.get(f"{API}/v2/replicas", answers)
    with pytest.raises(TavusInvalidResponseError) as caught:
        mocked.list_replicas()
    assert reason in str(caught.value)
    assert caught.value.outcome == "not_attempted"


@pytest.mark.parametrize("status", [401, 403])
def test_a_listing_with_a_refused_key_says_so(mocked, requests_mock, status):
    requests_mock.get(f"{API}/v2/replicas", status_code=status, json={"message": "Invalid access token"})
    with pytest.raises(TavusAuthError) as caught:
        mocked.list_replicas()
    assert str(caught.value) == (
        f"GET /v2/replicas page 1 returned {status}: Invalid access token: "
        "check the API key of the Airflow connection"
    )


def test_a_row_on_two_pages_is_one_replica(mocked, requests_mock):
    requests_mock.get(f"{API}/v2/replicas", [page(1, 2), page(2, 3)])
    assert [replica.replica_id for replica in mocked.list_replicas()] == ["r0001", "r0002", "r0003"]


def test_a_listing_that_changed_on_the_way_is_read_again(mocked, requests_mock):
    requests_mock.get(
        f"{API}/v2/replicas",
        [page(1, 2, total=4), page(3, total=3), page(2, 3, total=2)],
    )
    assert [replica.replica_id for replica in mocked.list_replicas()] == ["r0002", "r0003"]
    assert [request.qs["page"] for request in requests_mock.request_history] == [["1"], ["2"], ["1"]]


def test_a_listing_without_an_end_is_given_up(mocked, requests_mock, monkeypatch):
    monkeypatch.setattr("tavus_provider.client.pagination.MAX_PAGES", 5)

    def answer(request, _):
        number = int(request.qs["page"][0])
        return {"data": [row(number)], "total_count": 1_000_000}

    requests_mock.get(f"{API}/v2/replicas", json=answer)
    with pytest.raises(
        TavusInvalidResponseError, match="returned 5 rows and total_count 1000000: the listing is incomplete"
    ):
        mocked.list_replicas()
    assert requests_mock.call_count == 5


def test_a_listing_that_keeps_changing_is_given_up(mocked, requests_mock):
    requests_mock.get(f"{API}/v2/replicas", [page(1, total=2 + at) for at in range(30)])
    with pytest.raises(TavusInvalidResponseError, match=r"repeats rows|is incomplete"):
        mocked.list_replicas()
    assert requests_mock.call_count < 10


@pytest.mark.parametrize("change", ["created", "deleted"])
def test_rows_that_come_or_go_between_two_pages_are_seen(mocked, requests_mock, change):
    world = list(range(250))
    changes = iter([lambda: world.insert(0, 999) if change == "created" else world.pop(0)])

    def answer(request, _):
        at = (int(request.qs["page"][0]) - 1) * 100
        said = {"data": [row(number) for number in world[at : at + 100]], "total_count": len(world)}
        next(changes, lambda: None)()
        return said

    requests_mock.get(f"{API}/v2/replicas", json=answer)
    listed = [replica.replica_id for replica in mocked.list_replicas()]
    assert listed == [f"r{number:04}" for number in world]


def conversation(at: int, *, replica: str | None = "r0001", day: int | None = 1, **more: object):
    when = None if day is None else f"2026-01-{day:02}T00:00:00Z"
    return {"conversation_id": f"c{at}", "replica_id": replica, "status": "ended", "updated_at": when, **more}


def test_of_conversations_that_say_the_same_the_newest_is_enough(mocked, requests_mock):
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

    def answer(request, _):
        page = int(request.qs["page"][0])
        return {"data": rows[(page - 1) * 2 : page * 2], "total_count": len(rows)}

    requests_mock.get(f"{API}/v2/conversations", json=answer)
    assert len(mocked.list_conversations()) == 9
    newest = {one.activity_id for one in mocked.list_conversations(latest_only=True)}
    assert newest == {"c2", "c4", "c5", "c6", "c8", "c9"}


def test_a_listing_of_the_newest_is_as_complete_as_any(mocked, requests_mock):
    said = {"data": [conversation(1), conversation(2)], "total_count": 3}
    requests_mock.get(f"{API}/v2/conversations", [{"json": said}, {"json": {"data": [], "total_count": 3}}])
    with pytest.raises(TavusInvalidResponseError, match="returned 2 rows and total_count 3"):
        mocked.list_conversations(latest_only=True)


@pytest.mark.parametrize("seed", range(20))
def test_the_newest_lead_to_the_same_decision_as_all(mocked, requests_mock, seed):
    chance = random.Random(seed)
    rows = [
        conversation(
            at,
            replica=chance.choice(["r0001", "r0002", "r0003", None]),
            day=chance.choice([None, *range(1, 29)]),
            persona_id=chance.choice([None, "p1", "p2"]),
        )
        for at in range(40)
    ]
    for row in rows:
        if row["replica_id"] and chance.random() < 0.05:
            row["status"] = "active"
        if chance.random() < 0.5 and row["updated_at"] is None:
            row["updated_at"] = "2027-01-01T00:00:00Z"  # which is to come
    requests_mock.get(f"{API}/v2/conversations", json={"data": rows, "total_count": len(rows)})
    now = dt.datetime(2026, 4, 1, tzinfo=dt.UTC)
    replicas = [
        Replica(f"r{at:04}", f"n{at}", "completed", "user", None, dt.datetime(2025, 12, 1, tzinfo=dt.UTC))
        for at in range(1, 6)
    ]
    policy = Policy.parse({"expire": [{"older_than": "30d", "unused_for": "70d"}]})
    personas = [Persona("p1", "r0004"), Persona("p2", None)]

    def decided(conversations):
        decision = evaluate(policy, Inventory(replicas, personas, conversations), now=now)
        return [(one.replica.replica_id, one.reason_code, one.last_used_at) for one in decision.verdicts]

    assert decided(mocked.list_conversations(latest_only=True)) == decided(mocked.list_conversations())


class Paged:
    """
    A list of replicas over real HTTP: ``ask(page)`` is called for each page before it is answered.

    It may wait, and it may return another answer than the page: rows and total_count, or a status.
    """

    def __init__(self, raw_server, connect, *, count: int, size: int, ask, concurrency: int = 4) -> None:
        self.count, self.size, self.ask = count, size, ask
        self.asked: list[int] = []
        self.answered: list[int] = []
        connect(raw_server(self._talk).url, extra={"concurrency": concurrency, "timeout": 20})

    def _talk(self, head: str, _: int) -> bytes:
        page = int(re.search(r"[?&]page=([0-9]+)", head)[1])
        self.asked.append(page)
        said = self.ask(page)
        self.answered.append(page)
        status = said if isinstance(said, int) else 200
        rows, total = said if isinstance(said, tuple) else (self.rows(page), self.count)
        body = json.dumps({"data": rows, "total_count": total}).encode()
        head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def rows(self, page: int) -> list[dict[str, object]]:
        return [row(at) for at in range((page - 1) * self.size, min(page * self.size, self.count))]


def test_pages_that_are_answered_out_of_order_make_the_list_in_order(raw_server, connect, clock):
    third = threading.Event()

    def ask(page: int) -> None:
        if page == 2:
            assert third.wait(20), "page 3 was not asked for while page 2 was under way"
        if page == 3:
            third.set()

    tavus = Paged(raw_server, connect, count=50, size=10, ask=ask)
    with TavusHook() as hook:
        assert [one.replica_id for one in hook.list_replicas()] == [f"r{at:04}" for at in range(50)]
    assert tavus.answered.index(3) < tavus.answered.index(2)
    assert sorted(tavus.asked) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_pages_are_under_way_as_the_setting_says(raw_server, connect, clock, concurrency):
    together, lock = threading.Barrier(concurrency, timeout=20), threading.Lock()
    under_way, most = 0, 0

    def ask(page: int) -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        if page > 1:
            together.wait()
        with lock:
            under_way -= 1

    Paged(raw_server, connect, count=400, size=10, ask=ask, concurrency=concurrency)  # 1 page and 39
    with TavusHook() as hook:
        assert len(hook.list_replicas()) == 400
    assert most == concurrency


def test_a_count_that_changes_between_pages_read_parallel_is_read_again(raw_server, connect, clock):
    changed = iter([True])

    def ask(page: int):
        if page == 3 and next(changed, False):
            return tavus.rows(3), 51
        return None

    tavus = Paged(raw_server, connect, count=50, size=10, ask=ask)
    with TavusHook() as hook:
        assert len(hook.list_replicas()) == 50
    assert tavus.asked.count(1) == 2


def test_a_page_that_is_shorter_than_the_first_one_hides_no_row(raw_server, connect, clock):
    world = [row(at) for at in range(25)]
    cuts = {1: (0, 10), 2: (10, 13), 3: (13, 14), 4: (14, 24), 5: (24, 25)}

    def ask(page: int):
        return world[slice(*cuts[page])], 25

    tavus = Paged(raw_server, connect, count=25, size=10, ask=ask)
    with TavusHook() as hook:
        assert [one.replica_id for one in hook.list_replicas()] == [f"r{at:04}" for at in range(25)]
    assert sorted(tavus.asked) == [1, 2, 3, 4, 5]


def test_pages_read_parallel_that_repeat_each_other_are_no_listing(raw_server, connect, clock):
    tavus = Paged(
        raw_server, connect, count=50, size=10, ask=lambda page: (tavus.rows(2 if page == 4 else page), 50)
    )
    with TavusHook() as hook, pytest.raises(TavusInvalidResponseError, match="page 4 repeats rows"):
        hook.list_replicas()


def test_a_page_that_fails_stops_the_rest(raw_server, connect, clock):
    failed = threading.Event()

    def ask(page: int):
        if page == 2:
            failed.set()
            return 400
        if page > 2:
            failed.wait(20)
        return None

    tavus = Paged(raw_server, connect, count=3000, size=10, ask=ask)
    with TavusHook() as hook, pytest.raises(TavusInvalidResponseError, match="page 2 returned 400"):
        hook.list_replicas()
    assert len(tavus.asked) < 150


@pytest.mark.parametrize("switch", ["missing", "high"])
def test_a_sandbox_with_a_wrong_count_is_not_believed(hook, sandbox, switch):
    sandbox.switch(total_count=switch)
    for call in (hook.list_replicas, hook.list_personas, hook.list_conversations, hook.list_videos):
        with pytest.raises(TavusInvalidResponseError, match="total_count"):
            call()


# -- the connection


def test_a_connection_in_json_is_read(monkeypatch, requests_mock):
    monkeypatch.setenv(
        "AIRFLOW_CONN_TAVUS_DEFAULT", json.dumps({"conn_type": "tavus", "password": f"{KEY}\n"})
    )
    requests_mock.delete(f"{API}/v2/replicas/r1", status_code=204)
    with TavusHook() as hook:
        assert hook.delete_replica("r1").outcome == "deleted"
        assert hook.origin == API
        assert hook.get_conn().options == account.ClientOptions()
    assert requests_mock.last_request.headers["x-api-key"] == KEY


@pytest.mark.parametrize(
    ("uri", "origin", "extras"),
    [
        ("tavus://:{key}@tavusapi.com", API, {}),
        ("tavus://:{key}@tavusapi.com/", API, {}),
        ("tavus://:{key}@tavusapi.com:443/v2", API, {}),
        ("tavus://:{key}@", API, {}),
        ("tavus://https://:{key}@tavusapi.com/", API, {}),
        ("tavus://https://:{key}@tavusapi.com/v2", API, {}),
        ("tavus://http://:{key}@127.0.0.1:8600/", "http://127.0.0.1:8600", {}),
        ("tavus://http://:{key}@127.0.0.1:8600/v2", "http://127.0.0.1:8600", {}),
        (
            "tavus://:{key}@tavusapi.com/?__extra__=%7B%22timeout%22%3A+5%2C+%22concurrency%22%3A+null%7D",
            API,
            {"timeout": 5},
        ),
    ],
)
def test_a_connection_as_a_uri_is_read(monkeypatch, uri, origin, extras):
    monkeypatch.setenv("AIRFLOW_CONN_TAVUS_DEFAULT", uri.format(key=quote(KEY, safe="")))
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", f"{API}, http://127.0.0.1:8600")
    with TavusHook() as hook:
        assert hook.origin == origin
        assert hook.client.options == account.ClientOptions(**extras)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"host": "http://127.0.0.1:8600"}, "is not among the allowed origins"),
        ({"host": "https://tavusapi.com@evil.test"}, "the connection's base URL is not a valid origin"),
        ({"port": 80}, "https://tavusapi.com:80 is not among the allowed origins"),
        ({"schema": "http"}, "the connection's base URL is not a valid origin"),
        ({"password": None, "login": KEY}, "has no API key"),
        ({"password": "***"}, "is the mask that a form shows"),
        ({"extra": {"verify": False}}, "unknown extras 'verify'"),
        ({"extra": {"api_key": KEY}}, "unknown extras 'api_key'"),
        ({"extra": {"timeout": 0}}, "timeout is 0: expected a number of seconds greater than 0, at most 600"),
    ],
)
def test_a_connection_that_cannot_be_used_is_refused_and_nothing_sent(
    connect, monkeypatch, requests_mock, fields, reason
):
    connect(**{"host": None, "password": KEY, **fields})
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", API)
    for call in (TavusHook().list_replicas, lambda: TavusHook().delete_replica(ANNA)):
        with pytest.raises(TavusValidationError) as caught:
            call()
        assert reason in str(caught.value)
        assert KEY not in str(caught.value)
    assert requests_mock.call_count == 0


@pytest.mark.parametrize("schema", ["v2", "/v2", ""])
def test_v2_may_stand_in_the_schema(connect, schema):
    connect(API, schema=schema)
    assert TavusHook().origin == API


@pytest.mark.parametrize("value", [None, f"{{not json {KEY}", f"tavus://:{KEY}@["])
def test_a_connection_that_cannot_be_read_is_named_without_its_text(monkeypatch, value):
    if value:
        monkeypatch.setenv("AIRFLOW_CONN_TAVUS_PROD", value)
    with pytest.raises(TavusValidationError) as caught:
        TavusHook("tavus_prod").list_replicas()
    assert str(caught.value).startswith(
        "the Airflow connection 'tavus_prod' is not defined or cannot be read ("
    )
    assert str(caught.value).endswith("or set AIRFLOW_CONN_TAVUS_PROD")
    assert KEY not in f"{caught.value!r}"
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_only_the_deployment_admits_another_origin(connect, monkeypatch, sandbox):
    monkeypatch.delenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS")
    with pytest.raises(TavusValidationError, match=f"AIRFLOW__TAVUS__ALLOWED_ORIGINS={sandbox.url}"):
        TavusHook().list_replicas()
    assert sandbox.state()["requests"] == []


@pytest.mark.parametrize(
    ("of_connection", "asked", "used"),
    [
        ({}, {}, (8, None)),
        ({"concurrency": 4, "requests_per_second": 2}, {}, (4, 2)),
        ({"concurrency": 4, "requests_per_second": 2}, {"concurrency": 9, "requests_per_second": 9}, (4, 2)),
        (
            {"concurrency": 4, "requests_per_second": 2},
            {"concurrency": 1, "requests_per_second": 0.5},
            (1, 0.5),
        ),
        ({"requests_per_second": 10}, {"parallel_tasks": 4}, (8, 2.5)),
        ({"requests_per_second": 10}, {"parallel_tasks": 4, "requests_per_second": 2}, (8, 0.5)),
        ({}, {"parallel_tasks": 4}, (8, None)),
        ({}, {"concurrency": 64, "requests_per_second": 9}, (8, 9)),
    ],
)
def test_an_operator_may_ask_for_less_than_the_connection_allows(connect, of_connection, asked, used):
    connect(API, extra=of_connection)
    extras = TavusHook(**asked).client.options
    assert (extras.concurrency, extras.requests_per_second) == used


@pytest.fixture
def meanwhile(serve, clock):
    """A listing of 40 replicas in pages of 7, and what is done to the account after each page of it."""
    sandbox = serve({"replicas": [{"replica_id": f"r{n:03}", "age": f"{n}d"} for n in range(40)]})
    sandbox.switch(clamp_limit=7)

    def listed(act):
        with TavusHook() as hook:
            real, pages = hook.client._get, []

            def get(path, query):
                response = real(path, query)
                pages.append(query["page"])
                act(sandbox, len(pages))
                return response

            hook.client._get = get
            return [replica.replica_id for replica in hook.list_replicas(while_deleting=True)], pages

    return listed


def gone(*numbers):
    return [{"replica_id": f"r{n:03}", "deleted": "soft"} for n in numbers]


def test_a_shrinking_listing_is_read_from_its_end(meanwhile):
    listed, pages = meanwhile(lambda sandbox, page: None)
    assert sorted(listed) == [f"r{n:03}" for n in range(40)]
    assert pages == [1, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("at_once", [1, 2, 3, 5])
@pytest.mark.parametrize("first", [0, 1, 20])
def test_no_replica_that_stays_is_missed_while_others_are_deleted(meanwhile, at_once, first):
    def act(sandbox, page):
        numbers = range(first + at_once * (page - 1), first + at_once * page)
        sandbox.put("replicas", *gone(*(n for n in numbers if n < 40)))

    listed, _ = meanwhile(act)
    with TavusHook() as hook:
        left = {replica.replica_id for replica in hook.list_replicas()}
    assert left
    assert left <= set(listed)


def test_a_listing_that_grows_while_it_is_read_backwards_is_begun_again(meanwhile):
    def act(sandbox, page):
        if page == 3:
            sandbox.put("replicas", {"replica_id": "new", "age": "1d"})

    listed, pages = meanwhile(act)
    assert pages == [1, 6, 5, 4, 1, 6, 5, 4, 3, 2, 1]
    assert "new" in listed


def test_a_listing_that_grows_each_time_is_not_complete(meanwhile):
    with pytest.raises(
        TavusInvalidResponseError, match=r"^GET /v2/replicas returned .* rows were added meanwhile"
    ):
        meanwhile(lambda sandbox, page: sandbox.put("replicas", {"replica_id": f"new{page}", "age": "1d"}))


@pytest.mark.parametrize("count", ["high", "missing"])
def test_a_count_that_is_not_right_is_seen_backwards_too(meanwhile, count):
    with pytest.raises(TavusInvalidResponseError):
        meanwhile(lambda sandbox, page: sandbox.switch(total_count=count))


@pytest.mark.parametrize("asked", [{"concurrency": 0}, {"concurrency": True}, {"requests_per_second": 0}])
def test_an_operator_may_not_ask_for_what_makes_no_sense(connect, asked):
    connect(API)
    with pytest.raises(TavusValidationError, match=f"^{next(iter(asked))} is "):
        TavusHook(**asked).list_replicas()


def test_the_deployment_sets_proxy_and_certificates(connect, monkeypatch, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    connect(API)
    monkeypatch.setenv("AIRFLOW__TAVUS__PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("AIRFLOW__TAVUS__CA_BUNDLE", str(bundle))
    session = TavusHook().client._transport._session
    assert session.proxies == {"http": "http://proxy.example:3128", "https": "http://proxy.example:3128"}
    assert session.verify == str(bundle)


def test_the_key_is_made_known_to_the_masker_as_it_is_sent(connect, monkeypatch):
    masked = []
    monkeypatch.setattr("tavus_provider.hooks.tavus.mask_secret", masked.append)
    connect(API, password=f" {KEY}\n")
    assert TavusHook().origin == API
    assert masked == [KEY]


def test_a_closed_hook_can_be_used_again(hook, sandbox):
    assert len(hook.list_replicas()) == 26
    hook.close()
    hook.close()
    assert len(hook.list_replicas()) == 26


def test_the_clock_of_the_server_is_told(mocked, requests_mock):
    requests_mock.get(
        f"{API}/v2/replicas", **page(total=0), headers={"Date": "Fri, 01 Jan 2100 00:00:00 GMT"}
    )
    assert mocked.clock_skew is None
    mocked.list_replicas()
    assert mocked.clock_skew > 1e9


# -- Test connection

SENTENCES = {
    "ok": (True, "Tavus accepted the API key."),
    "missing": (False, "The connection does not exist."),
    "origin": (
        False,
        "The base URL is not allowed: an administrator of the deployment can add it to "
        "allowed_origins in section [tavus] of the configuration.",
    ),
    "key": (False, "The API key is missing or invalid: enter it in the password field."),
    "extras": (False, "The extras are invalid: expected only timeout, concurrency and requests_per_second."),
    "unreachable": (False, "Tavus could not be reached."),
    "failed": (False, "Tavus rejected the API key."),
    "limited": (False, "Tavus is rate limiting this account: try again later."),
    "strange": (False, "The response is not from the Tavus API: check the base URL."),
}


@pytest.mark.parametrize("soft", [200, 204])
def test_a_connection_that_works_says_so_after_one_small_request(sandbox, soft):
    assert TavusHook().test_connection() == SENTENCES["ok"]
    (seen,) = sandbox.state()["requests"]
    assert (seen["method"], seen["path"], seen["query"]) == ("GET", "/v2/replicas", "limit=1")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"host": "https://evil.test"}, "origin"),
        ({"port": 8443}, "origin"),
        ({"password": None}, "key"),
        ({"password": f"{KEY}\x00"}, "key"),
        ({"extra": {"api_key": KEY}}, "extras"),
    ],
)
def test_the_test_names_the_field_that_is_wrong(connect, monkeypatch, requests_mock, fields, sentence):
    connect(**{"host": API, "password": KEY, **fields})
    monkeypatch.setenv("AIRFLOW__TAVUS__ALLOWED_ORIGINS", API)
    assert TavusHook().test_connection() == SENTENCES[sentence]
    assert requests_mock.call_count == 0


def test_the_test_of_a_connection_that_is_not_there_does_not_raise():
    assert TavusHook("tavus_nowhere").test_connection() == SENTENCES["missing"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"status": 401}, "failed"),
        ({"status": 403}, "failed"),
        ({"status": 429, "retry_after": "9999"}, "limited"),
        ({"status": 200, "html": True}, "strange"),
        ({"status": 200, "body": "{}"}, "strange"),
        ({"status": 200, "body": KEY}, "strange"),
        ({"status": 404}, "strange"),
        ({"status": 302, "headers": {"Location": "https://evil.test"}}, "strange"),
        ({"status": 500, "body": KEY}, "strange"),
        ({"close": True}, "unreachable"),
    ],
)
def test_the_test_says_in_a_fixed_sentence_how_it_went(sandbox, more, sentence):
    sandbox.switch(faults=[{"times": None, **more}])
    assert TavusHook().test_connection() == SENTENCES[sentence]
    assert len(sandbox.state()["requests"]) == 1


def test_the_test_of_a_server_that_is_down_does_not_raise(sandbox):
    sandbox.__exit__()
    assert TavusHook().test_connection() == SENTENCES["unreachable"]


def test_the_test_does_not_last_longer_than_five_seconds(connect, monkeypatch):
    connect(API)
    asked = []
    hook = TavusHook()
    monkeypatch.setattr(hook.client._transport, "send", lambda *_, **options: asked.append(options) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        hook.test_connection()
    assert asked == [{"timeout": 5.0}]


# -- the key is nowhere else

FORMS = {
    "plain": KEY,
    "quoted": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "repr": repr(KEY)[1:-1],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 409, 429, 503])
def test_a_server_that_echoes_the_key_does_not_spread_it(  # noqa: PLR0917
    mocked, raw_server, connect, caplog, capfd, form, status
):
    caplog.set_level(logging.DEBUG)
    for name in logging.root.manager.loggerDict:
        caplog.set_level(logging.DEBUG, logger=name)
    body = json.dumps({"error": f"no such key {form}"})
    kind = f"text/html; key={form}" if status == 200 else "application/json"
    server = raw_server(
        lambda *_: (
            f"HTTP/1.1 {status} {form}\r\nContent-Type: {kind}\r\nX-Request-Id: {form}\r\n"
            f"Retry-After: 9999\r\nLocation: https://evil.test/{form}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
    )
    connect(server.url, password=KEY)
    shown = []
    with TavusHook() as hook:
        for call in (
            lambda: hook.delete_replica(ANNA),
            lambda: hook.delete_replica(ANNA, hard=True),
            lambda: hook.get_replica(ANNA),
            hook.list_replicas,
            hook.list_videos,
        ):
            with pytest.raises(TavusError) as caught:
                call()
            error = caught.value
            shown += [str(error), repr(error), repr(error.args), repr(vars(error)), repr(pickle.dumps(error))]
            while error := error.__cause__ or error.__context__:
                assert isinstance(error, TavusError)
                shown += [str(error), repr(vars(error))]
        shown += [repr(hook), repr(hook.client), str(vars(hook)), str(hook.test_connection())]
    shown += [caplog.text, *capfd.readouterr()]
    assert not [text for text in shown for known in FORMS.values() if known.rstrip("=") in text]


def test_an_error_of_the_hook_survives_pickling(hook, sandbox):
    sandbox.switch(faults=[fault(status=503, times=None, headers={"X-Request-Id": "q-1"})])
    with pytest.raises(TavusOutcomeUnknownError) as caught:
        hook.delete_replica(ANNA)
    after = pickle.loads(pickle.dumps(caught.value))
    assert (str(after), after.status, after.attempts, after.request_id) == (
        str(caught.value),
        503,
        3,
        "q-1",
    )


def test_a_name_that_is_an_attack_is_data(hook):
    names = [replica.replica_name for replica in hook.list_replicas()]
    assert any(name and "\x1b[31m" in name for name in names)
    assert all(isinstance(replica, Replica) for replica in hook.list_replicas())


# -- the form before Airflow 3.2


def test_the_form_of_older_airflows_says_what_the_description_says():
    from tavus_provider.get_provider_info import get_provider_info

    described = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
    assert TavusHook.get_ui_field_behaviour() == {
        "hidden_fields": described["hidden-fields"],
        "relabeling": described["relabeling"],
        "placeholders": described["placeholders"],
    }
