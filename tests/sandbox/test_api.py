"""Responses of the sandbox over HTTP: key, listings, deletes, renames and creation."""

import json
import re

import pytest
import requests
from sandbox.client import ANNA, STOCK, listing, many, row_of, send

from tavus_provider.sandbox import Sandbox


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"Authorization": "Bearer sandbox"}])
def test_wrong_key_is_rejected_and_deletes_nothing(tavus: Sandbox, headers: dict[str, str]) -> None:
    response = requests.delete(f"{tavus.url}/v2/replicas/{ANNA}", headers=headers, timeout=20)
    assert (response.status_code, response.json()) == (401, {"message": "Invalid access token"})
    assert ANNA in tavus.replica_ids()
    assert tavus.state()["requests"][-1]["key_ok"] is False


def test_request_log_masks_the_key() -> None:
    with Sandbox(key="s3cret+key/1") as tavus:
        send(
            tavus,
            "GET",
            f"/v2/replicas/{tavus.key}",
            params={"k": tavus.key},
            headers={"User-Agent": tavus.key},
        )
        assert "s3cret" not in json.dumps(tavus.state())
        assert tavus.state()["requests"][0]["query"] == "k=***"


@pytest.mark.parametrize("key", ["", " ", "a\nb", "schl\u00fcssel", " sandbox"])
def test_key_that_is_not_a_valid_header_is_rejected(key: str) -> None:
    with pytest.raises(ValueError, match="key: must be"):
        Sandbox(key=key)


def test_page_size_defaults_to_10_and_is_at_most_100() -> None:
    with Sandbox(many(130)) as tavus:
        sizes = {
            limit: len(send(tavus, "GET", "/v2/replicas", params={"limit": limit}).json()["data"])
            for limit in (None, 25, 100, 1000, 0, -1, "abc", "9" * 5000)
        }
    assert sizes == {None: 10, 25: 25, 100: 100, 1000: 100, 0: 10, -1: 10, "abc": 10, "9" * 5000: 10}


def test_pages_contain_every_row_once() -> None:
    with Sandbox(many(130)) as tavus:
        pages = [[r["replica_id"] for r in listing(tavus, page=page)] for page in (1, 2, 3)]
        assert [len(page) for page in pages] == [100, 30, 0]
        assert sorted(pages[0] + pages[1]) == sorted(tavus.replica_ids())
        assert [r["replica_id"] for r in listing(tavus, page=0)] == pages[0]


def test_first_page_of_videos_is_page_0(tavus: Sandbox) -> None:
    assert len(listing(tavus, "/v2/videos", page=0)) == 3
    assert listing(tavus, "/v2/videos", page=1) == []


@pytest.mark.parametrize(
    ("params", "count"),
    [
        pytest.param({}, 30, id="no filter"),
        pytest.param({"replica_type": "user"}, 26, id="own, including a type with a stray quote"),
        pytest.param({"replica_type": "system"}, 4, id="stock"),
        pytest.param({"replica_type": "other"}, 0, id="no such type"),
        pytest.param({"replica_ids": f"{ANNA},r000, {STOCK}"}, 2, id="known ids only"),
        pytest.param({"model_name": "phoenix-2"}, 1, id="model"),
        pytest.param({"face_type": "system"}, 30, id="face name on the replica route is ignored"),
    ],
)
def test_list_filters(tavus: Sandbox, params: dict[str, str], count: int) -> None:
    response = send(tavus, "GET", "/v2/replicas", params={"limit": 100, **params}).json()
    assert (len(response["data"]), response["total_count"]) == (count, count)


def test_replica_type_is_shown_only_with_verbose(tavus: Sandbox) -> None:
    assert not any("replica_type" in row for row in listing(tavus))
    types = [row["replica_type"] for row in listing(tavus, verbose="true", replica_type="user")]
    assert sorted(set(types)) == ["user", "user'"]
    assert send(tavus, "GET", f"/v2/replicas/{STOCK}?verbose=true").json()["replica_type"] == "system"


