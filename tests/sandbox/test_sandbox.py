"""The sandbox is judged from outside, over HTTP; only its world is also looked at from within."""

import concurrent.futures
import contextlib
import datetime as dt
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tavus_provider.sandbox import server as module
from tavus_provider.sandbox.server import HOSTILE_NAME, Sandbox, SeedError, SwitchError, main

ROOT = Path(__file__).parents[2]
VENDOR_DOCUMENT = ROOT.parent / "shared" / "tavus-openapi.yaml"
COMMAND = [sys.executable, "-m", "tavus_provider.sandbox"]
DELETABLE_AT_90_DAYS = {
    "r1a0c5e8f3b2": "spring-campaign_anna",
    "r2b9d41c07ae": "summer-campaign_ben",
    "r3f6a2e9d815": "black-friday_2024",
    "r4c81b7f0d3e": "onboarding_v1",
    "r5e27d9a6c40": "webinar_lukas",
    "r6d3b8f1e5a7": HOSTILE_NAME,
}
ANNA = "r1a0c5e8f3b2"
STOCK = "rb1f8c4d6e0a"


@pytest.fixture
def tavus() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def call(tavus: Sandbox, method: str, path: str, **more: Any) -> requests.Response:
    headers = {"x-api-key": tavus.key, **more.pop("headers", {})}
    return requests.request(method, tavus.url + path, headers=headers, timeout=20, **more)


def listing(tavus: Sandbox, path: str = "/v2/replicas", **params: Any) -> list[dict[str, Any]]:
    answer = call(tavus, "GET", path, params={"limit": 100, **params})
    assert answer.status_code == 200, answer.text
    rows = answer.json()["data"]
    assert isinstance(rows, list)
    return rows


def impatient_delete(tavus: Sandbox) -> None:
    headers = {"x-api-key": tavus.key}
    requests.delete(f"{tavus.url}/v2/replicas/{ANNA}", headers=headers, timeout=(20, 0.05))


