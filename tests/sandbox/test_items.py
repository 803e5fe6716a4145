"""Videos and conversations of the sandbox: deletes, ends, and the switches for what is undocumented."""

import itertools
from typing import Any

import pytest
from sandbox.client import ANNA, listing, send

from tavus_provider.sandbox import Sandbox

REPLICA = "r1ae8b0d3c5f"
VIDEO = "2f41551d0a"
ACTIVE = "c0eaa60a267274af"
ENDED = "c1fbb71b378385b0"
PATHS = {"videos": f"/v2/videos/{VIDEO}", "conversations": f"/v2/conversations/{ENDED}"}

each_kind = pytest.mark.parametrize("kind", PATHS)


def row_of(tavus: Sandbox, kind: str, row_id: str) -> dict[str, Any]:
    return next(row for row in tavus.state()[kind] if row[f"{kind[:-1]}_id"] == row_id)


def ids(tavus: Sandbox, kind: str) -> set[str]:
    first = 0 if kind == "videos" else 1
    return {row[f"{kind[:-1]}_id"] for row in listing(tavus, f"/v2/{kind}", page=first)}


@each_kind
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("delete_status", "statuses"),
    [(200, {"videos": 200, "conversations": 204}), (204, {"videos": 204, "conversations": 204}),
     ("swapped", {"videos": 204, "conversations": 200})],
)  # fmt: skip
def test_delete_is_logged_and_keeps_the_row_in_the_state(
    tavus: Sandbox, kind: str, hard: bool, delete_status: int | str, statuses: dict[str, int]
) -> None:
    tavus.switch(delete_status=delete_status)
    path = PATHS[kind] + ("?hard=true" if hard else "")
    assert send(tavus, "DELETE", path).status_code == statuses[kind]
    (request,) = tavus.state()["requests"]
    assert (request["path"], request["effect"]) == (PATHS[kind], "hard" if hard else "soft")
    assert row_of(tavus, kind, PATHS[kind].rpartition("/")[2])["deleted"] == request["effect"]


@each_kind
@pytest.mark.parametrize("soft_items", ["videos", "none", "conversations", "all"])
def test_soft_deleted_items_can_be_read_or_not(tavus: Sandbox, kind: str, soft_items: str) -> None:
    tavus.switch(soft_items=soft_items)
    send(tavus, "DELETE", PATHS[kind])
    readable = soft_items in {kind, "all"}
    assert (PATHS[kind].rpartition("/")[2] in ids(tavus, kind)) == readable
    response = send(tavus, "GET", PATHS[kind])
    assert response.status_code == (200 if readable else 400)
    if readable:
        assert response.json()["status"] == ("deleted" if kind == "videos" else "ended")
    # Once deleted, it cannot be deleted again in the same way.
    assert send(tavus, "DELETE", PATHS[kind]).status_code == 400


@each_kind
@pytest.mark.parametrize("soft_then_hard", ["failed", "works"])
def test_hard_delete_after_a_soft_one(tavus: Sandbox, kind: str, soft_then_hard: str) -> None:
    tavus.switch(soft_then_hard=soft_then_hard, soft_items="all")
    send(tavus, "DELETE", PATHS[kind])
    works = soft_then_hard == "works"
    assert (send(tavus, "DELETE", f"{PATHS[kind]}?hard=true").status_code < 300) == works
    assert (PATHS[kind].rpartition("/")[2] in ids(tavus, kind)) != works


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("cascade", ["none", "videos", "conversations", "all"])
def test_only_a_hard_delete_of_a_replica_deletes_what_was_made_with_it(
    tavus: Sandbox, hard: bool, cascade: str
) -> None:
    tavus.switch(cascade=cascade)
    tavus.put("conversations", {"conversation_id": "c9", "replica_id": ANNA})
    send(tavus, "DELETE", f"/v2/replicas/{ANNA}" + ("?hard=true" if hard else ""))
    for kind in PATHS:
        deleted = {row[f"{kind[:-1]}_id"] for row in tavus.state()[kind] if row["deleted"]}
        expected = {VIDEO if kind == "videos" else "c9"} if hard and cascade in {kind, "all"} else set()
        assert deleted == expected
        assert not deleted & ids(tavus, kind)
    effects = [request["effect"] for request in tavus.state()["requests"]]
    assert effects[0] == ("hard" if hard else "soft")


@pytest.mark.parametrize("replica_id", ["kept", "null"])
def test_items_can_lose_the_id_of_a_deleted_replica(tavus: Sandbox, replica_id: str) -> None:
    tavus.switch(replica_id=replica_id)
    before = send(tavus, "GET", PATHS["videos"]).json()
    assert before["replica_id"] == ANNA
    send(tavus, "DELETE", f"/v2/replicas/{ANNA}?hard=true")
    after = send(tavus, "GET", PATHS["videos"]).json()
    assert after["replica_id"] == (ANNA if replica_id == "kept" else None)
    shown = [row["replica_id"] for row in listing(tavus, "/v2/videos", page=0)]
    assert (ANNA in shown) == (replica_id == "kept")
    assert REPLICA in shown


@pytest.mark.parametrize(
    ("delete_active", "status", "expected"),
    [("works", 204, ("soft", "active")), ("ends", 204, ("soft", "ended")),
     ("rejected", 400, (None, "active"))],
)  # fmt: skip
def test_delete_of_an_active_conversation(
    tavus: Sandbox, delete_active: str, status: int, expected: tuple[str | None, str]
) -> None:
    tavus.switch(delete_active=delete_active)
    assert send(tavus, "DELETE", f"/v2/conversations/{ACTIVE}").status_code == status
    row = row_of(tavus, "conversations", ACTIVE)
    assert (row["deleted"], row["status"]) == expected
    assert send(tavus, "DELETE", f"/v2/conversations/{ENDED}").status_code == 204


@pytest.mark.parametrize(
    ("end_ended", "response"),
    [
        ("works", (200, "")),
        ("rejected", (400, '{"error":"Conversation has already ended"}')),
        ("unknown", (400, '{"error":"Invalid conversation_id"}')),
    ],
)
def test_end_of_a_conversation_that_has_ended(
    tavus: Sandbox, end_ended: str, response: tuple[int, str]
) -> None:
    tavus.switch(end_ended=end_ended)
    path = f"/v2/conversations/{ACTIVE}/end"
    assert send(tavus, "POST", path).status_code == 200
    again = send(tavus, "POST", path)
    assert (again.status_code, again.text.replace(": ", ":")) == response
    effects = [request["effect"] for request in tavus.state()["requests"]]
    assert effects == ["ended", "ended" if end_ended == "works" else None]


@each_kind
def test_deleted_items_can_stay_listed_for_a_while(tavus: Sandbox, kind: str) -> None:
    tavus.switch(list_lag=600)
    send(tavus, "DELETE", f"{PATHS[kind]}?hard=true")
    assert PATHS[kind].rpartition("/")[2] in ids(tavus, kind)
    assert send(tavus, "GET", PATHS[kind]).status_code == 400
    tavus.switch(list_lag=0)
    assert PATHS[kind].rpartition("/")[2] not in ids(tavus, kind)


def test_switches_for_items_do_not_change_replicas(tavus: Sandbox) -> None:
    for soft_items, replica_id in itertools.product(["all", "none"], ["kept", "null"]):
        tavus.reset()
        tavus.switch(soft_items=soft_items, replica_id=replica_id, cascade="all", delete_active="rejected")
        send(tavus, "DELETE", f"/v2/replicas/{ANNA}")
        assert ANNA not in {row["replica_id"] for row in listing(tavus)}