def test_row_of_unknown_type_is_listed_only_without_filter() -> None:
    with Sandbox({"replicas": [{"replica_id": "r1", "replica_type": "shared"}]}) as tavus:
        assert len(listing(tavus)) == 1
        assert listing(tavus, replica_type="user") == listing(tavus, replica_type="system") == []
        assert send(tavus, "DELETE", "/v2/replicas/r1").status_code == 400


def test_face_and_pal_routes_use_their_own_field_names(tavus: Sandbox) -> None:
    face = send(tavus, "GET", f"/v2/faces/{ANNA}?verbose=true").json()
    assert (face["face_id"], face["face_name"], face["face_type"]) == (ANNA, "spring-campaign_anna", "user")
    assert len(listing(tavus, "/v2/faces", face_type="system")) == 4
    assert len(listing(tavus, "/v2/faces", face_ids=ANNA)) == 1
    pals = listing(tavus, "/v2/pals", pal_type="user")
    assert {pal["default_face_id"] for pal in pals} >= {"rf8c6e5b1a20"}
    assert not [name for row in [face, *pals] for name in row if re.search("replica|persona", name)]
    assert send(tavus, "DELETE", "/v2/faces/nope").json() == {"error": "Invalid face_id"}


def test_persona_has_an_envelope_and_pal_has_none(tavus: Sandbox) -> None:
    assert send(tavus, "GET", "/v2/personas/p1c2d3e4f5a6").json()["data"][0]["persona_id"] == "p1c2d3e4f5a6"
    assert send(tavus, "GET", "/v2/pals/p1c2d3e4f5a6").json()["pal_id"] == "p1c2d3e4f5a6"


def test_persona_rows_contain_third_party_keys(tavus: Sandbox) -> None:
    for row in listing(tavus, "/v2/personas"):
        assert row["layers"]["llm"]["api_key"] == "llm-key-of-a-third-party"


def test_conversations_can_be_filtered_by_status_and_ended(tavus: Sandbox) -> None:
    active = listing(tavus, "/v2/conversations", status="active")
    assert [row["replica_id"] for row in active] == ["r09d7f2c4b6a"]
    ended = send(tavus, "POST", f"/v2/conversations/{active[0]['conversation_id']}/end")
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
def test_unknown_route_or_method_gets_a_json_error(
    tavus: Sandbox, method: str, path: str, status: int
) -> None:
    response = send(tavus, method, path)
    assert (response.status_code, list(response.json())) == (status, ["error"])


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
def test_unusual_query_is_answered(tavus: Sandbox, path: str, query: str) -> None:
    assert send(tavus, "GET", f"{path}?{query}").status_code == 200


@pytest.mark.parametrize(("query", "effect"), [("", "soft"), ("?hard=false", "soft"), ("?hard=true", "hard")])
def test_delete_has_no_body_and_state_shows_soft_or_hard(tavus: Sandbox, query: str, effect: str) -> None:
    response = send(tavus, "DELETE", f"/v2/replicas/{ANNA}{query}")
    assert (response.status_code, response.content) == (200, b"")
    assert row_of(tavus, ANNA)["deleted"] == effect
    assert tavus.state()["deletes"] == [{"replica_id": ANNA, "hard": effect == "hard"}]
    assert tavus.state()["requests"][-1]["effect"] == effect
    assert ANNA not in tavus.replica_ids()
    assert ANNA not in [row["replica_id"] for row in listing(tavus)]
    assert send(tavus, "GET", f"/v2/replicas/{ANNA}").json() == {"error": "Invalid replica_id"}


@pytest.mark.parametrize("hard", ["True", "1", "", "yes", "true,true", "\0"])
def test_hard_other_than_true_or_false_is_rejected(tavus: Sandbox, hard: str) -> None:
    response = send(tavus, "DELETE", f"/v2/replicas/{ANNA}", params={"hard": hard})
    assert response.status_code == 400
    assert response.json() == {"error": "Bad Request. {'hard': ['Not a valid boolean.']}"}
    assert row_of(tavus, ANNA)["deleted"] is None