def until(condition: Callable[[], Any]) -> None:
    """Wait for what must come; 20 seconds only keep a broken test from hanging."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.001)


def row_of(tavus: Sandbox, replica_id: str) -> dict[str, Any]:
    return next(row for row in tavus.state()["replicas"] if row["replica_id"] == replica_id)


def many(count: int) -> dict[str, Any]:
    return {"replicas": [{"replica_id": f"r{n:010x}", "age": "100d"} for n in range(count)]}


# -- the key -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"Authorization": "Bearer sandbox"}])
def test_without_the_right_key_nothing_is_answered_and_nothing_is_deleted(
    tavus: Sandbox, headers: dict[str, str]
) -> None:
    answer = requests.delete(f"{tavus.url}/v2/replicas/{ANNA}", headers=headers, timeout=20)
    assert (answer.status_code, answer.json()) == (401, {"message": "Invalid access token"})
    assert ANNA in tavus.replica_ids()
    assert tavus.state()["requests"][-1]["key_ok"] is False


def test_the_log_never_holds_the_key() -> None:
    with Sandbox(key="s3cret+key/1") as tavus:
        call(
            tavus,
            "GET",
            f"/v2/replicas/{tavus.key}",
            params={"k": tavus.key},
            headers={"User-Agent": tavus.key},
        )
        assert "s3cret" not in json.dumps(tavus.state())
        assert tavus.state()["requests"][0]["query"] == "k=***"


@pytest.mark.parametrize("key", ["", " ", "a\nb", "schl\u00fcssel", " sandbox"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="the key must be"):
        Sandbox(key=key)


# -- reading -----------------------------------------------------------------------------------------------


def test_a_page_has_ten_rows_unless_asked_for_more_and_never_more_than_a_hundred() -> None:
    with Sandbox(many(130)) as tavus:
        sizes = {
            limit: len(call(tavus, "GET", "/v2/replicas", params={"limit": limit}).json()["data"])
            for limit in (None, 25, 100, 1000, 0, -1, "abc", "9" * 5000)
        }
    assert sizes == {None: 10, 25: 25, 100: 100, 1000: 100, 0: 10, -1: 10, "abc": 10, "9" * 5000: 10}


def test_pages_together_show_every_row_once_and_then_end() -> None:
    with Sandbox(many(130)) as tavus:
        pages = [[r["replica_id"] for r in listing(tavus, page=page)] for page in (1, 2, 3)]
        assert [len(page) for page in pages] == [100, 30, 0]
        assert sorted(pages[0] + pages[1]) == sorted(tavus.replica_ids())
        assert [r["replica_id"] for r in listing(tavus, page=0)] == pages[0]


def test_videos_begin_at_page_zero(tavus: Sandbox) -> None:
    assert len(listing(tavus, "/v2/videos", page=0)) == 3
    assert listing(tavus, "/v2/videos", page=1) == []


@pytest.mark.parametrize(
    ("params", "count"),
    [
        pytest.param({}, 30, id="no filter mixes stock and own"),
        pytest.param({"replica_type": "user"}, 26, id="own, the stray quote among them"),
        pytest.param({"replica_type": "system"}, 4, id="stock"),
        pytest.param({"replica_type": "other"}, 0, id="no such type"),
        pytest.param({"replica_ids": f"{ANNA},r000, {STOCK}"}, 2, id="known ids only"),
        pytest.param({"model_name": "phoenix-2"}, 1, id="model"),
        pytest.param({"face_type": "system"}, 30, id="the other vocabulary is not heard"),
    ],
)
def test_the_list_filters(tavus: Sandbox, params: dict[str, str], count: int) -> None:
    answer = call(tavus, "GET", "/v2/replicas", params={"limit": 100, **params}).json()
    assert (len(answer["data"]), answer["total_count"]) == (count, count)


def test_the_type_is_shown_only_when_asked_for(tavus: Sandbox) -> None:
    assert not any("replica_type" in row for row in listing(tavus))
    types = [row["replica_type"] for row in listing(tavus, verbose="true", replica_type="user")]
    assert sorted(set(types)) == ["user", "user'"]
    assert call(tavus, "GET", f"/v2/replicas/{STOCK}?verbose=true").json()["replica_type"] == "system"


def test_a_row_of_neither_type_is_only_in_the_unfiltered_list() -> None:
    with Sandbox({"replicas": [{"replica_id": "r1", "replica_type": "shared"}]}) as tavus:
        assert len(listing(tavus)) == 1
        assert listing(tavus, replica_type="user") == listing(tavus, replica_type="system") == []
        assert call(tavus, "DELETE", "/v2/replicas/r1").status_code == 400


def test_faces_and_pals_speak_their_own_words(tavus: Sandbox) -> None:
    face = call(tavus, "GET", f"/v2/faces/{ANNA}?verbose=true").json()
    assert (face["face_id"], face["face_name"], face["face_type"]) == (ANNA, "spring-campaign_anna", "user")
    assert len(listing(tavus, "/v2/faces", face_type="system")) == 4
    assert len(listing(tavus, "/v2/faces", face_ids=ANNA)) == 1
    pals = listing(tavus, "/v2/pals", pal_type="user")
    assert {pal["default_face_id"] for pal in pals} >= {"rf8c6e5b1a20"}
    assert not [name for row in [face, *pals] for name in row if re.search("replica|persona", name)]
    assert call(tavus, "DELETE", "/v2/faces/nope").json() == {"error": "Invalid face_id"}


def test_a_persona_is_read_in_an_envelope_and_a_pal_flat(tavus: Sandbox) -> None:
    assert call(tavus, "GET", "/v2/personas/p1c2d3e4f5a6").json()["data"][0]["persona_id"] == "p1c2d3e4f5a6"
    assert call(tavus, "GET", "/v2/pals/p1c2d3e4f5a6").json()["pal_id"] == "p1c2d3e4f5a6"


def test_persona_rows_carry_keys_of_third_parties(tavus: Sandbox) -> None:
    for row in listing(tavus, "/v2/personas"):
        assert row["layers"]["llm"]["api_key"] == "llm-key-of-a-third-party"


def test_conversations_filter_by_status_and_end(tavus: Sandbox) -> None:
    active = listing(tavus, "/v2/conversations", status="active")
    assert [row["replica_id"] for row in active] == ["r09d7f2c4b6a"]
    ended = call(tavus, "POST", f"/v2/conversations/{active[0]['conversation_id']}/end")
    assert (ended.status_code, ended.content) == (200, b"")
    assert listing(tavus, "/v2/conversations", status="active") == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/replicas/", 404),
        ("GET", "/v2/nothing", 404),
        ("PUT", "/v2/replicas", 405),
    ],
)
def test_what_it_does_not_know_is_answered_in_json(
    tavus: Sandbox, method: str, path: str, status: int
) -> None:
    answer = call(tavus, method, path)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


@pytest.mark.parametrize(
    "path", ["/v2/replicas", "/v2/videos", "/v2/personas", "/v2/conversations", "/v2/pals"]
)
@pytest.mark.parametrize(
    "query",
    [
        "limit=%00",
        "page=-9",
        "page=" + "9" * 400,
        "limit=1&limit=2",
        "limit=",
        "replica_ids=,,%00",
        "%ff=%ff",
        "&&=",
    ],
)
def test_no_odd_query_makes_it_stumble(tavus: Sandbox, path: str, query: str) -> None:
    assert call(tavus, "GET", f"{path}?{query}").status_code == 200


# -- deleting, renaming, creating --------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "effect"), [("", "soft"), ("?hard=false", "soft"), ("?hard=true", "hard")])
def test_a_delete_has_no_body_and_the_state_says_how_it_was_meant(
    tavus: Sandbox, query: str, effect: str
) -> None:
    answer = call(tavus, "DELETE", f"/v2/replicas/{ANNA}{query}")
    assert (answer.status_code, answer.content) == (200, b"")
    assert row_of(tavus, ANNA)["deleted"] == effect
    assert tavus.state()["deletes"] == [{"replica_id": ANNA, "hard": effect == "hard"}]
    assert tavus.state()["requests"][-1]["effect"] == effect
    assert ANNA not in tavus.replica_ids()
    assert ANNA not in [row["replica_id"] for row in listing(tavus)]
    assert call(tavus, "GET", f"/v2/replicas/{ANNA}").json() == {"error": "Invalid replica_id"}


@pytest.mark.parametrize("hard", ["True", "1", "", "yes", "true,true", "\0"])
def test_hard_must_be_spelled_true_or_false(tavus: Sandbox, hard: str) -> None:
    answer = call(tavus, "DELETE", f"/v2/replicas/{ANNA}", params={"hard": hard})
    assert answer.status_code == 400
    assert answer.json() == {"error": "Bad Request. {'hard': ['Not a valid boolean.']}"}
    assert row_of(tavus, ANNA)["deleted"] is None


@pytest.mark.parametrize("hard", ["false", "true"])
def test_unknown_stock_and_deleted_replicas_cannot_be_deleted(tavus: Sandbox, hard: str) -> None:
    call(tavus, "DELETE", f"/v2/replicas/{ANNA}")
    for replica_id in ("rffffffffff", STOCK, ANNA):
        answer = call(tavus, "DELETE", f"/v2/replicas/{replica_id}", params={"hard": hard})
        assert (answer.status_code, answer.json()) == (400, {"error": "Invalid replica_id"})
    assert len(tavus.state()["deletes"]) == 1


def test_a_hard_delete_of_a_replica_leaves_what_was_made_with_it(tavus: Sandbox) -> None:
    call(tavus, "DELETE", "/v2/replicas/rf8c6e5b1a20?hard=true")
    assert "rf8c6e5b1a20" in {row.get("default_replica_id") for row in listing(tavus, "/v2/personas")}
    assert "rf8c6e5b1a20" in {row["replica_id"] for row in listing(tavus, "/v2/conversations")}


def test_the_other_resources_are_deleted_as_documented(tavus: Sandbox) -> None:
    assert call(tavus, "DELETE", "/v2/videos/2f41551d0a").status_code == 200
    assert call(tavus, "GET", "/v2/videos/2f41551d0a").json()["status"] == "deleted"
    assert call(tavus, "DELETE", "/v2/videos/3a52662e1b?hard=true").status_code == 200
    assert call(tavus, "GET", "/v2/videos/3a52662e1b").json() == {"error": "Invalid video_id"}
    assert call(tavus, "DELETE", "/v2/conversations/c31dd93d5905a7d2").status_code == 204
    assert call(tavus, "GET", "/v2/conversations/c31dd93d5905a7d2").status_code == 400
    assert call(tavus, "DELETE", "/v2/personas/p2d3e4f5a6b7").status_code == 204
    assert call(tavus, "DELETE", "/v2/personas/p4f5a6b7c8d9").json() == {"error": "Invalid persona_id"}
    assert tavus.state()["deletes"] == []


@pytest.mark.parametrize("path", ["replicas", "faces"])
def test_a_replica_is_renamed_but_not_to_nothing(tavus: Sandbox, path: str) -> None:
    field = {"replicas": "replica_name", "faces": "face_name"}[path]
    url = f"/v2/{path}/{ANNA}/name"
    assert call(tavus, "PATCH", url, json={field: "new \ud800"}).status_code == 200
    assert listing(tavus, replica_ids=ANNA)[0]["replica_name"] == "new \ud800"
    missing = {"error": f"Bad Request. {{'{field}': ['Missing data for required field.']}}"}
    assert call(tavus, "PATCH", url, json={}).json() == missing
    for body in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, json.dumps({field: None}).encode()):
        answer = call(tavus, "PATCH", url, data=body)
        assert (answer.status_code, list(answer.json())) == (400, ["error"])
    assert call(tavus, "PATCH", f"/v2/{path}/{STOCK}/name", json={field: "mine"}).status_code == 400


def test_a_created_replica_is_in_training(tavus: Sandbox) -> None:
    body = {"train_video_url": "https://example.com/a.mp4", "replica_name": "new"}
    made = call(tavus, "POST", "/v2/replicas", json=body).json()
    assert made["status"] == "started"
    assert call(tavus, "GET", f"/v2/replicas/{made['replica_id']}").json()["replica_name"] == "new"
    face = call(tavus, "POST", "/v2/faces", json={**body, "face_name": "new"}).json()
    assert face["face_id"] != made["replica_id"]
    refused = call(tavus, "POST", "/v2/replicas", json={"replica_name": "new"})
    assert refused.json() == {"error": "Either train_video_url or train_image_url must be provided."}
    for extra in ({"train_image_url": "x"}, {"model_name": 3}):
        assert call(tavus, "POST", "/v2/replicas", json={**body, **extra}).status_code == 400
    assert call(tavus, "POST", "/v2/replicas", json={"train_image_url": "x"}).status_code == 400


# -- switches ----------------------------------------------------------------------------------------------


def test_deleting_and_renaming_can_answer_204(tavus: Sandbox) -> None:
    tavus.switch(delete_status=204)
    assert call(tavus, "PATCH", f"/v2/replicas/{ANNA}/name", json={"replica_name": "x"}).status_code == 204
    assert call(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == 204


@pytest.mark.parametrize(
    ("style", "status", "body"),
    [
        ("400-error", 400, {"error": "Invalid replica_id"}),
        ("400-message", 400, {"message": "Invalid replica_id"}),
        ("404", 404, {"message": "Replica not found"}),
    ],
)
def test_an_unknown_id_is_answered_in_three_styles(
    tavus: Sandbox, style: str, status: int, body: dict[str, str]
) -> None:
    tavus.switch(unknown_id=style)
    for method in ("GET", "DELETE"):
        answer = call(tavus, method, "/v2/replicas/rffffffffff")
        assert (answer.status_code, answer.json()) == (status, body)


def test_soft_deleted_replicas_can_stay_listed(tavus: Sandbox) -> None:
    tavus.switch(soft_deleted="listed")
    call(tavus, "DELETE", f"/v2/replicas/{ANNA}")
    assert len(listing(tavus, replica_ids=ANNA)) == 1
    assert call(tavus, "GET", f"/v2/replicas/{ANNA}").status_code == 200
    assert call(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == 400
    tavus.switch(soft_then_hard="works")
    assert call(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == 400
    assert call(tavus, "DELETE", f"/v2/replicas/{ANNA}?hard=true").status_code == 200
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
        ("naive", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}"),
    ],
)
def test_dates_are_written_in_every_dialect(tavus: Sandbox, dialect: str, pattern: str) -> None:
    tavus.switch(dates=dialect)
    assert re.fullmatch(pattern, listing(tavus, replica_ids=ANNA)[0]["created_at"])
    assert re.fullmatch(pattern, listing(tavus, "/v2/conversations")[0]["updated_at"])


def test_an_offset_names_the_same_moment(tavus: Sandbox) -> None:
    plain = listing(tavus, replica_ids=ANNA)[0]["created_at"]
    tavus.switch(dates="offset")
    moved = listing(tavus, replica_ids=ANNA)[0]["created_at"]
    assert dt.datetime.fromisoformat(moved) == dt.datetime.fromisoformat(plain)


def test_dates_can_be_null_and_verbatim_ones_stay_verbatim() -> None:
    rows = [{"replica_id": "r1", "created_at": "last week"}, {"replica_id": "r2", "replica_name": None}]
    with Sandbox({"replicas": rows}) as tavus:
        tavus.switch(dates="rfc1123")
        assert [row.get("created_at", "absent") for row in listing(tavus)] == ["last week", "absent"]
        assert "replica_name" not in listing(tavus)[0]
        assert listing(tavus)[1]["replica_name"] is None
        tavus.switch(dates="null")
        assert [row["created_at"] for row in listing(tavus)] == [None, None]


def test_the_old_routes_can_speak_the_new_words(tavus: Sandbox) -> None:
    tavus.switch(vocabulary="face")
    row = listing(tavus, replica_ids=ANNA)[0]
    assert row["face_id"] == ANNA
    assert "replica_id" not in row
    assert {"face_id", "pal_id"} < listing(tavus, "/v2/conversations")[0].keys()
    assert "default_face_id" in listing(tavus, "/v2/personas")[0]
    assert call(tavus, "GET", "/v2/replicas/nope").json() == {"error": "Invalid face_id"}
    tavus.switch(vocabulary="both")
    row = listing(tavus, replica_ids=ANNA)[0]
    assert row["face_id"] == row["replica_id"] == ANNA


def test_the_server_can_give_shorter_pages_than_asked_for(tavus: Sandbox) -> None:
    tavus.switch(clamp_limit=7)
    pages = [listing(tavus, page=page) for page in range(1, 7)]
    assert [len(page) for page in pages] == [7, 7, 7, 7, 2, 0]
    assert len({row["replica_id"] for page in pages for row in page}) == 30


def test_the_total_can_be_missing_or_too_high(tavus: Sandbox) -> None:
    tavus.switch(total_count="missing")
    assert "total_count" not in call(tavus, "GET", "/v2/replicas").json()
    tavus.switch(total_count="high")
    assert call(tavus, "GET", "/v2/replicas").json()["total_count"] == 33


def test_latency_holds_back_every_answer(tavus: Sandbox) -> None:
    tavus.switch(latency=600)
    with pytest.raises(requests.ReadTimeout):
        impatient_delete(tavus)
    assert ANNA in tavus.replica_ids()


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        pytest.param({"colour": 1}, "no switch 'colour'; known are clamp_limit, dates,", id="unknown"),
        pytest.param({"delete_status": 201}, r"delete_status: 201 is not one of \[200, 204\]", id="choice"),
        pytest.param({"delete_status": "200"}, "delete_status: '200'", id="text for a number"),
        pytest.param({"clamp_limit": 0}, "clamp_limit: 0", id="clamp"),
        pytest.param({"clamp_limit": True}, "clamp_limit: True", id="clamp bool"),
        pytest.param({"latency": -1}, "latency: -1", id="latency"),
        pytest.param({"latency": "1"}, "latency: '1'", id="latency text"),
        pytest.param({"faults": {}}, "faults: not a list", id="faults"),
        pytest.param({"faults": [{"staus": 500}]}, "no field 'staus'; known are method,", id="fault field"),
        pytest.param({"faults": [{}]}, "it needs a status, close or delay", id="empty fault"),
        pytest.param({"faults": [{"status": 99}]}, "status cannot be 99", id="fault status"),
        pytest.param({"faults": [{"status": 500, "path": "("}]}, "not a regular expression", id="path"),
        pytest.param({"faults": [{"status": 500, "when": []}]}, r"when cannot be \[\]", id="when"),
        pytest.param({"faults": [{"status": 500, "times": 0}]}, "times cannot be 0", id="times"),
        pytest.param({"faults": [{"status": 500, "headers": {"a b": "c"}}]}, "headers cannot", id="headers"),
        pytest.param({"faults": [{"status": 429, "when": "after"}]}, "429 is always before", id="429"),
    ],
)
def test_a_wrong_switch_is_refused_by_name_and_changes_nothing(
    tavus: Sandbox, switches: dict[str, Any], words: str
) -> None:
    before = tavus.state()["switches"]
    with pytest.raises(SwitchError, match=words):
        tavus.switch(dates="naive", **switches)
    answer = requests.post(f"{tavus.url}/_sandbox/switches", json={"dates": "naive", **switches}, timeout=20)
    assert answer.status_code == 400
    assert re.search(words, answer.json()["error"])
    assert tavus.state()["switches"] == before


def test_switches_are_set_over_http_too(tavus: Sandbox) -> None:
    answer = requests.post(
        f"{tavus.url}/_sandbox/switches", json={"latency": 0.0, "faults": [{"status": 503}]}, timeout=20
    )
    assert answer.status_code == 200
    assert answer.json() == tavus.state()["switches"]
    assert call(tavus, "GET", "/v2/replicas").status_code == 503
    assert requests.post(f"{tavus.url}/_sandbox/switches", data="{", timeout=20).status_code == 400


# -- faults ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_fault_before_the_effect_prevents_it_once(tavus: Sandbox, status: int) -> None:
    tavus.switch(faults=[{"method": "DELETE", "path": "/v2/replicas/", "status": status}])
    assert call(tavus, "GET", f"/v2/replicas/{ANNA}").status_code == 200
    assert call(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == status
    assert row_of(tavus, ANNA)["deleted"] is None
    assert tavus.state()["requests"][-1]["effect"] is None
    assert call(tavus, "DELETE", f"/v2/replicas/{ANNA}").status_code == 200


def test_a_fault_after_the_effect_hides_it(tavus: Sandbox) -> None:
    tavus.switch(faults=[{"method": "DELETE", "status": 502, "when": "after", "html": True}])
    answer = call(tavus, "DELETE", f"/v2/replicas/{ANNA}?hard=true")
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html; charset=utf-8")
    assert "<h1>502 Bad Gateway</h1>" in answer.text
    assert row_of(tavus, ANNA)["deleted"] == "hard"
    seen = tavus.state()["requests"][-1]
    assert (seen["status"], seen["effect"]) == (502, "hard")


@pytest.mark.parametrize(("when", "deleted"), [("before", None), ("after", "soft")])
def test_the_connection_can_be_dropped_without_an_answer(
    tavus: Sandbox, when: str, deleted: str | None
) -> None:
    tavus.switch(faults=[{"close": True, "when": when}])
    with pytest.raises(requests.ConnectionError):
        call(tavus, "DELETE", f"/v2/replicas/{ANNA}")
    assert row_of(tavus, ANNA)["deleted"] == deleted
    assert tavus.state()["requests"][-1]["status"] is None


@pytest.mark.parametrize(("when", "deleted"), [("before", None), ("after", "soft")])
def test_an_answer_can_come_too_late(tavus: Sandbox, when: str, deleted: str | None) -> None:
    tavus.switch(faults=[{"delay": 600, "when": when}])
    with pytest.raises(requests.ReadTimeout):
        impatient_delete(tavus)
    until(lambda: tavus.state()["requests"] and row_of(tavus, ANNA)["deleted"] == deleted)


def test_a_delayed_answer_is_the_real_one(tavus: Sandbox) -> None:
    tavus.switch(faults=[{"delay": 0.001, "when": when} for when in ("before", "after")])
    for _ in range(2):
        assert call(tavus, "GET", f"/v2/replicas/{ANNA}").json()["replica_id"] == ANNA
    assert tavus.state()["switches"]["faults"] == []


def test_faults_come_in_their_order_and_as_often_as_said(tavus: Sandbox) -> None:
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
    answers = [call(tavus, "GET", "/v2/replicas", allow_redirects=False) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [429, 429, 500, 302, 302]
    assert [answer.headers.get("Retry-After") for answer in answers] == ["7", "7", None, None, None]
    assert (answers[2].text, answers[2].headers["X-Why"]) == ("not json", "test")
    assert answers[3].headers["Location"] == "http://x.test/"
    assert call(tavus, "GET", "/v2/videos").status_code == 200


def test_a_429_need_not_say_when_to_come_back(tavus: Sandbox) -> None:
    tavus.switch(faults=[{"status": 429}])
    assert "Retry-After" not in call(tavus, "GET", "/v2/replicas").headers


# -- state and world ---------------------------------------------------------------------------------------


def test_the_state_over_http_is_the_state_in_process(tavus: Sandbox) -> None:
    call(tavus, "DELETE", f"/v2/replicas/{ANNA}?hard=true", headers={"User-Agent": "me/1"})
    state = requests.get(f"{tavus.url}/_sandbox/state", timeout=20).json()
    assert state == tavus.state()
    (seen,) = state["requests"]
    assert seen.pop("at") >= 0
    assert seen == {
        "n": 1, "in_flight": 1, "method": "DELETE", "path": f"/v2/replicas/{ANNA}", "query": "hard=true",
        "status": 200, "key_ok": True, "user_agent": "me/1", "effect": "hard",
    }  # fmt: skip
    assert [len(state[kind]) for kind in module.KINDS] == [30, 4, 4, 3]


def test_the_log_forgets_the_oldest_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_LENGTH", 3)
    with Sandbox(many(1)) as tavus:
        for _ in range(5):
            call(tavus, "GET", "/v2/replicas")
        assert [entry["n"] for entry in tavus.state()["requests"]] == [3, 4, 5]


def test_requests_at_the_same_time_are_counted(tavus: Sandbox) -> None:
    # Each of the three is held until the server has seen all of them.
    tavus.switch(faults=[{"delay": 600, "times": 3}])
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(call, tavus, "GET", "/v2/replicas") for _ in range(3)]
        until(lambda: len(tavus.state()["requests"]) == 3)
        assert max(entry["in_flight"] for entry in tavus.state()["requests"]) == 3
        tavus.__exit__(None, None, None)
        assert all(isinstance(future.exception(), requests.ConnectionError) for future in waiting)


def test_the_world_can_change_between_two_requests(tavus: Sandbox) -> None:
    post = f"{tavus.url}/_sandbox"
    new = [{"replica_id": "rnew", "age": "1d"}, {"replica_id": ANNA, "replica_name": "renamed"}]
    assert requests.post(f"{post}/replicas", json=new, timeout=20).status_code == 200
    conversation = {"conversation_id": "c1", "replica_id": ANNA, "status": "active", "age": "1m"}
    assert requests.post(f"{post}/conversations", json=conversation, timeout=20).status_code == 200
    anna = row_of(tavus, ANNA)
    assert (anna["replica_name"], anna["status"]) == ("renamed", "completed")
    assert "rnew" in tavus.replica_ids()
    assert len(listing(tavus, "/v2/conversations", status="active")) == 2
    tavus.put("replicas", {"replica_id": ANNA, "deleted": "hard"})
    assert ANNA not in tavus.replica_ids()
    assert tavus.state()["deletes"] == []
    refused = requests.post(f"{post}/replicas", json={"replica_id": "r1", "age": "old"}, timeout=20)
    assert refused.json() == {"error": "replicas[0].age: 'old' is not an age such as 90d, 36h or 15m"}
    assert requests.post(f"{post}/reset", timeout=20).status_code == 200
    assert row_of(tavus, ANNA)["replica_name"] == "spring-campaign_anna"
    assert tavus.state()["requests"] == []


def test_two_sandboxes_share_nothing() -> None:
    with Sandbox() as one, Sandbox() as two:
        one.switch(dates="naive")
        call(one, "DELETE", f"/v2/replicas/{ANNA}")
        assert ANNA in two.replica_ids()
        assert two.state()["switches"]["dates"] == "iso"
        assert two.state()["requests"] == []


def test_it_can_be_started_in_any_thread_and_leaves_none_behind() -> None:
    before, handler = set(threading.enumerate()), signal.getsignal(signal.SIGINT)

    def use() -> int:
        with Sandbox() as tavus:
            return call(tavus, "GET", "/v2/replicas").status_code

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(use) for _ in range(8)]] == [200] * 8
    assert set(threading.enumerate()) == before
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_small_answer_on_a_kept_connection_is_sent_at_once(tavus: Sandbox) -> None:
    """Without TCP_NODELAY each waits 40 ms for the client's acknowledgement of its headers."""
    with requests.Session() as session:
        session.get(f"{tavus.url}/v2/replicas", timeout=20)
        assert tavus._server is not None
        (connection,) = tavus._server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_nothing_answers_after_the_end() -> None:
    with Sandbox() as tavus:
        session = requests.Session()
        session.get(f"{tavus.url}/v2/replicas", timeout=20)
    with pytest.raises(requests.ConnectionError):
        session.get(f"{tavus.url}/v2/replicas", timeout=20)


