"""Switches and faults of the sandbox, over HTTP."""

import datetime as dt
import http
import re
import socket
from typing import Any

import pytest
import requests
from sandbox.client import ANNA, delete_with_short_timeout, listing, row_of, send, wait_until

from tavus_provider.sandbox import Sandbox, SwitchError


def test_delete_and_rename_can_return_204(tavus: Sandbox) -> None:
    tavus.switch(delete_status=204)
    assert send(tavus, "PATCH", f"/v2/replicas/{ANNA}/name", json={"replica_name": "x"}).status_code == 204
    assert send(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == 204


@pytest.mark.parametrize(
    ("style", "status", "body"),
    [
        ("400-error", 400, {"error": "Invalid replica_id"}),
        ("400-message", 400, {"message": "Invalid replica_id"}),
        ("404", 404, {"message": "Replica not found"}),
    ],
)
def test_response_for_unknown_id(tavus: Sandbox, style: str, status: int, body: dict[str, str]) -> None:
    tavus.switch(unknown_id=style)
    for method in ("GET", "DELETE"):
        response = send(tavus, method, "/v2/replicas/rffffffffff")
        assert (response.status_code, response.json()) == (status, body)


def test_soft_deleted_replicas_can_stay_listed(tavus: Sandbox) -> None:
    tavus.switch(soft_deleted="listed")
    send(tavus, "DELETE", f"/v2/replicas/{ANNA}")
    assert len(listing(tavus, replica_ids=ANNA)) == 1
    assert send(tavus, "GET", f"/v2/replicas/{ANNA}").status_code == 200
    assert send(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == 400
    tavus.switch(soft_then_hard="works")
    assert send(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == 400
    assert send(tavus, "DELETE", f"/v2/replicas/{ANNA}?hard=true").status_code == 200
    assert listing(tavus, replica_ids=ANNA) == []
    assert tavus.state()["deletes"] == [
        {"replica_id": ANNA, "hard": False},
        {"replica_id": ANNA, "hard": True},
    ]


@pytest.mark.parametrize(
    ("dialect", "pattern"),
    [
        ("iso", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"),
        ("iso-ms", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
        ("iso-seconds", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
        ("offset", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+02:00"),
        ("rfc1123", r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"),
        ("blank", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00"),
        ("utc", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"),
        ("naive", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}"),
    ],
)
def test_date_formats(tavus: Sandbox, dialect: str, pattern: str) -> None:
    tavus.switch(dates=dialect)
    assert re.fullmatch(pattern, listing(tavus, replica_ids=ANNA)[0]["created_at"])
    assert re.fullmatch(pattern, listing(tavus, "/v2/conversations")[0]["updated_at"])


def test_dates_can_be_epoch_seconds(tavus: Sandbox) -> None:
    tavus.switch(dates="epoch")
    assert isinstance(listing(tavus, replica_ids=ANNA)[0]["created_at"], int)


def test_nulls_can_be_empty_strings(tavus: Sandbox) -> None:
    tavus.put("personas", {"persona_id": "p1", "default_replica_id": None})
    assert listing(tavus, "/v2/personas")[-1]["default_replica_id"] is None
    tavus.switch(nulls="empty")
    assert listing(tavus, "/v2/personas")[-1]["default_replica_id"] == ""
    assert listing(tavus, "/v2/conversations")[0]["conversation_name"] == ""


@pytest.mark.parametrize(
    ("oddity", "pattern"),
    [
        ("plain", rb'\{"data": \[\{'),
        ("bom", rb'\xef\xbb\xbf\{"data"'),
        ("nan", rb'.*"odd": NaN'),
        ("huge", rb'.*"odd": 9{5000}'),
        ("duplicate", rb'.*"odd": 1, "odd": 2'),
    ],
)
def test_text_of_a_list_can_be_odd(tavus: Sandbox, oddity: str, pattern: bytes) -> None:
    tavus.switch(json=oddity)
    assert re.match(pattern, send(tavus, "GET", "/v2/replicas").content)


def test_odd_rows_end_a_list_and_count() -> None:
    with Sandbox({"replicas": [{"replica_id": "r1"}, {"replica_id": "r2"}]}) as tavus:
        tavus.switch(odd_rows={"replicas": [None, {"replica_id": 7}, "x"]})
        pages = [
            send(tavus, "GET", "/v2/replicas", params={"limit": 2, "page": page}).json() for page in (1, 2, 3)
        ]
        assert [page["total_count"] for page in pages] == [5, 5, 5]
        assert [page["data"] for page in pages[1:]] == [[None, {"replica_id": 7}], ["x"]]
        assert [row["replica_id"] for row in pages[0]["data"]] == ["r1", "r2"]
        assert tavus.replica_ids() == ["r1", "r2"]


@pytest.mark.parametrize("value", [None, [], {"replicas": None}, {"faces": []}])
def test_invalid_odd_rows_are_rejected(tavus: Sandbox, value: Any) -> None:
    with pytest.raises(SwitchError, match=r"odd_rows: must be an object with lists for replicas, "):
        tavus.switch(odd_rows=value)


def test_date_with_offset_is_the_same_time(tavus: Sandbox) -> None:
    plain = listing(tavus, replica_ids=ANNA)[0]["created_at"]
    tavus.switch(dates="offset")
    moved = listing(tavus, replica_ids=ANNA)[0]["created_at"]
    assert dt.datetime.fromisoformat(moved) == dt.datetime.fromisoformat(plain)


def test_dates_can_be_null_and_literal_dates_are_unchanged() -> None:
    rows = [{"replica_id": "r1", "created_at": "last week"}, {"replica_id": "r2", "replica_name": None}]
    with Sandbox({"replicas": rows}) as tavus:
        tavus.switch(dates="rfc1123")
        assert [row.get("created_at", "absent") for row in listing(tavus)] == ["last week", "absent"]
        assert "replica_name" not in listing(tavus)[0]
        assert listing(tavus)[1]["replica_name"] is None
        tavus.switch(dates="null")
        assert [row["created_at"] for row in listing(tavus)] == [None, None]


def test_replica_routes_can_use_face_names(tavus: Sandbox) -> None:
    tavus.switch(vocabulary="face")
    row = listing(tavus, replica_ids=ANNA)[0]
    assert row["face_id"] == ANNA
    assert "replica_id" not in row
    assert {"face_id", "pal_id"} < listing(tavus, "/v2/conversations")[0].keys()
    assert "default_face_id" in listing(tavus, "/v2/personas")[0]
    assert send(tavus, "GET", "/v2/replicas/nope").json() == {"error": "Invalid face_id"}
    tavus.switch(vocabulary="both")
    row = listing(tavus, replica_ids=ANNA)[0]
    assert row["face_id"] == row["replica_id"] == ANNA


def test_pages_can_be_shorter_than_requested(tavus: Sandbox) -> None:
    tavus.switch(clamp_limit=7)
    pages = [listing(tavus, page=page) for page in range(1, 7)]
    assert [len(page) for page in pages] == [7, 7, 7, 7, 2, 0]
    assert len({row["replica_id"] for page in pages for row in page}) == 30


def test_total_count_can_be_missing_or_too_high(tavus: Sandbox) -> None:
    tavus.switch(total_count="missing")
    assert "total_count" not in send(tavus, "GET", "/v2/replicas").json()
    tavus.switch(total_count="high")
    assert send(tavus, "GET", "/v2/replicas").json()["total_count"] == 33
    tavus.switch(total_count="page")
    assert send(tavus, "GET", "/v2/replicas", params={"limit": 4}).json()["total_count"] == 4


def test_filter_by_status_can_be_ignored_or_rejected(tavus: Sandbox) -> None:
    def statuses() -> set[str]:
        page = send(tavus, "GET", "/v2/conversations", params={"status": "active", "limit": 100}).json()
        return {row["status"] for row in page["data"]}

    assert statuses() == {"active"}
    tavus.switch(status_filter="ignored")
    assert statuses() == {"active", "ended"}
    tavus.switch(status_filter="rejected")
    response = send(tavus, "GET", "/v2/conversations", params={"status": "active"})
    assert response.status_code == 400
    assert send(tavus, "GET", "/v2/conversations").status_code == 200


def test_conversations_can_be_listed_from_the_newest(tavus: Sandbox) -> None:
    def ids() -> list[str]:
        page = send(tavus, "GET", "/v2/conversations", params={"limit": 100}).json()
        return [row["conversation_id"] for row in page["data"]]

    oldest_first = ids()
    tavus.switch(order="newest")
    assert ids() == oldest_first[::-1]


def test_latency_delays_responses(tavus: Sandbox) -> None:
    tavus.switch(latency=600)
    with pytest.raises(requests.ReadTimeout):
        delete_with_short_timeout(tavus)
    assert ANNA in tavus.replica_ids()


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        pytest.param(
            {"colour": 1},
            "unknown switch 'colour'; the switches are cascade, clamp_limit, dates,",
            id="unknown",
        ),
        pytest.param(
            {"delete_status": 201}, r"delete_status: 201 is not one of \[200, 204, 'swapped'\]", id="choice"
        ),
        pytest.param({"delete_status": "200"}, "delete_status: '200'", id="text for a number"),
        pytest.param({"clamp_limit": 0}, "clamp_limit: 0", id="clamp"),
        pytest.param({"clamp_limit": True}, "clamp_limit: True", id="clamp bool"),
        pytest.param({"latency": -1}, "latency: -1", id="latency"),
        pytest.param({"latency": "1"}, "latency: '1'", id="latency text"),
        pytest.param({"list_lag": -1}, "list_lag: -1", id="lag"),
        pytest.param({"unlisted": "r1"}, "unlisted: 'r1' is not a list", id="unlisted"),
        pytest.param({"encoding": "br"}, "encoding: 'br' is not one of", id="encoding"),
        pytest.param({"interim": 101}, "interim: 101 is not one of", id="interim"),
        pytest.param({"headers": {"Age": 1}}, "headers: {'Age': 1} is not", id="header value"),
        pytest.param({"faults": {}}, "faults: must be a list", id="faults"),
        pytest.param(
            {"faults": [{"staus": 500}]}, "unknown field 'staus'; the fields are method,", id="fault field"
        ),
        pytest.param({"faults": [{}]}, "fault: one of status, close or delay is required", id="empty fault"),
        pytest.param({"faults": [{"status": 99}]}, r"fault\.status: invalid value 99", id="fault status"),
        pytest.param({"faults": [{"status": 500, "path": "("}]}, "not a regular expression", id="path"),
        pytest.param(
            {"faults": [{"status": 500, "when": []}]}, r"fault\.when: invalid value \[\]", id="when"
        ),
        pytest.param({"faults": [{"status": 500, "times": 0}]}, r"fault\.times: invalid value 0", id="times"),
        pytest.param(
            {"faults": [{"status": 500, "headers": {"a b": "c"}}]},
            r"fault\.headers: invalid value",
            id="headers",
        ),
        pytest.param(
            {"faults": [{"status": 429, "when": "after"}]},
            r"fault\.when: must be 'before' for status 429",
            id="429",
        ),
    ],
)
def test_invalid_switch_is_named_and_changes_nothing(
    tavus: Sandbox, switches: dict[str, Any], message: str
) -> None:
    before = tavus.state()["switches"]
    with pytest.raises(SwitchError, match=message):
        tavus.switch(dates="naive", **switches)
    response = requests.post(
        f"{tavus.url}/_sandbox/switches", json={"dates": "naive", **switches}, timeout=20
    )
    assert response.status_code == 400
    assert re.search(message, response.json()["error"])
    assert tavus.state()["switches"] == before


def test_switches_over_http(tavus: Sandbox) -> None:
    response = requests.post(
        f"{tavus.url}/_sandbox/switches", json={"latency": 0.0, "faults": [{"status": 503}]}, timeout=20
    )
    assert response.status_code == 200
    assert response.json() == tavus.state()["switches"]
    assert send(tavus, "GET", "/v2/replicas").status_code == 503
    assert requests.post(f"{tavus.url}/_sandbox/switches", data="{", timeout=20).status_code == 400


def test_lists_can_lag_behind_deletes(tavus: Sandbox) -> None:
    tavus.switch(list_lag=600)
    send(tavus, "DELETE", f"/v2/replicas/{ANNA}")
    assert len(listing(tavus, replica_ids=ANNA)) == 1
    assert send(tavus, "GET", f"/v2/replicas/{ANNA}").status_code == 400
    tavus.switch(list_lag=0)
    assert listing(tavus, replica_ids=ANNA) == []


def test_lists_can_miss_a_replica(tavus: Sandbox) -> None:
    before = len(listing(tavus))
    tavus.switch(unlisted=[ANNA])
    assert ANNA not in {row["replica_id"] for row in listing(tavus)}
    assert send(tavus, "GET", "/v2/replicas").json()["total_count"] < before + 1
    assert send(tavus, "GET", f"/v2/replicas/{ANNA}").status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw-deflate"])
def test_bodies_can_be_compressed(tavus: Sandbox, encoding: str) -> None:
    tavus.switch(encoding=encoding, faults=[{"status": 503}])
    failed = send(tavus, "GET", f"/v2/replicas/{ANNA}")
    assert (failed.status_code, failed.json()) == (503, {"error": "Service Unavailable"})
    response = send(tavus, "GET", f"/v2/replicas/{ANNA}")
    assert response.headers["content-encoding"] == encoding.removeprefix("raw-")
    assert response.json()["replica_id"] == ANNA
    deleted = send(tavus, "DELETE", f"/v2/replicas/{ANNA}")
    assert (deleted.status_code, deleted.content, "content-encoding" in deleted.headers) == (200, b"", False)


def test_bodies_can_have_the_wrong_encoding(tavus: Sandbox) -> None:
    tavus.switch(encoding="not-gzip")
    with pytest.raises(requests.exceptions.ContentDecodingError):
        send(tavus, "GET", f"/v2/replicas/{ANNA}")


@pytest.mark.parametrize("status", [100, 102, 103])
def test_responses_can_follow_an_interim_one(tavus: Sandbox, status: int) -> None:
    tavus.switch(interim=status)
    with socket.create_connection(("127.0.0.1", int(tavus.url.rpartition(":")[2])), timeout=20) as connection:
        request = (
            f"GET /v2/replicas/{ANNA} HTTP/1.1\r\nHost: x\r\nx-api-key: {tavus.key}\r\nConnection: close"
        )
        connection.sendall(f"{request}\r\n\r\n".encode())
        with connection.makefile("rb") as stream:
            received = stream.read()
    interim, _, final = received.partition(b"\r\n\r\n")
    assert interim.startswith(f"HTTP/1.1 {status} ".encode())
    assert final.startswith(b"HTTP/1.1 200 OK\r\n")


def test_headers_can_be_added(tavus: Sandbox) -> None:
    tavus.switch(headers={"Date": "Thu, 01 Jan 2015 00:00:00 GMT", "Age": "900"})
    response = send(tavus, "GET", f"/v2/replicas/{ANNA}")
    assert (response.headers["date"], response.headers["age"]) == ("Thu, 01 Jan 2015 00:00:00 GMT", "900")
    assert response.json()["replica_id"] == ANNA


@pytest.mark.parametrize("status", [401, 403])
def test_rejection_without_a_body_is_that_of_tavus(tavus: Sandbox, status: int) -> None:
    tavus.switch(faults=[{"status": status}])
    assert send(tavus, "GET", "/v2/replicas").json() == {"message": http.HTTPStatus(status).phrase}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_fault_before_the_effect_prevents_it_once(tavus: Sandbox, status: int) -> None:
    tavus.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/", "status": status}])
    assert send(tavus, "GET", f"/v2/replicas/{ANNA}").status_code == 200
    assert send(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == status
    assert row_of(tavus, ANNA)["deleted"] is None
    assert tavus.state()["requests"][-1]["effect"] is None
    assert send(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == 200


def test_fault_after_the_effect_hides_it(tavus: Sandbox) -> None:
    tavus.switch(faults=[{"method": "DELETE", "status": 502, "when": "after", "html": True}])
    response = send(tavus, "DELETE", f"/v2/replicas/{ANNA}?hard=true")
    assert (response.status_code, response.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert "<h1>502 Bad Gateway</h1>" in response.text
    assert row_of(tavus, ANNA)["deleted"] == "hard"
    seen = tavus.state()["requests"][-1]
    assert (seen["status"], seen["effect"]) == (502, "hard")


@pytest.mark.parametrize(("when", "deleted"), [("before", None), ("after", "soft")])
def test_connection_can_be_closed_without_a_response(tavus: Sandbox, when: str, deleted: str | None) -> None:
    tavus.switch(faults=[{"close": True, "when": when}])
    with pytest.raises(requests.ConnectionError):
        send(tavus, "DELETE", f"/v2/replicas/{ANNA}")
    assert row_of(tavus, ANNA)["deleted"] == deleted
    assert tavus.state()["requests"][-1]["status"] is None


@pytest.mark.parametrize(("when", "deleted"), [("before", None), ("after", "soft")])
def test_response_can_be_delayed_beyond_a_timeout(tavus: Sandbox, when: str, deleted: str | None) -> None:
    tavus.switch(faults=[{"delay": 600, "when": when}])
    with pytest.raises(requests.ReadTimeout):
        delete_with_short_timeout(tavus)
    wait_until(lambda: tavus.state()["requests"] and row_of(tavus, ANNA)["deleted"] == deleted)


def test_delayed_response_is_the_real_one(tavus: Sandbox) -> None:
    tavus.switch(faults=[{"delay": 0.001, "when": when} for when in ("before", "after")])
    for _ in range(2):
        assert send(tavus, "GET", f"/v2/replicas/{ANNA}").json()["replica_id"] == ANNA
    assert tavus.state()["switches"]["faults"] == []


def test_faults_are_sent_in_order_and_times_is_respected(tavus: Sandbox) -> None:
    tavus.switch(
        faults=[
            {"path": "/v2/replicas", "status": 429, "retry_after": "7", "times": 2},
            {
                "path": "/v2/(videos|replicas)",
                "status": 500,
                "body": "not json",
                "headers": {"X-Why": "test"},
            },
            {"path": "/v2/replicas", "status": 302, "times": None, "headers": {"Location": "http://x.test/"}},
        ]
    )
    responses = [send(tavus, "GET", "/v2/replicas", allow_redirects=False) for _ in range(5)]
    assert [response.status_code for response in responses] == [429, 429, 500, 302, 302]
    assert [response.headers.get("Retry-After") for response in responses] == ["7", "7", None, None, None]
    assert (responses[2].text, responses[2].headers["X-Why"]) == ("not json", "test")
    assert responses[3].headers["Location"] == "http://x.test/"
    assert send(tavus, "GET", "/v2/videos").status_code == 200


def test_429_without_retry_after(tavus: Sandbox) -> None:
    tavus.switch(faults=[{"status": 429}])
    assert "Retry-After" not in send(tavus, "GET", "/v2/replicas").headers