@pytest.mark.parametrize("hard", ["false", "true"])
def test_unknown_stock_and_deleted_replicas_cannot_be_deleted(tavus: Sandbox, hard: str) -> None:
    send(tavus, "DELETE", f"/v2/replicas/{ANNA}")
    for replica_id in ("rffffffffff", STOCK, ANNA):
        response = send(tavus, "DELETE", f"/v2/replicas/{replica_id}", params={"hard": hard})
        assert (response.status_code, response.json()) == (400, {"error": "Invalid replica_id"})
    assert len(tavus.state()["deletes"]) == 1


def test_hard_delete_leaves_personas_and_conversations(tavus: Sandbox) -> None:
    send(tavus, "DELETE", "/v2/replicas/rf8c6e5b1a20?hard=true")
    assert "rf8c6e5b1a20" in {row.get("default_replica_id") for row in listing(tavus, "/v2/personas")}
    assert "rf8c6e5b1a20" in {row["replica_id"] for row in listing(tavus, "/v2/conversations")}


def test_videos_conversations_and_personas_are_deleted_as_documented(tavus: Sandbox) -> None:
    assert send(tavus, "DELETE", "/v2/videos/2f41551d0a").status_code == 200
    assert send(tavus, "GET", "/v2/videos/2f41551d0a").json()["status"] == "deleted"
    assert send(tavus, "DELETE", "/v2/videos/3a52662e1b?hard=true").status_code == 200
    assert send(tavus, "GET", "/v2/videos/3a52662e1b").json() == {"error": "Invalid video_id"}
    assert send(tavus, "DELETE", "/v2/conversations/c31dd93d5905a7d2").status_code == 204
    assert send(tavus, "GET", "/v2/conversations/c31dd93d5905a7d2").status_code == 400
    assert send(tavus, "DELETE", "/v2/personas/p2d3e4f5a6b7").status_code == 204
    assert send(tavus, "DELETE", "/v2/personas/p4f5a6b7c8d9").json() == {"error": "Invalid persona_id"}
    assert tavus.state()["deletes"] == []


@pytest.mark.parametrize("path", ["replicas", "faces"])
def test_rename_requires_a_string(tavus: Sandbox, path: str) -> None:
    field = {"replicas": "replica_name", "faces": "face_name"}[path]
    url = f"/v2/{path}/{ANNA}/name"
    assert send(tavus, "PATCH", url, json={field: "new \ud800"}).status_code == 200
    assert listing(tavus, replica_ids=ANNA)[0]["replica_name"] == "new \ud800"
    missing = {"error": f"Bad Request. {{'{field}': ['Missing data for required field.']}}"}
    assert send(tavus, "PATCH", url, json={}).json() == missing
    for body in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, json.dumps({field: None}).encode()):
        response = send(tavus, "PATCH", url, data=body)
        assert (response.status_code, list(response.json())) == (400, ["error"])
    assert send(tavus, "PATCH", f"/v2/{path}/{STOCK}/name", json={field: "mine"}).status_code == 400


def test_created_replica_is_in_training(tavus: Sandbox) -> None:
    body = {"train_video_url": "https://example.com/a.mp4", "replica_name": "new"}
    made = send(tavus, "POST", "/v2/replicas", json=body).json()
    assert made["status"] == "started"
    assert send(tavus, "GET", f"/v2/replicas/{made['replica_id']}").json()["replica_name"] == "new"
    face = send(tavus, "POST", "/v2/faces", json={**body, "face_name": "new"}).json()
    assert face["face_id"] != made["replica_id"]
    rejected = send(tavus, "POST", "/v2/replicas", json={"replica_name": "new"})
    assert rejected.json() == {"error": "Either train_video_url or train_image_url must be provided."}
    for extra in ({"train_image_url": "x"}, {"model_name": 3}):
        assert send(tavus, "POST", "/v2/replicas", json={**body, **extra}).status_code == 400
    assert send(tavus, "POST", "/v2/replicas", json={"train_image_url": "x"}).status_code == 400