def may_go(tavus: Sandbox, *, days: int) -> dict[str, str | None]:
    """The policy's rule on age and use, written down a second time and read from the API only."""
    now = dt.datetime.now(dt.UTC)

    def age(text: str | None) -> dt.timedelta | None:
        moment = None if text is None else dt.datetime.fromisoformat(text)
        return None if moment is None or moment.tzinfo is None or moment > now else now - moment

    used = {row["default_replica_id"] for row in listing(tavus, "/v2/personas")}
    used |= {row["replica_id"] for row in listing(tavus, "/v2/conversations", status="active")}
    used |= {r["replica_id"] for r in listing(tavus, "/v2/videos") if r["status"] in {"queued", "generating"}}
    found = {}
    for row in listing(tavus, verbose="true"):
        created, updated = age(row.get("created_at")), age(row.get("updated_at"))
        quiet = row["status"] == "completed" or (updated is not None and updated > dt.timedelta(hours=72))
        old = created is not None and created > dt.timedelta(days=days)
        known = row["replica_type"] == "user" and row["status"] in {"completed", "error"}
        if known and old and quiet and row["replica_id"] not in used:
            found[row["replica_id"]] = row.get("replica_name")
    return found


def test_six_replicas_of_the_built_in_world_may_go_at_90_days_and_that_is_within_the_limits(
    tavus: Sandbox,
) -> None:
    assert may_go(tavus, days=90) == DELETABLE_AT_90_DAYS
    listed = len(listing(tavus, replica_type="user"))
    assert listed == 26
    assert 100 * len(DELETABLE_AT_90_DAYS) <= 25 * listed


@pytest.mark.parametrize(
    ("replica_id", "change"),
    [
        pytest.param("r7b4e0f2d6c9", {"age": "400d"}, id="date without a zone"),
        pytest.param("r6a3d9e1c5b8", {"age": "400d"}, id="no date"),
        pytest.param("r8c5f1a3e7d0", {"age": "400d"}, id="date to come"),
        pytest.param("r9d6a2b4f8e1", {"status": "completed"}, id="unknown status"),
        pytest.param("rae7b3c5a9f2", {"replica_type": "user"}, id="unknown type"),
        pytest.param("r3c0d6f8b2e5", {"status": "completed"}, id="stuck in training"),
        pytest.param("r5f2b8c0d4e1", {"updated": "80h"}, id="failed less than 72 hours ago"),
    ],
)
def test_one_fact_alone_keeps_each_doubtful_replica_of_the_built_in_world(
    tavus: Sandbox, replica_id: str, change: dict[str, str]
) -> None:
    assert replica_id not in may_go(tavus, days=90)
    tavus.put("replicas", {"replica_id": replica_id, **change})
    assert replica_id in may_go(tavus, days=90)


def test_use_alone_keeps_three_replicas_of_the_built_in_world(tavus: Sandbox) -> None:
    in_use = {"rf8c6e5b1a20", "r09d7f2c4b6a", "r1ae8b0d3c5f"}
    assert not in_use & set(may_go(tavus, days=90))
    tavus.put("personas", {"persona_id": "p1c2d3e4f5a6", "deleted": "hard"})
    tavus.put("conversations", {"conversation_id": "c0eaa60a267274af", "status": "ended"})
    tavus.put("videos", {"video_id": "1e30440cf9", "status": "ready"})
    assert in_use < set(may_go(tavus, days=90))


# -- seeds and the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        ([], "a seed is an object with replicas, personas, conversations, videos, not list"),
        ({"faces": []}, "'faces' is not one of replicas,"),
        ({"replicas": {}}, "replicas: not a list"),
        ({"replicas": ["r1"]}, r"replicas\[0\]: not an object"),
        ({"replicas": [{}]}, r"replicas\[0\]\.replica_id: None is not an id"),
        (
            {"replicas": [{"replica_id": "r1"}, {"replica_id": "r1"}]},
            r"replicas\[1\]\.replica_id: 'r1' is there",
        ),
        ({"replicas": [{"replica_id": "r1", "age": 90}]}, r"replicas\[0\]\.age: 90 is not an age"),
        ({"replicas": [{"replica_id": "r1", "age": "90"}]}, r"replicas\[0\]\.age: '90' is not an age"),
        ({"replicas": [{"replica_id": "r1", "age": "999999w"}]}, "outside the calendar"),
        (
            {"replicas": [{"replica_id": "r1", "age": "9d", "created_at": None}]},
            "give age or created_at, not both",
        ),
        ({"replicas": [{"replica_id": "r1", "name": "x"}]}, r"replicas\[0\]\.name: no such field"),
        ({"replicas": [{"replica_id": "r1", "deleted": "maybe"}]}, "'maybe' is not null, 'soft' or 'hard'"),
        ({"videos": [{"video_id": "v1", "status": 3}]}, r"videos\[0\]\.status: 3 is neither text nor null"),
    ],
)
def test_a_bad_seed_is_refused_and_the_place_named(tmp_path: Path, seed: Any, words: str) -> None:
    with pytest.raises(SeedError, match=words):
        Sandbox(seed)
    file = tmp_path / "world.json"
    file.write_text(json.dumps(seed))
    with pytest.raises(SeedError, match=f"^{re.escape(str(file))}: .*{words}"):
        Sandbox(file)


def test_a_seed_may_be_yaml(tmp_path: Path) -> None:
    file = tmp_path / "world.yaml"
    file.write_text("replicas:\n- {replica_id: r1, age: 90d, deleted: soft}\n- {replica_id: r2}\n")
    assert Sandbox(file).replica_ids() == ["r2"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which the command refuses to serve."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    return line


def test_the_command_refuses_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = {"none.json": None, "cut.json": '{"replicas": [', "bad.yaml": "a: [1\nb: 2", "latin.json": "\xff"}
    for name, text in bad.items():
        if text is not None:
            (tmp_path / name).write_bytes(text.encode("latin-1"))
        assert refusal(capsys, "--seed", str(tmp_path / name)).startswith(
            f"tavus sandbox: {tmp_path / name}: "
        )
    assert "invalid int value: 'x'" in refusal(capsys, "--port", "x")
    assert "0-65535" in refusal(capsys, "--port", "70000")
    assert "the key must be" in refusal(capsys, "--key", "")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(capsys, "--port", str(port))
    assert line == f"tavus sandbox: cannot listen on 127.0.0.1:{port}: Address already in use"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "tavus.example", "127.0.0.1.example"])
def test_it_listens_on_loopback_only_unless_told_otherwise(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(Sandbox, "__enter__", lambda _: pytest.fail("it was about to listen"))
    line = refusal(capsys, "--port", "0", "--host", host)
    assert line == (
        f"tavus sandbox: {host!r} is not a loopback address; --listen-beyond-loopback would allow it"
    )


def test_told_so_it_listens_beyond_loopback() -> None:
    with Sandbox(host="0.0.0.0", listen_beyond_loopback=True) as tavus:
        port = tavus.url.rpartition(":")[2]
        answer = requests.get(
            f"http://127.0.0.1:{port}/v2/replicas", headers={"x-api-key": "sandbox"}, timeout=20
        )
        assert answer.status_code == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_when_it_is_ready_and_stops_when_told(
    number: signal.Signals, tmp_path: Path
) -> None:
    seed = tmp_path / "world.json"
    seed.write_text(json.dumps(many(3)))
    command = [*COMMAND, "--port", "0", "--seed", str(seed), "--key", "k1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        said = re.fullmatch(r"Tavus sandbox at (http://127\.0\.0\.1:\d+)  \(key: k1, 3 replicas\)\n", line)
        assert said, line
        answer = requests.get(f"{said[1]}/v2/replicas", headers={"x-api-key": "k1"}, timeout=20)
        assert answer.json()["total_count"] == 3
        server.send_signal(number)
        assert server.communicate(timeout=20) == ("", "")
    assert server.returncode == 0


# -- the vendor's document ---------------------------------------------------------------------------------


def test_it_answers_as_the_vendors_document_says(tavus: Sandbox) -> None:
    if not VENDOR_DOCUMENT.exists():
        pytest.skip(f"the vendor's document is not at {VENDOR_DOCUMENT}")
    schemathesis = pytest.importorskip("schemathesis")
    hypothesis = pytest.importorskip("hypothesis")
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.checks.response_schema_conformance,
        schemathesis.checks.content_type_conformance,
        schemathesis.checks.status_code_conformance,
    ]
    bounded = hypothesis.settings(
        max_examples=5,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    known = {spec.id: [row[spec.id] for row in tavus.state()[kind]] for kind, spec in module.KINDS.items()}
    session = requests.Session()
    seen: dict[str, set[int]] = {}

    def check(case: Any) -> None:
        statuses = seen.setdefault(case.operation.label, set())

        def judge(key: str) -> None:
            answer = case.call(base_url=tavus.url, session=session, headers={"x-api-key": key})
            statuses.add(answer.status_code)
            if answer.status_code != 404:  # an id with a slash in it is another path
                case.validate_response(answer, checks=checks)

        if not statuses:
            judge("wrong")
        judge(tavus.key)
        for name in known.keys() & case.path_parameters.keys():  # and once more with an id that exists
            tavus.reset()
            ids = known[name]
            case.path_parameters[name] = ids[len(case.path_parameters[name]) % len(ids)]
            judge(tavus.key)

    for result in schemathesis.openapi.from_path(VENDOR_DOCUMENT).get_all_operations():
        for mode in schemathesis.GenerationMode:  # what the document allows, and what it does not
            cases = result.ok().as_strategy(generation_mode=mode)
            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing to get wrong
                bounded(hypothesis.given(cases)(check))()
    assert len(seen) == 14
    assert all(statuses & {200, 204} and 401 in statuses for statuses in seen.values()), seen


def test_wait_until_idle_covers_requests_whose_client_is_gone(tavus):
    tavus.switch(latency=0.05)
    first, *others = tavus.replica_ids()[:20]
    for replica_id in (first, *others):
        with socket.create_connection(("127.0.0.1", int(tavus.url.rpartition(":")[2]))) as client:
            request = (
                f"DELETE /v2/replicas/{replica_id} HTTP/1.1\r\nHost: x\r\nx-api-key: {tavus.key}\r\n\r\n"
            )
            client.sendall(request.encode())
    tavus.wait_until_idle()
    assert {row["replica_id"] for row in tavus.state()["deletes"]} == {first, *others}


def test_wait_until_idle_does_not_wait_for_a_response_that_follows_its_effect(tavus):
    tavus.switch(faults=[{"method": "DELETE", "delay": 300, "when": "after"}])
    replica_id = tavus.replica_ids()[0]
    with socket.create_connection(("127.0.0.1", int(tavus.url.rpartition(":")[2]))) as client:
        request = f"DELETE /v2/replicas/{replica_id} HTTP/1.1\r\nHost: x\r\nx-api-key: {tavus.key}\r\n\r\n"
        client.sendall(request.encode())
        tavus.wait_until_idle()
        assert [row["replica_id"] for row in tavus.state()["deletes"]] == [replica_id]


def test_wait_until_idle_raises_where_a_request_is_not_answered_in_time(tavus):
    tavus.switch(latency=300)
    with socket.create_connection(("127.0.0.1", int(tavus.url.rpartition(":")[2]))) as client:
        client.sendall(b"GET /v2/replicas HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(TimeoutError):
            tavus.wait_until_idle(timeout=0.05)
